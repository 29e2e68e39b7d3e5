//! The broker side against a live RabbitMQ.
