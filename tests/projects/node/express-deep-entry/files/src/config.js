module.exports = { port: process.env.PORT || 4000, database: { port: 5432 } };
