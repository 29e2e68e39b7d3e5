import express from 'express';

const host = '0.0.0.0';
const port = process.env.PORT ?? 3000;

const app = express();

app.get('/', (_req, res) => {
  res.send(`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>Covibes Express example</title>
  </head>
  <body>
    <h1>Covibes Express example</h1>
    <p>Edit src/server.js and save: the server restarts by itself.</p>
  </body>
</html>
`);
});

app.listen(port, host, (error) => {
  if (error) throw error;
  console.log(`Listening on http://${host}:${port}`);
});
