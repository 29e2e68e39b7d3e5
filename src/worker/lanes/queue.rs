//! What a new job does to the jobs before it in its lane. No effect but on the
//! running job's interrupter.
//!
//! | new job | a running start | waiting jobs |
//! |---|---|---|
//! | stop, destroy | is cancelled | starts, restarts and syncs before it are skipped as cancelled |
//! | restart | is cancelled | stay |
//! | start | is superseded, unless it asks for the same and nothing lies between | starts right before it are skipped as superseded |
//! | sync | goes on | a sync right before it is skipped as superseded |
//!
//! A start that asks for the same as the running one runs after it: it then
//! converges from a team that is already so and ends in milliseconds. Ending it
//! together with the running one would be quicker by those and wrong in one
//! case: a redelivered start whose recorded end was a cancel ends as "done"
//! without a team.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
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

/// One team's jobs.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) running: Option<Running>,
    pub(super) waiting: VecDeque<Entry>,
    /// Told when `waiting` changes.
    pub(super) changed: Arc<Notify>,
    /// Cancelled when the lane ends: everything it was given has ended.
    pub(super) ended: CancellationToken,
}

/// The job that runs.
pub(super) struct Running {
    key: (JobId, u32),
    /// `None` unless it is a start.
    spec: Option<Box<Spec>>,
    pub(super) interrupter: Interrupter,
    pub(super) duplicates: Vec<Settle>,
}

/// A job that waits.
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) settle: Settle,
    duplicates: Vec<Settle>,
    /// Resolves when `job.accepted` is confirmed.
    pub(super) accepted: oneshot::Receiver<()>,
    pub(super) delivered: Instant,
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
    },
}

/// Whether jobs of this kind count against what runs at once.
pub(super) fn needs_permit(kind: ActionKind) -> bool {
    match kind {
        ActionKind::Start | ActionKind::Restart | ActionKind::Sync => true,
        ActionKind::Stop | ActionKind::Destroy | ActionKind::Status => false,
    }
}

/// A requeued job is another one than its earlier attempt.
fn key(job: &Job) -> (JobId, u32) {
    (job.id, job.attempt)
}

impl Running {
    fn new(entry: &mut Entry, interrupter: Interrupter) -> Self {
        let spec = match &entry.job.action {
            Action::Start(spec) => Some(spec.clone()),
            Action::Stop
            | Action::Restart { .. }
            | Action::Sync
            | Action::Status
            | Action::Destroy => None,
        };
        let duplicates = std::mem::take(&mut entry.duplicates);
        Self { key: key(&entry.job), spec, interrupter, duplicates }
    }
}

impl Entry {
    pub(super) fn new(
        job: Job,
        settle: Settle,
        accepted: oneshot::Receiver<()>,
        delivered: Instant,
    ) -> Self {
        Self { job, settle, duplicates: Vec::new(), accepted, delivered }
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
    pub(super) fn begin(&mut self, interrupter: Interrupter) -> Option<Entry> {
        let mut entry = self.waiting.pop_front()?;
        self.running = Some(Running::new(&mut entry, interrupter));
        Some(entry)
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
        let overtaken = self.overtaken_by(job);
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
        self.interrupt_for(job);
        let position = self.waiting.len() + usize::from(self.running.is_some());
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        Verdict::Wait { settle, position, overtaken: skipped }
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

    /// The waiting jobs that need not run because of `job`, by index.
    fn overtaken_by(&self, job: &Job) -> Vec<(usize, Reason)> {
        let kinds: Vec<_> = self.waiting.iter().map(|entry| entry.job.action.kind()).collect();
        let trailing = |kind| kinds.iter().rev().take_while(|k| **k == kind).count();
        let all = 0..kinds.len();
        match job.action.kind() {
            ActionKind::Stop | ActionKind::Destroy => all
                .filter(|index| needs_permit(kinds[*index]))
                .map(|index| (index, Reason::Cancel { by: job.id }))
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
        let Some(running_spec) = &running.spec else { return };
        match &job.action {
            Action::Start(spec) => {
                if spec != running_spec || !self.waiting.is_empty() {
                    running.interrupter.interrupt(Reason::Supersede { by: job.id });
                }
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
