//! Typed events that write a log line and move a metric together.
