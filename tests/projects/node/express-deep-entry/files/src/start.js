const createApp = require('./http/app');
const { port } = require('./config');
exports.start = () => createApp().listen(port);
