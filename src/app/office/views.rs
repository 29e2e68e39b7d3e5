//! The forms in which a worker shows itself, as `/api` gives them and the page
//! draws them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::board::{JobLine, Minute};

/// The host at one glance.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// The host.
    pub host: String,
    /// The worker's share of it.
    pub instance: String,
    /// The worker's version.
    pub version: String,
    /// What it was built from.
    pub revision: String,
    /// Whether it ends what runs and leaves.
    pub draining: bool,
    /// How it stands with the broker.
    pub broker: String,
    /// Whether Docker answers.
    pub docker: bool,
    /// How long its last listing took.
    pub docker_ms: u64,
    /// Whether it hands out the jobs of all hosts.
    pub dispatches: bool,
    /// Hosts that it waits for before it places a team.
    pub waits_for: Vec<String>,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Containers, in any state.
    pub containers: usize,
    /// Teams by state.
    pub teams: BTreeMap<String, usize>,
    /// Ends of jobs in each of the last sixty minutes.
    pub minutes: Vec<Minute>,
    /// How long steps took lately.
    pub steps: Vec<StepTimes>,
    /// The most frequent codes.
    pub failures: Vec<FailureCount>,
    /// The broker's queues, if it says.
    pub queues: Option<Vec<QueueLine>>,
    /// What is used of what there is.
    pub capacity: Vec<Amount>,
    /// What a person should know first.
    pub troubles: Vec<Trouble>,
    /// Events since the worker began.
    pub events: u64,
    /// When, by the host's clock.
    pub now_unix_ms: i64,
}

/// What a person should know first.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// `warn` or `bad`.
    pub level: &'static str,
    /// What.
    pub text: String,
    /// What to do.
    pub runbook: Option<&'static str>,
}

impl Trouble {
    /// Without a runbook.
    #[must_use]
    pub fn new(level: &'static str, text: &str) -> Self {
        Self { level, text: text.to_owned(), runbook: None }
    }
}

/// How long a step took lately.
#[derive(Debug, Clone, Serialize)]
pub struct StepTimes {
    /// Which.
    pub step: String,
    /// The median.
    pub p50_ms: u64,
    /// The 95th percentile.
    pub p95_ms: u64,
    /// Of how many.
    pub count: usize,
}

/// How often a code came lately.
#[derive(Debug, Clone, Serialize)]
pub struct FailureCount {
    /// Which.
    pub code: String,
    /// How often.
    pub count: usize,
}

/// A queue of the broker.
#[derive(Debug, Clone, Serialize)]
pub struct QueueLine {
    /// Its name.
    pub name: String,
    /// Messages that nobody has taken.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// How an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number.
    Count,
    /// Bytes.
    Bytes,
    /// 0 to 1.
    Share,
}

/// Something that is used up.
#[derive(Debug, Clone, Serialize)]
pub struct Amount {
    /// What.
    pub name: &'static str,
    /// So much of it.
    pub used: f64,
    /// All of it.
    pub limit: f64,
    /// How it is written.
    pub unit: Unit,
}

/// A team.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TeamView {
    /// Which.
    pub team: String,
    /// `running`, `degraded`, ...; `unknown` if nobody said.
    pub state: String,
    /// Why.
    pub cause: String,
    /// Since when, in unix milliseconds; 0 if nobody said.
    pub since_unix_ms: i64,
    /// Counts the accepted specs.
    pub generation: u64,
    /// The number of its last event, which `/events` goes on from.
    pub sequence: String,
    /// Its containers.
    pub parts: Vec<PartView>,
    /// Networks and mounts that should be there and are not.
    pub missing: Vec<String>,
    /// When its `ttl`, and when `idle_stop` ends it, in unix milliseconds.
    pub ends_unix_ms: (Option<i64>, Option<i64>),
    /// Preview name to link.
    pub links: BTreeMap<String, String>,
    /// What Git last said, and whether it is well.
    pub sync: Option<(bool, String)>,
    /// Its last job.
    pub job: Option<JobBrief>,
}

impl TeamView {
    /// Containers that run, and all.
    #[must_use]
    pub fn running(&self) -> (usize, usize) {
        (self.parts.iter().filter(|part| part.state == "running").count(), self.parts.len())
    }
}

/// A container of a team.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PartView {
    /// What it is for.
    pub role: String,
    /// Which agent or preview; empty for the only one of its role.
    pub name: String,
    /// Docker's name of it.
    pub container: String,
    /// Docker's word.
    pub state: String,
    /// What it does, in the words of previews, tasks and probes.
    pub health: String,
    /// What is wrong.
    pub error: Option<String>,
    /// Where it is seen.
    pub url: Option<String>,
    /// As far as the worker knows.
    pub restarts: Option<u64>,
    /// How often the kernel ended something in it for memory.
    pub oom_kills: u64,
    /// Bytes that it uses.
    pub memory_bytes: Option<u64>,
    /// Bytes that it may use.
    pub memory_limit_bytes: Option<u64>,
    /// CPUs that it uses.
    pub cpus: Option<f64>,
    /// CPUs that it may use.
    pub cpus_limit: Option<f64>,
}

impl PartView {
    /// What people call it.
    #[must_use]
    pub fn title(&self) -> &str {
        if self.name.is_empty() { &self.role } else { &self.name }
    }
}

/// The last job of a team.
#[derive(Debug, Clone, Serialize)]
pub struct JobBrief {
    /// Its id.
    pub id: String,
    /// What it asks for.
    pub action: String,
    /// How far it is.
    pub state: &'static str,
    /// Its step, while it runs.
    pub step: Option<String>,
    /// Why it failed.
    pub code: Option<String>,
    /// When it was last heard of, in unix milliseconds.
    pub last_unix_ms: i64,
}

impl JobBrief {
    /// Of a job.
    #[must_use]
    pub fn of(job: &JobLine) -> Self {
        Self {
            id: job.id.clone(),
            action: job.title().to_owned(),
            state: job.state.as_str(),
            step: job.last_step().filter(|_| !job.state.is_end()).map(|step| step.step.clone()),
            code: job.failure.as_ref().map(|failure| failure.code.clone()),
            last_unix_ms: job.last_unix_ms(),
        }
    }
}

/// What a team should be, and how what there is differs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Desired {
    /// Counts the accepted specs.
    pub generation: u64,
    /// Where its files come from.
    pub workspace: Option<String>,
    /// Agents that were asked for.
    pub agents: Vec<String>,
    /// Previews that were asked for, with their branches.
    pub previews: Vec<(String, Option<String>)>,
    /// The differences.
    pub drift: Vec<String>,
    /// Whether it was looked for them: not while the team is stopped, or on its way.
    pub compared: bool,
    /// Whether the record was made from what runs.
    pub adopted: bool,
}

/// A host.
#[derive(Debug, Clone, Serialize)]
pub struct HostLine {
    /// Which.
    pub host: String,
    /// Whether it is this one.
    pub own: bool,
    /// `up`, `draining`, `lost`, ...
    pub state: &'static str,
    /// Whether it hands out the jobs of all hosts.
    pub dispatches: bool,
    /// How long ago it spoke.
    pub silent_ms: u64,
    /// Teams that it could take on.
    pub teams_free: Option<i64>,
    /// Bytes of memory that nobody set aside.
    pub memory_free_bytes: Option<i64>,
    /// Thousandths of a CPU that nobody set aside.
    pub cpu_free_millis: Option<i64>,
    /// Jobs that run or wait.
    pub jobs: Option<u32>,
    /// Jobs that may still wait.
    pub waiting_free: Option<u32>,
}

/// Something that an operator did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeedLine {
    /// When, in RFC 3339.
    pub time: String,
    /// Who, as they called themselves.
    pub by: String,
    /// From where.
    pub from: String,
    /// What.
    pub deed: String,
    /// To what.
    pub target: String,
    /// The job that carries it out.
    pub job: Option<String>,
}

/// What operators did, the newest first.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Deeds(pub Vec<DeedLine>);
