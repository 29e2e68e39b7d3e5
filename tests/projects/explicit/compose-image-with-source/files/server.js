import './lib/http.js';
