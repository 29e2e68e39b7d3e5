//! The six steps, one file each. A step is only its work: `Run::step` tells,
//! times and bounds it.

pub mod build;
pub mod config;
pub mod detect;
pub mod health;
pub mod start;
pub mod workspace;
