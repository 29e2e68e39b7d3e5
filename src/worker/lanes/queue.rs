//! What a new job does to the jobs before it in its lane. No effect but on the
//! running job's interrupter.
//!
//! | new job | a running start | waiting jobs |
//! |---|---|---|
//! | stop, destroy | is cancelled | starts, restarts and syncs before it are skipped as cancelled |
//! | restart | is cancelled | stay |
//! | start | is superseded, unless it asks for the same and nothing lies between: then it joins | starts right before it are skipped as superseded, unless both join |
//! | sync | goes on | a sync right before it is skipped as superseded |
//!
//! A start that joins has no run of its own: it ends as the running one does
//! (ADR 0016). It stays among the waiting ones, so that a later job can still
//! overtake it, and runs after all if the running one was interrupted. A start
//! that only tells its recorded end again cannot be joined: that end may be a
//! cancel, with no team to show for it. Nor can a mending, which leaves alone what
//! somebody stopped by hand: a start overtakes it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LanesConfig;
use crate::domain::ids::JobId;
use crate::domain::job::{Action, ActionKind, Job};
use crate::domain::spec::Spec;
use crate::pipeline::interrupt::{Interrupter, Reason};
use crate::ports::messages::Settle;

/// Deliveries of one job that wait for its end. The dispatcher repeats a
/// forward at most once per crash; more come from a publisher in a loop.
const DUPLICATES_MAX: usize = 16;

/// A requeued job is another one than its earlier attempt.
pub(super) type Key = (JobId, u32);

/// One team's jobs.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) running: Option<Running>,
    pub(super) waiting: VecDeque<Entry>,
    /// Told when `waiting` changes.
    pub(super) changed: Arc<Notify>,
    /// Cancelled when the lane ends: everything it was given has ended.
    pub(super) ended: CancellationToken,
    /// What is told beside the run of this team, one at a time.
    pub(super) beside: OneAtATime,
    /// Overtaken jobs that are not settled yet: see [`Entry::after`].
    pub(super) skipped: Vec<CancellationToken>,
}

/// A team's events leave one after the other anyhow. More of them that wait
/// would only stand before those of the run, and of a stop, each time: behind
/// 300 superseded starts a stop took seconds.
#[derive(Clone)]
pub(super) struct OneAtATime(pub(super) Arc<Semaphore>);

impl Default for OneAtATime {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// What a job that begins has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// To tell a recorded end again.
    Told,
    /// Its work, and a start that asks for the same may end with it.
    Joinable,
    /// Its work, which is less than a start that asks for the same would do.
    Alone,
}

/// The job that runs.
pub(super) struct Running {
    pub(super) key: Key,
    /// `None` unless it is a start that does its work.
    spec: Option<Box<Spec>>,
    is_joinable: bool,
    pub(super) interrupter: Interrupter,
    pub(super) duplicates: Vec<Settle>,
}

/// A job that waits.
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) settle: Settle,
    duplicates: Vec<Settle>,
    /// Becomes true when `job.accepted` is confirmed, or need not be told.
    pub(super) accepted: watch::Receiver<bool>,
    /// Cancelled when a later job has overtaken this one: its end is all that
    /// is told then.
    pub(super) overtaken: CancellationToken,
    /// Cancelled one by one as earlier jobs of the team that were overtaken are
    /// settled. It may not be settled before: after a crash in between they
    /// would come again alone, and run after it.
    pub(super) after: Vec<CancellationToken>,
    /// When it came.
    pub(super) delivered: Instant,
    /// Its time is over then.
    pub(super) deadline: Instant,
    /// The running job whose end is its end too.
    pub(super) joins: Option<Key>,
}

/// What is to be done with a new job.
pub(super) enum Verdict {
    /// It is queued or running; its delivery is kept until the first's end.
    Duplicate,
    /// It is queued or running, and enough deliveries of it are kept.
    Redundant(Settle),
    /// There is no room.
    Full {
        /// The right to end it.
        settle: Settle,
        /// Why, for people.
        message: &'static str,
    },
    /// It waits.
    Wait {
        /// The right to end it.
        settle: Settle,
        /// How many run before it.
        position: u32,
        /// What it overtook.
        overtaken: Vec<(Entry, Reason)>,
        /// The running job whose end is its end too.
        joins: Option<Key>,
    },
}

/// Whether jobs of this kind count against what runs at once.
pub(super) fn needs_permit(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Start | ActionKind::Restart | ActionKind::Sync => true,
        ActionKind::Stop | ActionKind::Destroy | ActionKind::Status => false,
    }
}

/// What tells jobs apart.
pub(super) fn key(job: &Job) -> Key {
    (job.id, job.attempt)
}

impl Running {
    fn new(entry: &mut Entry, interrupter: Interrupter, work: Work) -> Self {
        let spec = match &entry.job.action {
            Action::Start(spec) => (work != Work::Told).then(|| spec.clone()),
            Action::Stop
            | Action::Restart { .. }
            | Action::Sync
            | Action::Status
            | Action::Destroy => None,
        };
        let duplicates = std::mem::take(&mut entry.duplicates);
        let is_joinable = work == Work::Joinable;
        Self { key: key(&entry.job), spec, is_joinable, interrupter, duplicates }
    }
}

impl Entry {
    pub(super) fn new(
        job: Job,
        settle: Settle,
        (accepted, overtaken): (watch::Receiver<bool>, CancellationToken),
        after: Vec<CancellationToken>,
        (delivered, deadline): (Instant, Instant),
        joins: Option<Key>,
    ) -> Self {
        let duplicates = Vec::new();
        Self { job, settle, duplicates, accepted, overtaken, after, delivered, deadline, joins }
    }

    pub(super) fn into_settles(self) -> (Job, (Settle, Vec<Settle>)) {
        (self.job, (self.settle, self.duplicates))
    }
}

impl Lane {
    /// What the first waiting job asks for.
    pub(super) fn head_kind(&self) -> Option<ActionKind> {
        self.waiting.front().map(|entry| entry.job.action.kind())
    }

    /// Makes the first waiting job the running one.
    pub(super) fn begin(&mut self, interrupter: Interrupter, work: Work) -> Option<Entry> {
        let mut entry = self.waiting.pop_front()?;
        self.running = Some(Running::new(&mut entry, interrupter, work));
        Some(entry)
    }

    /// Takes the waiting jobs that end with the running job `key`.
    pub(super) fn take_joined(&mut self, key: Key) -> Vec<Entry> {
        let mut joined = Vec::new();
        while self.waiting.front().is_some_and(|entry| entry.joins == Some(key)) {
            joined.extend(self.waiting.pop_front());
        }
        joined
    }

    /// Decides about a new job and interrupts the running one if need be. The
    /// caller queues it on [`Verdict::Wait`].
    pub(super) fn admit(
        &mut self,
        job: &Job,
        settle: Settle,
        waiting_on_host: usize,
        config: &LanesConfig,
    ) -> Verdict {
        let settle = match self.keep_duplicate(job, settle) {
            Ok(verdict) => return verdict,
            Err(settle) => settle,
        };
        let joins = self.joined_by(job);
        let overtaken = self.overtaken_by(job, joins, config);
        if self.waiting.len() - overtaken.len() >= config.waiting_max_per_team {
            let message = "too many jobs of this team wait";
            return Verdict::Full { settle, message };
        }
        // What frees resources is let in: it is short and makes room.
        if needs_permit(job.action.kind())
            && waiting_on_host.saturating_sub(overtaken.len()) >= config.waiting_max
        {
            let message = "too many jobs wait on this host";
            return Verdict::Full { settle, message };
        }
        let mut skipped = Vec::with_capacity(overtaken.len());
        // From the back, so that the indices before stay true.
        for (index, reason) in overtaken.into_iter().rev() {
            if let Some(entry) = self.waiting.remove(index) {
                skipped.push((entry, reason));
            }
        }
        skipped.reverse();
        if joins.is_none() {
            self.interrupt_for(job);
        }
        let position = self.waiting.len() + usize::from(self.running.is_some());
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        Verdict::Wait { settle, position, overtaken: skipped, joins }
    }

    fn keep_duplicate(&mut self, job: &Job, settle: Settle) -> Result<Verdict, Settle> {
        let duplicates = match &mut self.running {
            Some(running) if running.key == key(job) => &mut running.duplicates,
            _ => match self.waiting.iter_mut().find(|entry| key(&entry.job) == key(job)) {
                Some(entry) => &mut entry.duplicates,
                None => return Err(settle),
            },
        };
        if duplicates.len() >= DUPLICATES_MAX {
            return Ok(Verdict::Redundant(settle));
        }
        duplicates.push(settle);
        Ok(Verdict::Duplicate)
    }

    /// The running job whose end will be that of `job` too: a start that asks
    /// for the same, with nothing between that does not join it as well.
    fn joined_by(&self, job: &Job) -> Option<Key> {
        let (Action::Start(spec), Some(running)) = (&job.action, &self.running) else {
            return None;
        };
        let is_same = running.is_joinable && running.spec.as_ref() == Some(spec);
        let all_join = self.waiting.iter().all(|entry| entry.joins == Some(running.key));
        (is_same && all_join && running.interrupter.reason() == Reason::None).then_some(running.key)
    }

    /// The waiting jobs that need not run because of `job`, by index.
    fn overtaken_by(
        &self,
        job: &Job,
        joins: Option<Key>,
        config: &LanesConfig,
    ) -> Vec<(usize, Reason)> {
        let kinds: Vec<_> = self.waiting.iter().map(|entry| entry.job.action.kind()).collect();
        let trailing = |kind| kinds.iter().rev().take_while(|k| **k == kind).count();
        let all = 0..kinds.len();
        match job.action.kind() {
            ActionKind::Stop | ActionKind::Destroy => all
                .filter(|index| needs_permit(kinds[*index]))
                .map(|index| (index, Reason::Cancel { by: job.id }))
                .collect(),
            // All of them join. In a flood of the same the oldest gives way.
            ActionKind::Start if joins.is_some() => all
                .take((kinds.len() + 1).saturating_sub(config.waiting_max_per_team))
                .map(|index| (index, Reason::Supersede { by: job.id }))
                .collect(),
            ActionKind::Start => all
                .skip(kinds.len() - trailing(ActionKind::Start))
                .map(|index| (index, Reason::Supersede { by: job.id }))
                .collect(),
            ActionKind::Sync => all
                .skip(kinds.len() - trailing(ActionKind::Sync))
                .map(|index| (index, Reason::Supersede { by: job.id }))
                .collect(),
            ActionKind::Restart | ActionKind::Status => Vec::new(),
        }
    }

    fn interrupt_for(&self, job: &Job) {
        let Some(running) = &self.running else { return };
        if running.spec.is_none() {
            return;
        }
        match &job.action {
            Action::Start(_) => {
                running.interrupter.interrupt(Reason::Supersede { by: job.id });
            }
            action if action.kind().cancels_a_start() => {
                running.interrupter.interrupt(Reason::Cancel { by: job.id });
            }
            Action::Stop
            | Action::Restart { .. }
            | Action::Sync
            | Action::Status
            | Action::Destroy => {}
        }
    }
}
