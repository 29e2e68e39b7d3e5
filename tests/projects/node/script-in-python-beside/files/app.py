print('a script')
