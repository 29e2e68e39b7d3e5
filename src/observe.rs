//! Typed events that write a log line and move a metric together.
//!
//! The metrics live behind methods, so that the crate beneath can change:
//! `observe/table.rs` says which there are, `observe/zero.rs` with which labels,
//! `observe/facts.rs` what moves them.

mod facts;
mod levels;
pub mod lines;
mod maker;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod spans;
mod table;
mod zero;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry,
};

pub use self::facts::RunningJob;
pub use self::levels::CountLines;
use crate::domain::event::TeamState;
use crate::domain::plan::Role;

/// The connections a worker holds to the broker, as labels.
pub const BROKER_ROLES: &[&str] = &["dispatch", "mailbox", "events", "ctl"];

/// All metrics of a worker.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    jobs_received: IntCounterVec,
    jobs: IntCounterVec,
    job_failures: IntCounterVec,
    jobs_in_progress: IntGaugeVec,
    running: Arc<RunningJobs>,
    oldest_job_start: Gauge,
    lane_waiting_jobs: IntGauge,
    job_duration: HistogramVec,
    job_queue_wait: HistogramVec,
    step_duration: HistogramVec,
    step_retries: IntCounterVec,
    last_job_success: GaugeVec,
    messages_rejected: IntCounterVec,
    messages_redelivered: IntCounter,
    dead_lettered: IntCounterVec,
    broker_connected: IntGaugeVec,
    broker_blocked: IntGauge,
    broker_reconnects: IntCounterVec,
    dispatcher_active: IntGauge,
    dispatcher_waiting: IntGauge,
    placements: IntCounterVec,
    hosts: IntGaugeVec,
    replies: IntCounterVec,
    ctl_ignored: IntCounter,
    docker_up: IntGauge,
    docker_requests: IntCounterVec,
    docker_request_duration: HistogramVec,
    events_published: IntCounterVec,
    event_publish_duration: Histogram,
    teams: IntGaugeVec,
    containers: IntGaugeVec,
    container_starts: IntCounterVec,
    container_restarts: IntCounterVec,
    container_oom_kills: IntCounterVec,
    container_memory: IntGaugeVec,
    container_cpu: CounterVec,
    orphans: IntGauge,
    reconciled_teams: IntGaugeVec,
    image_build_duration: HistogramVec,
    dependency_install_duration: HistogramVec,
    git_operation_duration: HistogramVec,
    preview_ports_in_use: IntGauge,
    preview_ports_limit: IntGauge,
    subnets_in_use: IntGauge,
    inotify_in_use: IntGaugeVec,
    inotify_limit: IntGaugeVec,
    workspace_disk_available: Gauge,
    workspace_disk_ratio: GaugeVec,
    capacity_teams: IntGaugeVec,
    capacity_memory: IntGaugeVec,
    capacity_cpus: GaugeVec,
    orphans_removed: IntCounterVec,
    waste_removed: IntCounterVec,
    policy_denials: IntCounterVec,
    egress_tunnels: IntCounterVec,
    egress_bytes: IntCounter,
}

/// What a listing of the host showed, for gauges.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Role and the Engine's word for the state.
    pub containers: Vec<(Role, String)>,
    /// The states of teams.
    pub teams: Vec<TeamState>,
    /// Published preview ports.
    pub ports_in_use: i64,
    /// Preview ports that there are.
    pub ports_limit: i64,
    /// Team subnets that exist.
    pub subnets_in_use: i64,
    /// Inotify watches of the containers' user, and how many it may have.
    pub watches: (i64, i64),
    /// Inotify instances of the containers' user, and how many it may have.
    pub instances: (i64, i64),
    /// Bytes free below the workspaces.
    pub disk_available_bytes: u64,
    /// Share of that disk that is used, 0 to 1.
    pub disk_used: f64,
    /// The share from which on no team is started.
    pub disk_used_max: f64,
    /// What teams have set aside.
    pub reserved: Amounts,
    /// What may be set aside, overcommitment included.
    pub capacity: Amounts,
}

/// What teams need of a host.
#[derive(Debug, Clone, Default)]
pub struct Amounts {
    /// Running teams.
    pub teams: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// CPUs.
    pub cpus: f64,
}

/// When the jobs that run began, in unix milliseconds, and how many of them then.
#[derive(Debug, Default)]
struct RunningJobs {
    began: Mutex<BTreeMap<i64, usize>>,
}

/// An error with all its causes, for the one place that logs it.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
