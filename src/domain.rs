//! Floor 0: the pure words of Covibes. No effect, no JSON, no clock.
//!
//! Everything here is plain data with one parsing door per type, so that a
//! value that exists is a value that was checked.

pub mod agent_task;
pub mod control;
pub mod environment;
pub mod event;
pub mod failure;
pub mod findings;
pub mod health;
pub mod ids;
pub mod job;
pub mod limits;
pub mod message;
pub mod names;
pub mod plan;
pub mod record;
pub mod settings;
pub mod spec;
pub mod step;
