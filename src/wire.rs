//! Floor 1: the only place that knows the JSON of jobs and events.

pub(crate) mod duration;
pub mod job;
pub(crate) mod job_message;
pub(crate) mod json;
pub mod redact;
pub mod spec;
pub mod text;

#[cfg(test)]
pub(crate) mod arbitrary;
