//! Floor 1: the only place that knows the JSON of jobs and events.

pub mod redact;
pub mod text;
