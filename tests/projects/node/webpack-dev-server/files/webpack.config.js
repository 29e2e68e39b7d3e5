module.exports = { mode: 'development', devServer: { static: './dist', port: 9000 } };
