const connect = require('connect');
require('http').createServer(connect()).listen(3000);
