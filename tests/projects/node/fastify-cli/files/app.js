const path = require('node:path');
module.exports = async function (fastify, opts) {};
