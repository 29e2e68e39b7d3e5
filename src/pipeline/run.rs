//! One execution of a job. `Run::step` alone journals, reports, times, bounds
//! and checks cancellation; a step is only its work.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::Ports;
use super::interrupt::{Interrupt, Reason};
use super::reporter::Reporter;
use crate::domain::event::EventKind;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{RunId, TeamId};
use crate::domain::job::Job;
use crate::domain::record::Before;
use crate::domain::step::StepId;
use crate::observe::spans;
use crate::ports::engine::Observed;
use crate::ports::messages::SessionOver;

/// A job may take this long from its delivery, waiting and retries included
/// (DESIGN 3.7). It stays well under the broker's consumer timeout.
pub const JOB_TIME_MAX: Duration = Duration::from_secs(20 * 60);

/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Why a run ended early.
#[derive(Debug)]
pub enum Stop {
    /// It failed.
    Failed(Failure),
    /// A later job or the end of the session interrupted it.
    Interrupted(Reason),
    /// Events can no longer be told.
    Session(SessionOver),
}

impl From<SessionOver> for Stop {
    fn from(over: SessionOver) -> Self {
        Self::Session(over)
    }
}

/// One execution of a job.
pub struct Run<'a> {
    /// Everything outside.
    pub ports: &'a Ports,
    /// The job.
    pub job: &'a Job,
    /// This execution.
    pub id: RunId,
    /// The team's voice and memory.
    pub reporter: Reporter,
    interrupt: Interrupt,
    deadline: Instant,
    /// What the step is doing now.
    progress: watch::Sender<String>,
    /// When it last showed a sign of life.
    touched: Mutex<Instant>,
    /// Failures count their tries from 1.
    pub attempt: u32,
    /// What there was of the team before the job's first run.
    pub before: Before,
    /// What there was of the team when the run began.
    found: Option<Observed>,
}

impl<'a> Run<'a> {
    /// A run that must end before its interrupt's deadline.
    #[must_use]
    pub fn new(
        ports: &'a Ports,
        job: &'a Job,
        id: RunId,
        reporter: Reporter,
        interrupt: Interrupt,
        before: Before,
        found: Option<Observed>,
    ) -> Self {
        let deadline = interrupt.deadline().unwrap_or_else(|| Instant::now() + JOB_TIME_MAX);
        Self {
            ports,
            job,
            id,
            reporter,
            interrupt,
            deadline,
            progress: watch::Sender::new(String::new()),
            touched: Mutex::new(Instant::now()),
            attempt: 1,
            before,
            found,
        }
    }

    /// The team.
    #[must_use]
    pub fn team(&self) -> &TeamId {
        &self.job.team
    }

    /// What there was of the team when the run began. Nobody but this run acts
    /// on the team, so it holds until this run's first effect; nothing, if the
    /// daemon did not answer or this is not the first attempt.
    #[must_use]
    pub fn found(&self) -> Option<&Observed> {
        self.found.as_ref().filter(|_| self.attempt == 1)
    }

    /// Says what is being done now. Never waits; what comes too fast is told
    /// as its latest state only.
    pub fn say(&self, message: impl Into<String>) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.progress.send_replace(message.into());
    }

    /// When the job's time is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// That the job's time is over.
    #[must_use]
    pub fn too_late() -> Failure {
        Failure::new(Code::JobDeadline, "the job took longer than its deadline")
    }

    /// The side of the run that is interrupted, to wait on.
    #[must_use]
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// The reason for which the run should end, if there is one.
    #[must_use]
    pub fn interrupted(&self) -> Reason {
        self.interrupt.reason()
    }

    /// Does the work of one step: tells its beginning, progress and end,
    /// bounds it in total and without progress, and drops it when the run is
    /// interrupted.
    ///
    /// # Errors
    /// What the work failed with, a timeout, or the interruption.
    ///
    /// # Cancellation
    /// The work is dropped at an await; what it began is found by label.
    pub async fn step<T>(
        &self,
        step: StepId,
        work: impl Future<Output = Result<(T, String), Failure>> + Send,
    ) -> Result<T, Stop> {
        self.do_step(step, work).instrument(spans::of_step(step)).await
    }

    async fn do_step<T>(
        &self,
        step: StepId,
        work: impl Future<Output = Result<(T, String), Failure>> + Send,
    ) -> Result<T, Stop> {
        self.reporter.tell(EventKind::StepStarted { step }).await?;
        let started = Instant::now();
        let result = self.bounded(step, started, work).await;
        let duration = started.elapsed();
        let outcome = match &result {
            Ok(_) => "finished",
            Err(Stop::Failed(_)) => "failed",
            Err(Stop::Interrupted(_) | Stop::Session(_)) => "interrupted",
        };
        self.ports.metrics.step_ended(step, outcome, duration);
        Span::current().record("outcome", outcome);
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let job = self.job.id;
        self.reporter
            .update(|record| {
                if let Some(job) = record.jobs.iter_mut().find(|j| j.id == job) {
                    job.step_millis.insert(step.as_str().to_owned(), millis);
                }
            })
            .await;
        match result {
            Ok((value, message)) => {
                tracing::info!(millis, "step finished: {message}");
                self.reporter.tell(EventKind::StepFinished { step, duration, message }).await?;
                Ok(value)
            }
            Err(Stop::Failed(mut failure)) => {
                failure.step = Some(step);
                failure.attempt = self.attempt;
                spans::failed(&Span::current(), failure.code);
                let (code, fault) = (failure.code.as_str(), failure.code.fault().as_str());
                tracing::warn!(millis, code, fault, "step failed: {}", failure.message);
                self.reporter
                    .tell(EventKind::StepFailed { step, duration, failure: failure.clone() })
                    .await?;
                Err(Stop::Failed(failure))
            }
            Err(other) => Err(other),
        }
    }

    async fn bounded<T>(
        &self,
        step: StepId,
        started: Instant,
        work: impl Future<Output = Result<(T, String), Failure>> + Send,
    ) -> Result<(T, String), Stop> {
        self.say("");
        let mut interrupt = self.interrupt.clone();
        let mut progress = self.progress.subscribe();
        let mut told_at: Option<Instant> = None;
        // Beside the work, never instead of it: the work may be telling
        // something itself, and then this telling waits for that one's end.
        let mut telling: Option<BoxFuture<'_, Result<(), SessionOver>>> = None;
        let mut work = std::pin::pin!(work);
        loop {
            let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            let idle_end = touched + step.idle_max();
            let total_end = (started + step.time_max()).min(self.deadline);
            let next_telling = told_at.map_or(started, |at| at + PROGRESS_EVERY);
            tokio::select! {
                biased;
                reason = interrupt.wait() => return Err(Stop::Interrupted(reason)),
                result = &mut work => {
                    if let Some(telling) = telling {
                        telling.await?;
                    }
                    return result.map_err(Stop::Failed);
                }
                told = end_of(&mut telling), if telling.is_some() => {
                    telling = None;
                    told?;
                }
                () = tokio::time::sleep_until(idle_end.min(total_end)) => {
                    let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
                    let now = Instant::now();
                    if now >= self.deadline {
                        return Err(Stop::Failed(Self::too_late()));
                    }
                    if now >= total_end || now >= touched + step.idle_max() {
                        return Err(Stop::Failed(timeout(step)));
                    }
                }
                changed = progress.changed(), if telling.is_none() && told_at.is_none_or(|_| Instant::now() >= next_telling) => {
                    if changed.is_ok() {
                        let message = progress.borrow_and_update().clone();
                        if !message.is_empty() {
                            told_at = Some(Instant::now());
                            let progress = EventKind::StepProgress { step, message };
                            telling = Some(self.reporter.tell(progress).boxed());
                        }
                    }
                }
                () = tokio::time::sleep_until(next_telling), if told_at.is_some() && Instant::now() < next_telling => {}
            }
        }
    }
}

/// Resolves when what is being told has been told; never, if nothing is.
async fn end_of(
    telling: &mut Option<BoxFuture<'_, Result<(), SessionOver>>>,
) -> Result<(), SessionOver> {
    match telling {
        Some(telling) => telling.await,
        None => std::future::pending().await,
    }
}

fn timeout(step: StepId) -> Failure {
    let (code, what) = match step {
        StepId::Workspace => (Code::GitTimeout, "the workspace was not ready in time"),
        StepId::Detect | StepId::Config => (Code::InternalBug, "reading the project took too long"),
        StepId::Build => (Code::BuildTimeout, "the build made no progress, or took too long"),
        StepId::Start => (Code::DockerUnreachable, "the containers did not start in time"),
        StepId::Health => (Code::PreviewTimeout, "the team was not healthy in time"),
    };
    Failure::new(code, what)
}
