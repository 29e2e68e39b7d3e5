//! Floor 1: pure decisions: retry, admission, ports, subnets, deadlines.

pub mod backoff;
pub mod mending;
pub mod placement;
pub mod wellness;
