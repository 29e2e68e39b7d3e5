//! Jobs that are ended without a run: those whose end the record knows, those
//! that others overtook, those that must not run, and what only asks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, Runner, dead_letter};
use crate::domain::event::{EventKind, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::job::{ActionKind, Job, Outcome};
use crate::domain::record::{Before, JobRecord, TeamRecord, Trial};
use crate::pipeline::interrupt::{self, Reason};
use crate::pipeline::job_runner::{Finished, Standing};
use crate::pipeline::lease::TeamLease;
use crate::pipeline::reporter::Reporter;
use crate::pipeline::run::Run;
use crate::ports::messages::{DeadLetter, SessionOver};

/// Why a run ends that was told to leave its job to whoever gets it next.
pub(super) fn abandoned() -> SessionOver {
    SessionOver { reason: "the run was abandoned".to_owned() }
}

/// Whether the record knows the job's end. A higher attempt of a failed job is
/// another job; of one that ended otherwise it is a repeat.
pub(super) fn is_repeat(record: &TeamRecord, job: &Job) -> bool {
    record.job(job.id).is_some_and(|known| {
        known.outcome.is_some() && (known.attempt >= job.attempt || known.failed_code().is_none())
    })
}

/// The job's record for a run of it, which goes on from its earlier ones.
pub(super) fn begun(record: &TeamRecord, job: &Job, run: RunId) -> JobRecord {
    let new = JobRecord {
        id: job.id,
        attempt: job.attempt,
        action: job.action.kind(),
        run,
        outcome: None,
        final_event: None,
        failed: None,
        step_millis: BTreeMap::new(),
        trial: Trial::default(),
        // Until it was looked: nothing that is there is taken for its own.
        before: Before { containers: true, workspace: true },
    };
    match record.job(job.id) {
        Some(known) if known.attempt == job.attempt => JobRecord { run, ..known.clone() },
        _ => new,
    }
}

/// The open job as the record knows it, of this very attempt.
fn unfinished<'a>(record: &'a TeamRecord, job: &Job) -> Option<&'a JobRecord> {
    record.job(job.id).filter(|known| known.attempt == job.attempt && known.outcome.is_none())
}

impl Runner {
    /// Tells that a job was taken on, unless it is known.
    pub(super) async fn tell_accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver> {
        let reporter = self.open(job).await?;
        if reporter.read(|record| is_repeat(record, job)).await {
            return Ok(());
        }
        let kind = EventKind::JobAccepted { action: job.action.kind(), position, short: None };
        reporter.tell(kind).await
    }

    /// Tells what a job waits for.
    pub(super) async fn tell_waits(
        &self,
        job: &Job,
        position: u32,
        short: &Failure,
    ) -> Result<(), SessionOver> {
        tracing::info!(
            code = short.code.as_str(),
            position,
            "job waits for room: {}",
            short.message
        );
        let short = Some(short.code.as_str().to_owned());
        let kind = EventKind::JobAccepted { action: job.action.kind(), position, short };
        self.open(job).await?.tell(kind).await
    }

    /// Opens the team's record; a disk that refuses hands the job back.
    pub(super) async fn open(&self, job: &Job) -> Result<Reporter, SessionOver> {
        self.open_team(&job.team, Some(job.id), job.attempt).await
    }

    pub(super) async fn open_team(
        &self,
        team: &TeamId,
        job: Option<JobId>,
        attempt: u32,
    ) -> Result<Reporter, SessionOver> {
        let unreadable = |error: Failure| {
            tracing::error!(team.id = %team, %error, "what is known of a team cannot be read");
            SessionOver { reason: error.message }
        };
        self.recovered().await.map_err(unreadable)?;
        Reporter::open(&self.ports, &self.memories, team, job, attempt).await.map_err(unreadable)
    }

    pub(super) async fn standing_of(&self, job: &Job) -> Result<Standing, SessionOver> {
        let reporter = self.open(job).await?;
        let look = |record: &TeamRecord| {
            if is_repeat(record, job) {
                return Standing::Decided;
            }
            match unfinished(record, job).map(|known| known.trial) {
                Some(trial) if trial.is_poisoned() => Standing::Decided,
                Some(trial) if trial.suspect => Standing::Suspect { alone: trial.alone },
                _ if record.applied_after(job.id, job.attempt).is_some() => Standing::Decided,
                _ => Standing::Fresh,
            }
        };
        Ok(reporter.read(look).await)
    }

    /// Ends a job that must not run: one with an end, one that killed the
    /// worker, one that comes again too late.
    pub(super) async fn decided(
        &self,
        lease: &TeamLease,
        job: &Job,
        reporter: &Reporter,
    ) -> Result<Option<Finished>, SessionOver> {
        if let Some(finished) = self.repeat(job, reporter).await? {
            return Ok(Some(finished));
        }
        let (is_poisoned, later) = reporter
            .read(|record| {
                let known = unfinished(record, job);
                let is_poisoned = known.is_some_and(|known| known.trial.is_poisoned());
                (is_poisoned, record.applied_after(job.id, job.attempt))
            })
            .await;
        if is_poisoned {
            let message = "the worker ended three times while it ran this job alone";
            let failure = Failure::new(Code::JobPoisoned, message);
            return Ok(Some(self.end_as_failed(Some(lease), job, failure).await?));
        }
        match later {
            Some(by) => Ok(Some(self.end_without_run(job, &Reason::Supersede { by }).await?)),
            None => Ok(None),
        }
    }

    /// A job that the record knows as ended: its final event again, no effect.
    async fn repeat(
        &self,
        job: &Job,
        reporter: &Reporter,
    ) -> Result<Option<Finished>, SessionOver> {
        let known = reporter
            .read(|record| is_repeat(record, job).then(|| record.job(job.id).cloned()))
            .await
            .flatten();
        let Some(known) = known else { return Ok(None) };
        if let Some(event) = &known.final_event {
            reporter.tell_again(event).await?;
        }
        let outcome = known.outcome.as_deref().unwrap_or_default();
        tracing::info!(outcome, "job is known, told again");
        let Some(code) = outcome.strip_prefix("failed:") else { return Ok(Some(Finished::Done)) };
        let failed = known.failed.as_ref();
        Ok(Some(Finished::Dead(DeadLetter {
            reason: code.to_owned(),
            message: failed.map_or("the job failed before", |f| f.message.as_str()).to_owned(),
            attempts: failed.map_or(known.attempt, |f| f.attempts),
            step: failed.and_then(|f| f.step).map(|step| step.as_str().to_owned()),
        })))
    }

    /// Ends a job as failed without a run. With a lease, what its last run made
    /// is taken back.
    pub(super) async fn end_as_failed(
        &self,
        lease: Option<&TeamLease>,
        job: &Job,
        failure: Failure,
    ) -> Result<Finished, SessionOver> {
        let reporter = self.open(job).await?;
        if let Some(finished) = self.repeat(job, &reporter).await? {
            return Ok(finished);
        }
        let known = reporter.read(|record| unfinished(record, job).cloned()).await;
        let has_run = known.is_some();
        let left = known.filter(|_| lease.is_some() && job.action.kind() == ActionKind::Start);
        let action = job.action.kind();
        let id = left.as_ref().map_or_else(|| RunId(self.ports.clock.new_id()), |known| known.run);
        let too_late = failure.code == Code::JobDeadline
            && job.deadline_unix_ms.is_some_and(|at| at <= self.ports.clock.unix_millis());
        let kind = match too_late && !has_run {
            // The message itself says that it must not run any more, which the
            // dispatcher says of a team without a host in the same words.
            true => EventKind::JobRejected { failure: failure.clone() },
            false => EventKind::JobFailed { action, failure: failure.clone(), undone: false },
        };
        let state = left.is_some().then_some(TeamState::Failed);
        let outcome = Outcome::Failed(failure.clone());
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(action, &outcome, Duration::ZERO, now);
        let (code, fault) = (failure.code.as_str(), failure.code.fault().as_str());
        let hint = failure.code.hint();
        tracing::warn!(code, fault, hint, "job ends without a run: failed: {}", failure.message);
        // First, because taking back may be what kills the worker: it is then
        // put aside all the same, and the next job of the team finds what is left.
        let end = End { kind, state, is_end_of_run: lease.is_some() };
        self.conclude(&reporter, job, id, &outcome, end).await?;
        if let Some(known) = left {
            let (_, interrupt) = interrupt::pair();
            let before = known.before;
            let run = Run::new(&self.ports, job, id, reporter, interrupt, before, None);
            self.clean_up(&run, &failure).await;
            if let Err(error) = run.reporter.save_final().await {
                tracing::error!(%error, "the record cannot be written");
            }
        }
        Ok(Finished::Dead(dead_letter(&failure)))
    }

    /// Ends a job as another one ended that did its work meanwhile.
    pub(super) async fn end_like(&self, job: &Job, with: &Job) -> Result<Finished, SessionOver> {
        let reporter = self.open(job).await?;
        let end = reporter.read(|record| record.job(with.id).cloned()).await;
        let Some((code, failed)) =
            end.as_ref().and_then(|end| Some((end.failed_code()?, end.failed.clone()?)))
        else {
            return self.end_without_run(job, &Reason::None).await;
        };
        let mut failure = Failure::new(code, failed.message);
        (failure.step, failure.attempt) = (failed.step, failed.attempts);
        self.end_as_failed(None, job, failure).await
    }

    /// Ends a job that never began as another job's end says.
    pub(super) async fn end_without_run(
        &self,
        job: &Job,
        because: &Reason,
    ) -> Result<Finished, SessionOver> {
        let reporter = self.open(job).await?;
        // A job that comes again has its own end already, whatever overtook it.
        if let Some(finished) = self.repeat(job, &reporter).await? {
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
                    links: self.links(job, &reporter).await,
                    message: "an equal job before it did the work".to_owned(),
                },
            ),
            Reason::Abandon => {
                return Err(SessionOver { reason: "the run was abandoned".to_owned() });
            }
        };
        if job.action.kind() != ActionKind::Status {
            let by = match because {
                Reason::Cancel { by } | Reason::Supersede { by } => Some(by.to_string()),
                Reason::None | Reason::Abandon => None,
            };
            tracing::info!(by, "job ends without a run: {}", outcome.as_str());
        }
        let id = RunId(self.ports.clock.new_id());
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(job.action.kind(), &outcome, Duration::ZERO, now);
        if job.action.kind() == ActionKind::Status {
            // It changed nothing, so that nothing is to be remembered.
            reporter.tell(kind).await?;
        } else {
            let end = End { kind, state: None, is_end_of_run: false };
            self.conclude(&reporter, job, id, &outcome, end).await?;
        }
        Ok(Finished::Done)
    }

    /// The links of a running team's previews.
    async fn links(&self, job: &Job, reporter: &Reporter) -> BTreeMap<PartName, String> {
        if job.action.kind() != ActionKind::Start {
            return BTreeMap::new();
        }
        let settings = &self.ports.settings;
        let link = |(part, port): (&PartName, &u16)| {
            (part.clone(), settings.preview_link(part, &job.team, *port))
        };
        reporter.read(|record| record.ports.iter().map(link).collect()).await
    }

    pub(super) async fn answer_status(&self, job: &Job) -> Result<Finished, SessionOver> {
        let action = job.action.kind();
        let began = Instant::now();
        self.ports.metrics.job_received(action);
        let reporter = self.open(job).await?;
        let snapshot = match self.look(&reporter).await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                let letter = dead_letter(&failure);
                reporter.tell(EventKind::JobFailed { action, failure, undone: false }).await?;
                return Ok(Finished::Dead(letter));
            }
        };
        reporter.tell(EventKind::TeamSnapshot(snapshot)).await?;
        let duration = began.elapsed();
        reporter
            .tell(EventKind::JobSucceeded {
                action,
                changed: false,
                duration,
                links: BTreeMap::new(),
                message: "snapshot published".to_owned(),
            })
            .await?;
        let now = self.ports.clock.unix_millis();
        let outcome = Outcome::Succeeded { changed: false };
        self.ports.metrics.job_ended(action, &outcome, duration, now);
        Ok(Finished::Done)
    }

    pub(super) async fn refuse(
        &self,
        team: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        self.ports.metrics.message_rejected(failure.code);
        if let Some(team) = team {
            let job = job_id.and_then(|raw| JobId::parse(raw).ok());
            let reporter = self.open_team(team, job, 1).await?;
            reporter.tell(EventKind::JobRejected { failure: failure.clone() }).await?;
        }
        Ok(Finished::Dead(dead_letter(failure)))
    }
}
