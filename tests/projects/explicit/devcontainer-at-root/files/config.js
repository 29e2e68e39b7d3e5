export const config = JSON.parse(process.env.CONFIG);
