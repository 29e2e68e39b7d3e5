module.exports = { files: { javascripts: { joinTo: 'app.js' } } };
