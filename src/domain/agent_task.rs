//! A task of an agent, as its team hears of it.

use uuid::Uuid;

use super::ids::PartName;

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentTaskState {
    /// It waits for its turn.
    Queued,
    /// The CLI works on it.
    Running,
    /// The CLI did it.
    Succeeded,
    /// It did not.
    Failed,
    /// Somebody asked for the end.
    Cancelled,
    /// The agent ended first.
    Interrupted,
}

impl AgentTaskState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// The state's name, in the agent's API and in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == raw)
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted => true,
        }
    }
}

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentTaskFact {
    /// The CLI began.
    Started,
    /// It has come further.
    Progress,
    /// It is over.
    Finished,
}

impl AgentTaskFact {
    /// Every fact.
    pub const ALL: [Self; 3] = [Self::Started, Self::Progress, Self::Finished];

    /// The fact's name in event types.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Finished => "finished",
        }
    }
}

/// A task as its agent shows it, without output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTask {
    /// Whose task.
    pub agent: PartName,
    /// Its id.
    pub id: Uuid,
    /// Where it is.
    pub state: AgentTaskState,
    /// How its prompt begins.
    pub prompt: String,
    /// Answers of the model so far.
    pub turns: u64,
    /// Tokens that the model read.
    pub input_tokens: u64,
    /// Tokens that it wrote.
    pub output_tokens: u64,
    /// What it cost, in millionths of a dollar.
    pub cost_micro_usd: Option<u64>,
    /// What the model said last.
    pub message: Option<String>,
    /// Why it failed: a word of the agent's API.
    pub error: Option<String>,
    /// How the CLI ended.
    pub exit_code: Option<i32>,
}
