import solidPlugin from 'vite-plugin-solid';
export default {
  plugins: [solidPlugin()],
  server: {
    port: 3000,
  },
};
