//! What the supervisor knows about the dev server, for whoever asks.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;

use super::errors::ErrorLine;
use super::sockets::{self, ListeningSocket};
use super::system;
use super::watching::{self, Watching};
use crate::service::mirror::{MirrorFacts, MirrorState};
use crate::service::system::now;
use crate::service::watch::WatchMode;

/// As many lines as an event carries, and a person reads.
const LOG_LINES_MAX: usize = 100;

/// How the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    NotStarted(String),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::NotStarted("it ended in an unknown way".to_owned()),
        }
    }
}

/// What the server does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its process may live; nothing listens on the wanted port.
    Starting { pid: Option<u32> },
    /// Its process lives and something listens on the wanted port.
    Running { pid: Option<u32> },
    /// Its process ended.
    Failing,
}

#[derive(Debug)]
struct Facts {
    stage: Stage,
    since: Timestamp,
    last_exit: Option<Exit>,
    starts: u64,
    log: VecDeque<String>,
    /// Lines of output since the supervisor began.
    lines: u64,
    error: ErrorLine,
    /// Whether only a changed file starts it again.
    gave_up: bool,
    watching: Watching,
    mirror: Option<MirrorFacts>,
}

/// The supervisor writes here, the HTTP side reads.
#[derive(Debug)]
pub(super) struct Board {
    port: u16,
    own_port: u16,
    health: String,
    facts: Mutex<Facts>,
    out_of_watches: Notify,
}

impl Board {
    /// Makes a board for a server that should listen on `port`.
    pub(super) fn new(port: u16, own_port: u16, health: String) -> Self {
        let facts = Facts {
            stage: Stage::Starting { pid: None },
            since: now(),
            last_exit: None,
            starts: 0,
            log: VecDeque::new(),
            lines: 0,
            error: ErrorLine::default(),
            gave_up: false,
            watching: Watching::Inotify,
            mirror: None,
        };
        Self { port, own_port, health, facts: Mutex::new(facts), out_of_watches: Notify::new() }
    }

    /// Notes that the server was started.
    pub(super) fn started(&self, pid: Option<u32>) {
        let mut facts = self.facts();
        facts.starts += 1;
        facts.error = ErrorLine::default();
        facts.gave_up = false;
        Self::enter(&mut facts, Stage::Starting { pid });
    }

    /// Notes that the server ended, or could not be started.
    pub(super) fn failed(&self, exit: Exit) {
        let mut facts = self.facts();
        facts.last_exit = Some(exit);
        Self::enter(&mut facts, Stage::Failing);
    }

    /// Notes that only a changed file will start the server again.
    pub(super) fn gave_up(&self) {
        self.facts().gave_up = true;
    }

    /// Notes how the server notices changes.
    pub(super) fn watches_by(&self, watching: Watching) {
        self.facts().watching = watching;
    }

    /// Resolves when the output says that the watches ran out.
    ///
    /// # Cancellation
    /// Safe: it is not forgotten until somebody has seen it.
    pub(super) async fn out_of_watches(&self) {
        self.out_of_watches.notified().await;
    }

    /// Whether the output said so and nobody has seen it yet; asked once.
    pub(super) fn ran_out_of_watches(&self) -> bool {
        self.out_of_watches().now_or_never().is_some()
    }

    /// Notes how the copy of the workspace stands.
    pub(super) fn mirrored(&self, mirror: MirrorFacts) {
        self.facts().mirror = Some(mirror);
    }

    /// Keeps a line of the server's output.
    pub(super) fn log(&self, line: String) {
        if watching::is_limit(&line) {
            self.out_of_watches.notify_one();
        }
        let mut facts = self.facts();
        facts.lines += 1;
        facts.error.see(&line, now());
        if facts.log.len() == LOG_LINES_MAX {
            facts.log.pop_front();
        }
        facts.log.push_back(line);
    }

    /// Returns the last lines of output, oldest first.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.facts().log.iter().cloned().collect()
    }

    /// Looks at the listening sockets; true if the server runs.
    pub(super) fn observe(&self) -> bool {
        self.look(&sockets::listening());
        matches!(self.facts().stage, Stage::Running { .. })
    }

    /// Looks, and tells all.
    pub(super) fn report(&self) -> StateBody {
        let listening = sockets::listening();
        self.look(&listening);
        let facts = self.facts();
        let (state, pid) = match facts.stage {
            Stage::Starting { pid } => (StateName::Starting, pid),
            Stage::Running { pid } => (StateName::Running, pid),
            Stage::Failing => (StateName::Failing, None),
        };
        let (exit_code, signal, error) = match facts.last_exit.clone() {
            None => (None, None, None),
            Some(Exit::Code(code)) => (Some(code), None, None),
            Some(Exit::Signal(signal)) => (None, Some(signal), None),
            Some(Exit::NotStarted(error)) => (None, None, Some(error)),
        };
        StateBody {
            state,
            pid,
            exit_code,
            signal,
            error,
            error_line: facts.error.get().map(str::to_owned),
            gave_up: facts.gave_up,
            lines: facts.lines,
            restarts: facts.starts.saturating_sub(1),
            health: self.health.clone(),
            polling: match &facts.watching {
                Watching::Inotify => None,
                Watching::Polling { reason } => Some(reason.clone()),
            },
            since_unix_ms: facts.since.as_millisecond(),
            port: self.port,
            listening: listening
                .iter()
                .filter(|socket| socket.port != self.own_port)
                .map(|socket| SocketBody { address: socket.address.to_string(), port: socket.port })
                .collect(),
            mirror: facts.mirror.as_ref().map(MirrorBody::of),
            memory_bytes: system::memory_bytes(),
        }
    }

    fn look(&self, listening: &[ListeningSocket]) {
        let wanted = listening.iter().any(|socket| socket.port == self.port);
        let mut facts = self.facts();
        match (facts.stage, wanted) {
            (Stage::Starting { pid: Some(pid) }, true) => {
                Self::enter(&mut facts, Stage::Running { pid: Some(pid) });
            }
            (Stage::Running { pid }, false) => Self::enter(&mut facts, Stage::Starting { pid }),
            (Stage::Starting { .. } | Stage::Running { .. } | Stage::Failing, _) => {}
        }
    }

    fn enter(facts: &mut Facts, stage: Stage) {
        facts.stage = stage;
        facts.since = now();
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StateName {
    Starting,
    Running,
    Failing,
}

/// The body of `GET /state` and `GET /health`.
#[derive(Debug, Serialize)]
pub(super) struct StateBody {
    pub(super) state: StateName,
    pid: Option<u32>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    /// The line of the output that says what is wrong.
    error_line: Option<String>,
    /// Only a changed file starts it again.
    gave_up: bool,
    /// Lines of output so far; a server that still says something is at work.
    lines: u64,
    restarts: u64,
    /// How the page is asked whether it is there.
    health: String,
    /// Why the server polls for changes, if it does.
    polling: Option<String>,
    since_unix_ms: i64,
    port: u16,
    listening: Vec<SocketBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<MirrorBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// How the copy of the workspace stands.
#[derive(Debug, Serialize)]
struct MirrorBody {
    state: &'static str,
    mode: &'static str,
    entries: usize,
    copied: u64,
    deleted: u64,
    warnings: usize,
    /// Why the copy does not follow, or the first entry that it lacks.
    reason: Option<String>,
}

impl MirrorBody {
    fn of(facts: &MirrorFacts) -> Self {
        let first =
            facts.warnings.first().map(|(path, reason)| format!("{}: {reason}", path.display()));
        let (state, reason) = match &facts.state {
            MirrorState::Starting => ("starting", None),
            MirrorState::InStep => ("in_step", first),
            MirrorState::Failed(reason) => ("failed", Some(reason.clone())),
        };
        let mode = match facts.mode {
            WatchMode::Inotify => "inotify",
            WatchMode::Polling { .. } => "polling",
        };
        let MirrorFacts { entries, copied, deleted, warnings_total: warnings, .. } = *facts;
        Self { state, mode, entries, copied, deleted, warnings, reason }
    }
}

#[derive(Debug, Serialize)]
struct SocketBody {
    address: String,
    port: u16,
}
