//! A message that asks for something.

use super::ids::{JobId, TeamId};
use super::spec::Spec;

/// A checked job. `wire` is the only way from bytes to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The publisher's id; a repeat carries the same one.
    pub id: JobId,
    /// The team it is for.
    pub team: TeamId,
    /// What is asked for.
    pub action: Action,
    /// When the publisher made it: information, never an order.
    pub issued_at: String,
    /// A deadline of the publisher's, in unix milliseconds.
    pub deadline_unix_ms: Option<i64>,
    /// Raised by `dlq requeue`; 1 on first publication.
    pub attempt: u32,
    /// W3C trace context of whoever published it.
    pub traceparent: Option<String>,
    /// What vendors add to it; never without `traceparent`.
    pub tracestate: Option<String>,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make it so.
    Start(Box<Spec>),
    /// Remove containers and networks; keep workspace and volumes.
    Stop,
    /// Restart the targets, or everything if there are none.
    Restart {
        /// Names of agents and previews, or `sync`.
        targets: Vec<String>,
    },
    /// Run Git now.
    Sync,
    /// Publish a snapshot.
    Status,
    /// Remove everything that Covibes created.
    Destroy,
}

/// The name of an action, as routing key, label and lane rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// See [`Action::Start`].
    Start,
    /// See [`Action::Stop`].
    Stop,
    /// See [`Action::Restart`].
    Restart,
    /// See [`Action::Sync`].
    Sync,
    /// See [`Action::Status`].
    Status,
    /// See [`Action::Destroy`].
    Destroy,
}

impl ActionKind {
    /// Every action.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Stop, Self::Restart, Self::Sync, Self::Status, Self::Destroy];

    /// The action's name in routing keys, events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Sync => "sync",
            Self::Status => "status",
            Self::Destroy => "destroy",
        }
    }

    /// The action of that name.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == raw)
    }

    /// Whether a job of this kind behind a running start takes it back.
    #[must_use]
    pub fn cancels_a_start(self) -> bool {
        match self {
            Self::Stop | Self::Restart | Self::Destroy => true,
            Self::Start | Self::Sync | Self::Status => false,
        }
    }
}

impl Action {
    /// The action's name.
    #[must_use]
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Start(_) => ActionKind::Start,
            Self::Stop => ActionKind::Stop,
            Self::Restart { .. } => ActionKind::Restart,
            Self::Sync => ActionKind::Sync,
            Self::Status => ActionKind::Status,
            Self::Destroy => ActionKind::Destroy,
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done. `changed` is false when nothing had to be done.
    Succeeded {
        /// Whether anything was done.
        changed: bool,
    },
    /// Not done.
    Failed(super::failure::Failure),
    /// Taken back because of a later stop, restart or destroy.
    Cancelled,
    /// Overtaken by a later start, which goes on from what exists.
    Superseded,
}

impl Outcome {
    /// The outcome's name in events and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }
}
