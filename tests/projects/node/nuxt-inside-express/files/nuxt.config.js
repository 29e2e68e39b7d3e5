export default { mode: 'universal' }
