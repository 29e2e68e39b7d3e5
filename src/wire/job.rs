//! From a message to a checked job, and back.
//!
//! The one door: whatever passes [`parse_job`] was read once, from one text
//! with one meaning, into types that can hold nothing else. What does not pass
//! is told apart by code, and no part of the message but names of fields is
//! repeated in the reason.

use serde::Deserialize;
use serde_json::Value;

use super::job_message::{
    JOB_SCHEMA, JobIdText, JobMessage, NameText, TARGETS_MAX, TeamIdText, TimestampText,
};
use super::json::{self, Object};
use super::spec::{self, read_name, refuse};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, TeamId};
use crate::domain::job::{Action, ActionKind, Job};
use crate::domain::message::{RawMessage, Rejected};

/// Size of a job at most (DESIGN 3); a spec of 16 agents with long prompts
/// stays below.
pub const JOB_BYTES_MAX: usize = 256 * 1024;

/// Reads a message as a job.
///
/// An absent content type passes, since many clients set none; a past deadline
/// passes too, because only the runner knows when the job is begun.
///
/// # Errors
/// The first rule that the message breaks, with its team and job id where
/// these are valid by themselves.
pub fn parse_job(message: &RawMessage) -> Result<Job, Rejected> {
    read(message).map_err(|failure| reject(message, failure))
}

/// The job as a message body. Attempt and trace context travel as headers.
#[must_use]
pub fn encode_job(job: &Job) -> String {
    let (targets, spec) = match &job.action {
        Action::Start(spec) => (None, Some(Object(spec::message(spec)))),
        Action::Restart { targets } if !targets.is_empty() => {
            (Some(targets.iter().cloned().map(NameText).collect()), None)
        }
        Action::Restart { .. } | Action::Stop | Action::Sync | Action::Status | Action::Destroy => {
            (None, None)
        }
    };
    let message = JobMessage {
        schema: JOB_SCHEMA.to_owned(),
        job_id: JobIdText(job.id.to_string()),
        team_id: TeamIdText(job.team.as_str().to_owned()),
        action: job.action.kind().as_str().to_owned(),
        issued_at: TimestampText(job.issued_at.clone()),
        deadline: job.deadline_unix_ms.map(|ms| TimestampText(timestamp_text(ms))),
        targets,
        spec,
    };
    serde_json::to_string(&message).expect("a job holds strings, numbers and string keys only")
}

/// The key under which the job is published.
#[must_use]
pub fn routing_key(job: &Job) -> String {
    routing_key_of(&job.team, job.action.kind())
}

fn routing_key_of(team: &TeamId, action: ActionKind) -> String {
    format!("team.{team}.{}", action.as_str())
}

/// RFC 3339 in UTC with milliseconds, as every time in jobs and events.
#[must_use]
pub fn timestamp_text(unix_ms: i64) -> String {
    // Out of range only beyond the year 9999, where no clock of ours stands.
    let timestamp =
        jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

fn read(message: &RawMessage) -> Result<Job, Failure> {
    // Before anything reads the body: the limit is what bounds the reading.
    if message.body.len() > JOB_BYTES_MAX {
        return Err(Failure::new(
            Code::MessageTooLarge,
            format!("the body is {} bytes long, {JOB_BYTES_MAX} are allowed", message.body.len()),
        ));
    }
    check_content_type(message.content_type.as_deref())?;
    let findings = json::look(&message.body).map_err(|why| {
        Failure::new(Code::MessageBadJson, format!("the body is not JSON: {why}"))
    })?;
    // The head decides first, so that a job of a later version is told its version and not the
    // first field that is new, and a leaked key is told before a typing error.
    let head = Head::read(&message.body);
    head.check_version()?;
    if let Some(path) = findings.secret_at {
        return Err(Failure::new(
            Code::MessageInlineSecret,
            format!("{path}: holds what looks like a secret"),
        ));
    }
    head.check_action_and_team()?;
    if let Some(path) = findings.null_at {
        return Err(refuse(&path, "leave the field out instead of null"));
    }
    let Object(job) =
        serde_json::from_slice::<Object<JobMessage>>(&message.body).map_err(|error| {
            Failure::new(Code::MessageSchema, json::type_error(&message.body, &error))
        })?;
    read_typed(message, job)
}

fn read_typed(message: &RawMessage, job: JobMessage) -> Result<Job, Failure> {
    check_version(&job.schema)?;
    let kind = parse_action(&job.action)?;
    let team = parse_team(&job.team_id.0)?;
    let id = JobId::parse(&job.job_id.0)
        .map_err(|error| Failure::new(error.code, format!("job_id: {error}")))?;
    // A producer in this process has no routing key.
    if !message.routing_key.is_empty() && message.routing_key != routing_key_of(&team, kind) {
        return Err(Failure::new(
            Code::MessageRoutingKey,
            format!("the routing key is not {}", routing_key_of(&team, kind)),
        ));
    }
    if message.message_id.as_ref().is_some_and(|message_id| *message_id != job.job_id.0) {
        return Err(refuse("job_id", "differs from the message id"));
    }
    timestamp("issued_at", &job.issued_at.0)?;
    let deadline = job.deadline.map(|raw| timestamp("deadline", &raw.0)).transpose()?;
    if job.spec.is_some() && kind != ActionKind::Start {
        return Err(refuse("spec", "belongs to a start job only"));
    }
    if job.targets.is_some() && kind != ActionKind::Restart {
        return Err(refuse("targets", "belongs to a restart job only"));
    }
    let action = match kind {
        ActionKind::Start => {
            let Object(spec) = job.spec.ok_or_else(|| refuse("spec", "a start job needs one"))?;
            Action::Start(Box::new(spec::read(spec)?))
        }
        ActionKind::Restart => {
            Action::Restart { targets: read_targets(job.targets.unwrap_or_default())? }
        }
        ActionKind::Stop => Action::Stop,
        ActionKind::Sync => Action::Sync,
        ActionKind::Status => Action::Status,
        ActionKind::Destroy => Action::Destroy,
    };
    let traceparent = message.traceparent.clone().filter(|raw| is_traceparent(raw));
    let tracestate = message.tracestate.clone().filter(|raw| is_tracestate(raw));
    Ok(Job {
        id,
        team,
        action,
        issued_at: job.issued_at.0,
        deadline_unix_ms: deadline.map(jiff::Timestamp::as_millisecond),
        attempt: message.attempt.max(1),
        tracestate: tracestate.filter(|_| traceparent.is_some()),
        traceparent,
    })
}

fn read_targets(raw: Vec<NameText>) -> Result<Vec<String>, Failure> {
    if raw.len() > TARGETS_MAX {
        return Err(refuse("targets", "names more parts than a team has"));
    }
    let mut targets: Vec<String> = Vec::with_capacity(raw.len());
    for (index, name) in raw.iter().enumerate() {
        let path = format!("targets[{index}]");
        let name = read_name(&path, name)?;
        if targets.iter().any(|target| target == name.as_str()) {
            return Err(refuse(&path, "is named twice"));
        }
        targets.push(name.as_str().to_owned());
    }
    Ok(targets)
}

fn check_content_type(content_type: Option<&str>) -> Result<(), Failure> {
    let Some(raw) = content_type else { return Ok(()) };
    let lower = raw.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let is_json = parts.next() == Some("application/json");
    let is_utf8 = parts.all(|p| matches!(p, "" | "charset=utf-8" | "charset=\"utf-8\""));
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Failure::new(Code::MessageContentType, "the content type is not application/json"))
}

fn check_version(schema: &str) -> Result<(), Failure> {
    if schema == JOB_SCHEMA {
        return Ok(());
    }
    Err(Failure::new(
        Code::MessageUnsupportedVersion,
        format!("schema: only {JOB_SCHEMA} is known"),
    ))
}

fn parse_action(raw: &str) -> Result<ActionKind, Failure> {
    ActionKind::parse(raw)
        .ok_or_else(|| Failure::new(Code::MessageUnknownAction, "action: there is no such action"))
}

fn parse_team(raw: &str) -> Result<TeamId, Failure> {
    TeamId::parse(raw)
        .map_err(|error| Failure::new(error.code, format!("team_id: {error}, without `--`")))
}

/// RFC 3339 in the one form that the schema allows; `jiff` reads more.
fn timestamp(path: &str, raw: &str) -> Result<jiff::Timestamp, Failure> {
    let malformed = || refuse(path, "expected a time such as 2026-11-23T12:00:00.123Z");
    let bytes = raw.as_bytes();
    let shape = |shape: &[u8], bytes: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(b, s)| match s {
                b'0' => b.is_ascii_digit(),
                s => b == s,
            })
    };
    let (head, tail) = bytes.split_at_checked(19).ok_or_else(malformed)?;
    let fraction = match tail.split_first() {
        Some((b'.', rest)) => 1 + rest.iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    let offset = &tail[fraction..];
    // `jiff` reads a leap second, and offsets of a day and more.
    let offset_in_a_day =
        offset.get(1..6).is_none_or(|hhmm| hhmm[..2] <= b"23"[..] && hhmm[3..] <= b"59"[..]);
    let well_formed = shape(b"0000-00-00T00:00:00", head)
        && head[17] <= b'5'
        && offset_in_a_day
        && fraction != 1
        && fraction <= 10
        && (offset == b"Z" || shape(b"+00:00", offset) || shape(b"-00:00", offset));
    if !well_formed {
        return Err(malformed());
    }
    raw.parse().map_err(|_| malformed())
}

/// W3C trace context, version 00. Anything else is dropped, not refused: it
/// concerns whoever watches, not the job.
fn is_traceparent(raw: &str) -> bool {
    let parts: Vec<&str> = raw.split('-').collect();
    let hex = |s: &str, length: usize| {
        s.len() == length && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
    matches!(parts[..], ["00", trace, span, flags]
        if hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !is_zero(trace) && !is_zero(span))
}

/// What the recommendation has every party pass on; longer ones may be dropped.
const TRACESTATE_BYTES_MAX: usize = 512;

fn is_tracestate(raw: &str) -> bool {
    raw.len() <= TRACESTATE_BYTES_MAX && raw.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// What a message says about itself, whatever else it holds. Only used to
/// choose the reason of a refusal and to address it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    schema: Value,
    job_id: Value,
    team_id: Value,
    action: Value,
}

impl Head {
    /// The body must have passed [`json::look`].
    fn read(body: &[u8]) -> Self {
        serde_json::from_slice::<Object<Self>>(body).unwrap_or_default().0
    }

    fn check_version(&self) -> Result<(), Failure> {
        self.schema.as_str().map_or(Ok(()), check_version)
    }

    fn check_action_and_team(&self) -> Result<(), Failure> {
        if let Some(action) = self.action.as_str() {
            parse_action(action)?;
        }
        if let Some(team) = self.team_id.as_str() {
            parse_team(team)?;
        }
        Ok(())
    }
}

/// The id that a job's body names, whatever else is wrong with it.
#[must_use]
pub fn job_id_of(body: &[u8]) -> Option<JobId> {
    if body.len() > JOB_BYTES_MAX || json::look(body).is_err() {
        return None;
    }
    JobId::parse(Head::read(body).job_id.as_str()?).ok()
}

fn reject(message: &RawMessage, mut failure: Failure) -> Rejected {
    failure.attempt = message.attempt.max(1);
    let readable = message.body.len() <= JOB_BYTES_MAX && json::look(&message.body).is_ok();
    // Of a body that cannot be read, the envelope is all there is.
    let (team, job_id) = if readable {
        let head = Head::read(&message.body);
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        (text(head.team_id), text(head.job_id))
    } else {
        let mut key = message.routing_key.split('.');
        let team = (key.next() == Some("team")).then(|| key.next()).flatten();
        (team.map(str::to_owned), message.message_id.clone())
    };
    Rejected {
        failure,
        team: team.and_then(|raw| TeamId::parse(&raw).ok()),
        job_id: job_id.filter(|raw| JobId::parse(raw).is_ok()),
    }
}
