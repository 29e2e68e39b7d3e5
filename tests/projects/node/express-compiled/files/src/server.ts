import express, { type Request } from 'express';
const PORT: number = Number(process.env.PORT) || 8080;
express().listen(PORT);
