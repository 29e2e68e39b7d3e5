const { start } = require('./src/start');
start();
