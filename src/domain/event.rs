//! Facts told to the outside.

mod types;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::types::EVENT_TYPES;
use super::agent_task::{AgentTask, AgentTaskFact};
use super::failure::Failure;
use super::health::{EndReason, Reconciled, TeamPicture};
use super::ids::{HostId, JobId, PartName, TeamId};
use super::job::ActionKind;
use super::plan::Role;
use super::step::StepId;

/// The state of a team as a dashboard shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TeamState {
    /// A start is running.
    Starting,
    /// Every part is healthy.
    Running,
    /// Some parts are.
    Degraded,
    /// A stop is running.
    Stopping,
    /// No containers; workspace and volumes are there.
    Stopped,
    /// The last run ended badly and nothing runs, or undo failed.
    Failed,
    /// Nothing is left.
    Destroyed,
}

impl TeamState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Running,
        Self::Degraded,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Destroyed,
    ];

    /// The state's name in event types, records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == raw)
    }
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerFact {
    /// It runs.
    Started,
    /// It runs again.
    Restarted,
    /// It ended.
    Exited,
    /// The kernel ended something in it for memory.
    Oom,
    /// Its probe fails.
    Unhealthy,
    /// Its probe passes.
    Healthy,
}

impl ContainerFact {
    /// The fact's name in event types.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Restarted => "restarted",
            Self::Exited => "exited",
            Self::Oom => "oom",
            Self::Unhealthy => "unhealthy",
            Self::Healthy => "healthy",
        }
    }
}

/// What a preview does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreviewFact {
    /// Its dependencies are being installed.
    Installing,
    /// Its dev server starts.
    Starting,
    /// The dev server listens and has not answered yet.
    Compiling,
    /// The page is served.
    Ready,
    /// The page answers with errors, or the dev server ended.
    Failing,
}

impl PreviewFact {
    /// The fact's name in event types.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Starting => "starting",
            Self::Compiling => "compiling",
            Self::Ready => "ready",
            Self::Failing => "failing",
        }
    }
}

/// One container in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart {
    /// What it is for.
    pub role: Role,
    /// Which agent or preview.
    pub part: Option<PartName>,
    /// `running`, `exited`, `created`, ...: the Engine's word.
    pub state: String,
    /// The preview's link.
    pub url: Option<String>,
    /// What the preview does, if it is one and was looked at.
    pub preview: Option<PreviewFact>,
    /// What is wrong with it, if it fails.
    pub error: Option<String>,
}

/// All that a dashboard needs about a team at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The team's state.
    pub state: TeamState,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Its containers.
    pub parts: Vec<SnapshotPart>,
    /// How it is, if the worker watches it.
    pub picture: Option<Box<TeamPicture>>,
}

impl Snapshot {
    /// Of a team of which there is nothing.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self { state: TeamState::Stopped, generation: 0, parts: Vec::new(), picture: None }
    }
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The job was taken on.
    JobAccepted {
        /// What it asks for.
        action: ActionKind,
        /// Its place among the waiting ones, 0 when it runs at once.
        position: u32,
        /// The resource it waits for.
        short: Option<String>,
    },
    /// The job is not valid.
    JobRejected {
        /// Why.
        failure: Failure,
    },
    /// A platform fault; the job is tried again.
    JobRetrying {
        /// What went wrong.
        failure: Failure,
        /// When it is tried again.
        delay: Duration,
    },
    /// Taken back because of a later job.
    JobCancelled {
        /// The later job.
        by: Option<JobId>,
    },
    /// Overtaken by a later start.
    JobSuperseded {
        /// The later job.
        by: Option<JobId>,
    },
    /// The job is done.
    JobSucceeded {
        /// What it asked for.
        action: ActionKind,
        /// Whether anything had to be done.
        changed: bool,
        /// From delivery to the end.
        duration: Duration,
        /// Preview name to link.
        links: BTreeMap<PartName, String>,
        /// For people: "nothing to do", or what changed.
        message: String,
    },
    /// The job is not done.
    JobFailed {
        /// What it asked for.
        action: ActionKind,
        /// Why.
        failure: Failure,
        /// Whether what it began was taken back.
        undone: bool,
    },
    /// A step began.
    StepStarted {
        /// Which.
        step: StepId,
    },
    /// A step says what it is doing.
    StepProgress {
        /// Which.
        step: StepId,
        /// What it is doing now.
        message: String,
    },
    /// A step is done.
    StepFinished {
        /// Which.
        step: StepId,
        /// How long it took.
        duration: Duration,
        /// What came of it, for people.
        message: String,
    },
    /// A step failed.
    StepFailed {
        /// Which.
        step: StepId,
        /// How long it took.
        duration: Duration,
        /// Why.
        failure: Failure,
    },
    /// The team's state changed.
    Team {
        /// To what.
        state: TeamState,
        /// Why, for people.
        cause: String,
        /// Preview name to link, of a running team.
        links: BTreeMap<PartName, String>,
    },
    /// All about a team at one moment.
    TeamSnapshot(Snapshot),
    /// Something happened to a container.
    Container {
        /// What.
        fact: ContainerFact,
        /// What it is for.
        role: Role,
        /// Which agent or preview.
        part: Option<PartName>,
        /// Why, for people.
        cause: String,
        /// How it ended.
        exit_code: Option<i64>,
        /// The last lines of its output, if they say why.
        log: Vec<String>,
    },
    /// The team will be stopped by itself.
    TeamExpiring {
        /// Why.
        reason: EndReason,
        /// In how long, unless somebody starts it again.
        left: Duration,
    },
    /// Something happened to a preview.
    Preview {
        /// What.
        fact: PreviewFact,
        /// Which.
        preview: PartName,
        /// Its link.
        url: Option<String>,
        /// What is wrong, if it fails: the first line that says so.
        error: Option<String>,
    },
    /// Something happened to a task of an agent.
    AgentTask {
        /// What.
        fact: AgentTaskFact,
        /// The task as it is now.
        task: AgentTask,
    },
    /// The workspace was brought in step with Git.
    SyncSynced {
        /// The commit it is at.
        head: Option<String>,
    },
    /// Local work is in the way; nothing was touched.
    SyncConflict {
        /// What is in the way.
        message: String,
        /// Local commits that the remote lacks.
        ahead: Option<u64>,
        /// Commits of the remote that are not here.
        behind: Option<u64>,
        /// The first files in the way.
        paths: Vec<String>,
    },
    /// Git failed.
    SyncFailed {
        /// Why.
        failure: Failure,
    },
    /// The worker is ready.
    HostUp {
        /// Which host.
        host: HostId,
        /// Its version.
        version: String,
    },
    /// The worker finishes what runs and leaves.
    HostDraining {
        /// Which host.
        host: HostId,
    },
    /// The dispatcher has not heard a host for too long. Its jobs wait.
    HostLost {
        /// Which host.
        host: HostId,
        /// How long it has been silent.
        silent: Duration,
    },
    /// The worker came and knows what it found.
    HostReconciled {
        /// Which host.
        host: HostId,
        /// What it found.
        found: Reconciled,
    },
}

impl EventKind {
    /// The event's type with the prefix `covibes.`.
    #[must_use]
    pub fn type_name(&self) -> String {
        let tail = match self {
            Self::JobAccepted { .. } => "job.accepted",
            Self::JobRejected { .. } => "job.rejected",
            Self::JobRetrying { .. } => "job.retrying",
            Self::JobCancelled { .. } => "job.cancelled",
            Self::JobSuperseded { .. } => "job.superseded",
            Self::JobSucceeded { .. } => "job.succeeded",
            Self::JobFailed { .. } => "job.failed",
            Self::StepStarted { .. } => "step.started",
            Self::StepProgress { .. } => "step.progress",
            Self::StepFinished { .. } => "step.finished",
            Self::StepFailed { .. } => "step.failed",
            Self::Team { state, .. } => return format!("covibes.team.{}", state.as_str()),
            Self::TeamSnapshot(_) => "team.snapshot",
            Self::TeamExpiring { .. } => "team.expiring",
            Self::Container { fact, .. } => return format!("covibes.container.{}", fact.as_str()),
            Self::Preview { fact, .. } => return format!("covibes.preview.{}", fact.as_str()),
            Self::AgentTask { fact, .. } => return format!("covibes.agent.task.{}", fact.as_str()),
            Self::SyncSynced { .. } => "sync.synced",
            Self::SyncConflict { .. } => "sync.conflict",
            Self::SyncFailed { .. } => "sync.failed",
            Self::HostUp { .. } => "host.up",
            Self::HostDraining { .. } => "host.draining",
            Self::HostLost { .. } => "host.lost",
            Self::HostReconciled { .. } => "host.reconciled",
        };
        format!("covibes.{tail}")
    }

    /// Whether this is the last event of its job.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::JobRejected { .. }
                | Self::JobCancelled { .. }
                | Self::JobSuperseded { .. }
                | Self::JobSucceeded { .. }
                | Self::JobFailed { .. }
        )
    }
}

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A team.
    Team(TeamId),
    /// A host.
    Host(HostId),
}

/// A fact with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Derived from job, attempt and fact: a repeat carries the same one.
    pub id: String,
    /// Whom it is about.
    pub subject: Subject,
    /// Which worker says so.
    pub host: HostId,
    /// When, in unix milliseconds.
    pub time_unix_ms: i64,
    /// Strictly increasing per team; absent on answers of the dispatcher.
    pub sequence: Option<u64>,
    /// The sequence of the team's event before it.
    pub sequence_previous: Option<u64>,
    /// The job it belongs to.
    pub job: Option<JobId>,
    /// What it says.
    pub kind: EventKind,
}

impl Event {
    /// `team.<team>.<type>` or `host.<host>.<type>`, `<type>` without `covibes.`.
    #[must_use]
    pub fn routing_key(&self) -> String {
        let type_name = self.kind.type_name();
        let tail = type_name.trim_start_matches("covibes.");
        match &self.subject {
            Subject::Team(team) => format!("team.{team}.{tail}"),
            Subject::Host(host) => format!("host.{host}.{tail}"),
        }
    }
}

/// An event as it leaves: `wire` made the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The event's id, also the message id.
    pub id: String,
    /// The routing key.
    pub routing_key: String,
    /// CloudEvents 1.0, structured mode.
    pub body: String,
}

impl EncodedEvent {
    /// The event's type, without `covibes.`: neither teams nor hosts have a dot in them.
    #[must_use]
    pub fn short_type(&self) -> &str {
        self.routing_key.splitn(3, '.').nth(2).unwrap_or_default()
    }
}
