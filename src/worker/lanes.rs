//! Lanes: one job at a time per team, teams in parallel.
//!
//! Deliveries are read far ahead and wait here, unacknowledged, so that a stop
//! is seen while the start before it runs. What a later job does to earlier
//! ones is decided in [`queue`], which is pure; this file does the effects.
//! Nothing is settled before its [`JobRunner`] says so, and nothing at all once
//! the session is over: whoever gets the message next goes on.
//!
//! One value serves one session. Leases outlive it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::queue::{Entry, Key, Lane, Verdict};
pub use self::sizes::{LaneLoad, LanesConfig};
use self::turn::Turn;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::job::{ActionKind, Job};
use crate::domain::message::Rejected;
use crate::observe::spans;
use crate::pipeline::interrupt::{Interrupt, Reason};
use crate::pipeline::job_runner::{Finished, JobRunner};
use crate::pipeline::lease::{TeamLease, TeamLeases};
use crate::ports::messages::{SessionOver, Settle};

mod beside;
mod queue;
mod sizes;
#[cfg(test)]
mod tests;
mod turn;

/// How long an abandoned run may take to return. A step returns within a
/// second of its interrupt (DESIGN 3.3); the rest is for a slow disk.
const ABANDON_MAX: Duration = Duration::from_secs(10);

/// What is done beside the lanes at once: answers to status jobs, refusals, and
/// what is told about waiting jobs. Each lists containers or waits for confirms,
/// so that a publisher in a loop would flood the Engine, and a stop's own events
/// would stand behind hundreds.
const BESIDE_MAX: usize = 16;

/// How long a session has been there before jobs of the host's own are taken.
const OWN_AFTER: Duration = Duration::from_secs(1);

/// The lanes of one session.
pub struct Lanes(Arc<Shared>);

struct Shared {
    runner: Arc<dyn JobRunner>,
    leases: Arc<TeamLeases>,
    config: LanesConfig,
    load: Arc<LaneLoad>,
    table: Mutex<HashMap<TeamId, Lane>>,
    permits: Arc<Semaphore>,
    /// Held by the one suspect that runs.
    suspects: Arc<Semaphore>,
    /// Read by whatever runs with a permit, written by a suspect that must be
    /// alone.
    quiet: Arc<RwLock<()>>,
    /// Starts that wait for room on the host.
    short_of_room: AtomicUsize,
    beside: Arc<Semaphore>,
    /// Status jobs that wait for their answer.
    statuses: Mutex<HashMap<TeamId, VecDeque<(Job, Settle)>>>,
    tasks: TaskTracker,
    /// Nothing more is started.
    stopping: CancellationToken,
    /// Whatever has not returned by itself is dropped.
    dropping: CancellationToken,
    failure: watch::Sender<Option<String>>,
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
            suspects: Arc::new(Semaphore::new(1)),
            quiet: Arc::default(),
            short_of_room: AtomicUsize::new(0),
            beside: Arc::new(Semaphore::new(BESIDE_MAX)),
            statuses: Mutex::default(),
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
            self.0.take_status(job, settle);
        } else {
            self.0.take_on(job, settle, false);
        }
    }

    /// Takes on jobs of the host's own, as they are asked for. Never ends by
    /// itself.
    ///
    /// # Cancellation
    /// Safe: what is not taken is asked for again.
    pub async fn take_own(&self) -> ! {
        // What the mailbox holds comes first: that this host was evicted, or a stop.
        tokio::time::sleep(OWN_AFTER).await;
        loop {
            let job = self.0.runner.own_job().await;
            let id = job.id;
            let takes = !self.0.stopping.is_cancelled();
            if !takes || !self.0.take_on(job, Settle::of_nothing(), true) {
                self.0.runner.own_job_not_taken(id);
            }
        }
    }

    /// Refuses a message that is not a job: tells so, then dead-letters it.
    pub fn refuse(&self, settle: Settle, rejected: Rejected) {
        if !self.0.stopping.is_cancelled() {
            self.0.spawn(Shared::refuse(Arc::clone(&self.0), settle, rejected));
        }
    }

    /// Notes that another host may have the team from now on.
    pub async fn give_away(&self, team: &TeamId) {
        self.0.runner.give_away(team).await;
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
        self.waiting_statuses().clear();
        self.load.set(0, 0);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let dropping = self.dropping.clone();
        let task = task.in_current_span();
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

    /// Takes a job on, or only if its team's lane is idle; tells whether it did.
    fn take_on(self: &Arc<Self>, job: Job, settle: Settle, only_if_idle: bool) -> bool {
        let team = job.team.clone();
        let mut table = self.table();
        let waiting_on_host: usize = table.values().map(|lane| lane.waiting.len()).sum();
        let is_new = !table.contains_key(&team);
        if only_if_idle && !is_new {
            return false;
        }
        let lane = table.entry(team.clone()).or_default();
        match lane.admit(&job, settle, waiting_on_host, &self.config) {
            Verdict::Duplicate => {}
            Verdict::Redundant(settle) => {
                drop(table);
                // The first of the same id is unacknowledged still, so
                // acknowledging this one loses nothing.
                let shared = Arc::clone(self);
                let settling = async move {
                    shared.settle(settle, Finished::Done, "a duplicate").await;
                };
                self.spawn(settling.instrument(spans::of_job(&job)));
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
            Verdict::Wait { settle, position, overtaken, joins } => {
                lane.skipped.retain(|settled| !settled.is_cancelled());
                for (entry, reason) in overtaken {
                    entry.overtaken.cancel();
                    let (one, settled) = (lane.beside.clone(), CancellationToken::new());
                    lane.skipped.push(settled.clone());
                    self.spawn(Self::skip(Arc::clone(self), entry, reason, one, settled));
                }
                self.runner.received(job.action.kind());
                let accepted = self.tell_accepted(job.clone(), position, lane.beside.clone());
                let time_left = self.runner.time_left(&job).unwrap_or(Duration::MAX);
                let delivered = Instant::now();
                let time = (delivered, delivered + self.config.job_time_max.min(time_left));
                let after = lane.skipped.clone();
                lane.waiting.push_back(Entry::new(job, settle, accepted, after, time, joins));
                lane.changed.notify_one();
                if is_new {
                    let span = spans::of_team(&team);
                    self.spawn(Self::lane(Arc::clone(self), team).instrument(span));
                }
                self.note_load(&table);
            }
        }
        true
    }

    /// Runs a team's jobs until none is left.
    async fn lane(self: Arc<Self>, team: TeamId) {
        while let Some(turn) = self.next_turn(&team).await {
            let span = spans::of_job(&turn.job);
            self.take_turn(&team, turn).instrument(span).await;
        }
    }

    /// Runs a job and settles it, with those that end as it does.
    async fn take_turn(self: &Arc<Self>, team: &TeamId, turn: Turn) {
        let (job, settle) = (turn.job.clone(), turn.settle);
        let key = queue::key(&job);
        let ended = self.execute(turn.job, turn.lease, turn.interrupt).await;
        let ended = match ended {
            Some(ended) => self.are_settled(&turn.after).await.then_some(ended),
            None => None,
        };
        let is_over = ended.is_none();
        let dead = match ended {
            Some(Finished::Done) => {
                self.settle(settle, Finished::Done, "a job").await;
                None
            }
            Some(Finished::Dead(why)) => Some((settle, why)),
            None => None,
        };
        // The place on the host is free before the next one asks for its.
        drop(turn.place);
        let (duplicates, joined) = self.end_run(team, key);
        let (is_dead, shared) = (dead.is_some(), Arc::clone(self));
        let settling = async move {
            if let Some((settle, why)) = dead {
                shared.settle(settle, Finished::Dead(why), "a job").await;
            }
            for duplicate in duplicates {
                if shared.failure.borrow().is_none() {
                    shared.settle(duplicate, Finished::Done, "a duplicate").await;
                }
            }
        };
        match is_dead {
            // A queue of dead letters that is full keeps this message, not the
            // team's next job: whoever gets both again knows this one's end.
            true => self.spawn(settling),
            false => settling.await,
        }
        for entry in joined {
            if !is_over {
                Arc::clone(self).join(entry, job.clone()).await;
            }
        }
    }

    /// Executes one job; `None` if it must not be settled.
    async fn execute(&self, job: Job, lease: TeamLease, interrupt: Interrupt) -> Option<Finished> {
        let run = AssertUnwindSafe(self.runner.run(lease, &job, interrupt));
        let ended = match run.catch_unwind().await {
            Ok(ended) => ended,
            // One bad job must not take the session, and with it every other
            // team's job, down again and again.
            Err(_) => {
                let failure = Failure::new(Code::InternalBug, "the worker failed while it ran");
                // The run's own lease went down with it.
                let lease = self.leases.acquire(&job.team).await;
                self.runner.fail(Some(lease), &job, failure).await
            }
        };
        ended.map_err(|over| self.fail(&over)).ok()
    }

    /// Forgets the running job; returns what came twice meanwhile, and what
    /// ends with it.
    fn end_run(&self, team: &TeamId, key: Key) -> (Vec<Settle>, Vec<Entry>) {
        let mut table = self.table();
        let Some(lane) = table.get_mut(team) else { return (Vec::new(), Vec::new()) };
        let Some(running) = lane.running.take() else { return (Vec::new(), Vec::new()) };
        // What was interrupted did not do the work of the others.
        let is_whole = running.interrupter.reason() == Reason::None;
        let joined = if is_whole { lane.take_joined(key) } else { Vec::new() };
        self.note_load(&table);
        (running.duplicates, joined)
    }

    /// Waits until all these jobs are settled; `false` if the session ends before.
    async fn are_settled(&self, jobs: &[CancellationToken]) -> bool {
        let mut failure = self.failure.subscribe();
        for settled in jobs {
            tokio::select! {
                () = settled.cancelled() => {}
                _ = failure.wait_for(Option::is_some) => return false,
            }
        }
        true
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

    fn note_load(&self, table: &HashMap<TeamId, Lane>) {
        let running = table.values().filter(|lane| lane.running.is_some()).count();
        let waiting = table.values().map(|lane| lane.waiting.len()).sum();
        self.load.set(running, waiting);
    }
}
