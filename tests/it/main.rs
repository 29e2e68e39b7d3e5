//! The hermetic tests: no network, no Docker, no broker, nothing outside this
//! folder. They hold the house to its own rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod commands;
mod compose;
mod floors;
mod manners;
mod ops;
mod pipeline;
mod source;
mod world;
