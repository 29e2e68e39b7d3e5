import express from 'express'
const port = process.env.PORT || 5173
const app = express()
app.listen(port)
