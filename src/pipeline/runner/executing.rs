//! One execution of a job, from its record's first note to its confirmed end.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::ends::dead_letter;
use super::known::{abandoned, begun};
use super::{End, Runner, Worked, recovery, team_event};
use crate::config::layout::Layout;
use crate::domain::event::EventKind;
use crate::domain::ids::RunId;
use crate::domain::job::{Action, Job, Outcome};
use crate::domain::record::Before;
use crate::domain::step::StepId;
use crate::observe::spans;
use crate::pipeline::interrupt::{Interrupt, Reason};
use crate::pipeline::job_runner::{Finished, Standing};
use crate::pipeline::lease::TeamLease;
use crate::pipeline::run::{Run, Stop};
use crate::ports::messages::SessionOver;

impl Runner {
    /// Executes a job whose end is not decided yet.
    pub(super) async fn execute(
        &self,
        lease: &TeamLease,
        job: &Job,
        mut interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let action = job.action.kind();
        let started = Instant::now();
        let reporter = self.open(job).await?;
        let is_decided = self.standing_of(job).await? == Standing::Decided;
        if is_decided && !interrupt.may_speak().await {
            return Err(abandoned());
        }
        if let Some(finished) = self.decided(lease, job, &reporter).await? {
            return Ok(finished);
        }
        let id = RunId(self.ports.clock.new_id());
        Span::current().record("run.id", tracing::field::display(id));
        let (waited, now) = (interrupt.waited(), self.ports.clock.unix_millis());
        let running = self.ports.metrics.job_began(action, waited, now);
        let is_first_run = reporter
            .update(|record| {
                let is_first_run = record.job(job.id).is_none_or(|k| k.attempt != job.attempt);
                let mut begun = begun(record, job, id);
                begun.trial.open = true;
                record.put_job(begun);
                is_first_run
            })
            .await;
        // The disk, the daemon and the broker, which confirms the job's first
        // event, work at the same time.
        let filter = self.filter(&job.team);
        let (saved, found, may_speak) =
            tokio::join!(reporter.save(), self.ports.engine.list(&filter), interrupt.may_speak());
        if let Err(error) = saved {
            tracing::error!(%error, "the record cannot be written");
        }
        let found = found.ok();
        let workspace = Layout::new(&self.ports.settings, &job.team).workspace();
        let has_workspace = self.ports.host.is_own_workspace(&workspace).await;
        let before = reporter
            .update(|record| {
                if let Some(found) = &found {
                    recovery::adopt(record, found);
                }
                let known = record.jobs.iter_mut().find(|known| known.id == job.id);
                let before = known.map(|known| &mut known.before);
                let looked = Before {
                    containers: found.as_ref().is_none_or(|found| !found.containers.is_empty()),
                    workspace: has_workspace,
                };
                match before {
                    Some(before) if is_first_run => {
                        *before = looked;
                        looked
                    }
                    Some(before) => *before,
                    None => looked,
                }
            })
            .await;
        let waited_ms = waited.as_millis() as u64;
        match found.as_ref().map(|found| found.containers.len()) {
            Some(containers) => tracing::info!(waited_ms, containers, "job begins"),
            None => tracing::warn!(waited_ms, "job begins, and Docker does not answer"),
        }
        let mut run = Run::new(&self.ports, job, id, reporter, interrupt, before, found);
        let result = match may_speak {
            true => self.with_retries(&mut run).await,
            false => Err(Stop::Interrupted(Reason::Abandon)),
        };
        drop(running);
        let finished = self.end(&run, started, result).await;
        if finished.is_err() {
            self.leave_open_to_others(&run).await;
        }
        finished
    }

    /// The last line of a run: what came of it, and of one that failed what a person
    /// needs to go on.
    fn log_end(&self, run: &Run<'_>, outcome: &Outcome, duration: Duration, said: &str) {
        let millis = duration.as_millis() as u64;
        match outcome {
            Outcome::Failed(failure) => {
                let (code, fault) = (failure.code.as_str(), failure.code.fault().as_str());
                let layout = Layout::new(&self.ports.settings, run.team());
                let is_start = matches!(run.job.action, Action::Start(_));
                let evidence = is_start.then(|| layout.evidence(run.id).display().to_string());
                tracing::warn!(
                    millis,
                    code,
                    fault,
                    tries = failure.attempt,
                    hint = failure.code.hint(),
                    evidence,
                    step = failure.step.map(StepId::as_str),
                    "job ends: failed: {}",
                    failure.message
                );
            }
            Outcome::Succeeded { changed } => {
                tracing::info!(millis, changed, "job ends: {said}");
            }
            Outcome::Cancelled | Outcome::Superseded => {
                tracing::info!(millis, "job ends: {}", outcome.as_str());
            }
        }
    }

    /// Notes that a run ended without an end of its job, in good order: whoever
    /// gets the job next has no reason to suspect it.
    async fn leave_open_to_others(&self, run: &Run<'_>) {
        let id = run.job.id;
        let is_ended = run
            .reporter
            .update(|record| {
                let known = record.jobs.iter_mut().find(|known| known.id == id);
                known.is_none_or(|known| {
                    known.trial.open = false;
                    known.outcome.is_some()
                })
            })
            .await;
        if !is_ended && let Err(error) = run.reporter.save().await {
            tracing::warn!(%error, "the job may be taken for a suspect");
        }
    }

    /// Tells how a job ended, and cleans up what its end demands.
    async fn end(
        &self,
        run: &Run<'_>,
        started: Instant,
        result: Result<Worked, Stop>,
    ) -> Result<Finished, SessionOver> {
        let job = run.job;
        let action = job.action.kind();
        let duration = started.elapsed();
        let mut said = String::new();
        let (outcome, kind, state) = match result {
            Ok(worked) => {
                said.clone_from(&worked.message);
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
                let undone = self.clean_up(run, &failure).await;
                let kind = EventKind::JobFailed { action, failure: failure.clone(), undone };
                (Outcome::Failed(failure), kind, None)
            }
            Err(Stop::Interrupted(Reason::Cancel { by })) => {
                tracing::info!(by = %by, "run interrupted by a later job; it is undone");
                if let Err(error) = self.take_back(run, &[]).await {
                    tracing::error!(%error, "undo failed");
                }
                (Outcome::Cancelled, EventKind::JobCancelled { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Supersede { by })) => {
                (Outcome::Superseded, EventKind::JobSuperseded { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Abandon | Reason::None)) => {
                return Err(abandoned());
            }
            Err(Stop::Session(over)) => return Err(over),
        };
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(action, &outcome, duration, now);
        spans::run_ended(&outcome);
        let end = End { kind, state, is_end_of_run: true };
        self.conclude(&run.reporter, job, run.id, &outcome, end).await?;
        self.log_end(run, &outcome, duration, &said);
        Ok(match &outcome {
            Outcome::Failed(failure) => Finished::Dead(dead_letter(failure)),
            _ => Finished::Done,
        })
    }
}
