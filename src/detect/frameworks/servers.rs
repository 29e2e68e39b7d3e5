//! Frameworks with which a project writes its own server.
//!
//! A dependency alone names none of them: tests, mocks and other frameworks hold them too. What
//! the project's code imports does; the entry files are asked before the rest.

use crate::domain::findings::Framework;

use super::super::rules::Rule::{All, Calls, Dep, Serves};
use super::{Entry, server};

/// The most specific first: what is built on another, or stands in front of it, before that.
pub(super) static TABLE: &[Entry] = &[
    server(Framework::Elysia, Serves(&["elysia"])),
    // Its command takes every flag from the environment, too; alone it binds loopback.
    Entry {
        env: &[("FASTIFY_ADDRESS", "{host}"), ("HOST", "{host}"), ("PORT", "{port}")],
        ..server(
            Framework::Fastify,
            All(&[Dep(&["fastify-cli", "fastify"]), Calls(&["fastify start"])]),
        )
    },
    server(Framework::Fastify, Serves(&["fastify"])),
    server(Framework::Koa, Serves(&["koa"])),
    server(Framework::Hono, Serves(&["hono", "@hono/node-server", "@hono/zod-openapi"])),
    server(Framework::Express, Serves(&["express"])),
    server(Framework::H3, Serves(&["h3"])),
    server(Framework::Connect, Serves(&["connect"])),
    server(Framework::Nestjs, Serves(&["@nestjs/core"])),
];
