//! From a fact to a CloudEvent.
//!
//! Everything that people wrote or containers printed passes one scrubber on
//! its way out: escape sequences and secrets go, lengths are bounded, and the
//! body stays within 64 KiB whatever it holds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event_body::{
    AgentTaskChanged, Body, ContainerChanged, Envelope, FailureBody, HostDraining, HostLost,
    HostReconciled, HostUp, JobAccepted, JobEnded, JobFailed, JobRejected, JobRetrying,
    JobSucceeded, PreviewChanged, SnapshotPartBody, StepFailed, StepFinished, StepProgress,
    StepStarted, SyncConflict, SyncFailed, SyncSynced, TeamChanged, TeamExpiring, TeamSnapshot,
};
use super::job::timestamp_text;
use super::redact::Redactor;
use super::schema;
use super::team_health::TeamHealth;
use super::text::{cut, plain_line, plain_prose};
use crate::domain::event::{EncodedEvent, Event, EventKind, Snapshot, Subject};
use crate::domain::failure::Failure;
use crate::domain::ids::PartName;

/// What every intermediary of CloudEvents must forward.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

/// The content type of every event.
pub const EVENT_CONTENT_TYPE: &str = "application/cloudevents+json";

/// The event as it leaves; text that looks like a secret is hidden.
#[must_use]
pub fn encode_event(event: &Event) -> EncodedEvent {
    encode_event_with(event, &Redactor::default())
}

/// The event as it leaves, without the values that `redactor` knows.
///
/// # Guarantees
/// The body is at most [`EVENT_BYTES_MAX`] bytes long.
#[must_use]
pub fn encode_event_with(event: &Event, redactor: &Redactor) -> EncodedEvent {
    let mut body = String::new();
    for cuts in &CUTS {
        body = encode(event, &Scrubber { redactor, cuts });
        // The last cuts fit whatever comes: `bodies_fit_whatever_they_hold` holds them to it.
        if body.len() <= EVENT_BYTES_MAX {
            break;
        }
    }
    EncodedEvent { id: event.id.clone(), routing_key: event.routing_key(), body }
}

fn encode(event: &Event, scrubber: &Scrubber<'_>) -> String {
    let data = scrubber.body(&event.kind);
    let subject = match &event.subject {
        Subject::Team(team) => team.as_str(),
        Subject::Host(host) => host.as_str(),
    };
    // Only the team's host counts its sequence (DESIGN 3.8): what is said about a team without
    // one comes from a dispatcher, and is another source.
    let of_dispatcher = matches!(event.kind, EventKind::HostLost { .. });
    let role = match (&event.subject, event.sequence) {
        (Subject::Team(_), None) => "dispatchers",
        (Subject::Host(_), _) if of_dispatcher => "dispatchers",
        (Subject::Team(_), Some(_)) | (Subject::Host(_), _) => "hosts",
    };
    let envelope = Envelope {
        specversion: "1.0",
        id: event.id.clone(),
        source: format!("/covibes/{role}/{}", event.host),
        type_name: event.kind.type_name(),
        subject: subject.to_owned(),
        time: timestamp_text(event.time_unix_ms),
        datacontenttype: "application/json",
        dataschema: schema::data_schema(data.kind_name().unwrap_or_default()),
        sequence: event.sequence.map(sequence_text),
        prevsequence: event.sequence_previous.map(sequence_text),
        correlationid: event.job.map(|job| job.to_string()),
        partitionkey: subject.to_owned(),
        data,
    };
    serde_json::to_string(&envelope).expect("an event holds strings, numbers and string keys only")
}

/// Zero-padded, so that text sorts like the number.
fn sequence_text(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// How much of what is kept.
struct Cuts {
    text_chars: usize,
    line_chars: usize,
    lines: usize,
    items: usize,
}

/// Tried in order until the body fits. The first is what nearly every event
/// gets; the last is small enough for the worst characters in every place.
const CUTS: [Cuts; 4] = [
    Cuts { text_chars: 4_000, line_chars: 1_000, lines: 30, items: 64 },
    Cuts { text_chars: 1_000, line_chars: 500, lines: 20, items: 64 },
    Cuts { text_chars: 250, line_chars: 200, lines: 20, items: 64 },
    Cuts { text_chars: 100, line_chars: 100, lines: 10, items: 32 },
];

/// Of the picture of a team with 33 parts, each text has this much.
const HEALTH_CHARS_MAX: usize = 150;

/// Secrets are looked for this far beyond what is kept, so that a cut never
/// leaves the first half of one. The longest known kind, a private key, is
/// shorter.
const SECRET_CHARS_MAX: usize = 4_096;

struct Scrubber<'a> {
    redactor: &'a Redactor,
    cuts: &'a Cuts,
}

impl Scrubber<'_> {
    fn text(&self, raw: &str) -> String {
        let seen = cut(&plain_prose(raw), self.cuts.text_chars + SECRET_CHARS_MAX);
        cut(&self.redactor.text(&seen), self.cuts.text_chars)
    }

    fn option(&self, raw: Option<&String>) -> Option<String> {
        raw.map(|raw| self.text(raw))
    }

    fn lines(&self, raw: &[String]) -> Vec<String> {
        let seen_chars = self.cuts.line_chars + SECRET_CHARS_MAX;
        let plain: Vec<String> =
            raw.iter().map(|line| cut(&plain_line(line), seen_chars)).collect();
        // All lines are looked at, so that a key which began before the cut is known.
        let hidden = self.redactor.lines(&plain);
        let from = hidden.len().saturating_sub(self.cuts.lines);
        hidden[from..].iter().map(|line| cut(line, self.cuts.line_chars)).collect()
    }

    fn links(&self, raw: &BTreeMap<PartName, String>) -> BTreeMap<String, String> {
        let links = raw.iter().take(self.cuts.items);
        links.map(|(name, link)| (name.to_string(), self.text(link))).collect()
    }

    fn failure(&self, failure: &Failure) -> FailureBody {
        FailureBody {
            code: failure.code.as_str().to_owned(),
            fault: failure.code.fault().as_str().to_owned(),
            step: failure.step.map(|step| step.as_str().to_owned()),
            attempt: failure.attempt,
            message: self.text(&failure.message),
            hint: failure.code.hint().to_owned(),
            log: self.lines(&failure.log),
        }
    }

    fn snapshot(&self, snapshot: &Snapshot) -> TeamSnapshot {
        let parts = snapshot.parts.iter().take(self.cuts.items);
        TeamSnapshot {
            state: snapshot.state.as_str().to_owned(),
            generation: snapshot.generation,
            parts: parts
                .map(|part| SnapshotPartBody {
                    role: part.role.as_str().to_owned(),
                    part: part.part.as_ref().map(PartName::to_string),
                    state: self.text(&part.state),
                    url: self.option(part.url.as_ref()),
                    preview: part.preview.map(|fact| fact.as_str().to_owned()),
                    error: self.option(part.error.as_ref()),
                })
                .collect(),
            // Where the rest has to be short there is no room for it.
            health: snapshot.picture.as_ref().filter(|_| self.cuts.text_chars > 250).map(
                |picture| TeamHealth::of(picture, &|raw| cut(&self.text(raw), HEALTH_CHARS_MAX)),
            ),
        }
    }

    fn body(&self, kind: &EventKind) -> Body {
        match kind {
            EventKind::JobAccepted { action, position, short } => Body::JobAccepted(JobAccepted {
                action: action.as_str().to_owned(),
                position: *position,
                short: self.option(short.as_ref()),
            }),
            EventKind::JobRejected { failure } => {
                Body::JobRejected(JobRejected { failure: self.failure(failure) })
            }
            EventKind::JobRetrying { failure, delay } => Body::JobRetrying(JobRetrying {
                failure: self.failure(failure),
                delay_ms: millis(*delay),
            }),
            EventKind::JobCancelled { by } | EventKind::JobSuperseded { by } => {
                Body::JobEnded(JobEnded { by: by.map(|job| job.to_string()) })
            }
            EventKind::JobSucceeded { action, changed, duration, links, message } => {
                Body::JobSucceeded(JobSucceeded {
                    action: action.as_str().to_owned(),
                    changed: *changed,
                    duration_ms: millis(*duration),
                    links: self.links(links),
                    message: self.text(message),
                })
            }
            EventKind::JobFailed { action, failure, undone } => Body::JobFailed(JobFailed {
                action: action.as_str().to_owned(),
                failure: self.failure(failure),
                undone: *undone,
            }),
            EventKind::StepStarted { step } => {
                Body::StepStarted(StepStarted { step: step.as_str().to_owned() })
            }
            EventKind::StepProgress { step, message } => Body::StepProgress(StepProgress {
                step: step.as_str().to_owned(),
                message: self.text(message),
            }),
            EventKind::StepFinished { step, duration, message } => {
                Body::StepFinished(StepFinished {
                    step: step.as_str().to_owned(),
                    duration_ms: millis(*duration),
                    message: self.text(message),
                })
            }
            EventKind::StepFailed { step, duration, failure } => Body::StepFailed(StepFailed {
                step: step.as_str().to_owned(),
                duration_ms: millis(*duration),
                failure: self.failure(failure),
            }),
            EventKind::Team { state, cause, links } => Body::TeamChanged(TeamChanged {
                state: state.as_str().to_owned(),
                cause: self.text(cause),
                links: self.links(links),
            }),
            EventKind::TeamSnapshot(snapshot) => Body::TeamSnapshot(self.snapshot(snapshot)),
            EventKind::TeamExpiring { reason, left } => Body::TeamExpiring(TeamExpiring {
                reason: reason.as_str().to_owned(),
                left_ms: millis(*left),
            }),
            EventKind::Container { fact, role, part, cause, exit_code, log } => {
                Body::ContainerChanged(ContainerChanged {
                    fact: fact.as_str().to_owned(),
                    role: role.as_str().to_owned(),
                    part: part.as_ref().map(PartName::to_string),
                    cause: self.text(cause),
                    exit_code: *exit_code,
                    log: self.lines(log),
                })
            }
            EventKind::Preview { fact, preview, url, error } => {
                Body::PreviewChanged(PreviewChanged {
                    fact: fact.as_str().to_owned(),
                    preview: preview.to_string(),
                    url: self.option(url.as_ref()),
                    error: self.option(error.as_ref()),
                })
            }
            EventKind::AgentTask { fact, task } => Body::AgentTaskChanged(AgentTaskChanged {
                fact: fact.as_str().to_owned(),
                agent: task.agent.to_string(),
                task: task.id.to_string(),
                state: task.state.as_str().to_owned(),
                prompt: self.text(&task.prompt),
                turns: task.turns,
                input_tokens: task.input_tokens,
                output_tokens: task.output_tokens,
                cost_micro_usd: task.cost_micro_usd,
                message: self.option(task.message.as_ref()),
                error: self.option(task.error.as_ref()),
                exit_code: task.exit_code,
            }),
            EventKind::SyncSynced { head } => {
                Body::SyncSynced(SyncSynced { head: self.option(head.as_ref()) })
            }
            EventKind::SyncConflict { message, ahead, behind, paths } => {
                Body::SyncConflict(SyncConflict {
                    message: self.text(message),
                    ahead: *ahead,
                    behind: *behind,
                    paths: paths.iter().map(|path| self.text(path)).collect(),
                })
            }
            EventKind::SyncFailed { failure } => {
                Body::SyncFailed(SyncFailed { failure: self.failure(failure) })
            }
            EventKind::HostUp { host, version } => {
                Body::HostUp(HostUp { host: host.to_string(), version: self.text(version) })
            }
            EventKind::HostDraining { host } => {
                Body::HostDraining(HostDraining { host: host.to_string() })
            }
            EventKind::HostLost { host, silent } => {
                Body::HostLost(HostLost { host: host.to_string(), silent_ms: millis(*silent) })
            }
            EventKind::HostReconciled { host, found } => Body::HostReconciled(HostReconciled {
                host: host.to_string(),
                adopted: found.adopted,
                restarting: found.restarting,
                stopped: found.stopped,
                orphans: found.orphans,
            }),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
