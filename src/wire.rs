//! Floor 1: the only place that knows the JSON of jobs and events.

pub mod findings;
