export const config = { namespace: 'app' };
