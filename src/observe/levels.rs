//! Counts log lines by level, so that a worker that complains is seen without its log.
//!
//! The one counter of a process: lines are written before there are metrics.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, Opts};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

static LINES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("covibes_log_messages_total", "Log lines written.");
    IntCounterVec::new(opts, &["level"]).expect("a literal name")
});

/// What is counted, for a registry.
pub(super) fn lines() -> IntCounterVec {
    for level in ["error", "warn", "info", "debug", "trace"] {
        LINES.with_label_values(&[level]);
    }
    LINES.clone()
}

/// Counts what is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountLines;

impl<S: Subscriber> Layer<S> for CountLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        LINES.with_label_values(&[level]).inc();
    }
}
