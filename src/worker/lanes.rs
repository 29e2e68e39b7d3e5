//! Lanes: one job at a time per team, teams in parallel.
//!
//! Deliveries are read far ahead and wait here, unacknowledged, so that a stop
//! is seen while the start before it runs. What a later job does to earlier
//! ones is decided in [`queue`], which is pure; this file does the effects.
//! Nothing is settled before its [`JobRunner`] says so, and nothing at all once
//! the session is over: whoever gets the message next goes on.
//!
//! One value serves one session. Leases outlive it.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::queue::{Entry, Lane, Verdict};
pub use self::sizes::{LaneLoad, LanesConfig};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::job::{ActionKind, Job};
use crate::domain::message::Rejected;
use crate::pipeline::interrupt::{self, Reason};
use crate::pipeline::job_runner::{Finished, JobRunner};
use crate::pipeline::lease::{TeamLease, TeamLeases};
use crate::ports::messages::{SessionOver, Settle};

mod queue;
mod sizes;
#[cfg(test)]
mod tests;

/// How long an abandoned run may take to return. A step returns within a
/// second of its interrupt (DESIGN 3.3); the rest is for a slow disk.
const ABANDON_MAX: Duration = Duration::from_secs(10);

/// Status jobs that are answered at once: each lists containers, so that a
/// publisher in a loop would flood the Engine.
const STATUSES_MAX: usize = 16;

/// The lanes of one session.
pub struct Lanes(Arc<Shared>);

struct Shared {
    runner: Arc<dyn JobRunner>,
    leases: Arc<TeamLeases>,
    config: LanesConfig,
    load: Arc<LaneLoad>,
    table: Mutex<HashMap<TeamId, Lane>>,
    permits: Arc<Semaphore>,
    statuses: Semaphore,
    tasks: TaskTracker,
    /// Nothing more is started.
    stopping: CancellationToken,
    /// Whatever has not returned by itself is dropped.
    dropping: CancellationToken,
    failure: watch::Sender<Option<String>>,
}

/// A job that may run now, with all it needs.
struct Turn {
    entry: Entry,
    lease: TeamLease,
    permit: Option<OwnedSemaphorePermit>,
    interrupt: interrupt::Interrupt,
}

impl Lanes {
    /// Empty lanes.
    #[must_use]
    pub fn new(
        runner: Arc<dyn JobRunner>,
        leases: Arc<TeamLeases>,
        config: LanesConfig,
        load: Arc<LaneLoad>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(config.running_max.max(1)));
        Self(Arc::new(Shared {
            runner,
            leases,
            config,
            load,
            table: Mutex::default(),
            permits,
            statuses: Semaphore::new(STATUSES_MAX),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            dropping: CancellationToken::new(),
            failure: watch::Sender::new(None),
        }))
    }

    /// Takes a job on. Never waits: whatever takes time runs in a task of its
    /// own. While draining, the job is left with whoever delivered it.
    pub fn submit(&self, settle: Settle, job: Job) {
        if self.0.stopping.is_cancelled() {
            return;
        }
        if job.action.kind() == ActionKind::Status {
            self.0.spawn(Shared::answer_status(Arc::clone(&self.0), job, settle));
        } else {
            self.0.take_on(job, settle);
        }
    }

    /// Refuses a message that is not a job: tells so, then dead-letters it.
    pub fn refuse(&self, settle: Settle, rejected: Rejected) {
        if !self.0.stopping.is_cancelled() {
            self.0.spawn(Shared::refuse(Arc::clone(&self.0), settle, rejected));
        }
    }

    /// Cancelled as soon as the team's lane has nothing left to do.
    #[must_use]
    pub fn ended(&self, team: &TeamId) -> CancellationToken {
        self.0.table().get(team).map_or_else(
            || {
                let ended = CancellationToken::new();
                ended.cancel();
                ended
            },
            |lane| lane.ended.clone(),
        )
    }

    /// Resolves with the reason once a run or a settle found the session over.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        let reason = failure.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Starts nothing more, lets what runs finish within `grace`, and abandons
    /// the rest. What only waited stays unsettled.
    pub async fn drain(&self, grace: Duration) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_err() {
            self.abandon().await;
        }
        self.0.clear();
    }

    /// Interrupts whatever runs and waits until it has returned. Settles
    /// nothing.
    pub async fn abandon(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        for lane in self.0.table().values() {
            if let Some(running) = &lane.running {
                running.interrupter.interrupt(Reason::Abandon);
            }
        }
        if tokio::time::timeout(ABANDON_MAX, self.0.tasks.wait()).await.is_err() {
            // Effects are idempotent or found by label, so a dropped run is as
            // good as a crashed one.
            self.0.dropping.cancel();
            self.0.tasks.wait().await;
        }
        self.0.clear();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, HashMap<TeamId, Lane>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        self.table().clear();
        self.load.set(0, 0);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let dropping = self.dropping.clone();
        self.tasks.spawn(async move {
            dropping.run_until_cancelled(task).await;
        });
    }

    /// Notes the first reason for which this session is over.
    fn fail(&self, over: &SessionOver) {
        self.failure.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(over.reason.clone());
            }
            first
        });
    }

    fn take_on(self: &Arc<Self>, job: Job, settle: Settle) {
        let team = job.team.clone();
        let mut table = self.table();
        let waiting_on_host: usize = table.values().map(|lane| lane.waiting.len()).sum();
        let is_new = !table.contains_key(&team);
        let lane = table.entry(team.clone()).or_default();
        match lane.admit(&job, settle, waiting_on_host, &self.config) {
            Verdict::Duplicate => {}
            Verdict::Redundant(settle) => {
                drop(table);
                // The first of the same id is unacknowledged still, so
                // acknowledging this one loses nothing.
                let shared = Arc::clone(self);
                self.spawn(async move {
                    shared.settle(settle, Finished::Done, "a duplicate").await;
                });
            }
            Verdict::Full { settle, message } => {
                if is_new {
                    table.remove(&team);
                }
                drop(table);
                let failure = Failure::new(Code::CapacityQueueFull, message);
                let job_id = Some(job.id.to_string());
                let rejected = Rejected { failure, team: Some(team), job_id };
                self.spawn(Self::refuse(Arc::clone(self), settle, rejected));
            }
            Verdict::Wait { settle, position, overtaken } => {
                for (entry, reason) in overtaken {
                    self.spawn(Self::skip(Arc::clone(self), entry, reason));
                }
                let accepted = self.tell_accepted(job.clone(), position);
                let delivered = Instant::now();
                lane.waiting.push_back(Entry::new(job, settle, accepted, delivered));
                lane.changed.notify_one();
                if is_new {
                    self.spawn(Self::lane(Arc::clone(self), team));
                }
                self.note_load(&table);
            }
        }
    }

    fn tell_accepted(self: &Arc<Self>, job: Job, position: u32) -> oneshot::Receiver<()> {
        let (told, accepted) = oneshot::channel();
        let shared = Arc::clone(self);
        self.spawn(async move {
            match shared.runner.accepted(&job, position).await {
                // Nobody waits any more if the session ended meanwhile.
                Ok(()) => drop(told.send(())),
                Err(over) => shared.fail(&over),
            }
        });
        accepted
    }

    /// Runs a team's jobs until none is left.
    async fn lane(self: Arc<Self>, team: TeamId) {
        while let Some(turn) = self.next_turn(&team).await {
            let Turn { entry, lease, permit, interrupt } = turn;
            let (job, accepted) = (entry.job, entry.accepted);
            if let Some(finished) = self.execute(&job, accepted, lease, interrupt).await {
                self.settle(entry.settle, finished, "a job").await;
            }
            drop(permit);
            for duplicate in self.end_run(&team) {
                if self.failure.borrow().is_none() {
                    self.settle(duplicate, Finished::Done, "a duplicate").await;
                }
            }
        }
    }

    /// Waits until the first waiting job may run. It stays in the queue until
    /// then, so that later jobs can still overtake it. `None` ends the lane.
    async fn next_turn(self: &Arc<Self>, team: &TeamId) -> Option<Turn> {
        loop {
            let (kind, delivered, changed) = {
                let mut table = self.table();
                let lane = table.get_mut(team)?;
                let Some(head) = lane.waiting.front() else {
                    lane.ended.cancel();
                    table.remove(team);
                    return None;
                };
                (head.job.action.kind(), head.delivered, Arc::clone(&lane.changed))
            };
            let ready = async {
                let permit = match queue::needs_permit(kind) {
                    // The semaphore is never closed.
                    true => Arc::clone(&self.permits).acquire_owned().await.ok(),
                    false => None,
                };
                (permit, self.leases.acquire(team).await)
            };
            let (permit, lease) = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                ready = ready => ready,
                () = self.head_is_not(team, kind, &changed) => continue,
                () = tokio::time::sleep_until(delivered + self.config.waiting_time_max) => {
                    self.expire(team);
                    continue;
                }
            };
            let mut table = self.table();
            // Checked under the lock that `abandon` takes after it has told
            // everybody to stop: a run is either seen by it or never begins.
            if self.stopping.is_cancelled() {
                return None;
            }
            let lane = table.get_mut(team)?;
            if lane.head_kind() == Some(kind) {
                let (interrupter, interrupt) = interrupt::pair();
                let entry = lane.begin(interrupter)?;
                self.note_load(&table);
                return Some(Turn { entry, lease, permit, interrupt });
            }
        }
    }

    /// Resolves when the first waiting job is of another kind. One that takes
    /// the place of its like keeps its place among those that wait to run.
    async fn head_is_not(&self, team: &TeamId, kind: ActionKind, changed: &Notify) {
        while self.table().get(team).and_then(Lane::head_kind) == Some(kind) {
            changed.notified().await;
        }
    }

    /// Refuses the first waiting job because its time is over.
    fn expire(self: &Arc<Self>, team: &TeamId) {
        let mut table = self.table();
        // The one that waited so long may have been overtaken by now.
        let is_due = |head: &Entry| head.delivered + self.config.waiting_time_max <= Instant::now();
        let Some(lane) = table.get_mut(team) else { return };
        if !lane.waiting.front().is_some_and(is_due) {
            return;
        }
        let Some(entry) = lane.waiting.pop_front() else { return };
        self.note_load(&table);
        let failure = Failure::new(
            Code::JobDeadline,
            "the job waited too long behind other jobs and was not begun",
        );
        let (job, settles) = entry.into_settles();
        let shared = Arc::clone(self);
        self.spawn(async move {
            let job_id = Some(job.id.to_string());
            let rejected = Rejected { failure, team: Some(job.team), job_id };
            shared
                .end_all(settles, |first| Self::refuse(Arc::clone(&shared), first, rejected))
                .await;
        });
    }

    /// Executes one job; `None` if it must not be settled.
    async fn execute(
        &self,
        job: &Job,
        accepted: oneshot::Receiver<()>,
        lease: TeamLease,
        mut interrupt: interrupt::Interrupt,
    ) -> Option<Finished> {
        // A job's first event comes before its others.
        let told = tokio::select! {
            told = accepted => told.is_ok(),
            Reason::Abandon = interrupt.wait() => false,
        };
        if !told {
            return None;
        }
        let run = AssertUnwindSafe(self.runner.run(lease, job, interrupt));
        let ended = match run.catch_unwind().await {
            Ok(ended) => ended,
            // One bad job must not take the session, and with it every other
            // team's job, down again and again.
            Err(_) => {
                let failure = Failure::new(Code::InternalBug, "the worker failed while it ran");
                let job_id = job.id.to_string();
                self.runner.rejected(Some(&job.team), Some(&job_id), &failure).await
            }
        };
        ended.map_err(|over| self.fail(&over)).ok()
    }

    /// Forgets the running job; returns what came twice meanwhile.
    fn end_run(&self, team: &TeamId) -> Vec<Settle> {
        let mut table = self.table();
        let running = table.get_mut(team).and_then(|lane| lane.running.take());
        self.note_load(&table);
        running.map(|running| running.duplicates).unwrap_or_default()
    }

    async fn settle(&self, settle: Settle, finished: Finished, what: &'static str) {
        let settled = match finished {
            Finished::Done => settle.ack().await,
            Finished::Dead(why) => settle.dead_letter(why).await,
        };
        if let Err(over) = settled {
            let reason = format!("{what} could not be settled: {}", over.reason);
            self.fail(&SessionOver { reason });
        }
    }

    async fn settle_as(&self, settle: Settle, ended: Result<Finished, SessionOver>) {
        match ended {
            Ok(finished) => self.settle(settle, finished, "a job").await,
            Err(over) => self.fail(&over),
        }
    }

    async fn answer_status(self: Arc<Self>, job: Job, settle: Settle) {
        // Never closed; an error would mean no answer is possible.
        let Ok(_permit) = self.statuses.acquire().await else { return };
        let ended = self.runner.status(&job).await;
        self.settle_as(settle, ended).await;
    }

    async fn refuse(self: Arc<Self>, settle: Settle, rejected: Rejected) {
        let Rejected { failure, team, job_id } = rejected;
        let ended = self.runner.rejected(team.as_ref(), job_id.as_deref(), &failure).await;
        self.settle_as(settle, ended).await;
    }

    async fn skip(self: Arc<Self>, mut entry: Entry, reason: Reason) {
        if (&mut entry.accepted).await.is_err() {
            return;
        }
        let (job, settles) = entry.into_settles();
        self.end_all(settles, |first| {
            let shared = Arc::clone(&self);
            async move {
                let ended = shared.runner.skip(&job, &reason).await;
                shared.settle_as(first, ended).await;
            }
        })
        .await;
    }

    /// Ends the first delivery of a job by `end` and acknowledges its
    /// duplicates after it.
    async fn end_all<F: Future<Output = ()>>(
        self: &Arc<Self>,
        settles: (Settle, Vec<Settle>),
        end: impl FnOnce(Settle) -> F,
    ) {
        let (first, duplicates) = settles;
        end(first).await;
        for duplicate in duplicates {
            if self.failure.borrow().is_none() {
                self.settle(duplicate, Finished::Done, "a duplicate").await;
            }
        }
    }

    fn note_load(&self, table: &HashMap<TeamId, Lane>) {
        let running = table.values().filter(|lane| lane.running.is_some()).count();
        let waiting = table.values().map(|lane| lane.waiting.len()).sum();
        self.load.set(running, waiting);
    }
}
