//! The JSON of a team's health: the body of `GET /api/teams/{team}`, and of one
//! entry of `GET /api/teams`.
//!
//! Text from containers is cut and has no control characters; whoever shows it
//! in a page escapes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::redact::Redactor;
use super::text::{cut, plain_line};
use crate::domain::health::{PartPicture, TeamPicture};
use crate::domain::ids::PartName;

/// Characters of a cause or an error that are shown.
const TEXT_CHARS_MAX: usize = 500;

/// A team at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TeamHealth {
    /// Which.
    pub team: String,
    /// `running`, `degraded`, `failed`, or the state that its last job left.
    pub state: String,
    /// Since when, in unix milliseconds.
    pub since_unix_ms: i64,
    /// Why, for people.
    pub cause: String,
    /// Whether its parts should run.
    pub wanted: bool,
    /// Whether a job is at work on it.
    pub busy: bool,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Its parts.
    pub parts: Vec<PartHealthBody>,
    /// Networks and mounts that should be there and are not.
    pub missing: Vec<String>,
    /// When its `ttl` ends it, in unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ends_unix_ms: Option<i64>,
    /// When `idle_stop` ends it unless something happens, in unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ends_unix_ms: Option<i64>,
    /// When this was true, in unix milliseconds.
    pub observed_unix_ms: i64,
}

/// One part of a team.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PartHealthBody {
    /// `agent`, `preview` or `sync`.
    pub role: String,
    /// Which agent or preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Its container.
    pub container: String,
    /// The Engine's word, or `absent`.
    pub state: String,
    /// `unknown`, `starting`, `healthy`, `unhealthy` or `down`.
    pub health: String,
    /// Since when, in unix milliseconds.
    pub since_unix_ms: i64,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
    /// How often the kernel ended something in it for memory.
    pub oom_kills: u64,
    /// Somebody stopped it past the worker.
    pub stopped_by_hand: bool,
    /// It ends again and again.
    pub crash_loop: bool,
    /// When it is started again, in unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_unix_ms: Option<i64>,
    /// How it failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<PartFailureBody>,
    /// Bytes of memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Thousandths of a CPU in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Thousandths of a CPU that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis_max: Option<u64>,
    /// How much of the time it had to wait for a CPU that it may not have, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// How long its last probe took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_millis: Option<u64>,
    /// The host port of a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The link of a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What a preview does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// The line that says what is wrong with a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tasks of an agent that run or wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_open: Option<u64>,
}

/// How a part failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PartFailureBody {
    /// When, in unix milliseconds.
    pub at_unix_ms: i64,
    /// What it was, for people.
    pub cause: String,
    /// How its process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
}

impl From<&TeamPicture> for TeamHealth {
    fn from(picture: &TeamPicture) -> Self {
        let redactor = Redactor::default();
        Self::of(picture, &|raw| cut(&redactor.text(&plain_line(raw)), TEXT_CHARS_MAX))
    }
}

impl TeamHealth {
    /// Shows a picture; every text that people or containers wrote passes `text`.
    #[must_use]
    pub fn of(picture: &TeamPicture, text: &dyn Fn(&str) -> String) -> Self {
        Self {
            team: picture.team.to_string(),
            state: picture.state.as_str().to_owned(),
            since_unix_ms: picture.since_unix_ms,
            cause: text(&picture.cause),
            wanted: picture.wanted,
            busy: picture.busy,
            generation: picture.generation,
            parts: picture.parts.iter().map(|part| PartHealthBody::of(part, text)).collect(),
            missing: picture.missing.iter().map(|what| text(what)).collect(),
            ttl_ends_unix_ms: picture.ttl_ends_unix_ms,
            idle_ends_unix_ms: picture.idle_ends_unix_ms,
            observed_unix_ms: picture.observed_unix_ms,
        }
    }
}

impl PartHealthBody {
    fn of(part: &PartPicture, text: &dyn Fn(&str) -> String) -> Self {
        let usage = part.usage;
        Self {
            role: part.role.as_str().to_owned(),
            part: part.part.as_ref().map(PartName::to_string),
            container: part.container.to_string(),
            state: text(&part.state),
            health: part.health.as_str().to_owned(),
            since_unix_ms: part.since_unix_ms,
            cause: part.cause.as_deref().map(text),
            restarts: part.restarts,
            oom_kills: part.oom_kills,
            stopped_by_hand: part.stopped_by_hand,
            crash_loop: part.crash_loop,
            next_try_unix_ms: part.next_try_unix_ms,
            last_failure: part.last_failure.as_ref().map(|failure| PartFailureBody {
                at_unix_ms: failure.at_unix_ms,
                cause: text(&failure.cause),
                exit_code: failure.exit_code,
            }),
            memory_bytes: usage.map(|usage| usage.memory_bytes),
            memory_bytes_max: usage.and_then(|usage| usage.memory_bytes_max),
            cpu_millis: usage.and_then(|usage| usage.cpu_millis),
            cpu_millis_max: usage.and_then(|usage| usage.cpu_millis_max),
            throttled_percent: usage.and_then(|usage| usage.throttled_percent),
            processes: usage.and_then(|usage| usage.processes),
            probe_millis: part.probe_millis,
            port: part.port,
            url: part.url.as_deref().map(text),
            preview: part.preview.map(|fact| fact.as_str().to_owned()),
            error: part.error.as_deref().map(text),
            tasks_open: part.tasks_open,
        }
    }
}
