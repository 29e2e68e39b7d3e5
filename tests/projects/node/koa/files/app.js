const Koa = require('koa');
const PORT = 3210;
new Koa().listen(PORT);
