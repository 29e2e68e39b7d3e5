require "webrick"
server = WEBrick::HTTPServer.new(Port: 2345)
server.start
