//! Floor 0: the pure words of Covibes. No effect, no JSON, no clock.

pub mod environment;
pub mod findings;
