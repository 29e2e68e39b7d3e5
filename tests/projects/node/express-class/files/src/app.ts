import express from 'express';
export class App {
  public server = express();
  constructor(private port: number) {}
  public start() { this.server.listen(this.port, () => {}); }
}
