const http = require('http');
http.createServer((_, response) => response.end('ok')).listen(process.env.PORT);
