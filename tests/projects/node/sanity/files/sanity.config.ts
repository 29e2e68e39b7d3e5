import { defineConfig } from 'sanity';
export default defineConfig({});
