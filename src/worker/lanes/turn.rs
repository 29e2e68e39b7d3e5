//! Whose turn it is: what a team's first waiting job needs before it may run.
//!
//! In this order, so that nobody holds what others need while it waits for
//! more: what the record says of it; the suspects' slot, if the worker died in
//! a run of it; a permit, and that no suspect wants to be alone; the team; room
//! on the host. A start without room gives all of it back and waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{
    Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, watch,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::queue::{self, Entry, Key, Lane, Work};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::job::{ActionKind, Job};
use crate::pipeline::interrupt;
use crate::pipeline::job_runner::{Admitted, Room, Standing};
use crate::pipeline::lease::TeamLease;
use crate::ports::messages::Settle;

/// A job that may run now, with all it needs.
pub(super) struct Turn {
    pub(super) job: Job,
    pub(super) settle: Settle,
    /// See [`Entry::after`].
    pub(super) after: Vec<CancellationToken>,
    pub(super) lease: TeamLease,
    pub(super) interrupt: interrupt::Interrupt,
    pub(super) place: Place,
}

/// What a run holds on the host.
pub(super) struct Place {
    _room: Room,
    _ready: Ready,
}

/// What a job of a kind and standing needs, whoever it is.
#[derive(Default)]
struct Ready {
    _suspect: Option<OwnedSemaphorePermit>,
    _permit: Option<OwnedSemaphorePermit>,
    _beside_others: Option<OwnedRwLockReadGuard<()>>,
    _alone: Option<OwnedRwLockWriteGuard<()>>,
}

/// The first waiting job as it was when it was looked at.
struct Head {
    job: Job,
    key: Key,
    accepted: watch::Receiver<bool>,
    deadline: Instant,
    changed: Arc<Notify>,
}

impl Head {
    fn kind(&self) -> ActionKind {
        self.job.action.kind()
    }
}

/// Why a job with a place did not begin.
enum NotYet {
    /// It is another one's turn, or it needs another place.
    Changed,
    /// The host has no room for it.
    Short(Box<(Head, Failure)>),
    /// The lane is over.
    Over,
}

impl Shared {
    /// Waits until the first waiting job may run. It stays in the queue until
    /// then, so that later jobs can still overtake it. `None` ends the lane.
    pub(super) async fn next_turn(self: &Arc<Self>, team: &TeamId) -> Option<Turn> {
        // Told once for each job.
        let mut told_short = None;
        loop {
            let head = self.head(team)?;
            let standing = match self.runner.standing(&head.job).await {
                Ok(standing) => standing,
                Err(over) => {
                    self.fail(&over);
                    return None;
                }
            };
            let kind = head.kind();
            // Before anybody looks for room, so that no change is missed.
            let changes = self.runner.room_changes();
            let ready = async {
                let ready = self.make_ready(kind, standing).await;
                (ready, self.leases.acquire(team).await)
            };
            // What is decided already is told again, however late it is.
            let has_time = standing != Standing::Decided;
            let (ready, lease) = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                () = self.head_is_not(team, kind, &head.changed) => continue,
                () = tokio::time::sleep_until(head.deadline), if has_time => {
                    self.expire(team, None).await;
                    continue;
                }
                ready = ready => ready,
            };
            match self.begin(team, kind, standing, ready, lease).await {
                Ok(turn) => return Some(turn),
                Err(NotYet::Changed) => {}
                Err(NotYet::Over) => return None,
                Err(NotYet::Short(short)) => {
                    let (head, failure) = *short;
                    self.wait_for_room(team, head, failure, changes, &mut told_short).await?;
                }
            }
        }
    }

    /// The first waiting job; `None`, and no lane any more, if there is none.
    fn head(&self, team: &TeamId) -> Option<Head> {
        let mut table = self.table();
        let lane = table.get_mut(team)?;
        let Some(head) = lane.waiting.front() else {
            lane.ended.cancel();
            table.remove(team);
            return None;
        };
        Some(Head {
            job: head.job.clone(),
            key: queue::key(&head.job),
            accepted: head.accepted.clone(),
            deadline: head.deadline,
            changed: Arc::clone(&lane.changed),
        })
    }

    async fn make_ready(&self, kind: ActionKind, standing: Standing) -> Ready {
        let takes_long = queue::needs_permit(kind);
        let mut ready = Ready::default();
        // Neither semaphore is ever closed.
        match standing {
            Standing::Decided => return ready,
            Standing::Fresh => {}
            // What frees the host is most likely an innocent, and must not wait
            // for ten minutes behind one; only when the worker died in it again
            // it takes its turn.
            Standing::Suspect { alone: false } if !takes_long => {}
            Standing::Suspect { alone } => {
                ready._suspect = Arc::clone(&self.suspects).acquire_owned().await.ok();
                if alone {
                    // Without a permit: those who hold one may wait for this.
                    ready._alone = Some(Arc::clone(&self.quiet).write_owned().await);
                    return ready;
                }
            }
        }
        if takes_long {
            ready._permit = Arc::clone(&self.permits).acquire_owned().await.ok();
            ready._beside_others = Some(Arc::clone(&self.quiet).read_owned().await);
        }
        ready
    }

    /// Makes the first waiting job the running one, if what is held is what it
    /// needs and the host has room.
    async fn begin(
        self: &Arc<Self>,
        team: &TeamId,
        kind: ActionKind,
        standing: Standing,
        ready: Ready,
        lease: TeamLease,
    ) -> Result<Turn, NotYet> {
        loop {
            // One that took the place of its like keeps that one's place among
            // those that wait to run.
            let head = self.head(team).ok_or(NotYet::Over)?;
            if head.kind() != kind {
                return Err(NotYet::Changed);
            }
            match self.runner.standing(&head.job).await {
                Ok(now) if now == standing => {}
                Ok(_) => return Err(NotYet::Changed),
                Err(over) => {
                    self.fail(&over);
                    return Err(NotYet::Over);
                }
            }
            let room = match standing {
                Standing::Decided => Room::none(),
                Standing::Fresh | Standing::Suspect { .. } => {
                    match self.runner.room(&head.job).await {
                        Admitted::Yes(room) => room,
                        Admitted::No(short) => return Err(NotYet::Short(Box::new((head, short)))),
                    }
                }
            };
            let mut table = self.table();
            // Checked under the lock that `abandon` takes after it has told
            // everybody to stop: a run is either seen by it or never begins.
            if self.stopping.is_cancelled() {
                return Err(NotYet::Over);
            }
            let lane = table.get_mut(team).ok_or(NotYet::Over)?;
            if lane.waiting.front().map(|entry| queue::key(&entry.job)) != Some(head.key) {
                continue;
            }
            let (interrupter, interrupt) = interrupt::pair();
            let work = match standing {
                Standing::Decided => Work::Told,
                _ if self.runner.may_be_joined(&head.job) => Work::Joinable,
                _ => Work::Alone,
            };
            let entry = lane.begin(interrupter, work).ok_or(NotYet::Over)?;
            self.note_load(&table);
            let Entry { job, settle, accepted, after, delivered, deadline, .. } = entry;
            let interrupt =
                interrupt.with_delivery(delivered).with_deadline(deadline).with_accepted(accepted);
            let place = Place { _room: room, _ready: ready };
            return Ok(Turn { job, settle, after, lease, interrupt, place });
        }
    }

    /// Waits until the host may have room for the first waiting job, or until
    /// it is another one. Holds nothing. `None` ends the lane.
    async fn wait_for_room(
        self: &Arc<Self>,
        team: &TeamId,
        head: Head,
        short: Failure,
        mut changes: watch::Receiver<u64>,
        told: &mut Option<Key>,
    ) -> Option<()> {
        let mut accepted = head.accepted;
        let before = self.short_of_room.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(self);
        let telling = async {
            if *told == Some(head.key) || accepted.wait_for(|told| *told).await.is_err() {
                return;
            }
            *told = Some(head.key);
            let position = u32::try_from(before + 1).unwrap_or(u32::MAX);
            if let Err(over) = self.runner.waits(&head.job, position, &short).await {
                self.fail(&over);
            }
        };
        let room = async {
            telling.await;
            let pause = tokio::time::sleep(self.config.room_interval);
            tokio::select! {
                // Whoever never tells of changes is looked at now and then.
                Ok(()) = changes.changed() => {}
                () = pause => {}
            }
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => return None,
            () = self.head_key_is_not(team, head.key, &head.changed) => {}
            () = tokio::time::sleep_until(head.deadline) => {}
            () = room => return Some(()),
        }
        // Does nothing, if it was overtaken instead.
        self.expire(team, Some(short)).await;
        Some(())
    }

    /// Resolves when the first waiting job is of another kind. One that takes
    /// the place of its like keeps its place among those that wait to run.
    async fn head_is_not(&self, team: &TeamId, kind: ActionKind, changed: &Notify) {
        while self.table().get(team).and_then(Lane::head_kind) == Some(kind) {
            changed.notified().await;
        }
    }

    async fn head_key_is_not(&self, team: &TeamId, key: Key, changed: &Notify) {
        let head_key = |lane: &Lane| lane.waiting.front().map(|entry| queue::key(&entry.job));
        while self.table().get(team).and_then(head_key) == Some(key) {
            changed.notified().await;
        }
    }

    /// Ends the first waiting job because its time is over; `short` says that
    /// it waited for room. The team's next job waits meanwhile: a run in which
    /// the worker died may have left something to take back.
    async fn expire(self: &Arc<Self>, team: &TeamId, short: Option<Failure>) {
        let entry = {
            let mut table = self.table();
            // The one that waited so long may have been overtaken by now.
            let Some(lane) = table.get_mut(team) else { return };
            if lane.waiting.front().is_none_or(|head| head.deadline > Instant::now()) {
                return;
            }
            let entry = lane.waiting.pop_front();
            self.note_load(&table);
            entry
        };
        let Some(mut entry) = entry else { return };
        let failure = short.unwrap_or_else(|| {
            let message = "the job's time was over before it could begin";
            Failure::new(Code::JobDeadline, message)
        });
        let told = entry.accepted.wait_for(|told| *told).await.is_ok();
        if !told || !self.are_settled(&entry.after).await {
            return;
        }
        // If somebody else has the team, there is no waiting for it any more.
        let lease = self.leases.try_acquire(team);
        let (job, settles) = entry.into_settles();
        let end = |first| async {
            let ended = self.runner.fail(lease, &job, failure).await;
            self.settle_as(first, ended).await;
        };
        self.end_all(settles, end).await;
    }
}

/// Takes a start that waits for room off their number again.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.short_of_room.fetch_sub(1, Ordering::Relaxed);
    }
}
