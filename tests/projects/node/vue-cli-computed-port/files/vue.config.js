'use strict'
const path = require('path')
// If your port is set to 80, use administrator privileges to execute the command line.
const port = process.env.port || process.env.npm_config_port || 9528 // dev port
module.exports = {
  devServer: {
    port: port,
    open: true,
    before: require('./mock/mock-server.js')
  },
}
