//! The JSON of events: the envelope, and one body per kind of fact.
//!
//! `schemas/event.v1.json` is generated from these types. Writers fill every
//! field; readers accept missing and unknown ones, so that a dashboard of
//! today follows a worker of tomorrow.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::agent_task_body::AgentTaskChanged;
pub use super::host_bodies::{HostDraining, HostLost, HostReconciled, HostUp};
pub use super::sync_body::{SyncConflict, SyncFailed, SyncSynced};
use super::team_health::TeamHealth;
use crate::domain::event::{ContainerFact, PreviewFact, TeamState};
use crate::domain::failure::{Code, Fault};
use crate::domain::health::EndReason;
use crate::domain::job::ActionKind;
use crate::domain::plan::Role;
use crate::domain::step::StepId;

/// A fact in CloudEvents 1.0, structured mode.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(crate) struct Envelope {
    /// The version of CloudEvents.
    #[schemars(extend("const" = "1.0"))]
    pub(crate) specversion: &'static str,
    /// Derived from job, attempt and fact: a repeat carries the same id.
    #[schemars(length(min = 1))]
    pub(crate) id: String,
    /// Who says so: `/covibes/hosts/<host>`, or `/covibes/dispatchers/<host>`
    /// for an answer without a place in the team's sequence.
    #[schemars(regex(pattern = "^/covibes/(hosts|dispatchers)/[a-z0-9-]+$"))]
    pub(crate) source: String,
    /// What kind of fact it is.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// The team it is about, or the host.
    pub(crate) subject: String,
    /// When, by the host's clock: information, never an order.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) time: String,
    /// The media type of `data`.
    #[schemars(extend("const" = "application/json"))]
    pub(crate) datacontenttype: &'static str,
    /// The definition that `data` follows.
    #[schemars(extend("format" = "uri"))]
    pub(crate) dataschema: String,
    /// Strictly increasing per team, zero-padded so that text sorts like the
    /// number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{20}$"))]
    pub(crate) sequence: Option<String>,
    /// The sequence of the team's event before it; a gap shows a lost one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{20}$"))]
    pub(crate) prevsequence: Option<String>,
    /// The job it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uuid"))]
    pub(crate) correlationid: Option<String>,
    /// The team, by which events are kept in order.
    pub(crate) partitionkey: String,
    /// What happened; its form follows from `type`.
    pub(crate) data: Body,
}

macro_rules! bodies {
    ($($(#[doc = $doc:literal])* $variant:ident: [$($type:literal),*];)*) => {
        /// What an event says, by kind.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Body {
            $($(#[doc = $doc])* $variant($variant),)*
            /// A kind, or a form of one, that this reader does not know.
            Unknown(Value),
        }

        /// Every kind with the types that carry it, `covibes.` left out.
        pub(crate) const KINDS: &[Kind] = &[$(Kind {
            types: &[$($type),*],
            schema: |generator| generator.subschema_for::<$variant>(),
        },)*];

        impl Body {
            /// Reads the body of an event of that type.
            #[must_use]
            pub(crate) fn read(type_name: &str, data: Value) -> Self {
                match type_name.strip_prefix("covibes.").unwrap_or_default() {
                    $($($type)|* => $variant::deserialize(&data)
                        .map_or(Self::Unknown(data), Self::$variant),)*
                    _ => Self::Unknown(data),
                }
            }

            /// The kind's name among the definitions of the schema.
            pub(crate) fn kind_name(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant(_) => Some(stringify!($variant)),)*
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}

/// One kind of body, for the schema.
pub(crate) struct Kind {
    pub(crate) types: &'static [&'static str],
    pub(crate) schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

bodies! {
    /// The job was taken on.
    JobAccepted: ["job.accepted"];
    /// The message is not a valid job.
    JobRejected: ["job.rejected"];
    /// A platform fault; the job is tried again.
    JobRetrying: ["job.retrying"];
    /// Another job ended this one.
    JobEnded: ["job.cancelled", "job.superseded"];
    /// The job is done.
    JobSucceeded: ["job.succeeded"];
    /// The job is not done.
    JobFailed: ["job.failed"];
    /// A step began.
    StepStarted: ["step.started"];
    /// A step says what it is doing.
    StepProgress: ["step.progress"];
    /// A step is done.
    StepFinished: ["step.finished"];
    /// A step failed.
    StepFailed: ["step.failed"];
    /// The team's state changed.
    TeamChanged: [
        "team.starting", "team.running", "team.degraded", "team.stopping", "team.stopped",
        "team.failed", "team.destroyed"
    ];
    /// All about a team at one moment.
    TeamSnapshot: ["team.snapshot"];
    /// The team will be stopped by itself.
    TeamExpiring: ["team.expiring"];
    /// Something happened to a container.
    ContainerChanged: [
        "container.started", "container.restarted", "container.exited", "container.oom",
        "container.unhealthy", "container.healthy"
    ];
    /// Something happened to a preview.
    PreviewChanged: [
        "preview.installing", "preview.starting", "preview.compiling", "preview.ready",
        "preview.failing"
    ];
    /// An agent's task began, has come further, or is over.
    AgentTaskChanged: ["agent.task.started", "agent.task.progress", "agent.task.finished"];
    /// The workspace was brought in step with Git.
    SyncSynced: ["sync.synced"];
    /// Local work is in the way; nothing was touched.
    SyncConflict: ["sync.conflict"];
    /// Git failed.
    SyncFailed: ["sync.failed"];
    /// The worker is ready.
    HostUp: ["host.up"];
    /// The worker finishes what runs and leaves.
    HostDraining: ["host.draining"];
    /// A host has been silent for too long. Its jobs wait.
    HostLost: ["host.lost"];
    /// The worker came and knows what it found.
    HostReconciled: ["host.reconciled"];
}

// The schema of `data` alone says nothing: `type` decides, in `super::schema`.
impl JsonSchema for Body {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Body".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}

/// Why something failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Failure")]
pub struct FailureBody {
    /// What went wrong, from the closed list.
    #[schemars(extend("enum" = names(Code::ALL, |code| code.as_str())))]
    pub code: String,
    /// Whose fault it is.
    #[schemars(extend("enum" = names(&FAULTS, |fault| fault.as_str())))]
    pub fault: String,
    /// The step in which it happened, if one had begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = steps()))]
    pub step: Option<String>,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// One sentence for people.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The last lines of output, oldest first.
    pub log: Vec<String>,
}

/// The job was taken on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobAccepted {
    /// What the job asks for.
    #[schemars(extend("enum" = actions()))]
    pub action: String,
    /// Its place among the waiting jobs, 0 when it runs at once.
    pub position: u32,
    /// The resource it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
}

/// The message is not a valid job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobRejected {
    /// Why.
    pub failure: FailureBody,
}

/// A platform fault; the job is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobRetrying {
    /// Why.
    pub failure: FailureBody,
    /// In how many milliseconds it is tried again.
    pub delay_ms: u64,
}

/// Another job ended this one: taken back (`cancelled`), or overtaken by a start that goes on
/// from what exists (`superseded`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobEnded {
    /// The later job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uuid"))]
    pub by: Option<String>,
}

/// The job is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobSucceeded {
    /// What the job asks for.
    #[schemars(extend("enum" = actions()))]
    pub action: String,
    /// Whether anything had to be done.
    pub changed: bool,
    /// From delivery to the end, in milliseconds.
    pub duration_ms: u64,
    /// Preview name to link.
    pub links: BTreeMap<String, String>,
    /// What changed, for people.
    pub message: String,
}

/// The job is not done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobFailed {
    /// What the job asks for.
    #[schemars(extend("enum" = actions()))]
    pub action: String,
    /// Why.
    pub failure: FailureBody,
    /// Whether what it began was taken back.
    pub undone: bool,
}

/// A step began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StepStarted {
    /// Which step.
    #[schemars(extend("enum" = steps()))]
    pub step: String,
}

/// A step says what it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StepProgress {
    /// Which step.
    #[schemars(extend("enum" = steps()))]
    pub step: String,
    /// What it is doing now.
    pub message: String,
}

/// A step is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StepFinished {
    /// Which step.
    #[schemars(extend("enum" = steps()))]
    pub step: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What came of it, for people.
    pub message: String,
}

/// A step failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StepFailed {
    /// Which step.
    #[schemars(extend("enum" = steps()))]
    pub step: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Why.
    pub failure: FailureBody,
}

/// The team's state changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TeamChanged {
    /// To what; the same as in `type`.
    #[schemars(extend("enum" = names(&TeamState::ALL, |state| state.as_str())))]
    pub state: String,
    /// Why, for people.
    pub cause: String,
    /// Preview name to link.
    pub links: BTreeMap<String, String>,
}

/// All that a dashboard needs about a team at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TeamSnapshot {
    /// The team's state.
    #[schemars(extend("enum" = names(&TeamState::ALL, |state| state.as_str())))]
    pub state: String,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Its containers.
    pub parts: Vec<SnapshotPartBody>,
    /// How it is, part by part, if the worker watches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<TeamHealth>,
}

/// One container in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "SnapshotPart")]
pub struct SnapshotPartBody {
    /// What it is for.
    #[schemars(extend("enum" = names(&Role::ALL, |role| role.as_str())))]
    pub role: String,
    /// Which agent or preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The Engine's word: `running`, `exited`, ...
    pub state: String,
    /// The preview's link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the preview does, if it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = names(&PREVIEW_FACTS, |fact| fact.as_str())))]
    pub preview: Option<String>,
    /// What is wrong with it, if it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something happened to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContainerChanged {
    /// What; the same as in `type`.
    #[schemars(extend("enum" = names(&CONTAINER_FACTS, |fact| fact.as_str())))]
    pub fact: String,
    /// What it is for.
    #[schemars(extend("enum" = names(&Role::ALL, |role| role.as_str())))]
    pub role: String,
    /// Which agent or preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Why, for people.
    pub cause: String,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The last lines of its output, if they say why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// The team will be stopped by itself, unless somebody starts it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TeamExpiring {
    /// Why.
    #[schemars(extend("enum" = names(&EndReason::ALL, |reason| reason.as_str())))]
    pub reason: String,
    /// In how many milliseconds.
    pub left_ms: u64,
}

/// Something happened to a preview.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PreviewChanged {
    /// What; the same as in `type`.
    #[schemars(extend("enum" = names(&PREVIEW_FACTS, |fact| fact.as_str())))]
    pub fact: String,
    /// Which.
    pub preview: String,
    /// Its link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is wrong, if it fails: the first line that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

const FAULTS: [Fault; 5] =
    [Fault::Tenant, Fault::Platform, Fault::Capacity, Fault::Operator, Fault::Bug];

const CONTAINER_FACTS: [ContainerFact; 6] = [
    ContainerFact::Started,
    ContainerFact::Restarted,
    ContainerFact::Exited,
    ContainerFact::Oom,
    ContainerFact::Unhealthy,
    ContainerFact::Healthy,
];

const PREVIEW_FACTS: [PreviewFact; 5] = [
    PreviewFact::Installing,
    PreviewFact::Starting,
    PreviewFact::Compiling,
    PreviewFact::Ready,
    PreviewFact::Failing,
];

fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().copied().map(name).collect()
}

fn steps() -> Vec<&'static str> {
    names(&StepId::ALL, StepId::as_str)
}

fn actions() -> Vec<&'static str> {
    names(&ActionKind::ALL, ActionKind::as_str)
}
