module.exports = { devServer: { proxy: 'http://localhost:3000', port: 8099 } };
