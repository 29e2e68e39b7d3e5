import { NestFactory } from '@nestjs/core';
const app = await NestFactory.create(class {});
await app.listen(process.env.PORT || 3000);
