import polka from 'polka';
import * as sapper from '@sapper/server';
polka().use(sapper.middleware()).listen(process.env.PORT);
