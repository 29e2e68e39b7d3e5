//! What a lane asks of the pipeline. A trait, so that lanes are tested without
//! Docker and the pipeline without lanes.

use async_trait::async_trait;

use super::interrupt::Interrupt;
use super::lease::TeamLease;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::job::Job;
use crate::ports::messages::{DeadLetter, SessionOver};

/// What is left to do with the message once its final event is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Acknowledge it.
    Done,
    /// Store it among the dead letters, then acknowledge it.
    Dead(DeadLetter),
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

    /// Tells that a job was taken on. `position` counts the jobs of its lane
    /// that run before it.
    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver>;

    /// Executes a job to its end, retries included; resolves after the final
    /// event is confirmed. A job that the record knows as ended has its final
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
    async fn skip(
        &self,
        job: &Job,
        because: &super::interrupt::Reason,
    ) -> Result<Finished, SessionOver>;

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
