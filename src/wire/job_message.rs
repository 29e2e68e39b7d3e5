//! The JSON of a job: its shape, and nothing about what it means.
//!
//! `schemas/job.v1.json` is generated from these types, so a rule that JSON
//! Schema can say stands here, next to the field. What only code can say is
//! checked in [`super::job`] and [`super::spec`].

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::duration;
use super::json::Object;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::job::ActionKind;
use crate::domain::limits;

/// The only version there is.
pub(crate) const JOB_SCHEMA: &str = "covibes.job.v1";

/// Characters of an agent's first task; a longer one belongs in a file of the
/// project.
pub(crate) const PROMPT_CHARS_MAX: usize = 32_768;

/// Targets of one restart: every agent, every preview and `sync`.
pub(crate) const TARGETS_MAX: usize = limits::AGENTS_MAX + limits::PREVIEWS_MAX + 1;

/// A job asks for something to be done to one team's environment.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Job", transform = action_rules)]
pub(crate) struct JobMessage {
    /// The version of this schema.
    #[schemars(extend("const" = JOB_SCHEMA))]
    pub(crate) schema: String,
    /// Names the job. A repeat of the same id has no second effect.
    pub(crate) job_id: JobIdText,
    /// The team it is for.
    pub(crate) team_id: TeamIdText,
    /// What is asked for.
    #[schemars(extend("enum" = action_names()))]
    pub(crate) action: String,
    /// When the publisher made the job: information, never an order.
    pub(crate) issued_at: TimestampText,
    /// After this moment the job is not begun any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<TimestampText>,
    /// Restart only: names of agents and previews, or `sync`; everything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TARGETS_MAX), extend("uniqueItems" = true))]
    pub(crate) targets: Option<Vec<NameText>>,
    /// Start only: what the team's environment is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Object<SpecMessage>>,
}

/// What the environment of a team is made of.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Spec")]
pub(crate) struct SpecMessage {
    /// Where the files come from.
    pub(crate) workspace: Object<WorkspaceMessage>,
    /// AI coding agents, distinct by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::AGENTS_MAX))]
    pub(crate) agents: Vec<Object<AgentMessage>>,
    /// Dev servers, one per branch, distinct by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::PREVIEWS_MAX))]
    pub(crate) previews: Vec<Object<PreviewMessage>>,
    /// How the workspace is kept in step with Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sync: Option<Object<SyncMessage>>,
    /// When the team stops by itself, from 1m to 90d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<DurationText>,
    /// After how long without activity the team stops, from 1m to 90d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_stop: Option<DurationText>,
}

/// Either a Git repository or a directory that is on the host.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "Workspace",
    extend("oneOf" = json!([{"required": ["git"]}, {"required": ["local"]}]))
)]
pub(crate) struct WorkspaceMessage {
    /// A repository that is cloned and kept in step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) git: Option<Object<GitMessage>>,
    /// The team's workspace directory as it is, or an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = true))]
    pub(crate) local: Option<bool>,
}

/// A repository and what to check out of it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Git")]
pub(crate) struct GitMessage {
    /// An `https://` or `ssh://` URL, or `git@host:path`, without credentials.
    #[schemars(extend(
        "maxLength" = 2000,
        "pattern" = r"^[^\u0000-\u0020\u007f-][^\u0000-\u0020\u007f]*$"
    ))]
    pub(crate) url: String,
    /// A branch or tag; the remote's default branch if absent.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<GitRefText>,
    /// The key or token with which the repository is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<SecretRefText>,
}

/// One agent container.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Agent")]
pub(crate) struct AgentMessage {
    /// Its name within the team.
    pub(crate) name: NameText,
    /// Environment variable of the agent's process to secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = variable_name()))]
    pub(crate) secrets: BTreeMap<String, SecretRefText>,
    /// Plain environment of the agent's process; names that steer the
    /// platform's own tools are refused (`env.denied_name`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, VariableValue>", extend("propertyNames" = variable_name()))]
    pub(crate) env: BTreeMap<String, String>,
    /// Wanted limits; one above the role's own changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Object<LimitsMessage>>,
    /// A first task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = PROMPT_CHARS_MAX))]
    pub(crate) prompt: Option<String>,
}

/// Limits downwards.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(crate) struct LimitsMessage {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = BYTES_MAX), extend("format" = "int64"))]
    pub(crate) memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = CPU_MILLIS_MAX), extend("format" = "int32"))]
    pub(crate) cpu_millis: Option<u32>,
}

/// Beyond 2^53 numbers are not the same to every reader of JSON.
pub(crate) const BYTES_MAX: u64 = 1 << 53;

/// A thousand CPUs.
pub(crate) const CPU_MILLIS_MAX: u32 = 1_000_000;

/// One preview container.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Preview")]
pub(crate) struct PreviewMessage {
    /// Its name within the team.
    pub(crate) name: NameText,
    /// The branch it shows; the workspace's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<GitRefText>,
    /// When it ends by itself, from 1m to 90d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<DurationText>,
}

/// How the workspace is kept in step with Git.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sync")]
pub(crate) struct SyncMessage {
    /// How often the remote is asked, from 5s to 1d; 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<DurationText>,
}

/// Strings of a certain form, each a definition of the schema.
macro_rules! text_types {
    ($($(#[doc = $doc:literal])* $type:ident as $name:literal = $schema:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $type(pub(crate) String);

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema: Schema = $schema;
                schema.insert("type".into(), "string".into());
                let description = concat!($($doc,)*).trim();
                schema.insert("description".into(), description.into());
                schema
            }
        }
    )*};
}

text_types! {
    /// A lower-case hyphenated UUID.
    JobIdText as "JobId" = json_schema!({
        "format": "uuid",
        "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    });
    /// 1 to 40 lower-case letters, digits, `-` or `_`; a letter or digit at both ends; no `--`.
    TeamIdText as "TeamId" = json_schema!({"pattern": TeamId::PATTERN, "not": {"pattern": "--"}});
    /// 1 to 20 lower-case letters, digits or `-`; a letter or digit at both ends; no `--`.
    NameText as "Name" = json_schema!({"pattern": PartName::PATTERN, "not": {"pattern": "--"}});
    /// RFC 3339, with seconds and an offset or `Z`.
    TimestampText as "Timestamp" = json_schema!({
        "format": "date-time",
        "pattern": TIMESTAMP_PATTERN,
    });
    /// One number and one unit: `30s`, `5m`, `2h`, `7d`.
    DurationText as "Duration" = json_schema!({"pattern": duration::PATTERN});
    /// A branch or tag.
    GitRefText as "GitRef" = json_schema!({
        "maxLength": 200,
        "pattern": r"^[^\u0000-\u0020\u007f~^:?*\[\\/.-][^\u0000-\u0020\u007f~^:?*\[\\]*$",
    });
    /// Names a secret on the host, `folder/name` or `kind:name`; never a secret itself.
    SecretRefText as "SecretRef" = json_schema!({
        "maxLength": 100,
        "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:[/:][A-Za-z0-9_-][A-Za-z0-9_.-]*)*$",
    });
    /// No control characters but the tab.
    VariableValue as "VariableValue" = json_schema!({
        "maxLength": 32_768,
        "pattern": r"^[^\u0000-\u0008\u000a-\u001f\u007f]*$",
    });
}

/// The one form of RFC 3339 that every reader agrees on.
pub(crate) const TIMESTAMP_PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]\
    (?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$";

fn variable_name() -> Value {
    json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,99}$"})
}

fn action_names() -> Vec<&'static str> {
    ActionKind::ALL.iter().map(|action| action.as_str()).collect()
}

/// `spec` belongs to start, `targets` to restart, to no other action.
fn action_rules(schema: &mut Schema) {
    let is = |action: ActionKind| json!({"properties": {"action": {"const": action.as_str()}}});
    let rules = json!([
        {
            "if": is(ActionKind::Start),
            "then": {"required": ["spec"]},
            "else": {"properties": {"spec": false}},
        },
        {
            "if": is(ActionKind::Restart),
            "else": {"properties": {"targets": false}},
        },
    ]);
    schema.insert("allOf".into(), rules);
}
