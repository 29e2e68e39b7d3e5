module.exports = { name: "api", mixins: [ApiGateway], settings: { port: process.env.PORT || 3000 } };
