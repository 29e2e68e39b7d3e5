//! Floor 4: the ports' real implementations.

pub mod memory_queue;
pub mod rabbitmq;
