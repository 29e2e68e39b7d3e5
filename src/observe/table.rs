//! The table of metrics: names, help texts, labels and buckets are those that
//! operators know, and every known series exists from the start at zero.

use prometheus::{
    CounterVec, Encoder, Gauge, Histogram, HistogramOpts, Opts, Registry, TextEncoder,
};

use super::maker::{Maker, kubelet_buckets};
use super::{BROKER_ROLES, Metrics};
use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Fault};
use crate::domain::job::ActionKind;
use crate::domain::plan::Role;
use crate::domain::step::StepId;

const STEP_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const JOB_BUCKETS: &[f64] =
    &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0];
const QUEUE_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// The outcomes of a job, as labels.
const JOB_OUTCOMES: &[&str] = &["succeeded", "failed", "cancelled", "superseded"];

/// The outcomes of a step, as labels.
const STEP_OUTCOMES: &[&str] = &["finished", "failed", "interrupted"];

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
                "Events given to the broker.",
                &["outcome"],
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

    /// Makes every series whose labels are known in advance.
    fn zero(&self) {
        for action in ActionKind::ALL.map(ActionKind::as_str) {
            self.jobs_received.with_label_values(&[action]);
            self.jobs_in_progress.with_label_values(&[action]);
            self.job_duration.with_label_values(&[action]);
            self.job_queue_wait.with_label_values(&[action]);
            self.last_job_success.with_label_values(&[action]);
            for outcome in JOB_OUTCOMES {
                self.jobs.with_label_values(&[action, outcome]);
            }
        }
        for step in StepId::ALL.map(StepId::as_str) {
            for outcome in STEP_OUTCOMES {
                self.step_duration.with_label_values(&[step, outcome]);
            }
        }
        for code in Code::ALL {
            let reason = code.as_str();
            if reason.starts_with("message.") || code.fault() == Fault::Capacity {
                self.messages_rejected.with_label_values(&[reason]);
                self.dead_lettered.with_label_values(&[reason]);
            }
        }
        for outcome in ["stored", "unroutable", "refused", "late", "denied"] {
            self.replies.with_label_values(&[outcome]);
        }
        for kind in ["placed", "released", "moved", "fence_void"] {
            self.placements.with_label_values(&[kind]);
        }
        for state in ["known", "lost"] {
            self.hosts.with_label_values(&[state]);
        }
        for role in BROKER_ROLES {
            self.broker_connected.with_label_values(&[role]);
        }
        for state in TeamState::ALL.map(TeamState::as_str) {
            self.teams.with_label_values(&[state]);
        }
        for role in Role::ALL.map(Role::as_str) {
            self.container_restarts.with_label_values(&[role]);
            self.container_oom_kills.with_label_values(&[role]);
            self.container_memory.with_label_values(&[role]);
            self.container_cpu.with_label_values(&[role]);
            for outcome in ["started", "failed"] {
                self.container_starts.with_label_values(&[role, outcome]);
            }
            for state in ["running", "exited"] {
                self.containers.with_label_values(&[role, state]);
            }
        }
        for outcome in ["opened", "denied", "failed"] {
            self.egress_tunnels.with_label_values(&[outcome]);
        }
        for outcome in ["confirmed", "failed"] {
            self.events_published.with_label_values(&[outcome]);
        }
        for outcome in ["succeeded", "failed"] {
            self.image_build_duration.with_label_values(&[outcome]);
            self.dependency_install_duration.with_label_values(&[outcome]);
        }
        for operation in ["clone", "worktree", "copy"] {
            self.git_operation_duration.with_label_values(&[operation]);
        }
        for kind in ["watches", "instances"] {
            self.inotify_in_use.with_label_values(&[kind]);
            self.inotify_limit.with_label_values(&[kind]);
        }
        for kind in ["used", "limit"] {
            self.workspace_disk_ratio.with_label_values(&[kind]);
            self.capacity_teams.with_label_values(&[kind]);
            self.capacity_memory.with_label_values(&[kind]);
            self.capacity_cpus.with_label_values(&[kind]);
        }
        for kind in ["paper", "cache", "workspace", "worktree", "image"] {
            self.waste_removed.with_label_values(&[kind]);
        }
        for kind in ["adopted", "restarting", "stopped"] {
            self.reconciled_teams.with_label_values(&[kind]);
        }
        for kind in ["container", "network", "volume"] {
            self.orphans_removed.with_label_values(&[kind]);
        }
        for rule in ["git.host_not_allowed", "git.address_denied"] {
            self.policy_denials.with_label_values(&[rule]);
        }
        self.broker_reconnects.with_label_values(&["session_ended"]);
        for code in Code::ALL {
            for step in steps_of(*code) {
                self.job_failures.with_label_values(&[step, code.as_str()]);
                if code.fault() == Fault::Platform {
                    self.step_retries.with_label_values(&[step, code.as_str()]);
                }
            }
        }
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

/// Where a code comes from: a counter that begins at one tells `increase()` nothing.
/// Codes of what all steps use are in all of them.
fn steps_of(code: Code) -> Vec<&'static str> {
    let all = || StepId::ALL.map(StepId::as_str).into_iter().chain(["none"]).collect();
    match code.as_str().split('.').next() {
        Some("git" | "workspace") => vec!["workspace"],
        Some("detect") => vec!["detect"],
        Some("config" | "secret" | "runtime") => vec!["config", "build"],
        Some("build" | "image") => vec!["build"],
        Some("preview" | "service") => vec!["start", "health"],
        Some("port") => vec!["config", "start"],
        Some("docker" | "host" | "record" | "job" | "internal") => all(),
        _ => vec!["none"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand teams, every code, and every state of a container.
    #[test]
    fn a_thousand_teams_are_fewer_than_three_thousand_series() {
        use super::super::Listing;
        let metrics = Metrics::new();
        let teams = || (0..1000).map(|n| TeamState::ALL[n % TeamState::ALL.len()]).collect();
        let states = ["running", "exited", "created", "paused", "restarting", "dead", "removing"];
        let containers = (0..4000).map(|n| (Role::ALL[n % 5], states[n % 7].to_owned())).collect();
        metrics.observed(&Listing { teams: teams(), containers, ..Listing::default() });
        for code in Code::ALL {
            metrics.message_rejected(*code);
            metrics.dead_lettered(*code);
        }
        for operation in 0..30 {
            metrics.docker_request(&operation.to_string(), true, true, Default::default());
            metrics.docker_request(&operation.to_string(), false, true, Default::default());
        }
        let page = metrics.render();
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 3000, "{series}");
        // None of them names a team, and none of them comes twice.
        let names: std::collections::BTreeSet<_> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').map_or(line, |(name, _)| name))
            .collect();
        assert_eq!(names.len(), series);
        assert!(!page.contains("team="), "no label names a team");
    }

    #[test]
    fn known_series_exist_at_zero() {
        let page = Metrics::new().render();
        for line in [
            "covibes_jobs_total{action=\"start\",outcome=\"failed\"} 0",
            "covibes_teams{state=\"running\"} 0",
            "covibes_docker_up 0",
            "covibes_step_duration_seconds_count{outcome=\"finished\",step=\"build\"} 0",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
