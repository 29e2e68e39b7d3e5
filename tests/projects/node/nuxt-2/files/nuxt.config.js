export default { server: { port: 3333 }, head: { title: 'two' } }
