require('http').createServer((_, response) => response.end('ok')).listen(4000);
