//! Reads events back, for followers: `covibes submit --follow`, `follow`,
//! `up`, and tests.
//!
//! Tolerant on purpose. A field or a type that is new must not stop a follower
//! that waits for the end of its job.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::event_body::{Body, FailureBody};

/// An event as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireEvent {
    /// The event's id; a repeat carries the same one.
    pub id: String,
    /// Who says so.
    pub source: String,
    /// The full type, `covibes.step.started`.
    pub type_name: String,
    /// The team it is about, or the host.
    pub subject: String,
    /// RFC 3339, by the host's clock.
    pub time: String,
    /// The event's place among the team's, if it has one.
    pub sequence: Option<u64>,
    /// The place of the team's event before it.
    pub sequence_previous: Option<u64>,
    /// The job it belongs to.
    pub job_id: Option<String>,
    /// What it says.
    pub data: Body,
}

/// The text is not an event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    /// Not JSON, or without the attributes that every event has.
    #[error("the message is not a CloudEvent")]
    Envelope(#[source] serde_json::Error),
    /// A number that is none.
    #[error("the event's sequence is not a number")]
    Sequence,
}

/// Reads an event in structured mode.
///
/// # Errors
/// The text is no CloudEvent. An unknown type or form of data is none: it is
/// read as [`Body::Unknown`].
pub fn decode_event(text: &str) -> Result<WireEvent, NotAnEvent> {
    let envelope: Envelope = serde_json::from_str(text).map_err(NotAnEvent::Envelope)?;
    let number = |text: Option<String>| {
        text.map(|text| text.parse().map_err(|_| NotAnEvent::Sequence)).transpose()
    };
    Ok(WireEvent {
        data: Body::read(&envelope.type_name, envelope.data),
        id: envelope.id,
        source: envelope.source,
        type_name: envelope.type_name,
        subject: envelope.subject,
        time: envelope.time,
        sequence: number(envelope.sequence)?,
        sequence_previous: number(envelope.prevsequence)?,
        job_id: envelope.correlationid,
    })
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    source: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    time: String,
    sequence: Option<String>,
    prevsequence: Option<String>,
    correlationid: Option<String>,
    #[serde(default)]
    data: Value,
}

impl WireEvent {
    /// The type without `covibes.`, as routing keys hold it.
    #[must_use]
    pub fn short_type(&self) -> &str {
        self.type_name.strip_prefix("covibes.").unwrap_or(&self.type_name)
    }

    /// How the job ended, if this is its last event.
    #[must_use]
    pub fn end(&self) -> Option<JobEnd<'_>> {
        match &self.data {
            Body::JobSucceeded(data) => {
                Some(JobEnd::Succeeded { links: &data.links, message: &data.message })
            }
            Body::JobFailed(data) => Some(JobEnd::Failed(&data.failure)),
            Body::JobRejected(data) => Some(JobEnd::Failed(&data.failure)),
            Body::JobEnded(data) => Some(JobEnd::Overtaken {
                superseded: self.short_type() == "job.superseded",
                by: data.by.as_deref(),
            }),
            // A later version may say more about an end; that it is one stays.
            Body::Unknown(_) => match self.short_type() {
                "job.succeeded" | "job.failed" | "job.rejected" | "job.cancelled"
                | "job.superseded" => Some(JobEnd::Unknown),
                _ => None,
            },
            Body::JobAccepted(_)
            | Body::JobRetrying(_)
            | Body::StepStarted(_)
            | Body::StepProgress(_)
            | Body::StepFinished(_)
            | Body::StepFailed(_)
            | Body::TeamChanged(_)
            | Body::TeamSnapshot(_)
            | Body::TeamExpiring(_)
            | Body::ContainerChanged(_)
            | Body::PreviewChanged(_)
            | Body::AgentTaskChanged(_)
            | Body::SyncSynced(_)
            | Body::SyncConflict(_)
            | Body::SyncFailed(_)
            | Body::HostUp(_)
            | Body::HostDraining(_)
            | Body::HostLost(_)
            | Body::HostReconciled(_) => None,
        }
    }

    /// What went wrong, if the event says that something did.
    #[must_use]
    pub fn failure(&self) -> Option<&FailureBody> {
        match &self.data {
            Body::JobRejected(data) => Some(&data.failure),
            Body::JobRetrying(data) => Some(&data.failure),
            Body::JobFailed(data) => Some(&data.failure),
            Body::StepFailed(data) => Some(&data.failure),
            Body::SyncFailed(data) => Some(&data.failure),
            Body::JobAccepted(_)
            | Body::JobEnded(_)
            | Body::JobSucceeded(_)
            | Body::StepStarted(_)
            | Body::StepProgress(_)
            | Body::StepFinished(_)
            | Body::TeamChanged(_)
            | Body::TeamSnapshot(_)
            | Body::TeamExpiring(_)
            | Body::ContainerChanged(_)
            | Body::PreviewChanged(_)
            | Body::AgentTaskChanged(_)
            | Body::SyncSynced(_)
            | Body::SyncConflict(_)
            | Body::HostUp(_)
            | Body::HostDraining(_)
            | Body::HostLost(_)
            | Body::HostReconciled(_)
            | Body::Unknown(_) => None,
        }
    }
}

/// How a job ended, as a terminal shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd<'a> {
    /// Done.
    Succeeded {
        /// Preview name to link.
        links: &'a BTreeMap<String, String>,
        /// What changed, for people.
        message: &'a str,
    },
    /// Not done, or not a valid job.
    Failed(&'a FailureBody),
    /// Another job ended it.
    Overtaken {
        /// Whether a later start goes on from what exists.
        superseded: bool,
        /// The later job.
        by: Option<&'a str>,
    },
    /// Ended in a form that this reader does not know.
    Unknown,
}
