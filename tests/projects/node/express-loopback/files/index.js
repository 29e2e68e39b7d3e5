const app = require('express')();
app.listen(3000, 'localhost', () => console.log('http://localhost:3000'));
