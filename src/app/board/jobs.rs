//! One job as its events tell it.

use std::collections::BTreeMap;

use super::short;
use crate::domain::step::StepId;
use crate::wire::event_body::{Body, FailureBody};
use crate::wire::event_reader::WireEvent;

/// Repeats of one job that are kept: ten minutes of them are about as many.
const RETRIES_MAX: usize = 20;

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Behind others, or for room.
    Waiting,
    /// A run is under way.
    Running,
    /// It is tried again after a platform's fault.
    Retrying,
    /// Done.
    Succeeded,
    /// Not done.
    Failed,
    /// Was no valid job.
    Rejected,
    /// Taken back because of a later one.
    Cancelled,
    /// Overtaken by a later start.
    Superseded,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The state's name on the page and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// Whether nothing more is expected of it.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Retrying => false,
            Self::Succeeded
            | Self::Failed
            | Self::Rejected
            | Self::Cancelled
            | Self::Superseded => true,
        }
    }
}

/// A step of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepLine {
    /// Which.
    pub step: String,
    /// When it began, in unix milliseconds; 0 if nobody said.
    pub began_unix_ms: i64,
    /// How long it took; none while it runs.
    pub millis: Option<u64>,
    /// Whether it failed.
    pub failed: bool,
    /// What it does, or what came of it.
    pub message: String,
}

/// A platform's fault after which the job was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// How long it waited.
    pub delay_ms: u64,
    /// When, in unix milliseconds.
    pub at_unix_ms: i64,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLine {
    /// Its id.
    pub id: String,
    /// The team.
    pub team: String,
    /// What it asks for; empty if nobody said.
    pub action: String,
    /// How far it is.
    pub state: JobState,
    /// Its place among the waiting ones.
    pub position: u32,
    /// The resource that it waits for.
    pub short_of: Option<String>,
    /// When it was first heard of, in unix milliseconds.
    pub began_unix_ms: i64,
    /// When it ended, in unix milliseconds.
    pub ended_unix_ms: Option<i64>,
    /// Which attempt it is.
    pub attempts: u32,
    /// Its steps in their order.
    pub steps: Vec<StepLine>,
    /// Repeats of its run.
    pub retries: Vec<Retry>,
    /// Why it failed.
    pub failure: Option<FailureBody>,
    /// What came of it.
    pub message: String,
    /// The later job that ended it.
    pub by: Option<String>,
    /// Preview name to link.
    pub links: BTreeMap<String, String>,
    last_unix_ms: i64,
}

impl JobLine {
    pub(super) fn new(id: &str, team: &str, at: i64) -> Self {
        Self {
            id: id.to_owned(),
            team: team.to_owned(),
            action: String::new(),
            state: JobState::Waiting,
            position: 0,
            short_of: None,
            began_unix_ms: at,
            ended_unix_ms: None,
            attempts: 1,
            steps: Vec::new(),
            retries: Vec::new(),
            failure: None,
            message: String::new(),
            by: None,
            links: BTreeMap::new(),
            last_unix_ms: at,
        }
    }

    /// When it was last heard of, in unix milliseconds.
    #[must_use]
    pub fn last_unix_ms(&self) -> i64 {
        self.last_unix_ms
    }

    /// How long it took, or takes.
    #[must_use]
    pub fn millis(&self, now_unix_ms: i64) -> u64 {
        let end = self.ended_unix_ms.unwrap_or(now_unix_ms);
        u64::try_from(end - self.began_unix_ms).unwrap_or(0)
    }

    /// What people call it: what it asks for, if its message said so.
    #[must_use]
    pub fn title(&self) -> &str {
        if self.action.is_empty() { "message" } else { &self.action }
    }

    /// The step that runs, or the last one.
    #[must_use]
    pub fn last_step(&self) -> Option<&StepLine> {
        self.steps.iter().find(|step| step.millis.is_none()).or(self.steps.last())
    }

    /// Takes one of its events; gives a step that finished, with its time.
    pub(super) fn take(&mut self, event: &WireEvent, at: i64) -> Option<(String, u64)> {
        self.last_unix_ms = self.last_unix_ms.max(at);
        match &event.data {
            Body::JobAccepted(data) => {
                if self.state.is_end() {
                    // Published again, as an attempt more.
                    let attempts = self.attempts + 1;
                    *self = Self { attempts, ..Self::new(&self.id, &self.team, at) };
                }
                self.action.clone_from(&data.action);
                self.position = data.position;
                self.short_of.clone_from(&data.short);
                let runs = data.position == 0 && data.short.is_none();
                self.state = if runs { JobState::Running } else { JobState::Waiting };
            }
            Body::JobRejected(data) => {
                self.end(JobState::Rejected, at);
                self.fail(&data.failure);
            }
            Body::JobRetrying(data) => {
                self.state = JobState::Retrying;
                // The next run begins with the first step.
                self.steps.clear();
                if self.retries.len() == RETRIES_MAX {
                    self.retries.remove(0);
                }
                self.retries.push(Retry {
                    code: data.failure.code.clone(),
                    message: short(&data.failure.message),
                    delay_ms: data.delay_ms,
                    at_unix_ms: at,
                });
            }
            Body::JobEnded(data) => {
                let superseded = event.short_type() == "job.superseded";
                let state = if superseded { JobState::Superseded } else { JobState::Cancelled };
                self.by.clone_from(&data.by);
                self.end(state, at);
            }
            Body::JobSucceeded(data) => {
                self.action.clone_from(&data.action);
                self.message = short(&data.message);
                self.links.clone_from(&data.links);
                self.end(JobState::Succeeded, at);
                self.began_unix_ms =
                    at.saturating_sub(i64::try_from(data.duration_ms).unwrap_or(0));
            }
            Body::JobFailed(data) => {
                self.action.clone_from(&data.action);
                self.end(JobState::Failed, at);
                self.fail(&data.failure);
            }
            Body::StepStarted(data) => {
                self.run(at);
                let step = self.step(&data.step);
                *step =
                    StepLine { step: data.step.clone(), began_unix_ms: at, ..StepLine::default() };
            }
            Body::StepProgress(data) => {
                self.run(at);
                self.step(&data.step).message = short(&data.message);
            }
            Body::StepFinished(data) => {
                let step = self.step(&data.step);
                step.millis = Some(data.duration_ms);
                step.message = short(&data.message);
                return Some((data.step.clone(), data.duration_ms));
            }
            Body::StepFailed(data) => {
                let step = self.step(&data.step);
                step.millis = Some(data.duration_ms);
                step.failed = true;
                step.message = short(&data.failure.message);
            }
            Body::TeamChanged(_)
            | Body::TeamSnapshot(_)
            | Body::ContainerChanged(_)
            | Body::PreviewChanged(_)
            | Body::AgentTaskChanged(_)
            | Body::SyncSynced(_)
            | Body::SyncConflict(_)
            | Body::SyncFailed(_)
            | Body::HostUp(_)
            | Body::HostDraining(_)
            | Body::HostLost(_)
            | Body::HostReconciled(_)
            | Body::TeamExpiring(_)
            | Body::Unknown(_) => {}
        }
        None
    }

    /// Takes up what a record kept of its steps.
    pub(super) fn remember_steps(&mut self, millis: &BTreeMap<String, u64>) {
        for step in StepId::ALL.map(StepId::as_str) {
            if let Some(millis) = millis.get(step) {
                self.step(step).millis = Some(*millis);
            }
        }
    }

    /// A job of a record says when it ended, and how long its steps took.
    pub(super) fn begin_before_end(&mut self) {
        let steps: u64 = self.steps.iter().filter_map(|step| step.millis).sum();
        if let Some(end) = self.ended_unix_ms
            && self.began_unix_ms == end
        {
            self.began_unix_ms = end.saturating_sub(i64::try_from(steps).unwrap_or(0));
        }
    }

    fn run(&mut self, at: i64) {
        if !self.state.is_end() {
            // What it waited is no part of its run.
            if self.state == JobState::Waiting && self.steps.is_empty() && self.position == 0 {
                self.began_unix_ms = self.began_unix_ms.min(at);
            }
            self.state = JobState::Running;
            (self.position, self.short_of) = (0, None);
        }
    }

    fn end(&mut self, state: JobState, at: i64) {
        self.state = state;
        self.ended_unix_ms = Some(at);
    }

    fn fail(&mut self, failure: &FailureBody) {
        let mut failure = failure.clone();
        failure.message = short(&failure.message);
        for line in &mut failure.log {
            *line = short(line);
        }
        self.failure = Some(failure);
    }

    fn step(&mut self, name: &str) -> &mut StepLine {
        let place = self.steps.iter().position(|step| step.step == name);
        let place = place.unwrap_or_else(|| {
            self.steps.push(StepLine { step: short(name), ..StepLine::default() });
            self.steps.len() - 1
        });
        &mut self.steps[place]
    }
}
