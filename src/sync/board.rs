//! What the sync service knows, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::repository::{Checkout, Distance};
use crate::service::mirror::MirrorFacts;

/// How a cycle ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The workspace is no Git repository.
    NoRepository,
    /// It is one, and there is nothing to fetch.
    LocalOnly,
    /// Nothing new on the remote.
    UpToDate,
    /// The checkout was moved forward.
    FastForwarded,
    /// There is something new, and local work in its way.
    Conflict(Vec<Conflict>),
    /// Another branch is checked out, on purpose.
    Skipped(String),
    /// Git did not do what it was asked.
    Failed(String),
}

impl Outcome {
    /// Returns the word for it, in JSON and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NoRepository => "no_repository",
            Self::LocalOnly => "local_only",
            Self::UpToDate => "up_to_date",
            Self::FastForwarded => "fast_forwarded",
            Self::Conflict(_) => "conflict",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }
}

/// Why the checkout was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Tracked files are changed.
    Dirty { paths: Vec<String>, total: usize },
    /// Both sides have commits of their own.
    Diverged { ahead: u64, behind: u64 },
    /// New files of the remote would overwrite files that Git does not know.
    Untracked { paths: Vec<String> },
}

/// One finished cycle.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    pub(super) finished: Instant,
    pub(super) finished_at: Timestamp,
    pub(super) took: Duration,
    pub(super) checkout: Option<Checkout>,
    pub(super) distance: Option<Distance>,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Default)]
struct Facts {
    cycle: Option<Cycle>,
    mirror: Option<MirrorFacts>,
}

/// The cycle and the mirror write here, the HTTP side reads.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Facts>);

impl Board {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Notes a finished cycle.
    pub(super) fn cycled(&self, cycle: Cycle) {
        self.facts().cycle = Some(cycle);
    }

    /// Returns the last cycle.
    pub(super) fn cycle(&self) -> Option<Cycle> {
        self.facts().cycle.clone()
    }

    /// Notes how the mirror stands.
    pub(super) fn mirrored(&self, facts: MirrorFacts) {
        self.facts().mirror = Some(facts);
    }

    /// Returns how the mirror stands.
    pub(super) fn mirror(&self) -> Option<MirrorFacts> {
        self.facts().mirror.clone()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
