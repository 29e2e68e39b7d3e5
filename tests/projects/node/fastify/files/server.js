import Fastify from 'fastify';
const fastify = Fastify({ logger: true });
await fastify.listen({ port: 3400, host: '0.0.0.0' });
