//! Floor 1: merges spec, findings, project file and host policy into a plan; renders compose.

pub mod compose;
pub mod hash;
pub mod layout;
pub mod plan;
pub mod project;
