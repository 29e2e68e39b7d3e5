import { defineConfig } from "vite";
