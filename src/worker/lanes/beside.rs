//! What lanes do beside the jobs that run: telling that a job was taken on,
//! ending those that need no run, refusing, and answering status jobs.
//!
//! All of it is bounded: each holds a place in the broker's window until it is
//! settled, and waits for the same confirms as the jobs that run.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Shared;
use super::queue::{Entry, OneAtATime};
use crate::domain::ids::TeamId;
use crate::domain::job::{ActionKind, Job};
use crate::domain::message::Rejected;
use crate::observe::spans;
use crate::pipeline::interrupt::Reason;
use crate::pipeline::job_runner::Finished;
use crate::ports::messages::{SessionOver, Settle};

/// Status jobs of a team that wait for their answer; one more ends the oldest.
const STATUSES_MAX_PER_TEAM: usize = 16;

impl Shared {
    /// Tells that a job was taken on; what it gives becomes true once told. One
    /// that is overtaken before its turn to be told is not told at all: of 300
    /// starts at once all but the last would be, and a stop would wait for it.
    pub(super) fn tell_accepted(
        self: &Arc<Self>,
        job: Job,
        position: u32,
        OneAtATime(of_team): OneAtATime,
    ) -> (watch::Receiver<bool>, CancellationToken) {
        let (told, accepted) = watch::channel(false);
        let overtaken = CancellationToken::new();
        let is_overtaken = overtaken.clone();
        let shared = Arc::clone(self);
        self.spawn(async move {
            // What frees the host does not queue behind what is told of others.
            let frees = matches!(job.action.kind(), ActionKind::Stop | ActionKind::Destroy);
            let permits = async {
                match frees {
                    true => None,
                    // Neither is ever closed.
                    false => {
                        Some((of_team.acquire().await.ok(), shared.beside.acquire().await.ok()))
                    }
                }
            };
            let _permits = tokio::select! {
                biased;
                () = is_overtaken.cancelled() => {
                    told.send_replace(true);
                    return;
                }
                permits = permits => permits,
            };
            match shared.runner.accepted(&job, position).await {
                // Nobody waits any more if the session ended meanwhile.
                Ok(()) => drop(told.send(true)),
                Err(over) => shared.fail(&over),
            }
        });
        (accepted, overtaken)
    }

    /// Refuses a message: tells so, then dead-letters it.
    pub(super) async fn refuse(self: Arc<Self>, settle: Settle, rejected: Rejected) {
        let Ok(_permit) = self.beside.acquire().await else { return };
        let Rejected { failure, team, job_id } = rejected;
        let span = spans::of_message(team.as_ref(), job_id.as_deref());
        let refuse = async {
            let ended = self.runner.rejected(team.as_ref(), job_id.as_deref(), &failure).await;
            self.settle_as(settle, ended).await;
        };
        refuse.instrument(span).await;
    }

    /// Ends a job that a later one overtook.
    pub(super) async fn skip(
        self: Arc<Self>,
        mut entry: Entry,
        reason: Reason,
        OneAtATime(of_team): OneAtATime,
        settled: CancellationToken,
    ) {
        if entry.accepted.wait_for(|told| *told).await.is_err() {
            return;
        }
        // The team's first, so that one team does not hold all of the other.
        let Ok(_of_team) = of_team.acquire().await else { return };
        let Ok(_permit) = self.beside.acquire().await else { return };
        let (job, settles) = entry.into_settles();
        let span = spans::of_job(&job);
        let end = self.end_all(settles, |first| {
            let shared = Arc::clone(&self);
            async move {
                let ended = shared.runner.skip(&job, &reason).await;
                shared.settle_as(first, ended).await;
            }
        });
        end.instrument(span).await;
        if self.failure.borrow().is_none() {
            settled.cancel();
        }
    }

    /// Ends a job as `with` ended.
    pub(super) async fn join(self: Arc<Self>, mut entry: Entry, with: Job) {
        let told = entry.accepted.wait_for(|told| *told).await.is_ok();
        if !told || !self.are_settled(&entry.after).await {
            return;
        }
        let (job, settles) = entry.into_settles();
        let span = spans::of_job(&job);
        let end = self.end_all(settles, |first| {
            let shared = Arc::clone(&self);
            async move {
                let ended = shared.runner.join(&job, &with).await;
                shared.settle_as(first, ended).await;
            }
        });
        end.instrument(span).await;
    }

    /// Ends the first delivery of a job by `end` and acknowledges its
    /// duplicates after it.
    pub(super) async fn end_all<F: Future<Output = ()>>(
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

    pub(super) fn waiting_statuses(
        &self,
    ) -> MutexGuard<'_, HashMap<TeamId, VecDeque<(Job, Settle)>>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a status job on. Those of one team that came before a snapshot is
    /// taken share it.
    pub(super) fn take_status(self: &Arc<Self>, job: Job, settle: Settle) {
        let team = job.team.clone();
        let mut statuses = self.waiting_statuses();
        let is_new = !statuses.contains_key(&team);
        let waiting = statuses.entry(team.clone()).or_default();
        let oldest = (waiting.len() >= STATUSES_MAX_PER_TEAM).then(|| waiting.pop_front());
        let by = job.id;
        waiting.push_back((job, settle));
        drop(statuses);
        if let Some((oldest, settle)) = oldest.flatten() {
            self.spawn(Self::end_status(
                Arc::clone(self),
                oldest,
                settle,
                Reason::Supersede { by },
            ));
        }
        if is_new {
            self.spawn(Self::answer_statuses(Arc::clone(self), team));
        }
    }

    async fn end_status(self: Arc<Self>, job: Job, settle: Settle, reason: Reason) {
        let Ok(_permit) = self.beside.acquire().await else { return };
        self.answer(&job, settle, self.runner.skip(&job, &reason)).await;
    }

    /// Settles a job as its answer says.
    async fn answer(
        &self,
        job: &Job,
        settle: Settle,
        answer: impl Future<Output = Result<Finished, SessionOver>> + Send,
    ) {
        let answer = async { self.settle_as(settle, answer.await).await };
        answer.instrument(spans::of_job(job)).await;
    }

    /// Answers a team's status jobs until none is left.
    async fn answer_statuses(self: Arc<Self>, team: TeamId) {
        loop {
            let Ok(permit) = self.beside.acquire().await else { return };
            let batch = {
                let mut statuses = self.waiting_statuses();
                let batch = statuses.get_mut(&team).map(std::mem::take).unwrap_or_default();
                if batch.is_empty() {
                    statuses.remove(&team);
                    return;
                }
                batch
            };
            let mut batch = batch.into_iter();
            if let Some((job, settle)) = batch.next() {
                self.answer(&job, settle, self.runner.status(&job)).await;
            }
            for (job, settle) in batch {
                self.answer(&job, settle, self.runner.skip(&job, &Reason::None)).await;
            }
            drop(permit);
        }
    }
}
