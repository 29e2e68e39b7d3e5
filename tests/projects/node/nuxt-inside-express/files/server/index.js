const express = require('express')
const consola = require('consola')
const { Nuxt, Builder } = require('nuxt')
const app = express()
async function start () {
  const nuxt = new Nuxt(config)
  const { host, port } = nuxt.options.server
  app.use(nuxt.render)
  app.listen(port, host)
}
start()
