//! Floor 1: merges spec, findings, project file and host policy into a plan; renders compose.

pub mod project;
