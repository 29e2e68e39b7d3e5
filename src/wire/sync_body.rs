//! The bodies of events about a team's workspace and its remote.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event_body::FailureBody;

/// The workspace was brought in step with Git.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SyncSynced {
    /// The commit it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// Local work is in the way; nothing was touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SyncConflict {
    /// What is in the way.
    pub message: String,
    /// Local commits that the remote lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// Commits of the remote that are not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// The first files in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// Git failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SyncFailed {
    /// Why.
    pub failure: FailureBody,
}
