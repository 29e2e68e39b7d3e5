export async function main() { const config = { rest: { port: +(process.env.PORT ?? 3000), host: process.env.HOST } }; }
