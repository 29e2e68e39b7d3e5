//! Floor 2: the traits through which everything else asks the world.
//!
//! Nothing above `adapters` touches Docker, the broker, the file system, the
//! clock or the network but through these.

pub mod agents;
pub mod broker;
pub mod clock;
pub mod ctl;
pub mod engine;
pub mod host;
pub mod messages;
pub mod probe;
pub mod records;
pub mod syncs;
pub mod table;
