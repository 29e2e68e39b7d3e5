const next = require('next');
const express = require('express');
const port = parseInt(process.env.PORT, 10) || 3500;
next({ dev: true }).prepare().then(() => express().listen(port));
