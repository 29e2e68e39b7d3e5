import { ApolloServer } from '@apollo/server';
import { startStandaloneServer } from '@apollo/server/standalone';
await startStandaloneServer(new ApolloServer({ typeDefs: '' }));
