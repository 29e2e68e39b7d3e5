module.exports = { title: 'Old' };
