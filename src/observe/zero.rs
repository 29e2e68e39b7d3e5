//! Every series whose labels are known in advance, at zero from the start: a counter
//! that begins at one tells `increase()` nothing.

use super::{BROKER_ROLES, Metrics};
use crate::domain::event::{EVENT_TYPES, TeamState};
use crate::domain::failure::{Code, Fault};
use crate::domain::job::ActionKind;
use crate::domain::plan::Role;
use crate::domain::step::StepId;

/// The outcomes of a job, as labels.
const JOB_OUTCOMES: &[&str] = &["succeeded", "failed", "cancelled", "superseded"];

/// The outcomes of a step, as labels.
const STEP_OUTCOMES: &[&str] = &["finished", "failed", "interrupted"];

/// The Engine's words for the state of a container.
pub(super) const CONTAINER_STATES: &[&str] =
    &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// What is asked of Docker; a test holds it to the adapter.
const DOCKER_OPERATIONS: &[&str] = &[
    "connect",
    "create_container",
    "create_network",
    "create_volume",
    "hangup_container",
    "image_exists",
    "inspect_container",
    "list",
    "list_networks",
    "log_tail",
    "remove_container",
    "remove_image",
    "remove_network",
    "remove_volume",
    "rename_container",
    "restart_container",
    "start_container",
    "stop_container",
    "unpause_container",
    "version",
];

/// The rules of hosts, and of the platform, that refuse what somebody asked for.
pub(super) const RULES: &[Code] = &[
    Code::MessageInlineSecret,
    Code::EnvDeniedName,
    Code::GitSchemeDenied,
    Code::GitHostNotAllowed,
    Code::GitAddressDenied,
    Code::GitCredentialsInUrl,
    Code::GitRedirectRefused,
    Code::GitHostKey,
    Code::WorkspaceForeign,
    Code::WorkspaceSymlinkRefused,
    Code::WorkspaceMountRefused,
    Code::BuildHostNotAllowed,
    Code::BuildDockerfileNotAllowed,
    Code::BuildDockerfileRefused,
    Code::DockerForeignResource,
];

impl Metrics {
    /// Makes every series whose labels are known in advance.
    pub(super) fn zero(&self) {
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
        for reason in Code::ALL.iter().map(|code| code.as_str()) {
            self.messages_rejected.with_label_values(&[reason]);
            self.dead_lettered.with_label_values(&[reason]);
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
            for state in CONTAINER_STATES {
                self.containers.with_label_values(&[role, state]);
            }
        }
        for outcome in ["opened", "denied", "failed"] {
            self.egress_tunnels.with_label_values(&[outcome]);
        }
        for kind in EVENT_TYPES {
            for outcome in ["confirmed", "failed"] {
                self.events_published.with_label_values(&[kind, outcome]);
            }
        }
        for operation in DOCKER_OPERATIONS {
            self.docker_request_duration.with_label_values(&[operation]);
            for outcome in ["ok", "error"] {
                self.docker_requests.with_label_values(&[operation, outcome]);
            }
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
        for rule in RULES {
            self.policy_denials.with_label_values(&[rule.as_str()]);
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
}

/// Where a code comes from.
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
            "covibes_docker_requests_total{operation=\"start_container\",outcome=\"error\"} 0",
            "covibes_docker_request_duration_seconds_count{operation=\"list\"} 0",
            "covibes_events_published_total{outcome=\"failed\",type=\"job.failed\"} 0",
            "covibes_containers{role=\"preview\",state=\"restarting\"} 0",
            "covibes_dead_lettered_total{reason=\"build.install_failed\"} 0",
            "covibes_policy_denials_total{rule=\"env.denied_name\"} 0",
            "covibes_step_duration_seconds_count{outcome=\"finished\",step=\"build\"} 0",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
