export default { server: { port: 4300, host: 'localhost' } };
