//! What happens, and which metrics it moves: a method per fact, so that no
//! caller knows a name or a label.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use prometheus::{Gauge, IntGauge};

use super::zero::{CONTAINER_STATES, RULES};
use super::{Listing, Metrics, RunningJobs};
use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure};
use crate::domain::health::Reconciled;
use crate::domain::job::{ActionKind, Outcome};
use crate::domain::plan::Role;
use crate::domain::step::StepId;

impl Metrics {
    /// A job was taken on.
    pub fn job_received(&self, action: ActionKind) {
        self.jobs_received.with_label_values(&[action.as_str()]).inc();
    }

    /// The broker handed out a message that it had handed out before.
    pub fn message_redelivered(&self) {
        self.messages_redelivered.inc();
    }

    /// A job began, after waiting. It runs until what this gives is dropped, however
    /// that comes.
    #[must_use]
    pub fn job_began(&self, action: ActionKind, waited: Duration, unix_millis: i64) -> RunningJob {
        self.job_queue_wait.with_label_values(&[action.as_str()]).observe(waited.as_secs_f64());
        self.running.begin(unix_millis, &self.oldest_job_start);
        let in_progress = self.jobs_in_progress.with_label_values(&[action.as_str()]);
        in_progress.inc();
        RunningJob { metrics: self.clone(), in_progress, began: unix_millis }
    }

    /// A job ended.
    pub fn job_ended(
        &self,
        action: ActionKind,
        outcome: &Outcome,
        duration: Duration,
        unix_millis: i64,
    ) {
        let action = action.as_str();
        self.jobs.with_label_values(&[action, outcome.as_str()]).inc();
        self.job_duration.with_label_values(&[action]).observe(duration.as_secs_f64());
        match outcome {
            Outcome::Succeeded { .. } => {
                self.last_job_success.with_label_values(&[action]).set(unix_millis as f64 / 1000.0);
            }
            Outcome::Failed(failure) => {
                let step = failure.step.map_or("none", StepId::as_str);
                self.job_failures.with_label_values(&[step, failure.code.as_str()]).inc();
                self.refused_by_rule(failure.code);
            }
            Outcome::Cancelled | Outcome::Superseded => {}
        }
    }

    /// A step ended.
    pub fn step_ended(&self, step: StepId, outcome: &str, duration: Duration) {
        self.step_duration
            .with_label_values(&[step.as_str(), outcome])
            .observe(duration.as_secs_f64());
    }

    /// A run is repeated because of a platform fault.
    pub fn step_retried(&self, failure: &Failure) {
        let step = failure.step.map_or("none", StepId::as_str);
        self.step_retries.with_label_values(&[step, failure.code.as_str()]).inc();
    }

    /// A message was refused.
    pub fn message_rejected(&self, code: Code) {
        self.messages_rejected.with_label_values(&[code.as_str()]).inc();
        self.refused_by_rule(code);
        tracing::warn!(code = code.as_str(), "a message was refused");
    }

    /// A message was stored among the dead letters.
    pub fn dead_lettered(&self, code: Code) {
        self.dead_lettered.with_label_values(&[code.as_str()]).inc();
    }

    /// The durable log confirmed an event of a type, without `covibes.`.
    pub fn event_confirmed(&self, kind: &str, duration: Duration) {
        self.events_published.with_label_values(&[kind, "confirmed"]).inc();
        self.event_publish_duration.observe(duration.as_secs_f64());
    }

    /// An event of a type was not confirmed.
    pub fn event_failed(&self, kind: &str) {
        self.events_published.with_label_values(&[kind, "failed"]).inc();
    }

    /// A request to Docker ended.
    pub fn docker_request(&self, operation: &str, ok: bool, reached: bool, duration: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.docker_requests.with_label_values(&[operation, outcome]).inc();
        self.docker_request_duration
            .with_label_values(&[operation])
            .observe(duration.as_secs_f64());
        self.docker_up.set(i64::from(reached));
    }

    /// Whether the Docker daemon answered last.
    #[must_use]
    pub fn is_docker_up(&self) -> bool {
        self.docker_up.get() == 1
    }

    /// A connection to the broker came up or went down.
    pub fn broker_connected(&self, role: &str, up: bool) {
        self.broker_connected.with_label_values(&[role]).set(i64::from(up));
    }

    /// The broker blocked or unblocked publishing.
    pub fn broker_blocked(&self, blocked: bool) {
        self.broker_blocked.set(i64::from(blocked));
    }

    /// A session with the broker ended.
    pub fn broker_session_ended(&self, reason: &str) {
        self.broker_reconnects.with_label_values(&[reason]).inc();
    }

    /// This worker became or ceased to be the dispatcher.
    pub fn dispatcher_active(&self, active: bool) {
        self.dispatcher_active.set(i64::from(active));
    }

    /// How many jobs wait until teams without a place may be placed.
    pub fn dispatcher_waiting(&self, jobs: usize) {
        self.dispatcher_waiting.set(i64::try_from(jobs).unwrap_or(i64::MAX));
    }

    /// A team was `placed`, `moved` or `released`, or a fence's answer was void.
    pub fn placement(&self, kind: &str) {
        self.placements.with_label_values(&[kind]).inc();
    }

    /// How many hosts there are, and how many of them are lost.
    pub fn hosts(&self, known: usize, lost: usize) {
        for (state, count) in [("known", known), ("lost", lost)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.hosts.with_label_values(&[state]).set(count);
        }
    }

    /// A job's producer was told its end, or could not be.
    pub fn replied(&self, outcome: &str) {
        self.replies.with_label_values(&[outcome]).inc();
    }

    /// A message between workers was none.
    pub fn ctl_ignored(&self) {
        self.ctl_ignored.inc();
    }

    /// How many jobs wait in lanes.
    pub fn lane_waiting(&self, jobs: usize) {
        self.lane_waiting_jobs.set(i64::try_from(jobs).unwrap_or(i64::MAX));
    }

    /// A container was started, or could not be.
    pub fn container_started(&self, role: Role, ok: bool) {
        let outcome = if ok { "started" } else { "failed" };
        self.container_starts.with_label_values(&[role.as_str(), outcome]).inc();
    }

    /// A container was started again, by Docker or by the worker.
    pub fn container_restarted(&self, role: Role) {
        self.container_restarts.with_label_values(&[role.as_str()]).inc();
    }

    /// The kernel ended something in a container.
    pub fn container_oom(&self, role: Role) {
        self.container_oom_kills.with_label_values(&[role.as_str()]).inc();
    }

    /// An image was built.
    pub fn image_built(&self, ok: bool, duration: Duration) {
        let outcome = if ok { "succeeded" } else { "failed" };
        self.image_build_duration.with_label_values(&[outcome]).observe(duration.as_secs_f64());
    }

    /// Dependencies were installed.
    pub fn installed(&self, ok: bool, duration: Duration) {
        let outcome = if ok { "succeeded" } else { "failed" };
        self.dependency_install_duration
            .with_label_values(&[outcome])
            .observe(duration.as_secs_f64());
    }

    /// A Git operation ended.
    pub fn git_operation(&self, operation: &str, duration: Duration) {
        self.git_operation_duration.with_label_values(&[operation]).observe(duration.as_secs_f64());
    }

    /// A tunnel through the egress proxy ended, or was not opened.
    pub fn tunnel_ended(&self, outcome: &str, bytes: u64) {
        self.egress_tunnels.with_label_values(&[outcome]).inc();
        self.egress_bytes.inc_by(bytes);
    }

    /// Counts a failure that is the work of a rule.
    fn refused_by_rule(&self, code: Code) {
        if RULES.contains(&code) {
            self.policy_denials.with_label_values(&[code.as_str()]).inc();
        }
    }

    /// What containers use: role, bytes of memory, CPU time since the last look.
    pub fn containers_use(&self, used: &[(Role, u64, Duration)]) {
        for role in Role::ALL {
            let of_role = used.iter().filter(|(of, ..)| *of == role);
            let (memory, cpu) = of_role.fold((0_u64, 0.0), |(memory, cpu), (_, bytes, spent)| {
                (memory.saturating_add(*bytes), cpu + spent.as_secs_f64())
            });
            let memory = i64::try_from(memory).unwrap_or(i64::MAX);
            self.container_memory.with_label_values(&[role.as_str()]).set(memory);
            self.container_cpu.with_label_values(&[role.as_str()]).inc_by(cpu);
        }
    }

    /// Something on the disk that nobody needed was removed.
    pub fn waste_removed(&self, kind: &str) {
        self.waste_removed.with_label_values(&[kind]).inc();
    }

    /// How much there is that nobody owns.
    pub fn orphans(&self, count: u64) {
        self.orphans.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What the worker found when it began.
    pub fn reconciled(&self, found: &Reconciled) {
        for (kind, count) in [
            ("adopted", found.adopted),
            ("restarting", found.restarting),
            ("stopped", found.stopped),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.reconciled_teams.with_label_values(&[kind]).set(count);
        }
    }

    /// Something that nobody owned was removed.
    pub fn orphan_removed(&self, kind: &str) {
        self.orphans_removed.with_label_values(&[kind]).inc();
    }

    /// Sets what a listing showed: containers by role and state, teams by
    /// state, ports, subnets, inotify and free disk.
    pub fn observed(&self, listing: &Listing) {
        self.containers.reset();
        for role in Role::ALL.map(Role::as_str) {
            for state in CONTAINER_STATES {
                self.containers.with_label_values(&[role, state]);
            }
        }
        for (role, state) in &listing.containers {
            self.containers.with_label_values(&[role.as_str(), state]).inc();
        }
        for state in TeamState::ALL {
            let count = listing.teams.iter().filter(|s| **s == state).count();
            self.teams
                .with_label_values(&[state.as_str()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.preview_ports_in_use.set(listing.ports_in_use);
        self.preview_ports_limit.set(listing.ports_limit);
        self.subnets_in_use.set(listing.subnets_in_use);
        for (kind, (used, limit)) in
            [("watches", listing.watches), ("instances", listing.instances)]
        {
            self.inotify_in_use.with_label_values(&[kind]).set(used);
            self.inotify_limit.with_label_values(&[kind]).set(limit);
        }
        self.workspace_disk_available.set(listing.disk_available_bytes as f64);
        for (kind, share) in [("used", listing.disk_used), ("limit", listing.disk_used_max)] {
            self.workspace_disk_ratio.with_label_values(&[kind]).set(share);
        }
        for (kind, of) in [("used", &listing.reserved), ("limit", &listing.capacity)] {
            self.capacity_teams.with_label_values(&[kind]).set(of.teams);
            self.capacity_memory.with_label_values(&[kind]).set(of.memory_bytes);
            self.capacity_cpus.with_label_values(&[kind]).set(of.cpus);
        }
    }
}

/// A job that runs, for as long as this lives.
#[derive(Debug)]
pub struct RunningJob {
    metrics: Metrics,
    in_progress: IntGauge,
    began: i64,
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.in_progress.dec();
        self.metrics.running.end(self.began, &self.metrics.oldest_job_start);
    }
}

impl RunningJobs {
    fn begin(&self, unix_millis: i64, oldest: &Gauge) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        *began.entry(unix_millis).or_default() += 1;
        Self::tell(&began, oldest);
    }

    fn end(&self, unix_millis: i64, oldest: &Gauge) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = began.get_mut(&unix_millis) {
            *count -= 1;
            if *count == 0 {
                began.remove(&unix_millis);
            }
        }
        Self::tell(&began, oldest);
    }

    fn tell(began: &BTreeMap<i64, usize>, oldest: &Gauge) {
        oldest.set(began.first_key_value().map_or(0.0, |(millis, _)| *millis as f64 / 1000.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_refuses_is_counted_wherever_it_is_refused() {
        let metrics = Metrics::new();
        metrics.message_rejected(Code::EnvDeniedName);
        let failed = |code| Outcome::Failed(Failure::new(code, "for the test"));
        for code in [Code::GitAddressDenied, Code::BuildInstallFailed] {
            metrics.job_ended(ActionKind::Start, &failed(code), Duration::ZERO, 0);
        }
        let page = metrics.render();
        let mut counted: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("covibes_policy_denials_total") && line.ends_with('1'))
            .collect();
        counted.sort_unstable();
        let expected = ["env.denied_name", "git.address_denied"]
            .map(|rule| format!("covibes_policy_denials_total{{rule=\"{rule}\"}} 1"));
        assert_eq!(counted, expected);
    }

    #[test]
    fn the_oldest_job_that_runs_is_told() {
        let metrics = Metrics::new();
        let oldest = || {
            let page = metrics.render();
            let line = page.lines().find(|l| l.starts_with("covibes_oldest_job_start")).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let began = |millis| metrics.job_began(ActionKind::Start, Duration::ZERO, millis);
        assert_eq!(oldest(), "0");
        let (second, first, twin) = (began(7_000), began(5_000), began(5_000));
        assert_eq!(oldest(), "5");
        drop(first);
        assert_eq!(oldest(), "5");
        drop(twin);
        assert_eq!(oldest(), "7");
        drop(second);
        assert_eq!(oldest(), "0");
        let in_progress = "covibes_jobs_in_progress{action=\"start\"} 0";
        assert!(metrics.render().contains(in_progress));
    }
}
