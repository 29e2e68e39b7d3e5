import { NestFactory } from "@nestjs/core";
import { AppModule } from "./app.module";
import { settings } from "./settings";
NestFactory.create(AppModule).then((app) => app.listen(settings().http));
