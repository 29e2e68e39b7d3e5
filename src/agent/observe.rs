//! What the agent service counts and says.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::shapes::outcome_name;
use super::task::{Outcome, TaskId};

/// A task takes seconds to an hour.
const TASK_BUCKETS: &[f64] =
    &[1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0];

/// A thing worth knowing about a task.
#[derive(Debug)]
pub(super) enum AgentEvent {
    Queued { id: TaskId, position: usize },
    Refused,
    Started { id: TaskId },
    Finished { id: TaskId, outcome: Outcome, duration: Duration },
}

impl AgentEvent {
    /// Writes the log line and moves the metric.
    pub(super) fn emit(&self, metrics: &AgentMetrics) {
        match self {
            Self::Queued { id, position } => {
                tracing::info!(task = %id, position, "task queued");
            }
            Self::Refused => {
                metrics.refused.inc();
                tracing::warn!("task refused: the queue is full");
            }
            Self::Started { id } => tracing::info!(task = %id, "task started"),
            Self::Finished { id, outcome, duration } => {
                let name = outcome_name(*outcome);
                metrics.tasks.with_label_values(&[name]).inc();
                metrics.duration.observe(duration.as_secs_f64());
                let code = match outcome {
                    Outcome::Failed(failure) => failure.explain().0,
                    Outcome::Succeeded | Outcome::Cancelled | Outcome::Interrupted => "",
                };
                let seconds = duration.as_secs_f64();
                tracing::info!(task = %id, outcome = name, code, seconds, "task finished");
            }
        }
    }
}

/// The service's metrics.
#[derive(Debug)]
pub(super) struct AgentMetrics {
    pub(super) registry: Registry,
    pub(super) running: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) check_ok: IntGaugeVec,
    pub(super) output_bytes: IntCounter,
    pub(super) leftovers: IntCounter,
    tasks: IntCounterVec,
    refused: IntCounter,
    duration: Histogram,
}

impl AgentMetrics {
    /// Makes and registers all metrics.
    ///
    /// # Panics
    /// Never: the names are constant, valid and used once; a test makes them.
    pub(super) fn new() -> Self {
        let fine = "names of metrics are constant and valid";
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect(fine);
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(fine);
        let metrics = Self {
            registry: Registry::new(),
            running: gauge("covibes_agent_tasks_in_progress", "Tasks that run now"),
            waiting: gauge("covibes_agent_waiting_tasks", "Tasks that wait for their turn"),
            check_ok: IntGaugeVec::new(
                Opts::new("covibes_agent_check_ok", "1 if a check of /health is ok"),
                &["check"],
            )
            .expect(fine),
            output_bytes: counter(
                "covibes_agent_output_bytes_total",
                "Bytes that the CLI wrote to its standard output",
            ),
            leftovers: counter(
                "covibes_agent_leftovers_ended_total",
                "Processes of earlier tasks that were ended because memory was short",
            ),
            tasks: IntCounterVec::new(
                Opts::new("covibes_agent_tasks_total", "Tasks that ended"),
                &["outcome"],
            )
            .expect(fine),
            refused: counter(
                "covibes_agent_tasks_refused_total",
                "Tasks that were refused because the queue was full",
            ),
            duration: Histogram::with_opts(
                HistogramOpts::new(
                    "covibes_agent_task_duration_seconds",
                    "Time from a task's start to its end",
                )
                .buckets(TASK_BUCKETS.to_vec()),
            )
            .expect(fine),
        };
        let all: [Box<dyn prometheus::core::Collector>; 8] = [
            Box::new(metrics.running.clone()),
            Box::new(metrics.waiting.clone()),
            Box::new(metrics.check_ok.clone()),
            Box::new(metrics.output_bytes.clone()),
            Box::new(metrics.leftovers.clone()),
            Box::new(metrics.tasks.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.duration.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector).expect(fine);
        }
        metrics
    }
}
