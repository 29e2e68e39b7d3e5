//! What events say of teams and jobs, folded into what a person looks at: the
//! operator page, `/api` and `covibes jobs` read the same board.
//!
//! Pure: it takes events and holds a bounded number of lines. It never guesses:
//! what no event said is absent. An event that is older than what the board has
//! of its team (a repeat, after a crash) changes nothing.

mod jobs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

pub use self::jobs::{JobLine, JobState, Retry, StepLine};
use crate::domain::event::TeamState;
use crate::domain::record::TeamRecord;
use crate::wire::event_body::Body;
use crate::wire::event_reader::{WireEvent, decode_event};
use crate::wire::text::cut;

/// Jobs that are kept, of all teams together.
const JOBS_MAX: usize = 1000;

/// Teams that are kept: four times what a host may run.
const TEAMS_MAX: usize = 4000;

/// Durations of each step that are kept for its quantiles.
const DURATIONS_MAX: usize = 200;

/// Minutes of which the ends of jobs are counted.
const MINUTES_MAX: usize = 60;

/// Jobs of one record that a new process takes up.
const JOBS_OF_RECORD_MAX: usize = 20;

/// Characters of a commit's name that are shown.
const HEAD_CHARS_MAX: usize = 12;

/// Characters of one text that are kept.
const TEXT_CHARS_MAX: usize = 500;

/// A team as it was last told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeamLine {
    /// `running`, `degraded`, ...; empty if nobody said.
    pub state: String,
    /// Why.
    pub cause: String,
    /// Since when, in unix milliseconds.
    pub since_unix_ms: i64,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Preview name to link.
    pub links: BTreeMap<String, String>,
    /// What was last told of each preview.
    pub previews: BTreeMap<String, PreviewLine>,
    /// What was last told of each container, by role and name.
    pub containers: BTreeMap<(String, String), ContainerLine>,
    /// The last task of each agent.
    pub tasks: BTreeMap<String, TaskLine>,
    /// What was last told of Git, and whether it is well.
    pub sync: Option<(bool, String)>,
    /// The number of the last event.
    pub sequence: u64,
}

/// What a preview does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreviewLine {
    /// `ready`, `failing`, ...
    pub fact: String,
    /// Its link.
    pub url: Option<String>,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// What happened last to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerLine {
    /// `exited`, `oom`, ...
    pub fact: String,
    /// Why.
    pub cause: String,
    /// When, in unix milliseconds.
    pub at_unix_ms: i64,
}

/// A task of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskLine {
    /// `running`, `succeeded`, ...
    pub state: String,
    /// The beginning of what was asked.
    pub prompt: String,
}

/// Ends of jobs within one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Done.
    pub succeeded: u32,
    /// Failed or refused.
    pub failed: u32,
    /// Overtaken.
    pub other: u32,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Board {
    teams: BTreeMap<String, TeamLine>,
    jobs: BTreeMap<String, JobLine>,
    /// Ids of jobs, the oldest first.
    order: VecDeque<String>,
    durations: BTreeMap<String, VecDeque<u64>>,
    minutes: BTreeMap<i64, Minute>,
    events: u64,
    failures: u64,
}

impl Board {
    /// Takes the text of an event; what is none changes nothing.
    pub fn take(&mut self, body: &str) {
        if let Ok(event) = decode_event(body) {
            self.take_event(&event);
        }
    }

    /// Takes an event.
    pub fn take_event(&mut self, event: &WireEvent) {
        if event.short_type().starts_with("host.") {
            return;
        }
        let at = unix_millis(&event.time);
        if let Some(sequence) = event.sequence {
            let team = self.team(&event.subject);
            if sequence <= team.sequence {
                return;
            }
            team.sequence = sequence;
        }
        self.events += 1;
        self.take_of_team(event, at);
        if let Some(job) = &event.job_id {
            let line = self.job(job, &event.subject, at);
            let was_ended = line.state.is_end();
            let finished = line.take(event, at);
            let ended = (!was_ended).then_some(line.state).filter(|state| state.is_end());
            if let Some((step, millis)) = finished {
                let durations = self.durations.entry(step).or_default();
                durations.push_back(millis);
                while durations.len() > DURATIONS_MAX {
                    durations.pop_front();
                }
            }
            if let Some(state) = ended {
                self.count(state, at);
            }
        }
    }

    fn take_of_team(&mut self, event: &WireEvent, at: i64) {
        let is_of_team = event.sequence.is_some();
        match &event.data {
            Body::TeamChanged(data) => {
                let team = self.team(&event.subject);
                if team.state != data.state {
                    team.since_unix_ms = at;
                }
                team.state.clone_from(&data.state);
                team.cause = short(&data.cause);
                team.links.clone_from(&data.links);
                if matches!(data.state.as_str(), "stopped" | "destroyed") {
                    team.previews.clear();
                    team.containers.clear();
                    team.tasks.clear();
                    team.sync = None;
                }
            }
            Body::TeamSnapshot(data) => {
                let team = self.team(&event.subject);
                if team.state != data.state {
                    team.since_unix_ms = at;
                    team.cause.clear();
                }
                team.state.clone_from(&data.state);
                team.generation = data.generation;
            }
            Body::PreviewChanged(data) => {
                let line = PreviewLine {
                    fact: data.fact.clone(),
                    url: data.url.clone(),
                    error: data.error.as_deref().map(short),
                };
                self.team(&event.subject).previews.insert(data.preview.clone(), line);
            }
            Body::ContainerChanged(data) => {
                let key = (data.role.clone(), data.part.clone().unwrap_or_default());
                let line = ContainerLine {
                    fact: data.fact.clone(),
                    cause: short(&data.cause),
                    at_unix_ms: at,
                };
                self.team(&event.subject).containers.insert(key, line);
            }
            Body::AgentTaskChanged(data) => {
                let line = TaskLine { state: data.state.clone(), prompt: short(&data.prompt) };
                self.team(&event.subject).tasks.insert(data.agent.clone(), line);
            }
            Body::SyncSynced(data) => {
                let head = data.head.as_deref().unwrap_or("in step");
                // The service that says it runs beside tenants: it may be any text.
                let head = head.chars().take(HEAD_CHARS_MAX).collect();
                self.team(&event.subject).sync = Some((true, head));
            }
            Body::SyncConflict(data) => {
                self.team(&event.subject).sync = Some((false, short(&data.message)));
            }
            Body::SyncFailed(data) => {
                self.team(&event.subject).sync = Some((false, short(&data.failure.message)));
            }
            Body::JobSucceeded(data) if is_of_team && !data.links.is_empty() => {
                self.team(&event.subject).links.clone_from(&data.links);
            }
            Body::JobAccepted(_)
            | Body::JobRejected(_)
            | Body::JobRetrying(_)
            | Body::JobEnded(_)
            | Body::JobSucceeded(_)
            | Body::JobFailed(_)
            | Body::StepStarted(_)
            | Body::StepProgress(_)
            | Body::StepFinished(_)
            | Body::StepFailed(_)
            | Body::HostUp(_)
            | Body::HostDraining(_)
            | Body::HostLost(_)
            | Body::HostReconciled(_)
            | Body::TeamExpiring(_)
            | Body::Unknown(_) => {}
        }
    }

    /// Takes up what a process before this one left in a team's record. What
    /// events have said since stays.
    pub fn remember(&mut self, record: &TeamRecord) {
        let name = record.team.as_str();
        let knows_more = self.teams.get(name).is_some_and(|team| team.sequence > 0);
        let first = record.jobs.len().saturating_sub(JOBS_OF_RECORD_MAX);
        let mut last = 0;
        for job in &record.jobs[first..] {
            let id = job.id.to_string();
            let event = job.final_event.as_ref().and_then(|kept| decode_event(&kept.body).ok());
            let at = event.as_ref().map_or(0, |event| unix_millis(&event.time));
            last = last.max(at);
            if self.jobs.contains_key(&id) {
                continue;
            }
            let line = self.job(&id, name, at);
            line.action = job.action.as_str().to_owned();
            line.attempts = job.attempt;
            line.remember_steps(&job.step_millis);
            if let Some(event) = &event {
                line.take(event, at);
                line.begin_before_end();
            }
            let state = line.state;
            if state.is_end() && at > 0 {
                self.count(state, at);
            }
        }
        if !knows_more {
            let team = self.team(name);
            record.state.as_str().clone_into(&mut team.state);
            team.generation = record.generation;
            team.since_unix_ms = record.destroyed_unix_ms.unwrap_or(last);
        }
    }

    /// A team's line.
    fn team(&mut self, name: &str) -> &mut TeamLine {
        if self.teams.len() >= TEAMS_MAX && !self.teams.contains_key(name) {
            let gone = |team: &TeamLine| team.state == TeamState::Destroyed.as_str();
            let oldest = self.teams.iter().min_by_key(|(_, t)| (!gone(t), t.since_unix_ms));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.map(|name| self.teams.remove(&name));
        }
        self.teams.entry(name.to_owned()).or_default()
    }

    fn job(&mut self, id: &str, team: &str, at: i64) -> &mut JobLine {
        if !self.jobs.contains_key(id) {
            while self.order.len() >= JOBS_MAX {
                let oldest = self.order.pop_front();
                oldest.map(|id| self.jobs.remove(&id));
            }
            self.order.push_back(id.to_owned());
        }
        self.jobs.entry(id.to_owned()).or_insert_with(|| JobLine::new(id, team, at))
    }

    fn count(&mut self, state: JobState, at: i64) {
        let minute = self.minutes.entry(at / 60_000).or_default();
        match state {
            JobState::Succeeded => minute.succeeded += 1,
            JobState::Failed | JobState::Rejected => {
                minute.failed += 1;
                self.failures += 1;
            }
            JobState::Cancelled | JobState::Superseded => minute.other += 1,
            JobState::Waiting | JobState::Running | JobState::Retrying => {}
        }
        while self.minutes.len() > MINUTES_MAX {
            self.minutes.pop_first();
        }
    }

    /// Teams by name.
    #[must_use]
    pub fn teams(&self) -> &BTreeMap<String, TeamLine> {
        &self.teams
    }

    /// Jobs, the newest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<&JobLine> {
        let mut jobs: Vec<_> = self.jobs.values().collect();
        jobs.sort_by(|a, b| b.last_unix_ms().cmp(&a.last_unix_ms()).then_with(|| b.id.cmp(&a.id)));
        jobs
    }

    /// One job.
    #[must_use]
    pub fn job_of(&self, id: &str) -> Option<&JobLine> {
        self.jobs.get(id)
    }

    /// Ends of jobs in each of the last minutes, the oldest first.
    #[must_use]
    pub fn minutes(&self, now_unix_ms: i64) -> Vec<Minute> {
        let now = now_unix_ms / 60_000;
        let first = now - (MINUTES_MAX as i64 - 1);
        (first..=now).map(|at| self.minutes.get(&at).copied().unwrap_or_default()).collect()
    }

    /// The median and the 95th percentile of a step's last durations, in
    /// milliseconds, and how many there are.
    #[must_use]
    pub fn quantiles(&self, step: &str) -> Option<(u64, u64, usize)> {
        let mut sorted: Vec<u64> = self.durations.get(step)?.iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.max(1) - 1).copied()
        };
        Some((at(0.5)?, at(0.95)?, sorted.len()))
    }

    /// Codes of failed jobs, the most frequent first.
    #[must_use]
    pub fn failures(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for failure in self.jobs.values().filter_map(|job| job.failure.as_ref()) {
            *counts.entry(&failure.code).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().map(|(code, n)| (code.to_owned(), n)).collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts
    }

    /// Every code with which a job that is kept failed, for a filter.
    #[must_use]
    pub fn codes(&self) -> BTreeSet<String> {
        self.failures().into_iter().map(|(code, _)| code).collect()
    }

    /// How many ends that put a message aside were taken.
    #[must_use]
    pub fn failed_total(&self) -> u64 {
        self.failures
    }

    /// How many events were taken.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// A text as it is kept.
fn short(text: &str) -> String {
    cut(text, TEXT_CHARS_MAX)
}

/// RFC 3339 as unix milliseconds; 0 for what is none.
fn unix_millis(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}
