//! What a worker must not forget about a team.

use std::collections::BTreeMap;

use super::event::{EncodedEvent, TeamState};
use super::ids::{JobId, PartName, RunId, TeamId};
use super::job::ActionKind;
use super::spec::Spec;

/// How many jobs of a team a record keeps (DESIGN 3.4).
pub const JOBS_KEPT: usize = 256;

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
    /// Step name to milliseconds.
    pub step_millis: BTreeMap<String, u64>,
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
    /// Directory of the workspace when it is not the default one (`covibes up PATH`).
    pub workspace_path: Option<String>,
    /// Mount points that were made in a workspace and are removed with the team, if empty.
    pub mount_points: Vec<String>,
    /// The last jobs, oldest first.
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
            workspace_path: None,
            mount_points: Vec::new(),
            jobs: Vec::new(),
        }
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
