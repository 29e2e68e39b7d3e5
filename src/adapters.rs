//! Floor 4: the ports' real implementations.

pub mod agents;
pub mod audit;
pub mod docker;
pub mod host;
pub mod known_hosts;
pub mod memory_queue;
pub mod probe;
pub mod rabbitmq;
pub mod records;
pub mod syncs;
pub mod system;
pub mod tree;
