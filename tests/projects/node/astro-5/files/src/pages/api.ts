import { Hono } from 'hono';
export const ALL = ({ request }) => new Hono().fetch(request);
