//! The broker side against a live RabbitMQ, at `COVIBES_AMQP_URL` or on
//! 127.0.0.1:5672. Every test has exchanges and queues below a prefix of its
//! own and removes them.
//!
//! Live, because what is tested is the broker's: what it redelivers and in which
//! order, what it refuses, what it returns.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod certificates;
mod cluster;
mod dead_letters;
mod definitions;
mod doors;
mod events;
mod hostile;
mod moving;
mod partition;
mod place;
mod raw;
mod relay;
mod replies;
mod session;
mod supervisor;
mod worker;
