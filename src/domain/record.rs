//! What a worker must not forget about a team.

use std::collections::BTreeMap;

use super::event::{EncodedEvent, TeamState};
use super::failure::Code;
use super::ids::{JobId, PartName, RunId, TeamId};
use super::job::ActionKind;
use super::spec::{PreviewSpec, Spec};
use super::step::StepId;

/// How many jobs of a team a record keeps (DESIGN 3.4).
pub const JOBS_KEPT: usize = 256;

/// How long the record of a destroyed team is kept, so that the numbers of its
/// events go on if it comes back: as long as the log keeps events (DESIGN 3.8).
pub const TOMBSTONE_MILLIS: i64 = 7 * 24 * 3_600 * 1_000;

/// Deaths of the worker for which a job alone can be blamed, before it is put
/// aside (DESIGN 3.5).
pub const STRIKES_MAX: u32 = 3;

/// What the runs of a job did to the worker.
///
/// A run that a new process finds open ended with the old one. Nobody knows
/// which of several open runs was to blame, so that all of them are suspects
/// and none has a strike: see ADR 0015.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trial {
    /// A run of it is under way.
    pub open: bool,
    /// The worker died while a run of it was under way.
    pub suspect: bool,
    /// The worker died again when it ran as a suspect: nothing else may begin
    /// beside it, so that the next death can be put down to it.
    pub alone: bool,
    /// How often it died while this was the only open run, and a suspect's.
    pub strikes: u32,
}

impl Trial {
    /// Takes note that the worker died in an open run. `sole` says that no
    /// other run was open.
    pub fn died(&mut self, sole: bool) {
        self.open = false;
        if self.suspect {
            self.alone = true;
            self.strikes += u32::from(sole);
        }
        self.suspect = true;
    }

    /// Whether it must not run again.
    #[must_use]
    pub fn is_poisoned(self) -> bool {
        self.strikes >= STRIKES_MAX
    }
}

/// What there was of a team before a job's first run. Its later runs take back
/// what the earlier ones made too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Containers.
    pub containers: bool,
    /// A workspace that Covibes made.
    pub workspace: bool,
}

/// What a repeat of a failed job puts among the dead letters again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEnd {
    /// One sentence.
    pub message: String,
    /// Which attempt it was.
    pub attempts: u32,
    /// The last step that began.
    pub step: Option<StepId>,
}

/// One job as the record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// The attempt that is recorded.
    pub attempt: u32,
    /// What it asked for.
    pub action: ActionKind,
    /// The run that executes it.
    pub run: RunId,
    /// `None` while it runs; `succeeded`, `failed:<code>`, ... after.
    pub outcome: Option<String>,
    /// The final event, published again when the job comes again.
    pub final_event: Option<EncodedEvent>,
    /// More about the outcome, if it is `failed:<code>`.
    pub failed: Option<FailedEnd>,
    /// Step name to milliseconds.
    pub step_millis: BTreeMap<String, u64>,
    /// What its runs did to the worker.
    pub trial: Trial,
    /// What there was before its first run.
    pub before: Before,
}

impl JobRecord {
    /// The code with which it failed.
    #[must_use]
    pub fn failed_code(&self) -> Option<Code> {
        Code::parse(self.outcome.as_deref()?.strip_prefix("failed:")?)
    }

    /// Whether it decided what the team is: a later attempt at an earlier job
    /// must not undo it.
    fn was_applied(&self) -> bool {
        let decides = match self.action {
            ActionKind::Start | ActionKind::Stop | ActionKind::Restart | ActionKind::Destroy => {
                true
            }
            ActionKind::Sync | ActionKind::Status => false,
        };
        decides && self.outcome.as_deref() == Some("succeeded")
    }
}

/// A team as its host remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamRecord {
    /// The team.
    pub team: TeamId,
    /// Counts the accepted specs.
    pub generation: u64,
    /// The last event's sequence.
    pub sequence: u64,
    /// The team's state as last told.
    pub state: TeamState,
    /// The spec that was last accepted.
    pub spec: Option<Spec>,
    /// Index of the team's /27s.
    pub slot: Option<u16>,
    /// Preview name to host port, kept as a preference.
    pub ports: BTreeMap<PartName, u16>,
    /// Since when each preview has been asked for, in unix milliseconds.
    pub previews_since: BTreeMap<PartName, i64>,
    /// Whether its parts should run: a start of it came to an end, and nothing took
    /// it down since. Stays while the worker mends it, whatever its state.
    pub up: bool,
    /// When somebody last asked for it to run, in unix milliseconds: its `ttl` counts
    /// from then.
    pub started_unix_ms: Option<i64>,
    /// Directory of the workspace when it is not the default one (`covibes up PATH`).
    pub workspace_path: Option<String>,
    /// Mount points that were made in a workspace and are removed with the team, if empty.
    pub mount_points: Vec<String>,
    /// It was made from the labels of what runs, because the real one was lost.
    pub adopted: bool,
    /// It may have been another host's since, which told events of its own: the
    /// numbers go on above those in the log.
    pub given_away: bool,
    /// When the team was destroyed, in unix milliseconds.
    pub destroyed_unix_ms: Option<i64>,
    /// The last jobs, in their order.
    pub jobs: Vec<JobRecord>,
}

impl TeamRecord {
    /// The record of a team that was never heard of.
    #[must_use]
    pub fn new(team: TeamId) -> Self {
        Self {
            team,
            generation: 0,
            sequence: 0,
            state: TeamState::Stopped,
            spec: None,
            slot: None,
            ports: BTreeMap::new(),
            previews_since: BTreeMap::new(),
            up: false,
            started_unix_ms: None,
            workspace_path: None,
            mount_points: Vec::new(),
            adopted: false,
            given_away: false,
            destroyed_unix_ms: None,
            jobs: Vec::new(),
        }
    }

    /// Whether the team was destroyed so long ago that nobody can remember it.
    #[must_use]
    pub fn is_outlived(&self, now_unix_ms: i64) -> bool {
        self.destroyed_unix_ms.is_some_and(|at| now_unix_ms.saturating_sub(at) > TOMBSTONE_MILLIS)
    }

    /// What a tombstone keeps none of.
    pub fn forget_life(&mut self, now_unix_ms: i64) {
        self.destroyed_unix_ms = Some(now_unix_ms);
        self.adopted = false;
        self.up = false;
        self.started_unix_ms = None;
        self.spec = None;
        self.slot = None;
        self.ports.clear();
        self.previews_since.clear();
        self.workspace_path = None;
    }

    /// Notes which previews are asked for from now on.
    pub fn note_previews(&mut self, spec: &Spec, now_unix_ms: i64) {
        self.previews_since.retain(|name, _| spec.previews.iter().any(|p| p.name == *name));
        for preview in &spec.previews {
            self.previews_since.entry(preview.name.clone()).or_insert(now_unix_ms);
        }
    }

    /// Previews of the spec whose time is over.
    #[must_use]
    pub fn expired_previews(&self, now_unix_ms: i64) -> Vec<PartName> {
        let is_over = |preview: &&PreviewSpec| {
            let (Some(ttl), Some(since)) = (preview.ttl, self.previews_since.get(&preview.name))
            else {
                return false;
            };
            let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            now_unix_ms.saturating_sub(*since) >= ttl
        };
        let previews = self.spec.iter().flat_map(|spec| &spec.previews);
        previews.filter(is_over).map(|preview| preview.name.clone()).collect()
    }

    /// The later job that was applied, if an attempt after the first at `id`
    /// comes too late.
    #[must_use]
    pub fn applied_after(&self, id: JobId, attempt: u32) -> Option<JobId> {
        if attempt <= 1 {
            return None;
        }
        let later = match self.jobs.iter().position(|j| j.id == id) {
            Some(index) => &self.jobs[index + 1..],
            // It was forgotten, so all that is known came after it.
            None if self.jobs.len() >= JOBS_KEPT => &self.jobs[..],
            None => return None,
        };
        later.iter().rev().find(|j| j.was_applied()).map(|j| j.id)
    }

    /// The record of one job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&JobRecord> {
        self.jobs.iter().rev().find(|j| j.id == id)
    }

    /// Adds or replaces a job's record and forgets the oldest beyond [`JOBS_KEPT`].
    pub fn put_job(&mut self, job: JobRecord) {
        if let Some(old) = self.jobs.iter_mut().find(|j| j.id == job.id) {
            *old = job;
        } else {
            self.jobs.push(job);
            let excess = self.jobs.len().saturating_sub(JOBS_KEPT);
            self.jobs.drain(..excess);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u128, action: ActionKind, outcome: &str) -> JobRecord {
        JobRecord {
            id: JobId(uuid::Uuid::from_u128(n)),
            attempt: 1,
            action,
            run: RunId(uuid::Uuid::from_u128(n)),
            outcome: Some(outcome.to_owned()),
            final_event: None,
            failed: None,
            step_millis: BTreeMap::new(),
            trial: Trial::default(),
            before: Before { containers: false, workspace: false },
        }
    }

    fn record(jobs: Vec<JobRecord>) -> TeamRecord {
        TeamRecord { jobs, ..TeamRecord::new(TeamId::parse("a").unwrap()) }
    }

    #[test]
    fn the_oldest_job_is_forgotten_and_a_known_one_keeps_its_place() {
        let mut record = record(Vec::new());
        for n in 0..=JOBS_KEPT as u128 {
            record.put_job(job(n, ActionKind::Sync, "succeeded"));
        }
        assert_eq!(record.jobs.len(), JOBS_KEPT);
        assert_eq!(record.job(JobId(uuid::Uuid::from_u128(0))), None);
        record.put_job(job(1, ActionKind::Sync, "cancelled"));
        assert_eq!(record.jobs[0].outcome.as_deref(), Some("cancelled"));
        assert_eq!(record.jobs.len(), JOBS_KEPT);
    }

    #[test]
    fn only_a_death_alone_as_a_suspect_is_a_strike() {
        let mut trial = Trial { open: true, ..Trial::default() };
        trial.died(true);
        assert_eq!(trial, Trial { suspect: true, ..Trial::default() });
        trial.died(false);
        assert_eq!(trial, Trial { suspect: true, alone: true, ..Trial::default() });
        for strikes in 1..=STRIKES_MAX {
            assert!(!trial.is_poisoned());
            trial.died(true);
            assert_eq!(trial.strikes, strikes);
        }
        assert!(trial.is_poisoned());
    }

    #[test]
    fn a_late_attempt_gives_way_to_what_was_applied_after_it() {
        let applied = |jobs: Vec<JobRecord>, n: u128, attempt: u32| {
            let found = record(jobs).applied_after(JobId(uuid::Uuid::from_u128(n)), attempt);
            found.map(|id| id.0.as_u128())
        };
        let jobs = || {
            vec![
                job(1, ActionKind::Start, "failed:git.not_found"),
                job(2, ActionKind::Sync, "succeeded"),
                job(3, ActionKind::Stop, "succeeded"),
                job(4, ActionKind::Start, "failed:git.not_found"),
            ]
        };
        assert_eq!(applied(jobs(), 1, 2), Some(3));
        assert_eq!(applied(jobs(), 1, 1), None);
        assert_eq!(applied(jobs(), 4, 2), None);
        assert_eq!(applied(jobs(), 9, 2), None);
        let full = (10..10 + JOBS_KEPT as u128).map(|n| job(n, ActionKind::Start, "succeeded"));
        assert_eq!(applied(full.collect(), 9, 2), Some(9 + JOBS_KEPT as u128));
    }
}
