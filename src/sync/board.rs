//! What the sync service knows, for whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::repository::{Changes, Checkout, Distance};
use super::strategy::Strategy;
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
    /// Two histories became one, as somebody asked; what went to a branch.
    Joined { strategy: Strategy, branch: Option<String> },
    /// A move to this commit had been cut off, and is finished.
    Mended(String),
    /// There is something new, and local work in its way.
    Conflict(Vec<Conflict>),
    /// Another branch is checked out, on purpose.
    Skipped(String),
    /// Git did not do what it was asked.
    Failed(String),
}

impl Outcome {
    /// Every name.
    pub(super) const NAMES: [&'static str; 11] = [
        "no_repository",
        "local_only",
        "up_to_date",
        "fast_forwarded",
        "rebased",
        "merged",
        "branched",
        "mended",
        "conflict",
        "skipped",
        "failed",
    ];

    /// Returns the word for it, in JSON and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NoRepository => "no_repository",
            Self::LocalOnly => "local_only",
            Self::UpToDate => "up_to_date",
            Self::FastForwarded => "fast_forwarded",
            Self::Joined { strategy, .. } => strategy.done(),
            Self::Mended(_) => "mended",
            Self::Conflict(_) => "conflict",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether files were moved.
    fn is_move(&self) -> bool {
        matches!(self, Self::FastForwarded | Self::Joined { .. } | Self::Mended(_))
    }
}

/// Why a checkout was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Tracked files are changed.
    Dirty { paths: Vec<String>, total: usize },
    /// Both sides have commits of their own, and these paths on both sides.
    Diverged { ahead: u64, behind: u64, paths: Vec<String>, rewritten: bool },
    /// New files of the remote would overwrite files that Git does not know.
    Untracked { paths: Vec<String> },
    /// Both sides changed these, so that no strategy can join them.
    Merge { paths: Vec<String> },
    /// A move was cut off, and somebody changed these since: they are neither as before
    /// it nor as after it.
    HalfMoved { paths: Vec<String>, total: usize },
    /// A lock of Git's, which nobody seems to hold any more.
    Locked { path: String },
}

/// How one worktree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) branch: String,
    pub(super) head: Option<String>,
    /// How far it is from the remote's branch, if that is known.
    pub(super) distance: Option<Distance>,
    pub(super) standing: Standing,
}

/// How a worktree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    UpToDate,
    /// It was moved forward just now.
    FastForwarded,
    /// It was made just now.
    Created,
    /// Two histories became one, as somebody asked; what went to a branch.
    Joined {
        strategy: Strategy,
        branch: Option<String>,
    },
    /// A move to this commit had been cut off, and is finished.
    Mended(String),
    Conflict(Vec<Conflict>),
    /// The remote has no such branch any more; the worktree stays.
    BranchGone,
    /// The remote has no such branch, and there is no worktree.
    NoBranch,
    Failed(String),
}

impl Standing {
    /// Returns the word for it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::FastForwarded => "fast_forwarded",
            Self::Created => "created",
            Self::Joined { strategy, .. } => strategy.done(),
            Self::Mended(_) => "mended",
            Self::Conflict(_) => "conflict",
            Self::BranchGone => "branch_gone",
            Self::NoBranch => "no_branch",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether files were moved.
    fn is_move(&self) -> bool {
        matches!(self, Self::FastForwarded | Self::Created | Self::Joined { .. } | Self::Mended(_))
    }
}

/// One finished cycle.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    pub(super) finished: Instant,
    pub(super) finished_at: Timestamp,
    pub(super) took: Duration,
    pub(super) checkout: Option<Checkout>,
    /// Absent if it looked at no file.
    pub(super) changes: Option<Changes>,
    pub(super) distance: Option<Distance>,
    /// Whether the remote answered.
    pub(super) fetched: bool,
    /// Branches whose history the remote has replaced.
    pub(super) rewritten: Vec<String>,
    /// Branches that the remote has no more.
    pub(super) missing: Vec<String>,
    pub(super) worktrees: Vec<Shown>,
    pub(super) outcome: Outcome,
}

impl Cycle {
    /// Whether a reader of the last one would want to know of this one.
    fn is_news(&self, last: Option<&Self>) -> bool {
        let head = |cycle: &Self| cycle.checkout.as_ref().and_then(|found| found.head.clone());
        self.outcome.is_move()
            || self.worktrees.iter().any(|shown| shown.standing.is_move())
            || last.is_none_or(|last| {
                last.outcome != self.outcome
                    || last.worktrees != self.worktrees
                    || last.missing != self.missing
                    || last.rewritten != self.rewritten
                    || head(last) != head(self)
            })
    }
}

/// What a look at every file found, or why there was none.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) finished: Instant,
    pub(super) changes: Result<Changes, String>,
}

/// How many cycles have ended, and how many of them the last look knows of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    cycles: u64,
    looked: u64,
}

#[derive(Debug, Default)]
struct Facts {
    cycle: Option<Cycle>,
    look: Option<Look>,
    fetched: Option<Instant>,
    last_error: Option<(Timestamp, String)>,
    mirror: Option<MirrorFacts>,
}

/// The cycle and the mirror write here, the HTTP side reads.
#[derive(Debug)]
pub(super) struct Board {
    facts: Mutex<Facts>,
    news: watch::Sender<u64>,
    marks: watch::Sender<Marks>,
}

impl Board {
    pub(super) fn new() -> Self {
        let marks = watch::Sender::new(Marks::default());
        Self { facts: Mutex::default(), news: watch::Sender::new(0), marks }
    }

    /// Notes a finished cycle.
    pub(super) fn cycled(&self, cycle: Cycle) {
        let mut facts = self.facts();
        if let Outcome::Failed(text) = &cycle.outcome {
            facts.last_error = Some((cycle.finished_at, text.clone()));
        }
        if cycle.fetched {
            facts.fetched = Some(cycle.finished);
        }
        let is_news = cycle.is_news(facts.cycle.as_ref());
        let has_looked = cycle.changes.is_some() || cycle.outcome == Outcome::NoRepository;
        if let Some(changes) = &cycle.changes {
            facts.look = Some(Look { finished: cycle.finished, changes: Ok(changes.clone()) });
        }
        facts.cycle = Some(cycle);
        drop(facts);
        self.marks.send_modify(|marks| {
            marks.cycles += 1;
            marks.looked = if has_looked { marks.cycles } else { marks.looked };
        });
        if is_news {
            self.news.send_modify(|number| *number += 1);
        }
    }

    /// Returns the last cycle.
    pub(super) fn cycle(&self) -> Option<Cycle> {
        self.facts().cycle.clone()
    }

    /// Returns once a cycle has ended after the last look, with how many have ended.
    pub(super) async fn unlooked(&self) -> u64 {
        let mut marks = self.marks.subscribe();
        let unlooked = marks.wait_for(|marks| marks.looked < marks.cycles).await;
        // The board itself holds the other end.
        unlooked.map_or(0, |marks| marks.cycles)
    }

    /// Notes a look that began when so many cycles had ended.
    pub(super) fn looked(&self, cycles: u64, look: Look) {
        let mut facts = self.facts();
        if let Err(text) = &look.changes {
            facts.last_error = Some((crate::service::system::now(), text.clone()));
        }
        facts.look = Some(look);
        drop(facts);
        self.marks.send_modify(|marks| marks.looked = marks.looked.max(cycles));
    }

    /// Returns once a look knows of every cycle that has ended by now.
    pub(super) async fn until_looked(&self) {
        let mut marks = self.marks.subscribe();
        let cycles = marks.borrow().cycles;
        let _ = marks.wait_for(|marks| marks.looked >= cycles).await;
    }

    /// Returns the last look.
    pub(super) fn look(&self) -> Option<Look> {
        self.facts().look.clone()
    }

    /// Returns the last look, if nothing has happened since.
    pub(super) fn fresh_look(&self) -> Option<Look> {
        let marks = *self.marks.borrow();
        self.look().filter(|_| marks.looked >= marks.cycles)
    }

    /// Returns when the remote answered last.
    pub(super) fn fetched(&self) -> Option<Instant> {
        self.facts().fetched
    }

    /// Returns what Git said last when it did not do what it was asked.
    pub(super) fn last_error(&self) -> Option<(Timestamp, String)> {
        self.facts().last_error.clone()
    }

    /// Counts what a reader wants to know of.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
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
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
