//! How a team is at this moment, as its host sees it: the picture that the
//! worker keeps in memory, shows to whoever asks, and tells in snapshots.

use super::event::{PreviewFact, TeamState};
use super::ids::{PartName, TeamId};
use super::names::ContainerName;
use super::plan::Role;

/// How a part of a team is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PartHealth {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It runs and was never well since.
    Starting,
    /// Its probe passes.
    Healthy,
    /// It runs, and its probe fails.
    Unhealthy,
    /// It does not run.
    Down,
}

impl PartHealth {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Starting, Self::Healthy, Self::Unhealthy, Self::Down];

    /// Its name in events and pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Down => "down",
        }
    }

    /// Whether the part does its work, as far as is known: what nobody has looked
    /// at yet was well when its start ended.
    #[must_use]
    pub fn is_well(self) -> bool {
        match self {
            Self::Unknown | Self::Starting | Self::Healthy => true,
            Self::Unhealthy | Self::Down => false,
        }
    }
}

/// What a part uses of what it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartUse {
    /// Bytes of memory in use, without what the kernel would give back at once.
    pub memory_bytes: u64,
    /// Bytes of memory that it may have.
    pub memory_bytes_max: Option<u64>,
    /// Thousandths of a CPU over the last interval; nothing until the second look.
    pub cpu_millis: Option<u64>,
    /// Thousandths of a CPU that it may have.
    pub cpu_millis_max: Option<u64>,
    /// Share of the scheduler's periods in which it had to wait, in percent.
    pub throttled_percent: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// How a part failed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFailure {
    /// When, in unix milliseconds.
    pub at_unix_ms: i64,
    /// What it was, for people.
    pub cause: String,
    /// How its process ended, if it did.
    pub exit_code: Option<i64>,
}

/// One part of a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartPicture {
    /// What it is for.
    pub role: Role,
    /// Which agent or preview.
    pub part: Option<PartName>,
    /// Its container.
    pub container: ContainerName,
    /// The Engine's word: `running`, `exited`, ...; `absent` if there is none.
    pub state: String,
    /// How it is.
    pub health: PartHealth,
    /// Since when it is so, in unix milliseconds.
    pub since_unix_ms: i64,
    /// What is wrong with it, for people.
    pub cause: Option<String>,
    /// How often it was started again, by Docker or by the worker, since the
    /// worker knows it.
    pub restarts: u64,
    /// How often the kernel ended something in it for memory.
    pub oom_kills: u64,
    /// Somebody stopped it, past the worker; it is left so until a job or that
    /// person starts it.
    pub stopped_by_hand: bool,
    /// It ends again and again.
    pub crash_loop: bool,
    /// When it is started again, in unix milliseconds, if it is to be.
    pub next_try_unix_ms: Option<i64>,
    /// How it failed last.
    pub last_failure: Option<PartFailure>,
    /// What it uses.
    pub usage: Option<PartUse>,
    /// How long its last probe took, in milliseconds.
    pub probe_millis: Option<u64>,
    /// The host port of a preview.
    pub port: Option<u16>,
    /// The link of a preview.
    pub url: Option<String>,
    /// What a preview does.
    pub preview: Option<PreviewFact>,
    /// The line that says what is wrong with a preview.
    pub error: Option<String>,
    /// Tasks of an agent that run or wait.
    pub tasks_open: Option<u64>,
}

/// One team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamPicture {
    /// Which.
    pub team: TeamId,
    /// How it is: `running` when every part is well, `degraded` when some are,
    /// `failed` when none is; else the state that its last job left.
    pub state: TeamState,
    /// Since when, in unix milliseconds.
    pub since_unix_ms: i64,
    /// Why, for people.
    pub cause: String,
    /// Whether its parts should run.
    pub wanted: bool,
    /// Whether a job is at work on it.
    pub busy: bool,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Its parts: those that should be, and those that are.
    pub parts: Vec<PartPicture>,
    /// Networks and mounts that should be there and are not.
    pub missing: Vec<String>,
    /// When its `ttl` ends it, in unix milliseconds.
    pub ttl_ends_unix_ms: Option<i64>,
    /// When `idle_stop` ends it unless something happens, in unix milliseconds.
    pub idle_ends_unix_ms: Option<i64>,
    /// When this was true, in unix milliseconds.
    pub observed_unix_ms: i64,
}

/// How the host's Docker daemon answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineLook {
    /// Whether the last listing was answered.
    pub is_up: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Whether its stream of events is open.
    pub is_followed: bool,
}

/// Why a team will be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Its `ttl`.
    Ttl,
    /// Its `idle_stop`.
    Idle,
}

impl EndReason {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ttl, Self::Idle];

    /// Its name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Idle => "idle",
        }
    }

    /// What is told when it has ended the team.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Ttl => "its `ttl` is over",
            Self::Idle => "nothing happened in it for as long as `idle_stop` says",
        }
    }
}

/// What a worker found of its teams when it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Teams that run as they should.
    pub adopted: u64,
    /// Teams of which something is started again.
    pub restarting: u64,
    /// Teams that are stopped, as they should be.
    pub stopped: u64,
    /// Things that nobody owns, and which are removed if that stays so.
    pub orphans: u64,
}
