import { loadEnv } from "vite";
export default ({ mode }) => {
  const { VITE_PORT } = loadEnv(mode, process.cwd());
  return { server: { port: VITE_PORT, host: "0.0.0.0" } };
};
