require('node:http').createServer((_, response) => response.end()).listen(8088);
