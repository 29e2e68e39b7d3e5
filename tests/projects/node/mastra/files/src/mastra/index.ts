import { Mastra } from '@mastra/core';
export const mastra = new Mastra({});
