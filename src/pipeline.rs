//! Floor 3: the runner, the six steps, undo and convergence.

pub mod interrupt;
pub mod job_runner;
pub mod lease;
