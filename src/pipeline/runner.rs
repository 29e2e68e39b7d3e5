//! Executes jobs: the six steps of a start, and the shorter ways of the other
//! actions, each ending in one confirmed final event.
//!
//! Order at the end of a job: outcome and final event fsynced in the record,
//! final event confirmed, then whoever holds the message settles it. A repeat
//! of the same job redoes what follows the record and no effect.

mod actions;
mod aftermath;
mod cleaning;
mod ends;
mod executing;
mod files;
mod following;
mod known;
mod looking;
mod mending;
mod moving;
mod own;
mod previews;
mod reaping;
mod recovery;
mod room;
mod start;
mod syncs;
mod telling;
mod tending;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

pub use self::cleaning::Cleaned;
use self::cleaning::Kept;
use self::ends::{dead_letter, failed_end, outcome_text};
use self::known::begun;
use self::own::{OwnJobs, OwnReason};
use self::reaping::Orphans;
use self::room::Shares;
use super::Ports;
use super::interrupt::{Interrupt, Reason};
use super::job_runner::{Admitted, Finished, JobRunner, Standing};
use super::lease::{TeamLease, TeamLeases};
use super::monitor::Monitor;
use super::preparation::Preparation;
use super::reporter::{Memories, Reporter};
use super::run::{Run, Stop};
use super::traced_engine::TracedEngine;
use crate::domain::event::{EventKind, TeamState};
use crate::domain::failure::Failure;
use crate::domain::health::Reconciled;
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::job::{Action, ActionKind, Job, Outcome};
use crate::domain::record::{JobRecord, TeamRecord, Trial};
use crate::observe::spans;
use crate::policy::backoff::Backoff;
use crate::ports::engine::Filter;
use crate::ports::messages::SessionOver;

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
    shares: Arc<Shares>,
    memories: Memories,
    own_jobs: OwnJobs,
    /// How the teams of this host are.
    monitor: Arc<Monitor>,
    /// Shared with the lanes: whoever removes what nobody owns holds one, too.
    leases: Arc<TeamLeases>,
    orphans: Orphans,
    /// What is kept on disk although it looks like waste.
    kept: Kept,
    /// What was found when this process began.
    reconciled: watch::Sender<Option<Reconciled>>,
    /// What the process before this one left is taken note of once.
    recovery: OnceCell<()>,
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
        let ports = Ports { engine: Arc::new(TracedEngine(ports.engine)), ..ports };
        let builds = Arc::new(Semaphore::new(ports.settings.capacity.builds_at_once.max(1)));
        let monitor = Monitor::new(Arc::clone(&ports.settings), Arc::clone(&ports.clock));
        let monitor = Arc::new(monitor);
        Self {
            ports,
            preparation,
            builds,
            choosing: tokio::sync::Mutex::default(),
            shares: Arc::default(),
            memories: Memories::default(),
            own_jobs: OwnJobs::default(),
            monitor,
            leases: Arc::default(),
            orphans: Orphans::default(),
            kept: Kept::default(),
            reconciled: watch::Sender::new(None),
            recovery: OnceCell::new(),
        }
    }

    /// The same runner with the leases that the lanes hold.
    #[must_use]
    pub fn with_leases(mut self, leases: Arc<TeamLeases>) -> Self {
        self.leases = leases;
        self
    }

    /// How the teams of this host are.
    #[must_use]
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
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
            Action::Start(_) if self.own_jobs.has(run.job.id) => self.do_own_job(run).await,
            Action::Start(spec) => self.start(run, spec).await,
            Action::Stop if self.own_jobs.has(run.job.id) => self.stop_by_itself(run).await,
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

    /// Does the work once, unless it is interrupted or the job's time is over,
    /// wherever it is: steps see both by themselves, what lies between them
    /// does not.
    async fn attempt(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let mut interrupt = run.interrupt();
        tokio::select! {
            biased;
            worked = self.work(run) => worked,
            reason = interrupt.wait() => Err(Stop::Interrupted(reason)),
            () = tokio::time::sleep_until(run.deadline()) => Err(Stop::Failed(Run::too_late())),
        }
    }

    /// Runs a job with retries of platform faults, until it ended or was
    /// interrupted.
    async fn with_retries(&self, run: &mut Run<'_>) -> Result<Worked, Stop> {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST).with_budget(RETRY_BUDGET);
        loop {
            let failure = match self.attempt(run).await {
                Err(Stop::Failed(failure)) if failure.is_retryable() => failure,
                other => return other,
            };
            let delay = backoff.delay(self.ports.clock.random(), began.elapsed());
            // What was wrong says more than that there is no time to try again.
            let Some(delay) = delay.filter(|delay| Instant::now() + *delay < run.deadline()) else {
                return Err(Stop::Failed(failure));
            };
            self.ports.metrics.step_retried(&failure);
            tracing::warn!(
                code = failure.code.as_str(),
                tries = run.attempt,
                delay_ms = delay.as_millis() as u64,
                "platform fault, the run is repeated"
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
        let failed = failed_end(outcome);
        let outcome = outcome_text(outcome);
        let keep = move |record: &mut TeamRecord, event| {
            if let Some(state) = end.state {
                record.state = state;
                record.up = matches!(state, TeamState::Running | TeamState::Degraded);
            }
            let known = begun(record, job, run);
            record.put_job(JobRecord {
                id,
                attempt,
                action,
                outcome: Some(outcome),
                final_event: Some(event),
                failed,
                trial: Trial { open: false, ..known.trial },
                ..known
            });
        };
        reporter.tell_kept(end.kind, keep, end.is_end_of_run).await
    }
}

/// A run that is at work on a team, for as long as this lives.
struct Busy {
    monitor: Arc<Monitor>,
    team: TeamId,
}

impl Busy {
    fn new(monitor: &Arc<Monitor>, team: &TeamId) -> Self {
        monitor.busy(team, true);
        Self { monitor: Arc::clone(monitor), team: team.clone() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.monitor.busy(&self.team, false);
        self.monitor.ask_for_team(&self.team);
    }
}

fn stop_failed(error: crate::ports::engine::EngineError) -> Stop {
    Stop::Failed(error.into())
}

fn team_event(state: TeamState, cause: &str, links: BTreeMap<PartName, String>) -> EventKind {
    EventKind::Team { state, cause: cause.to_owned(), links }
}

#[async_trait]
impl JobRunner for Runner {
    fn time_left(&self, job: &Job) -> Option<Duration> {
        let left = job.deadline_unix_ms?.saturating_sub(self.ports.clock.unix_millis());
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    async fn standing(&self, job: &Job) -> Result<Standing, SessionOver> {
        self.standing_of(job).instrument(spans::of_job(job)).await
    }

    async fn room(&self, job: &Job) -> Admitted {
        self.find_room(job).instrument(spans::of_job(job)).await
    }

    fn room_changes(&self) -> watch::Receiver<u64> {
        self.shares.changes()
    }

    async fn waits(&self, job: &Job, position: u32, short: &Failure) -> Result<(), SessionOver> {
        self.tell_waits(job, position, short).instrument(spans::of_job(job)).await
    }

    async fn own_job(&self) -> Job {
        self.own_jobs.next().await
    }

    fn own_job_not_taken(&self, job: JobId) {
        self.own_jobs.forget(job);
    }

    fn received(&self, kind: ActionKind) {
        self.ports.metrics.job_received(kind);
    }

    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver> {
        self.tell_accepted(job, position).instrument(spans::of_job(job)).await
    }

    async fn run(
        &self,
        lease: TeamLease,
        job: &Job,
        interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let busy = Busy::new(&self.monitor, &job.team);
        let run = self.execute(&lease, job, interrupt);
        let finished = run.instrument(spans::of_run(job)).await;
        drop(busy);
        self.own_jobs.forget(job.id);
        drop(lease);
        // Whatever it was: a stop, or a start that was taken back.
        self.shares.note_change();
        finished
    }

    fn may_be_joined(&self, job: &Job) -> bool {
        self.own_jobs.reason(job.id) != Some(OwnReason::Mend)
    }

    async fn fail(
        &self,
        lease: Option<TeamLease>,
        job: &Job,
        failure: Failure,
    ) -> Result<Finished, SessionOver> {
        let end = self.end_as_failed(lease.as_ref(), job, failure);
        end.instrument(spans::of_job(job)).await
    }

    async fn join(&self, job: &Job, with: &Job) -> Result<Finished, SessionOver> {
        self.end_like(job, with).instrument(spans::of_job(job)).await
    }

    async fn skip(&self, job: &Job, because: &Reason) -> Result<Finished, SessionOver> {
        self.own_jobs.forget(job.id);
        self.end_without_run(job, because).instrument(spans::of_job(job)).await
    }

    async fn status(&self, job: &Job) -> Result<Finished, SessionOver> {
        self.answer_status(job).instrument(spans::of_job(job)).await
    }

    async fn snapshot(&self, team: Option<&TeamId>) -> Result<(), SessionOver> {
        self.tell_snapshots(team).await
    }

    async fn give_away(&self, team: &TeamId) {
        self.note_given_away(team).instrument(spans::of_team(team)).await;
    }

    fn lets_go(&self, team: &TeamId) {
        self.monitor.forget(team);
    }

    async fn depart(&self, lease: &TeamLease) -> Result<String, Failure> {
        self.pack_up(lease).instrument(spans::of_team(lease.team())).await
    }

    async fn arrive(&self, lease: &TeamLease, record: &str) -> Result<(), Failure> {
        self.take_over(lease, record).instrument(spans::of_team(lease.team())).await?;
        self.monitor.ask_for_team(lease.team());
        Ok(())
    }

    async fn leave(&self, lease: &TeamLease) -> Result<(), Failure> {
        self.clear_away(lease).instrument(spans::of_team(lease.team())).await?;
        self.monitor.forget(lease.team());
        Ok(())
    }

    async fn knows(&self, team: &TeamId) -> bool {
        self.has_record(team).await
    }

    async fn rejected(
        &self,
        team: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        let refuse = self.refuse(team, job_id, failure);
        refuse.instrument(spans::of_message(team, job_id)).await
    }
}
