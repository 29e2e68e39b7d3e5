import express from "express";
import { config } from "./config.js";
express().listen(config.port);
