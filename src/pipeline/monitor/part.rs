//! One part as the monitor knows it: its container, its answers, its deaths,
//! what it uses. Pure: somebody else looks and tells.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::wanted::WantedPart;
use crate::domain::event::{ContainerFact, EventKind, PreviewFact};
use crate::domain::health::{PartFailure, PartHealth, PartPicture, PartUse};
use crate::policy::mending::Mending;
use crate::policy::wellness::{Look, Wellness};
use crate::ports::engine::EngineMoment;
use crate::ports::host::Usage;

#[cfg(test)]
mod tests;

/// The state of a container that is not there.
pub(super) const ABSENT: &str = "absent";

/// The state of a container whose processes are frozen.
pub(super) const PAUSED: &str = "paused";

/// A signal that was sent this shortly before a death is its cause.
const SIGNAL_COUNTS: Duration = Duration::from_secs(15);

/// `stop` follows a death within milliseconds, or never.
const STOP_FOLLOWS: Duration = Duration::from_millis(500);

/// Ends a process for certain; a stop begins with another.
const SIGKILL: i32 = 9;

/// What a process that SIGKILL ended is said to have returned.
const KILLED_CODE: i64 = 128 + SIGKILL as i64;

/// How long Docker may still say of a killed part that it runs.
const DOCKER_FOLLOWS: Duration = Duration::from_secs(5);

/// Now, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: i64,
    /// A number in 0..1.
    pub(crate) random: f64,
}

/// One part.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) what: WantedPart,
    /// Whether the record asks for it; else it is only there.
    pub(super) is_wanted: bool,
    pub(super) id: String,
    pub(super) state: String,
    /// Whether anybody has seen it run: what never did is not started again and
    /// again, since its start failed and said so.
    pub(super) ran: bool,
    pub(super) pid: Option<u32>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) wellness: Wellness,
    pub(super) since_unix_ms: i64,
    pub(super) cause: Option<String>,
    pub(super) mending: Mending,
    pub(super) by_hand: Option<Instant>,
    /// It runs and is not on its network.
    pub(super) detached: bool,
    pub(super) restarts: u64,
    pub(super) last_failure: Option<PartFailure>,
    signal: Option<(Instant, i32)>,
    /// It was seen to have been killed; Docker has not said so yet.
    killed: Option<Instant>,
    /// A death that may turn out to be a stop by hand, which is told instead.
    held: Option<(Instant, EventKind)>,
    /// The newest thing that the daemon said of it.
    pub(super) told_at: Option<EngineMoment>,
    /// Counts what was said, so that an older look does not overwrite it.
    pub(super) version: u64,
    /// Kills for memory by the daemon's events, by the kernel's count, and those
    /// of the kernel's earlier groups: both see the same ones, and each may miss
    /// some.
    oom: Oom,
    last_usage: Option<(Instant, Usage)>,
    pub(super) usage: Option<PartUse>,
    pub(super) probe_millis: Option<u64>,
    pub(super) next_probe: Instant,
    pub(super) is_probed: bool,
    pub(super) preview: Option<PreviewFact>,
    pub(super) error: Option<String>,
    /// What its preview does now was not told yet.
    pub(super) is_untold: bool,
    pub(super) tasks_open: Option<u64>,
}

/// Words about one kill come within this.
const SAME_KILL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default)]
struct Oom {
    by_kernel: u64,
    kernel_base: u64,
    told: u64,
    told_at: Option<Instant>,
}

impl Part {
    pub(super) fn new(what: WantedPart, is_wanted: bool, now: Now) -> Self {
        Self {
            what,
            is_wanted,
            id: String::new(),
            state: ABSENT.to_owned(),
            ran: false,
            pid: None,
            address: None,
            wellness: Wellness::default(),
            since_unix_ms: now.unix_ms,
            cause: None,
            mending: Mending::default(),
            by_hand: None,
            detached: false,
            restarts: 0,
            last_failure: None,
            signal: None,
            killed: None,
            held: None,
            told_at: None,
            version: 0,
            oom: Oom::default(),
            last_usage: None,
            usage: None,
            probe_millis: None,
            next_probe: now.at,
            is_probed: false,
            preview: None,
            error: None,
            is_untold: false,
            tasks_open: None,
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.state == "running"
    }

    /// Whether Docker itself is about to start it again.
    fn is_dockers(&self) -> bool {
        self.state == "restarting"
    }

    /// How it is, whatever its probe said last.
    pub(super) fn health(&self) -> PartHealth {
        if !self.runs() {
            PartHealth::Down
        } else if self.detached {
            PartHealth::Unhealthy
        } else {
            self.wellness.health()
        }
    }

    fn event(&self, fact: ContainerFact, cause: String, exit_code: Option<i64>) -> EventKind {
        let (role, part) = (self.what.role, self.what.part.clone());
        EventKind::Container { fact, role, part, cause, exit_code, log: Vec::new() }
    }

    /// Takes over, without a word, that its container runs.
    pub(super) fn adopt_running(&mut self, now: Now) {
        self.state = "running".to_owned();
        self.ran = true;
        self.killed = None;
        self.cause = None;
        self.by_hand = None;
        self.mending.runs();
        self.wellness.began();
        self.since_unix_ms = now.unix_ms;
        self.pid = None;
        self.next_probe = now.at;
    }

    /// Its process began; gives what is to be told.
    pub(super) fn began(&mut self, now: Now) -> Option<EventKind> {
        if self.runs() {
            return None;
        }
        if self.state == PAUSED {
            self.adopt_running(now);
            let cause = "it goes on after a pause".to_owned();
            return Some(self.event(ContainerFact::Healthy, cause, None));
        }
        let again = self.ran;
        self.adopt_running(now);
        self.restarts += u64::from(again);
        let (fact, cause) = match again {
            true => (ContainerFact::Restarted, "it was started again"),
            false => (ContainerFact::Started, "it was started"),
        };
        Some(self.event(fact, cause.to_owned(), None))
    }

    /// Somebody sent it a signal. What a stop begins with stays its cause when the stop ends
    /// with another.
    pub(super) fn signalled(&mut self, signal: i32, now: Now) {
        if signal != SIGKILL || !self.may_be_a_stop(now) {
            self.signal = Some((now.at, signal));
        }
    }

    /// Its process, if somebody who does not stop it killed it just now. Known only where the
    /// kernel's figures of it were read: elsewhere its number may be another namespace's.
    pub(super) fn killed_process(&self, now: Now) -> Option<u32> {
        let kill = self.signal.filter(|(at, signal)| *signal == SIGKILL && *at == now.at);
        self.pid.filter(|_| self.runs() && kill.is_some() && self.usage.is_some())
    }

    /// It was killed, and its process is seen to be gone before Docker says so: with many
    /// containers that takes Docker three times as long as the rest of the way to a dashboard.
    pub(super) fn was_killed(&mut self, now: Now) -> Option<EventKind> {
        let told = self.ended("exited", Some(KILLED_CODE), now);
        self.killed = told.is_some().then_some(now.at);
        self.version += 1;
        told
    }

    /// Whether what Docker says of a running process is of one that is known to be gone.
    pub(super) fn is_ahead_of_docker(&self, now: Now) -> bool {
        self.killed.is_some_and(|at| now.at - at < DOCKER_FOLLOWS)
    }

    /// Docker says itself that it ended.
    pub(super) fn docker_follows(&mut self) {
        self.killed = None;
    }

    /// Whether a death that comes now was asked for in the way in which a stop
    /// begins: then `stop` follows, and says more.
    pub(super) fn may_be_a_stop(&self, now: Now) -> bool {
        self.signal.is_some_and(|(at, signal)| signal != SIGKILL && now.at - at <= SIGNAL_COUNTS)
    }

    /// Keeps a death for the moment in which `stop` may follow.
    pub(super) fn hold(&mut self, kind: EventKind, now: Now) {
        self.held = Some((now.at, kind));
    }

    /// A death after which no `stop` came.
    pub(super) fn take_held(&mut self, now: Now) -> Option<EventKind> {
        self.held.take_if(|(at, _)| now.at - *at >= STOP_FOLLOWS).map(|(_, kind)| kind)
    }

    /// Its process ended; gives what is to be told.
    pub(super) fn ended(
        &mut self,
        state: &str,
        exit_code: Option<i64>,
        now: Now,
    ) -> Option<EventKind> {
        let was_up = self.runs() || self.is_dockers();
        self.state = state.to_owned();
        (self.pid, self.address, self.usage) = (None, None, None);
        (self.preview, self.error, self.probe_millis) = (None, None, None);
        self.detached = false;
        // What only the daemon told went with the group that counted it.
        self.oom.by_kernel = self.oom.by_kernel.max(self.oom.told);
        self.oom.kernel_base = self.oom.by_kernel;
        if !was_up {
            return None;
        }
        self.ran = true;
        self.wellness.ended();
        self.since_unix_ms = now.unix_ms;
        let signal = self.signal.take().filter(|(at, _)| now.at - *at <= SIGNAL_COUNTS);
        let cause = match (signal, exit_code) {
            _ if state == ABSENT => "somebody removed it".to_owned(),
            (Some((_, signal)), _) => format!("somebody sent it signal {signal}"),
            (None, Some(0)) => "it ended by itself".to_owned(),
            (None, Some(code)) => format!("it ended with exit code {code}"),
            (None, None) => "it ended".to_owned(),
        };
        self.failed(&cause, exit_code, now);
        self.mending.died(now.at, now.random);
        Some(self.event(ContainerFact::Exited, cause, exit_code))
    }

    fn failed(&mut self, cause: &str, exit_code: Option<i64>, now: Now) {
        self.cause = Some(cause.to_owned());
        let cause = cause.to_owned();
        self.last_failure = Some(PartFailure { at_unix_ms: now.unix_ms, cause, exit_code });
    }

    /// Somebody stopped it, and not the worker.
    pub(super) fn stopped_by_hand(&mut self, now: Now) -> Option<EventKind> {
        if self.runs() || self.by_hand.is_some() {
            return None;
        }
        self.by_hand = Some(now.at);
        self.held = None;
        self.mending.runs();
        let cause = "somebody stopped it by hand; it stays so until it is started";
        let exit_code = self.last_failure.as_ref().and_then(|failure| failure.exit_code);
        self.failed(cause, exit_code, now);
        Some(self.event(ContainerFact::Exited, cause.to_owned(), exit_code))
    }

    /// Somebody paused it, and not the worker.
    pub(super) fn paused_by_hand(&mut self, now: Now) -> Option<EventKind> {
        if self.state == PAUSED {
            return None;
        }
        self.state = PAUSED.to_owned();
        (self.ran, self.by_hand, self.held) = (true, Some(now.at), None);
        (self.preview, self.error, self.probe_millis) = (None, None, None);
        self.mending.runs();
        self.wellness.ended();
        self.since_unix_ms = now.unix_ms;
        let cause = "somebody paused it by hand; it stays so until it is unpaused or started";
        self.failed(cause, None, now);
        Some(self.event(ContainerFact::Unhealthy, cause.to_owned(), None))
    }

    /// The daemon went just after it said that somebody stopped it: it was the
    /// daemon itself.
    pub(super) fn daemon_went(&mut self, recent: Duration, now: Now) {
        // It stops what runs, and pauses nothing.
        let stopped = self.state != PAUSED;
        if self.by_hand.take_if(|at| stopped && now.at - *at <= recent).is_some() {
            self.mending.died(now.at, now.random);
        }
    }

    /// The kernel killed something in it, says the daemon, and on cgroup v1 up to a dozen
    /// times for one kill. So it may be one ahead of the kernel's own count, not more, and
    /// what it says soon after a kill that was told is the same one.
    pub(super) fn oom_told(&mut self, now: Now) -> Option<EventKind> {
        let is_same = self.oom.told_at.is_some_and(|at| now.at - at < SAME_KILL);
        if is_same || self.oom.told > self.oom.by_kernel {
            return None;
        }
        self.tell_oom(self.oom.by_kernel + 1, now)
    }

    fn tell_oom(&mut self, count: u64, now: Now) -> Option<EventKind> {
        if count <= self.oom.told {
            return None;
        }
        (self.oom.told, self.oom.told_at) = (count, Some(now.at));
        let cause = "the kernel ended a process in it: it needs more memory than it may have";
        self.failed(cause, None, now);
        if self.runs() {
            // It goes on without that process.
            self.cause = None;
        }
        Some(self.event(ContainerFact::Oom, cause.to_owned(), None))
    }

    /// Takes what it uses; gives what is to be told.
    pub(super) fn used(&mut self, usage: Usage, now: Now) -> Option<EventKind> {
        let before = self.last_usage.replace((now.at, usage)).filter(|(_, b)| b.cpu <= usage.cpu);
        let elapsed = before.map(|(at, _)| now.at - at).filter(|elapsed| !elapsed.is_zero());
        let spent = before.map(|(_, before)| usage.cpu - before.cpu);
        let periods = before.map(|(_, before)| {
            let count = usage.periods.0.saturating_sub(before.periods.0);
            (count, usage.periods.1.saturating_sub(before.periods.1))
        });
        self.usage = Some(PartUse {
            memory_bytes: usage.memory_bytes,
            memory_bytes_max: usage.memory_bytes_max,
            cpu_millis: spent.zip(elapsed).map(|(spent, elapsed)| {
                (spent.as_secs_f64() / elapsed.as_secs_f64() * 1000.0).round() as u64
            }),
            cpu_millis_max: usage.cpu_millis_max,
            throttled_percent: periods
                .filter(|(count, _)| *count > 0)
                .map(|(count, throttled)| throttled * 100 / count),
            processes: usage.processes,
        });
        self.oom.by_kernel = self.oom.by_kernel.max(self.oom.kernel_base + usage.oom_kills);
        self.tell_oom(self.oom.by_kernel, now)
    }

    /// CPU time since the last look, for the host's own sums.
    pub(super) fn spent_since(&self, usage: &Usage) -> Duration {
        self.last_usage.map_or(Duration::ZERO, |(_, before)| usage.cpu.saturating_sub(before.cpu))
    }

    /// Takes the answer to a probe; gives what is to be told.
    pub(super) fn probed(&mut self, look: &Look, now: Now) -> Option<EventKind> {
        if !self.runs() {
            return None;
        }
        let was_starting = self.wellness.health() != PartHealth::Unhealthy;
        let turn = self.wellness.note(look, now.at)?;
        self.since_unix_ms = now.unix_ms;
        match turn.health {
            PartHealth::Unhealthy => {
                self.failed(&turn.cause, None, now);
                Some(self.event(ContainerFact::Unhealthy, turn.cause, None))
            }
            PartHealth::Healthy => {
                self.cause = None;
                // What is well at its first probe after a start was told by that start.
                let is_news = !was_starting || self.restarts > 0;
                is_news.then(|| self.event(ContainerFact::Healthy, turn.cause, None))
            }
            PartHealth::Unknown | PartHealth::Starting | PartHealth::Down => None,
        }
    }

    /// Whether the worker should start it, or start it anew, now. Schedules that
    /// if nobody has.
    pub(super) fn wants_mending(&mut self, now: Now) -> bool {
        if !self.is_wanted || self.by_hand.is_some() || self.is_dockers() || !self.ran {
            return false;
        }
        let ill = self.runs() && (self.detached || self.wellness.needs_restart());
        if self.runs() && !ill {
            self.mending.runs();
            return false;
        }
        if self.mending.next().is_none() {
            self.mending.died(now.at, now.random);
        }
        self.mending.is_due(now.at)
    }

    pub(super) fn picture(&self, now: Now) -> PartPicture {
        let next = self.mending.next().filter(|_| self.is_wanted).map(|next| {
            let left = next.saturating_duration_since(now.at).as_millis();
            now.unix_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
        });
        let runs = self.runs();
        PartPicture {
            role: self.what.role,
            part: self.what.part.clone(),
            container: self.what.name.clone(),
            state: self.state.clone(),
            health: self.health(),
            since_unix_ms: self.since_unix_ms,
            cause: match self.detached {
                true => Some("it is not on its network".to_owned()),
                false => self.cause.clone(),
            },
            restarts: self.restarts,
            oom_kills: self.oom.told,
            stopped_by_hand: self.by_hand.is_some(),
            crash_loop: self.mending.is_loop(now.at),
            next_try_unix_ms: next,
            last_failure: self.last_failure.clone(),
            usage: self.usage.filter(|_| runs),
            probe_millis: self.probe_millis,
            port: self.what.port,
            url: self.what.url.clone(),
            preview: self.preview.filter(|_| runs),
            error: self.error.clone(),
            tasks_open: self.tasks_open,
        }
    }
}
