//! What the supervisor knows about the dev server, for whoever asks.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::sockets::ListeningSocket;
use super::system;
use crate::service::system::now;

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
}

/// The supervisor writes here, the HTTP side reads.
#[derive(Debug)]
pub(super) struct Board {
    port: u16,
    own_port: u16,
    facts: Mutex<Facts>,
}

impl Board {
    /// Makes a board for a server that should listen on `port`.
    pub(super) fn new(port: u16, own_port: u16) -> Self {
        let facts = Facts {
            stage: Stage::Starting { pid: None },
            since: now(),
            last_exit: None,
            starts: 0,
            log: VecDeque::new(),
        };
        Self { port, own_port, facts: Mutex::new(facts) }
    }

    /// Notes that the server was started.
    pub(super) fn started(&self, pid: Option<u32>) {
        let mut facts = self.facts();
        facts.starts += 1;
        Self::enter(&mut facts, Stage::Starting { pid });
    }

    /// Notes that the server ended, or could not be started.
    pub(super) fn failed(&self, exit: Exit) {
        let mut facts = self.facts();
        facts.last_exit = Some(exit);
        Self::enter(&mut facts, Stage::Failing);
    }

    /// Keeps a line of the server's output.
    pub(super) fn log(&self, line: String) {
        let mut facts = self.facts();
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
        self.look(&system::listening());
        matches!(self.facts().stage, Stage::Running { .. })
    }

    /// Looks, and tells all.
    pub(super) fn report(&self) -> StateBody {
        let listening = system::listening();
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
            restarts: facts.starts.saturating_sub(1),
            since_unix_ms: facts.since.as_millisecond(),
            port: self.port,
            listening: listening
                .iter()
                .filter(|socket| socket.port != self.own_port)
                .map(|socket| SocketBody { address: socket.address.to_string(), port: socket.port })
                .collect(),
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
    restarts: u64,
    since_unix_ms: i64,
    port: u16,
    listening: Vec<SocketBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SocketBody {
    address: String,
    port: u16,
}
