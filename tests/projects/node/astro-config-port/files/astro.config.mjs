export default { server: { port: 4500, host: true } };
