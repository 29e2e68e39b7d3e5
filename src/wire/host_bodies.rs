//! The bodies of events about hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The worker is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostUp {
    /// Which host.
    pub host: String,
    /// Its version.
    pub version: String,
}

/// The worker finishes what runs and leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostDraining {
    /// Which host.
    pub host: String,
}

/// A host has been silent for too long. Its jobs wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostLost {
    /// Which host.
    pub host: String,
    /// For how many milliseconds.
    pub silent_ms: u64,
}

/// The worker came and knows what it found of its teams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostReconciled {
    /// Which host.
    pub host: String,
    /// Teams that run as they should.
    pub adopted: u64,
    /// Teams of which something is started again.
    pub restarting: u64,
    /// Teams that are stopped, as they should be.
    pub stopped: u64,
    /// Things that nobody owns, and which are removed if that stays so.
    pub orphans: u64,
}
