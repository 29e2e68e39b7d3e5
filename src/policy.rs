//! Floor 1: pure decisions: retry, admission, ports, subnets, deadlines.

pub mod backoff;
pub mod placement;
