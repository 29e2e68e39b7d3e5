//! Executes jobs: the six steps of a start, and the shorter ways of the other
//! actions, each ending in one confirmed final event.
//!
//! Order at the end of a job: outcome and final event fsynced in the record,
//! final event confirmed, then whoever holds the message settles it. A repeat
//! of the same job redoes what follows the record and no effect.

mod actions;
mod aftermath;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Ports;
use super::interrupt::{Interrupt, Reason};
use super::job_runner::{Finished, JobRunner};
use super::lease::TeamLease;
use super::preparation::Preparation;
use super::reporter::{Memories, Reporter};
use super::run::{JOB_TIME_MAX, Run, Stop};
use crate::domain::event::{EventKind, TeamState};
use crate::domain::failure::Failure;
use crate::domain::ids::{PartName, RunId, TeamId};
use crate::domain::job::{Action, Job, Outcome};
use crate::domain::record::{JobRecord, TeamRecord};
use crate::policy::backoff::Backoff;
use crate::ports::engine::Filter;
use crate::ports::messages::{DeadLetter, SessionOver};

/// How long platform faults are retried in the lane (DESIGN 3.5).
const RETRY_BUDGET: Duration = Duration::from_secs(600);

/// The first delay is drawn from 0 up to this.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest delay.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Executes jobs against the ports.
pub struct Runner {
    ports: Ports,
    preparation: Arc<Preparation>,
    builds: Arc<Semaphore>,
    /// Choosing subnets and ports of two teams at once could choose the same.
    choosing: tokio::sync::Mutex<()>,
    memories: Memories,
}

/// A final event and what it means for the record.
struct End {
    kind: EventKind,
    /// The team's state from now on, if the job decided it.
    state: Option<TeamState>,
    /// Whether the job ran, or was ended beside a run.
    is_end_of_run: bool,
}

/// What came of the work, before it is told.
struct Worked {
    changed: bool,
    links: BTreeMap<PartName, String>,
    message: String,
    state: Option<(TeamState, String)>,
}

impl Runner {
    /// A runner over these ports.
    #[must_use]
    pub fn new(ports: Ports, preparation: Arc<Preparation>) -> Self {
        let builds = Arc::new(Semaphore::new(ports.settings.capacity.builds_at_once.max(1)));
        Self {
            ports,
            preparation,
            builds,
            choosing: tokio::sync::Mutex::default(),
            memories: Memories::default(),
        }
    }

    /// The ports it works with.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    fn filter(&self, team: &TeamId) -> Filter {
        Filter { instance: self.ports.settings.instance.clone(), team: Some(team.clone()) }
    }

    async fn work(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        match &run.job.action {
            Action::Start(spec) => self.start(run, spec).await,
            Action::Stop => self.stop(run).await,
            Action::Destroy => self.destroy(run).await,
            Action::Restart { targets } => self.restart(run, targets).await,
            Action::Sync => self.sync(run).await,
            Action::Status => Ok(Worked {
                changed: false,
                links: BTreeMap::new(),
                message: "snapshot published".to_owned(),
                state: None,
            }),
        }
    }

    /// Runs a job with retries of platform faults, until it ended or was
    /// interrupted.
    async fn with_retries(&self, run: &mut Run<'_>) -> Result<Worked, Stop> {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST).with_budget(RETRY_BUDGET);
        loop {
            let failure = match self.work(run).await {
                Err(Stop::Failed(failure)) if failure.is_retryable() => failure,
                other => return other,
            };
            let Some(delay) = backoff.delay(self.ports.clock.random(), began.elapsed()) else {
                return Err(Stop::Failed(failure));
            };
            self.ports.metrics.step_retried(&failure);
            tracing::warn!(
                team.id = %run.team(), run.id = %run.id, code = failure.code.as_str(),
                delay_ms = delay.as_millis() as u64, "platform fault, the run is repeated"
            );
            let kind = EventKind::JobRetrying { failure, delay };
            run.reporter.tell(kind).await?;
            let mut interrupt = run.interrupt();
            tokio::select! {
                reason = interrupt.wait() => return Err(Stop::Interrupted(reason)),
                () = self.ports.clock.sleep(delay) => {}
            }
            run.attempt += 1;
        }
    }

    /// Stores the outcome with its final event, then publishes it.
    async fn conclude(
        &self,
        reporter: &Reporter,
        job: &Job,
        run: RunId,
        outcome: &Outcome,
        end: End,
    ) -> Result<(), SessionOver> {
        let (id, attempt, action) = (job.id, job.attempt, job.action.kind());
        let outcome = outcome_text(outcome);
        let keep = move |record: &mut TeamRecord, event| {
            if let Some(state) = end.state {
                record.state = state;
            }
            let step_millis = record.job(id).map(|j| j.step_millis.clone()).unwrap_or_default();
            record.put_job(JobRecord {
                id,
                attempt,
                action,
                run,
                outcome: Some(outcome),
                final_event: Some(event),
                step_millis,
            });
        };
        reporter.tell_kept(end.kind, keep, end.is_end_of_run).await
    }
}

fn stop_failed(error: crate::ports::engine::EngineError) -> Stop {
    Stop::Failed(error.into())
}

fn team_event(state: TeamState, cause: &str, links: BTreeMap<PartName, String>) -> EventKind {
    EventKind::Team { state, cause: cause.to_owned(), links }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("failed:{}", failure.code),
        other => other.as_str().to_owned(),
    }
}

/// A dead letter for a failed job.
fn dead_letter(failure: &Failure, attempts: u32) -> DeadLetter {
    DeadLetter {
        reason: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        attempts,
        step: failure.step.map(|s| s.as_str().to_owned()),
    }
}

#[async_trait]
impl JobRunner for Runner {
    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver> {
        self.ports.metrics.job_received(job.action.kind());
        let Ok(reporter) =
            Reporter::open(&self.ports, &self.memories, &job.team, Some(job.id), job.attempt).await
        else {
            return Ok(());
        };
        if let Some(known) = reporter.record().await.job(job.id)
            && known.outcome.is_some()
            && known.attempt >= job.attempt
        {
            return Ok(());
        }
        let kind = EventKind::JobAccepted { action: job.action.kind(), position, short: None };
        reporter.tell(kind).await
    }

    async fn run(
        &self,
        lease: TeamLease,
        job: &Job,
        interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let action = job.action.kind();
        let started = Instant::now();
        let reporter = match self.open(job).await {
            Ok(reporter) => reporter,
            Err(over) => return Err(over),
        };
        let record = reporter.record().await;
        if let Some(finished) = self.repeat(job, &record, &reporter).await? {
            return Ok(finished);
        }
        self.ports.metrics.job_began(action, Duration::ZERO);
        let id = RunId(self.ports.clock.new_id());
        reporter
            .update(|record| {
                record.put_job(JobRecord {
                    id: job.id,
                    attempt: job.attempt,
                    action,
                    run: id,
                    outcome: None,
                    final_event: None,
                    step_millis: BTreeMap::new(),
                });
            })
            .await;
        // The disk and the daemon work at the same time.
        let filter = self.filter(&job.team);
        let (saved, found) = tokio::join!(reporter.save(), self.ports.engine.list(&filter));
        if let Err(error) = saved {
            tracing::error!(team.id = %job.team, %error, "the record cannot be written");
        }
        let found = found.ok();
        let first = found.as_ref().is_some_and(|found| found.containers.is_empty());
        tracing::info!(
            team.id = %job.team, job.id = %job.id, run.id = %id, action = action.as_str(),
            "job begins"
        );
        let deadline = started + JOB_TIME_MAX;
        let mut run = Run::new(&self.ports, job, id, reporter, interrupt, deadline, found);
        let result = self.with_retries(&mut run).await;
        self.ports.metrics.job_left(action);
        let finished = self.end(&run, first, started, result).await;
        drop(lease);
        finished
    }

    async fn skip(&self, job: &Job, because: &Reason) -> Result<Finished, SessionOver> {
        let reporter = self.open(job).await?;
        // It may have had its turn before a crash: then it has its end.
        let record = reporter.record().await;
        if let Some(finished) = self.repeat(job, &record, &reporter).await? {
            return Ok(finished);
        }
        let (outcome, kind) = match because {
            Reason::Cancel { by } => {
                (Outcome::Cancelled, EventKind::JobCancelled { by: Some(*by) })
            }
            Reason::Supersede { by } => {
                (Outcome::Superseded, EventKind::JobSuperseded { by: Some(*by) })
            }
            Reason::None => (
                Outcome::Succeeded { changed: false },
                EventKind::JobSucceeded {
                    action: job.action.kind(),
                    changed: false,
                    duration: Duration::ZERO,
                    links: BTreeMap::new(),
                    message: "an equal job before it did the work".to_owned(),
                },
            ),
            Reason::Abandon => {
                return Err(SessionOver { reason: "the run was abandoned".to_owned() });
            }
        };
        let id = RunId(self.ports.clock.new_id());
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(job.action.kind(), &outcome, Duration::ZERO, now);
        let end = End { kind, state: None, is_end_of_run: false };
        self.conclude(&reporter, job, id, &outcome, end).await?;
        Ok(Finished::Done)
    }

    async fn status(&self, job: &Job) -> Result<Finished, SessionOver> {
        let action = job.action.kind();
        self.ports.metrics.job_received(action);
        let reporter = self.open(job).await?;
        let snapshot = match self.snapshot(&reporter).await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                let letter = dead_letter(&failure, job.attempt);
                reporter
                    .tell(EventKind::JobFailed {
                        action: job.action.kind(),
                        failure,
                        undone: false,
                    })
                    .await?;
                return Ok(Finished::Dead(letter));
            }
        };
        reporter.tell(EventKind::TeamSnapshot(snapshot)).await?;
        reporter
            .tell(EventKind::JobSucceeded {
                action: job.action.kind(),
                changed: false,
                duration: Duration::ZERO,
                links: BTreeMap::new(),
                message: "snapshot published".to_owned(),
            })
            .await?;
        let now = self.ports.clock.unix_millis();
        let outcome = Outcome::Succeeded { changed: false };
        self.ports.metrics.job_ended(action, &outcome, Duration::ZERO, now);
        Ok(Finished::Done)
    }

    async fn rejected(
        &self,
        team: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        self.ports.metrics.message_rejected(failure.code);
        if let Some(team) = team {
            let job = job_id.and_then(|raw| crate::domain::ids::JobId::parse(raw).ok());
            if let Ok(reporter) = Reporter::open(&self.ports, &self.memories, team, job, 1).await {
                let kind = EventKind::JobRejected { failure: failure.clone() };
                reporter.tell(kind).await?;
            }
        }
        Ok(Finished::Dead(dead_letter(failure, 1)))
    }
}

impl Runner {
    /// Opens the team's record; a disk that refuses hands the job back.
    async fn open(&self, job: &Job) -> Result<Reporter, SessionOver> {
        Reporter::open(&self.ports, &self.memories, &job.team, Some(job.id), job.attempt)
            .await
            .map_err(|error| {
                tracing::error!(team.id = %job.team, %error, "the record cannot be read");
                SessionOver { reason: "the record cannot be read".to_owned() }
            })
    }

    /// A job that the record knows as ended: its final event again, no effect.
    async fn repeat(
        &self,
        job: &Job,
        record: &TeamRecord,
        reporter: &Reporter,
    ) -> Result<Option<Finished>, SessionOver> {
        let Some(known) = record.job(job.id).filter(|k| k.attempt >= job.attempt) else {
            return Ok(None);
        };
        let (Some(outcome), Some(event)) = (&known.outcome, &known.final_event) else {
            return Ok(None);
        };
        reporter.tell_again(event).await?;
        tracing::info!(team.id = %job.team, job.id = %job.id, outcome, "job is known, told again");
        Ok(Some(match outcome.strip_prefix("failed:") {
            Some(code) => Finished::Dead(DeadLetter {
                reason: code.to_owned(),
                message: "the job failed before".to_owned(),
                attempts: known.attempt,
                step: None,
            }),
            None => Finished::Done,
        }))
    }

    /// Tells how a job ended, and cleans up what its end demands.
    async fn end(
        &self,
        run: &Run<'_>,
        first: bool,
        started: Instant,
        result: Result<Worked, Stop>,
    ) -> Result<Finished, SessionOver> {
        let job = run.job;
        let action = job.action.kind();
        let duration = started.elapsed();
        let (outcome, kind, state) = match result {
            Ok(worked) => {
                if let Some((state, cause)) = &worked.state {
                    let event = team_event(*state, cause, worked.links.clone());
                    run.reporter.tell(event).await?;
                }
                let state = worked.state.as_ref().map(|(state, _)| *state);
                let kind = EventKind::JobSucceeded {
                    action,
                    changed: worked.changed,
                    duration,
                    links: worked.links,
                    message: worked.message,
                };
                (Outcome::Succeeded { changed: worked.changed }, kind, state)
            }
            Err(Stop::Failed(mut failure)) => {
                failure.attempt = run.attempt;
                let undone = self.clean_up(run, first, &mut failure).await;
                let kind = EventKind::JobFailed { action, failure: failure.clone(), undone };
                (Outcome::Failed(failure), kind, None)
            }
            Err(Stop::Interrupted(Reason::Cancel { by })) => {
                if let Err(error) = self.take_back(run, &[]).await {
                    tracing::error!(team.id = %run.team(), %error, "undo failed");
                }
                (Outcome::Cancelled, EventKind::JobCancelled { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Supersede { by })) => {
                (Outcome::Superseded, EventKind::JobSuperseded { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Abandon | Reason::None)) => {
                return Err(SessionOver { reason: "the run was abandoned".to_owned() });
            }
            Err(Stop::Session(over)) => return Err(over),
        };
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(action, &outcome, duration, now);
        let end = End { kind, state, is_end_of_run: true };
        self.conclude(&run.reporter, job, run.id, &outcome, end).await?;
        tracing::info!(
            team.id = %job.team, job.id = %job.id, run.id = %run.id,
            outcome = outcome.as_str(), millis = duration.as_millis() as u64, "job ends"
        );
        Ok(match &outcome {
            Outcome::Failed(failure) => Finished::Dead(dead_letter(failure, run.attempt)),
            _ => Finished::Done,
        })
    }
}
