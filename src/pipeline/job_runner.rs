//! What a lane asks of the pipeline. A trait, so that lanes are tested without
//! Docker and the pipeline without lanes.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::interrupt::{Interrupt, Reason};
use super::lease::TeamLease;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, TeamId};
use crate::domain::job::{ActionKind, Job};
use crate::ports::messages::{DeadLetter, SessionOver};

/// What is left to do with the message once its final event is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Acknowledge it.
    Done,
    /// Store it among the dead letters, then acknowledge it.
    Dead(DeadLetter),
}

/// How a job may begin, by what the record knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Like any other.
    Fresh,
    /// The worker died in a run of it: one of its like at a time on a host.
    Suspect {
        /// Nothing else may begin beside it.
        alone: bool,
    },
    /// Nothing is left to run: its end is recorded, or it must not run. `run`
    /// tells so and needs no room.
    Decided,
}

/// A share of the host, held until it is dropped.
pub struct Room {
    _held: Option<Box<dyn Send>>,
}

impl Room {
    /// What takes no room.
    #[must_use]
    pub fn none() -> Self {
        Self { _held: None }
    }

    /// Keeps `held` until this is dropped.
    #[must_use]
    pub fn of(held: impl Send + 'static) -> Self {
        Self { _held: Some(Box::new(held)) }
    }
}

/// Whether the host has room for a job.
pub enum Admitted {
    /// Its share is set aside.
    Yes(Room),
    /// `capacity.*`: what is short.
    No(Failure),
}

/// Executes jobs.
#[async_trait]
pub trait JobRunner: Send + Sync {
    /// Tells a snapshot of one team, or of every team that is here.
    ///
    /// # Errors
    /// The session is over.
    async fn snapshot(&self, _team: Option<&TeamId>) -> Result<(), SessionOver> {
        Ok(())
    }

    /// Notes that another host may have the team from now on, since nothing of
    /// it is left here.
    async fn give_away(&self, _team: &TeamId) {}

    /// The team is another host's by now, and what is left of it here will be
    /// removed: nobody watches it any more.
    fn lets_go(&self, _team: &TeamId) {}

    /// The record of a stopped team, to go to another host, as text.
    ///
    /// # Errors
    /// Why the team may not go.
    async fn depart(&self, _lease: &TeamLease) -> Result<String, Failure> {
        Err(Failure::new(Code::TeamNotFound, "nothing of the team is here"))
    }

    /// Takes over the record of a team that comes here.
    ///
    /// # Errors
    /// Why it cannot come.
    async fn arrive(&self, _lease: &TeamLease, _record: &str) -> Result<(), Failure> {
        Ok(())
    }

    /// Removes what is left of a team that has moved, but for a tombstone.
    ///
    /// # Errors
    /// Docker or the disk refuses; some of it may be done.
    async fn leave(&self, _lease: &TeamLease) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether this host has a record of the team.
    async fn knows(&self, _team: &TeamId) -> bool {
        false
    }

    /// How long the job may still take by its own deadline, if it has one.
    fn time_left(&self, _job: &Job) -> Option<Duration> {
        None
    }

    /// How a job may begin.
    ///
    /// # Errors
    /// The record cannot be read: do not settle.
    async fn standing(&self, _job: &Job) -> Result<Standing, SessionOver> {
        Ok(Standing::Fresh)
    }

    /// Whether a start that asks for the same may end as this job does.
    fn may_be_joined(&self, _job: &Job) -> bool {
        true
    }

    /// Sets a share of the host aside for a job, if there is one.
    async fn room(&self, _job: &Job) -> Admitted {
        Admitted::Yes(Room::none())
    }

    /// Changes whenever room may have become free.
    fn room_changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// Tells that a job waits for room, behind `position` others.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn waits(&self, _job: &Job, _position: u32, _short: &Failure) -> Result<(), SessionOver> {
        Ok(())
    }

    /// Ends a job that has no run of its own, or none any more, as failed. With
    /// a lease, what its last run made is taken back.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn fail(
        &self,
        lease: Option<TeamLease>,
        job: &Job,
        failure: Failure,
    ) -> Result<Finished, SessionOver> {
        drop(lease);
        self.rejected(Some(&job.team), Some(&job.id.to_string()), &failure).await
    }

    /// Ends a job as `with` ended, which asked for the same and ran meanwhile.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn join(&self, job: &Job, _with: &Job) -> Result<Finished, SessionOver> {
        self.skip(job, &Reason::None).await
    }

    /// Resolves with a job that the host wants done by itself. It has no message
    /// behind it, and is taken only if nothing of its team waits or runs.
    ///
    /// # Cancellation
    /// Safe.
    async fn own_job(&self) -> Job {
        std::future::pending().await
    }

    /// Notes that a job of the host's own was not taken; it will be asked for
    /// again if it is still needed.
    fn own_job_not_taken(&self, _job: JobId) {}

    /// Counts a job that was taken on.
    fn received(&self, _kind: ActionKind) {}

    /// Tells that a job was taken on. `position` counts the jobs of its lane
    /// that run before it.
    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver>;

    /// Executes a job to its end, retries included; resolves after the final
    /// event is confirmed. It begins before `job.accepted` is told, and tells
    /// nothing until [`Interrupt::may_speak`]. A job that the record knows as ended has its final
    /// event published again and no effect.
    ///
    /// # Errors
    /// The session is over or the run was abandoned: do not settle.
    async fn run(
        &self,
        lease: TeamLease,
        job: &Job,
        interrupt: Interrupt,
    ) -> Result<Finished, SessionOver>;

    /// Ends a job that never began: publishes `job.cancelled`,
    /// `job.superseded` or `job.succeeded` for it as another job's end says.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn skip(&self, job: &Job, because: &Reason) -> Result<Finished, SessionOver>;

    /// Answers a status job, outside any lane.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn status(&self, job: &Job) -> Result<Finished, SessionOver>;

    /// Tells that a message was refused, if its team is known.
    ///
    /// # Errors
    /// The session is over: do not settle.
    async fn rejected(
        &self,
        team: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver>;
}
