//! The part of the configuration that is about several hosts on one broker.

use std::time::Duration;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::HostId;

/// Several hosts on one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// Hosts that must say which teams they have before a broker that lost its
    /// definitions is trusted again. Those that were heard are known without
    /// standing here.
    pub hosts: Vec<String>,
    /// Seconds of silence after which a host counts as lost.
    pub lost_after_seconds: u32,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { hosts: Vec::new(), lost_after_seconds: 30 }
    }
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The operator's list.
    pub hosts: Vec<HostId>,
    /// See [`ClusterSection::lost_after_seconds`].
    pub lost_after: Duration,
}

impl ClusterSection {
    /// Checks it.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn check(&self) -> anyhow::Result<Cluster> {
        // Three heartbeats and a lost one.
        if self.lost_after_seconds < 15 {
            bail!("`cluster.lost_after_seconds` must be at least 15: heartbeats come every 5");
        }
        let hosts = self
            .hosts
            .iter()
            .map(|raw| HostId::parse(raw).with_context(|| format!("`cluster.hosts`: {raw:?}")));
        let lost_after = Duration::from_secs(self.lost_after_seconds.into());
        Ok(Cluster { hosts: hosts.collect::<Result<_, _>>()?, lost_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_or_time_that_cannot_be_meant_is_named() {
        assert!(ClusterSection::default().check().is_ok());
        let hosts = vec!["Host_1".to_owned()];
        let error = ClusterSection { hosts, ..ClusterSection::default() }.check().unwrap_err();
        assert!(format!("{error:#}").contains("Host_1"), "{error:#}");
        let short = ClusterSection { lost_after_seconds: 1, ..ClusterSection::default() };
        assert!(short.check().unwrap_err().to_string().contains("lost_after_seconds"));
    }
}
