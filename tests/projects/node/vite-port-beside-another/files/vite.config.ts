export default { server: { hmr: { port: 24678 }, proxy: { '/api': { target: 'http://localhost:9000' } }, port: 4005 }, preview: { port: 4173 } };
