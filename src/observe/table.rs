//! The table of metrics: names, help texts, labels and buckets are those that
//! operators know. `observe/zero.rs` makes the series that are known in advance.

use prometheus::{
    CounterVec, Encoder, Gauge, Histogram, HistogramOpts, Opts, Registry, TextEncoder,
};

use super::Metrics;
use super::maker::{Maker, kubelet_buckets};

const STEP_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const JOB_BUCKETS: &[f64] =
    &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0];
const QUEUE_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything and sets every known series to zero.
    #[must_use]
    pub fn new() -> Self {
        let make = Maker { registry: Registry::new() };
        let kubelet = kubelet_buckets();
        let build_info = make.gauges(
            "covibes_build_info",
            "The running version; always 1.",
            &["version", "revision"],
        );
        let revision = option_env!("COVIBES_REVISION").unwrap_or("unknown");
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        let metrics = Self {
            jobs_received: make.counters(
                "covibes_jobs_received_total",
                "Jobs taken on.",
                &["action"],
            ),
            jobs: make.counters("covibes_jobs_total", "Jobs ended.", &["action", "outcome"]),
            job_failures: make.counters(
                "covibes_job_failures_total",
                "Jobs failed, by step and code.",
                &["step", "code"],
            ),
            jobs_in_progress: make.gauges(
                "covibes_jobs_in_progress",
                "Jobs that run now.",
                &["action"],
            ),
            running: std::sync::Arc::default(),
            oldest_job_start: make.register(
                Gauge::new(
                    "covibes_oldest_job_start_timestamp_seconds",
                    "When the oldest job that runs began, in unix seconds; 0 if none runs.",
                )
                .expect("a literal name"),
            ),
            lane_waiting_jobs: make
                .gauge("covibes_lane_waiting_jobs", "Jobs that wait behind others of their team."),
            job_duration: make.histograms(
                "covibes_job_duration_seconds",
                "From the beginning of a job to its final event.",
                &["action"],
                JOB_BUCKETS,
            ),
            job_queue_wait: make.histograms(
                "covibes_job_queue_wait_seconds",
                "From a job's delivery to its beginning.",
                &["action"],
                QUEUE_BUCKETS,
            ),
            step_duration: make.histograms(
                "covibes_step_duration_seconds",
                "How long a step took.",
                &["step", "outcome"],
                STEP_BUCKETS,
            ),
            step_retries: make.counters(
                "covibes_step_retries_total",
                "Runs repeated because of a platform fault in a step.",
                &["step", "reason"],
            ),
            last_job_success: make.floats(
                "covibes_last_job_success_timestamp_seconds",
                "When a job last succeeded, in unix seconds.",
                &["action"],
            ),
            messages_rejected: make.counters(
                "covibes_messages_rejected_total",
                "Messages refused before they became jobs.",
                &["reason"],
            ),
            messages_redelivered: make.counter(
                "covibes_messages_redelivered_total",
                "Messages that the broker handed out again.",
            ),
            dead_lettered: make.counters(
                "covibes_dead_lettered_total",
                "Messages stored among the dead letters.",
                &["reason"],
            ),
            broker_connected: make.gauges(
                "covibes_broker_connected",
                "Whether the connection to the broker is up.",
                &["role"],
            ),
            broker_blocked: make.gauge(
                "covibes_broker_blocked",
                "Whether the broker has blocked publishing for lack of memory or disk.",
            ),
            broker_reconnects: make.counters(
                "covibes_broker_reconnects_total",
                "Sessions with the broker that ended and were begun again.",
                &["reason"],
            ),
            dispatcher_active: make
                .gauge("covibes_dispatcher_active", "Whether this worker is the dispatcher."),
            dispatcher_waiting: make.gauge(
                "covibes_dispatcher_waiting_jobs",
                "Jobs that wait until teams without a place may be placed.",
            ),
            placements: make.counters(
                "covibes_placements_total",
                "Changes of the placement table, and answers to fences that came too late.",
                &["kind"],
            ),
            hosts: make.gauges("covibes_hosts", "Hosts that the dispatcher knows.", &["state"]),
            replies: make.counters(
                "covibes_replies_total",
                "Final events for producers that set reply_to.",
                &["outcome"],
            ),
            ctl_ignored: make.counter(
                "covibes_ctl_ignored_total",
                "Messages between workers that were none, or came too fast.",
            ),
            docker_up: make.gauge("covibes_docker_up", "Whether the Docker daemon answers."),
            docker_requests: make.counters(
                "covibes_docker_requests_total",
                "Requests to the Docker daemon.",
                &["operation", "outcome"],
            ),
            docker_request_duration: make.histograms(
                "covibes_docker_request_duration_seconds",
                "How long the Docker daemon took.",
                &["operation"],
                &kubelet,
            ),
            events_published: make.counters(
                "covibes_events_published_total",
                "Events given to the broker, by type without `covibes.`.",
                &["type", "outcome"],
            ),
            event_publish_duration: make.register(
                Histogram::with_opts(
                    HistogramOpts::new(
                        "covibes_event_publish_duration_seconds",
                        "From an event's publishing to its confirm.",
                    )
                    .buckets(kubelet.clone()),
                )
                .expect("a literal name"),
            ),
            teams: make.gauges("covibes_teams", "Teams by state.", &["state"]),
            containers: make.gauges(
                "covibes_containers",
                "Containers of this instance.",
                &["role", "state"],
            ),
            container_starts: make.counters(
                "covibes_container_starts_total",
                "Containers started.",
                &["role", "outcome"],
            ),
            container_restarts: make.counters(
                "covibes_container_restarts_total",
                "Containers started again.",
                &["role"],
            ),
            container_oom_kills: make.counters(
                "covibes_container_oom_kills_total",
                "Containers in which the kernel ended something for memory.",
                &["role"],
            ),
            container_memory: make.gauges(
                "covibes_container_memory_bytes",
                "Memory that containers use.",
                &["role"],
            ),
            container_cpu: make.register(
                CounterVec::new(
                    Opts::new(
                        "covibes_container_cpu_seconds_total",
                        "CPU time that containers have used since the worker began.",
                    ),
                    &["role"],
                )
                .expect("a literal name"),
            ),
            orphans: make.gauge(
                "covibes_orphans",
                "Containers, networks and volumes of this instance that nobody owns.",
            ),
            reconciled_teams: make.gauges(
                "covibes_reconciled_teams",
                "What the worker found of its teams when it began.",
                &["kind"],
            ),
            image_build_duration: make.histograms(
                "covibes_image_build_duration_seconds",
                "How long an image build took.",
                &["outcome"],
                JOB_BUCKETS,
            ),
            dependency_install_duration: make.histograms(
                "covibes_dependency_install_duration_seconds",
                "How long an install took.",
                &["outcome"],
                JOB_BUCKETS,
            ),
            git_operation_duration: make.histograms(
                "covibes_git_operation_duration_seconds",
                "How long a Git operation took.",
                &["operation"],
                STEP_BUCKETS,
            ),
            preview_ports_in_use: make
                .gauge("covibes_preview_ports_in_use", "Preview ports that are published."),
            preview_ports_limit: make
                .gauge("covibes_preview_ports_limit", "Preview ports that there are."),
            subnets_in_use: make.gauge("covibes_subnets_in_use", "Team subnets that exist."),
            inotify_in_use: make.gauges(
                "covibes_inotify_in_use",
                "Inotify watches and instances of the containers' user.",
                &["kind"],
            ),
            inotify_limit: make.gauges(
                "covibes_inotify_limit",
                "Inotify watches and instances that one user may have.",
                &["kind"],
            ),
            workspace_disk_available: make.register(
                Gauge::new(
                    "covibes_workspace_disk_available_bytes",
                    "Bytes free below the workspaces.",
                )
                .expect("a literal name"),
            ),
            workspace_disk_ratio: make.floats(
                "covibes_workspace_disk_used_ratio",
                "Share of the disk below the workspaces: used, and from which on none is started.",
                &["kind"],
            ),
            capacity_teams: make.gauges(
                "covibes_capacity_teams",
                "Teams: running, and at most.",
                &["kind"],
            ),
            capacity_memory: make.gauges(
                "covibes_capacity_memory_bytes",
                "Memory for teams: set aside, and at most.",
                &["kind"],
            ),
            capacity_cpus: make.floats(
                "covibes_capacity_cpus",
                "CPUs for teams: set aside, and at most.",
                &["kind"],
            ),
            orphans_removed: make.counters(
                "covibes_orphans_removed_total",
                "Things that nobody owned, removed.",
                &["kind"],
            ),
            waste_removed: make.counters(
                "covibes_waste_removed_total",
                "Files, directories and images that nobody needed any more, removed.",
                &["kind"],
            ),
            policy_denials: make.counters(
                "covibes_policy_denials_total",
                "Requests that a rule refused.",
                &["rule"],
            ),
            egress_tunnels: make.counters(
                "covibes_egress_tunnels_total",
                "Tunnels that teams asked the egress proxy for, by how they went.",
                &["outcome"],
            ),
            egress_bytes: make.counter(
                "covibes_egress_bytes_total",
                "Bytes that teams received through tunnels that have ended.",
            ),
            registry: {
                make.register(super::levels::lines());
                make.registry
            },
        };
        metrics.zero();
        metrics
    }

    /// The page that Prometheus scrapes, text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = Vec::new();
        let families = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode(&families, &mut page) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        String::from_utf8(page).unwrap_or_default()
    }
}
