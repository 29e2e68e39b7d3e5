//! `[egress]` and `[git]`: what leaves a host, and where repositories come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, bail};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::TeamId;
use crate::domain::settings::{Egress, GitPolicy, Settings};
use crate::pipeline::egress::is_host;

/// What agents, sync and installs may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSection {
    /// Host names; a leading dot also allows everything below.
    pub allow: Vec<String>,
    /// Package registries by group; an empty list asks the group's own client.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Private networks that may be reached all the same.
    pub allow_private: Vec<String>,
    /// Host names by team that only this team may reach besides.
    pub teams: BTreeMap<String, Vec<String>>,
}

impl Default for EgressSection {
    fn default() -> Self {
        let Egress { allow, groups, .. } = Settings::default().egress;
        Self { allow, groups, allow_private: Vec::new(), teams: BTreeMap::new() }
    }
}

impl EgressSection {
    /// Checks the names and networks.
    ///
    /// # Errors
    /// Names the key and the value that is wrong.
    pub(super) fn check(&self) -> anyhow::Result<Egress> {
        hosts(&self.allow, "egress.allow")?;
        for (group, list) in &self.groups {
            hosts(list, &format!("egress.groups.{group}"))?;
        }
        let mut teams = BTreeMap::new();
        for (team, list) in &self.teams {
            let id = TeamId::parse(team).with_context(|| format!("`egress.teams.{team}`"))?;
            teams.insert(id, hosts(list, &format!("egress.teams.{team}"))?);
        }
        Ok(Egress {
            allow: self.allow.clone(),
            groups: self.groups.clone(),
            allow_private: networks(&self.allow_private, "egress.allow_private")?,
            teams,
        })
    }
}

/// Which repositories may be cloned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GitSection {
    /// Allowed hosts.
    pub hosts: Vec<String>,
    /// Private networks that these hosts may be in.
    pub allow_private: Vec<String>,
}

impl Default for GitSection {
    fn default() -> Self {
        Self { hosts: Settings::default().git.hosts, allow_private: Vec::new() }
    }
}

impl GitSection {
    /// Checks the names and networks.
    ///
    /// # Errors
    /// Names the key and the value that is wrong.
    pub(super) fn check(&self) -> anyhow::Result<GitPolicy> {
        let list = hosts(&self.hosts, "git.hosts")?;
        Ok(GitPolicy {
            hosts: list.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allow_private: networks(&self.allow_private, "git.allow_private")?,
        })
    }
}

/// Takes names that may stand in the proxy's lists.
fn hosts(list: &[String], key: &str) -> anyhow::Result<Vec<String>> {
    if let Some(bad) = list.iter().find(|host| !is_host(host)) {
        bail!("`{key}`: {bad:?} is not a host name such as example.org or .example.org");
    }
    Ok(list.to_vec())
}

fn networks(list: &[String], key: &str) -> anyhow::Result<Vec<IpNet>> {
    list.iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .with_context(|| format!("`{key}`: {text} is not a network such as 10.0.0.0/8"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_proxy_could_not_read_is_refused_with_its_key() {
        let section = |allow: &str, team: &str| EgressSection {
            allow: vec![allow.to_owned()],
            teams: BTreeMap::from([(team.to_owned(), vec![".own.example".to_owned()])]),
            ..EgressSection::default()
        };
        let checked = section(".example.org", "team_a").check().unwrap();
        assert_eq!(checked.teams[&TeamId::parse("team_a").unwrap()], [".own.example"]);
        for (allow, team, key) in [
            ("a b", "team_a", "`egress.allow`"),
            ("a\nhttp_access allow all", "team_a", "`egress.allow`"),
            ("https://a.example", "team_a", "`egress.allow`"),
            ("a.example", "../x", "`egress.teams.../x`"),
        ] {
            let error = format!("{:#}", section(allow, team).check().unwrap_err());
            assert!(error.contains(key), "{error}");
        }
    }
}
