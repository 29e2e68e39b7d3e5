const { koa } = require('@feathersjs/koa'); module.exports = koa(feathers());
