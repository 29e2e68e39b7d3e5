//! The agent's API as an OpenAPI 3.1 document, generated from the types that
//! read and write its JSON.
//!
//! `schemas/agent.openapi.json` is this document; a test holds the two equal,
//! and `covibes-agent --openapi` prints it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::shapes::{
    AcceptedBody, StoppingBody, TaskBody, TaskListBody, TaskRequestBody, ToldBody,
};
use crate::service::health::Health;
use crate::service::http::ErrorBody;

/// Where definitions stand in the document.
const COMPONENTS: &str = "/components/schemas";

/// Collects definitions for one direction.
struct Shapes(SchemaGenerator);

impl Shapes {
    fn new(settings: SchemaSettings) -> Self {
        Self(
            settings
                .with(|settings| settings.definitions_path = COMPONENTS.into())
                .into_generator(),
        )
    }

    fn body<T: JsonSchema>(&mut self) -> Value {
        json!({"application/json": {"schema": self.0.subschema_for::<T>()}})
    }
}

/// Returns the document.
pub fn document() -> Value {
    let mut read = Shapes::new(SchemaSettings::draft2020_12());
    let mut written = Shapes::new(SchemaSettings::draft2020_12().for_serialize());
    let paths = paths(&mut read, &mut written);
    let mut schemas = Map::new();
    schemas.extend(read.0.take_definitions(true));
    schemas.extend(written.0.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Covibes agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Gives an agent tasks and follows them. On 8080 of the agent's \
                container, which only its host reaches; dashboards find all of it but \
                `/shutdown` and `/tasks/{id}/told` below `/api/teams/{team}/agents/{agent}` of \
                the worker's HTTP, with the worker's token instead of the team's.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// The document as the file holds it.
pub fn text() -> String {
    let text = serde_json::to_string_pretty(&document()).expect("a JSON value can be written");
    text + "\n"
}

fn paths(read: &mut Shapes, written: &mut Shapes) -> Value {
    let error = written.body::<ErrorBody>();
    let refused = |what: &str| json!({"description": what, "content": error});
    let token = || refused("Without the team's token.");
    let no_task = || refused("There is no such task.");
    let too_large = || refused("The body is over 256 KiB.");
    let stream = |what: &str| {
        json!({
            "description": what,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        })
    };
    let answer = |what: &str, content: &Value| json!({"description": what, "content": content});
    let (task, health) = (written.body::<TaskBody>(), written.body::<Health>());
    let (accepted, list) = (written.body::<AcceptedBody>(), written.body::<TaskListBody>());
    let stopping = written.body::<StoppingBody>();
    let (request, told) = (read.body::<TaskRequestBody>(), read.body::<ToldBody>());
    let id = json!({
        "name": "id", "in": "path", "required": true, "description": "The task.",
        "schema": {"type": "string", "format": "uuid"},
    });
    let location = json!({"location": {
        "description": "Where the task is.", "schema": {"type": "string"},
    }});
    let with_location = |mut answer: Value| {
        answer["headers"] = location.clone();
        answer
    };
    let mut full = refused("16 tasks wait already.");
    full["headers"] = json!({"retry-after": {
        "description": "When to ask again, in seconds.", "schema": {"type": "integer"},
    }});
    json!({
        "/health": {"get": {
            "operationId": "health", "summary": "How the agent is, check by check", "security": [],
            "responses": {
                "200": answer("It can work, perhaps only in part.", &health),
                "503": answer("It cannot work.", &health),
            },
        }},
        "/openapi.json": {"get": {
            "operationId": "describe", "summary": "This document", "security": [],
            "responses": {"200": {
                "description": "The document.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }},
        }},
        "/metrics": {"get": {
            "operationId": "metrics", "summary": "Metrics for Prometheus",
            "responses": {
                "200": {"description": "Text, version 0.0.4.",
                    "content": {"text/plain": {"schema": {"type": "string"}}}},
                "401": token(),
            },
        }},
        "/tasks": {
            "get": {
                "operationId": "list", "summary": "All tasks that are known",
                "responses": {"200": answer("Oldest first.", &list), "401": token()},
            },
            "post": {
                "operationId": "add", "summary": "Ask for a task",
                "parameters": [{
                    "name": "Idempotency-Key", "in": "header", "required": false,
                    "description": "A request with a key that was used before asks for the \
                        same task again, whatever its body says.",
                    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
                }],
                "requestBody": {"required": true, "content": request},
                "responses": {
                    "200": with_location(answer("It was asked for before.", &accepted)),
                    "202": with_location(answer("It waits for its turn.", &accepted)),
                    "400": refused("The body is not JSON of this form, or the key is none."),
                    "401": token(), "413": too_large(),
                    "422": refused("A value is out of its bounds."),
                    "429": full,
                },
            },
        },
        "/tasks/{id}": {
            "parameters": [id],
            "get": {
                "operationId": "show", "summary": "One task",
                "responses": {
                    "200": answer("The task.", &task), "401": token(), "404": no_task(),
                },
            },
            "delete": {
                "operationId": "cancel", "summary": "End a task",
                "description": "SIGINT, then SIGTERM, then SIGKILL to its processes; it is over \
                    within five seconds.",
                "responses": {
                    "200": answer("It is over.", &task), "202": answer("It is being ended.", &task),
                    "401": token(), "404": no_task(),
                },
            },
        },
        "/tasks/{id}/events": {"get": {
            "operationId": "follow", "summary": "A task's output as it comes",
            "description": "Events `output`, one for each line of the CLI's `stream-json`, \
                numbered from 1; the last one, `end`, carries the task.",
            "parameters": [id, {
                "name": "Last-Event-ID", "in": "header", "required": false,
                "description": "Begin after this event.",
                "schema": {"type": "integer", "minimum": 0},
            }],
            "responses": {
                "200": stream("From the first line that is asked for."),
                "401": token(), "404": no_task(),
            },
        }},
        "/tasks/{id}/told": {"post": {
            "operationId": "note_told", "summary": "Note what the team's events have told",
            "parameters": [id],
            "requestBody": {"required": true, "content": told},
            "responses": {
                "204": {"description": "It is noted."},
                "400": refused("The body is not JSON of this form."),
                "401": token(), "404": no_task(), "413": too_large(),
            },
        }},
        "/events": {"get": {
            "operationId": "follow_all", "summary": "Every task, and again whenever it changes",
            "description": "Events `task`, each with a task as `GET /tasks/{id}` shows it.",
            "responses": {"200": stream("All known tasks first."), "401": token()},
        }},
        "/changes": {"get": {
            "operationId": "follow_changes", "summary": "Changes of files in the workspace",
            "description": "Events `mode` (inotify, or polling and why) and `changes` (paths \
                below the workspace; with `rescan` there are more). `.git` and `node_modules` \
                are left out.",
            "responses": {"200": stream("The mode first."), "401": token()},
        }},
        "/shutdown": {"post": {
            "operationId": "shutdown", "summary": "End the service",
            "description": "The running task is interrupted; what waits is kept for the next start.",
            "responses": {"202": answer("It ends.", &stopping), "401": token()},
        }},
    })
}
