//! A task: what was asked, and how it went.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::output::Written;
use super::stream::Progress;

/// A list, and an event, show how a prompt begins.
pub(super) const PROMPT_CHARACTERS_SHOWN: usize = 500;

/// A task's id; it sorts by time.
pub(super) type TaskId = Uuid;

/// What was asked, checked.
#[derive(Debug, Clone)]
pub(super) struct TaskRequest {
    pub(super) prompt: String,
    pub(super) model: Option<String>,
    pub(super) allowed_tools: Vec<String>,
    pub(super) max_turns: Option<u32>,
    pub(super) timeout: Duration,
    /// The session that the CLI takes up again.
    pub(super) resume: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The CLI did it.
    Succeeded,
    /// It did not.
    Failed(Failure),
    /// Somebody asked for the end.
    Cancelled,
    /// The service ended first.
    Interrupted,
}

/// Why a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It took longer than allowed.
    Timeout,
    /// The CLI could not be started.
    CliMissing,
    /// The CLI ended with a failing status.
    CliFailed,
    /// The CLI ended well and said that the task failed.
    CliError,
    /// It asked for a login, and no secret is its key.
    NoKey,
    /// The CLI ended without a result.
    NoResult,
    /// A secret file could not be read.
    Secrets,
    /// The output could not be kept.
    Output,
}

impl Failure {
    /// Every failure.
    pub(super) const ALL: [Self; 8] = [
        Self::Timeout,
        Self::CliMissing,
        Self::CliFailed,
        Self::CliError,
        Self::NoKey,
        Self::NoResult,
        Self::Secrets,
        Self::Output,
    ];

    /// Returns the code, from a closed list, and a text for people.
    pub(super) fn explain(self) -> (&'static str, &'static str) {
        match self {
            Self::Timeout => ("task.timeout", "The task took longer than its timeout"),
            Self::CliMissing => ("task.cli_missing", "The claude CLI could not be started"),
            Self::CliFailed => ("task.cli_failed", "The claude CLI exited with an error"),
            Self::CliError => ("task.cli_error", "The claude CLI reported an error"),
            Self::NoKey => (
                "task.no_key",
                "The agent has no key for its API: give its job a secret ANTHROPIC_API_KEY \
                 (`--secret`, or `secrets` of the agent)",
            ),
            Self::NoResult => ("task.no_result", "The claude CLI ended without a result"),
            Self::Secrets => ("task.secrets", "A secret of this agent could not be read"),
            Self::Output => ("task.output", "The output directory of this agent is unusable"),
        }
    }
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Queued,
    Running { started: Timestamp },
    Over { started: Option<Timestamp>, finished: Timestamp, outcome: Outcome },
}

impl TaskState {
    /// When it began, when it ended, and how.
    pub(super) fn parts(self) -> (Option<Timestamp>, Option<Timestamp>, Option<Outcome>) {
        match self {
            Self::Queued => (None, None, None),
            Self::Running { started } => (Some(started), None, None),
            Self::Over { started, finished, outcome } => (started, Some(finished), Some(outcome)),
        }
    }
}

/// How the CLI's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CliExit {
    Code(i32),
    Signal(i32),
}

/// How much of a task the team's events have told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// That it began.
    Started,
    /// That it ended.
    Finished,
}

/// A task and all that is known of it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) request: TaskRequest,
    pub(super) created: Timestamp,
    pub(super) state: TaskState,
    pub(super) progress: Progress,
    pub(super) exit: Option<CliExit>,
    pub(super) stderr: Vec<String>,
    pub(super) cancel: CancellationToken,
    pub(super) written: watch::Sender<Written>,
    pub(super) told: Told,
    /// Whether it is kept only until its end is told, and its output is gone.
    pub(super) is_emptied: bool,
    /// The count of all changes when this task changed last.
    pub(super) version: u64,
}

impl Task {
    /// Lets go of all that nobody needs to be told of its end.
    pub(super) fn empty(&mut self) {
        self.is_emptied = true;
        self.request.prompt = self.request.prompt.chars().take(PROMPT_CHARACTERS_SHOWN).collect();
        self.stderr.clear();
        self.written.send_modify(|written| {
            written.truncated |= written.bytes > 0;
            (written.lines, written.bytes) = (0, 0);
        });
    }

    /// Tells whether nothing more will happen to it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, TaskState::Over { .. })
    }
}
