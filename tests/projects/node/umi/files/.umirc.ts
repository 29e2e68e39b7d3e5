export default { npmClient: 'npm' };
