module.exports = { server: "./server.ts" };
