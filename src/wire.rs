//! Floor 1: the only place that knows the JSON of jobs and events.
//!
//! Bytes from outside become a checked [`crate::domain::job::Job`] in
//! [`job::parse_job`] and nowhere else; facts become CloudEvents in
//! [`event::encode_event`], redacted and bounded. The files under `schemas/`
//! are generated from the types here ([`schema`]). `wire` has no effect and
//! asks no clock.

mod agent_task_body;
mod asyncapi;
pub mod control;
pub(crate) mod duration;
pub mod event;
pub mod event_body;
pub mod event_reader;
pub mod findings;
mod host_bodies;
pub mod job;
pub(crate) mod job_message;
pub(crate) mod json;
pub mod redact;
pub mod schema;
pub mod spec;
mod sync_body;
pub mod team_health;
pub mod text;

#[cfg(test)]
mod agreement;
#[cfg(test)]
pub(crate) mod arbitrary;
