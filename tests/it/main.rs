//! The hermetic tests: no network, no Docker, no broker, nothing outside this
//! folder. They hold the house to its own rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod agent_tasks;
mod calls;
mod cleaning;
mod commands;
mod compose;
mod crashes;
mod dashboards;
mod development;
mod dry;
mod egress;
mod floors;
mod interruption;
mod jobs;
mod logql;
mod manners;
mod monitor;
mod moving;
mod ops;
mod pipeline;
mod ports;
mod previews;
mod process;
mod source;
mod stories;
mod syncs;
mod tending;
#[cfg(feature = "otlp")]
mod traces;
mod world;
