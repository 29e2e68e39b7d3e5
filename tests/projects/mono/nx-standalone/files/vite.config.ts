export default { server: { port: 4200 } };
