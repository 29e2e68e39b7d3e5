//! What the egress proxy lets through: the union of what each instance of the
//! host allows, and what a host policy allows to single teams.
//!
//! There is one proxy on a host and there may be many instances, whose policies
//! differ. Each writes down its own below the shared directory, and whoever
//! prepares the host makes the proxy's lists of all of them (ADR 0045). The lists
//! are the same whoever makes them, so nothing is taken away in turns, and the
//! proxy reads them again only when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use super::Ports;
use super::preparation::is_private;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::plan::{AGENT_NETWORKS, PREVIEW_NETWORKS, slot_subnet};

/// The proxy's configuration; the lists are files beside it.
const CONFIGURATION: &str = include_str!("../../ops/images/egress/squid.conf.template");

/// Where the instances' policies lie.
const POLICIES: &str = "policies";

/// What the proxy has read, so that a list that was written and never read is
/// noticed.
const READ: &str = "read.txt";

/// A policy that nobody has confirmed for so long is that of an instance that is
/// gone. A worker confirms its own every hour (`Preparation::keep_policy`).
const BELIEVED_SECONDS: i64 = 7 * 24 * 3600;

/// A policy is confirmed at most this often, so that a start writes nothing.
const CONFIRMED_EVERY_SECONDS: i64 = 3600;

/// What one instance allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// When its instance said so last, in unix seconds.
    seen: i64,
    hosts: BTreeSet<String>,
    private: BTreeSet<String>,
    /// Networks of single teams, and what they may reach besides.
    teams: BTreeMap<(Ipv4Net, Ipv4Net), BTreeSet<String>>,
}

impl Policy {
    fn text(&self) -> String {
        let mut text = format!("seen {}\n", self.seen);
        for host in &self.hosts {
            let _ = writeln!(text, "host {host}");
        }
        for network in &self.private {
            let _ = writeln!(text, "private {network}");
        }
        for ((agents, previews), hosts) in &self.teams {
            for host in hosts {
                let _ = writeln!(text, "team {agents} {previews} {host}");
            }
        }
        text
    }

    /// Reads a policy; what is not understood was written by a later version.
    fn read(text: &str) -> Self {
        let mut policy = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["seen", seconds] => policy.seen = seconds.parse().unwrap_or(0),
                ["host", host] if is_host(host) => _ = policy.hosts.insert(host.to_owned()),
                ["private", network] if is_network(network) => {
                    policy.private.insert(network.to_owned());
                }
                ["team", agents, previews, host] if is_host(host) => {
                    if let (Ok(agents), Ok(previews)) = (agents.parse(), previews.parse()) {
                        let hosts = policy.teams.entry((agents, previews)).or_default();
                        hosts.insert(host.to_owned());
                    }
                }
                _ => {}
            }
        }
        policy
    }

    /// Whether both allow the same, whenever they said so.
    fn allows_as(&self, other: &Self) -> bool {
        (&self.hosts, &self.private, &self.teams) == (&other.hosts, &other.private, &other.teams)
    }
}

/// Whether a name may stand in the proxy's lists: `example.org`, or
/// `.example.org` for it and all below.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    !name.is_empty() && name.len() <= 254 && name.bytes().all(plain) && name != "."
}

fn is_network(text: &str) -> bool {
    text.parse::<IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok()
}

/// What this instance allows now.
pub(super) async fn policy_of(
    ports: &Ports,
    groups: &BTreeMap<String, BTreeSet<String>>,
    slots: &BTreeMap<TeamId, u16>,
) -> Result<Policy, Failure> {
    let (egress, git) = (&ports.settings.egress, &ports.settings.git);
    let mut hosts: BTreeSet<String> = egress.allow.iter().chain(&git.hosts).cloned().collect();
    let api = ports.settings.agent.api_base_url.as_ref();
    hosts.extend(api.and_then(|url| url.host_str()).map(str::to_owned));
    let networks = egress.allow_private.iter().chain(&git.allow_private);
    let mut private: BTreeSet<String> = networks.map(IpNet::to_string).collect();
    for (group, configured) in &egress.groups {
        let found = groups.get(group).cloned().unwrap_or_default();
        let wanted =
            if configured.is_empty() { found } else { configured.iter().cloned().collect() };
        for host in wanted {
            // Operators chose these hosts by choosing the clients' registries,
            // so the address they have is meant, private or not.
            let addresses = ports.host.resolve(&host).await;
            private.extend(addresses.into_iter().filter(|a| is_private(*a)).map(|a| a.to_string()));
            hosts.insert(host);
        }
    }
    let mut teams = BTreeMap::new();
    for (team, allowed) in &egress.teams {
        let slot = match slots.get(team) {
            Some(slot) => Some(*slot),
            None => ports.records.load(team).await?.and_then(|record| record.slot),
        };
        if let Some(slot) = slot {
            let networks = (slot_subnet(AGENT_NETWORKS, slot), slot_subnet(PREVIEW_NETWORKS, slot));
            teams.insert(networks, allowed.iter().map(|host| host.to_ascii_lowercase()).collect());
        }
    }
    let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
    Ok(Policy { seen: ports.clock.unix_millis() / 1000, hosts, private, teams })
}

/// Writes this instance's policy and the proxy's lists of all policies; says
/// whether the proxy has to read them.
///
/// # Errors
/// The host's file system refuses.
pub(super) async fn write_lists(
    ports: &Ports,
    directory: &Path,
    own: &Policy,
) -> Result<bool, Failure> {
    let policies = directory.join(POLICIES);
    let own_path = policies.join(format!("{}.txt", ports.settings.policy_of));
    let known = ports.host.read_file(&own_path).await?.unwrap_or_default();
    let known = Policy::read(&String::from_utf8_lossy(&known));
    if !known.allows_as(own) || own.seen - known.seen > CONFIRMED_EVERY_SECONDS {
        ports.host.write_file(&own_path, own.text().as_bytes(), 0o644, 0).await?;
    }
    let mut wrote = false;
    loop {
        let all = believed(ports, &policies, own).await?;
        let files = lists(&all);
        for (name, content) in &files {
            let path = directory.join(name);
            if ports.host.read_file(&path).await?.as_deref() != Some(content.as_bytes()) {
                ports.host.write_file(&path, content.as_bytes(), 0o644, 0).await?;
                wrote = true;
            }
        }
        // Another instance may have written its policy meanwhile, and its lists
        // before ours: the last look decides.
        if believed(ports, &policies, own).await? == all {
            let read = ports.host.read_file(&directory.join(READ)).await?;
            // A worker of an earlier version may have written other lists, and had
            // them read, since.
            return Ok(wrote || read.as_deref() != Some(digest(&files).as_bytes()));
        }
    }
}

/// Notes that the proxy has read the lists as they are.
///
/// # Errors
/// The host's file system refuses.
pub(super) async fn note_read(ports: &Ports, directory: &Path) -> Result<(), Failure> {
    let mut files = Vec::new();
    for name in FILES {
        let content = ports.host.read_file(&directory.join(name)).await?.unwrap_or_default();
        files.push((name, String::from_utf8_lossy(&content).into_owned()));
    }
    ports.host.write_file(&directory.join(READ), digest(&files).as_bytes(), 0o644, 0).await
}

fn digest(files: &[(&'static str, String)]) -> String {
    let all: String = files.iter().map(|(name, content)| format!("{name}\n{content}")).collect();
    crate::config::hash::digest(all.as_bytes())
}

/// All policies that count; those that nobody confirms any more are removed.
async fn believed(ports: &Ports, policies: &Path, own: &Policy) -> Result<Vec<Policy>, Failure> {
    let mut all = vec![Policy { seen: 0, ..own.clone() }];
    for name in ports.host.names_in(policies).await? {
        // A file that is being written has another ending.
        if !name.ends_with(".txt") || name == format!("{}.txt", ports.settings.policy_of) {
            continue;
        }
        let path = policies.join(&name);
        let Some(text) = ports.host.read_file(&path).await? else { continue };
        let policy = Policy::read(&String::from_utf8_lossy(&text));
        if own.seen - policy.seen > BELIEVED_SECONDS {
            ports.host.remove_tree(&path).await?;
        } else {
            all.push(Policy { seen: 0, ..policy });
        }
    }
    Ok(all)
}

/// The names of what [`lists`] makes.
const FILES: [&str; 4] = ["squid.conf", "allowed-hosts.txt", "allow-private.txt", "teams.conf"];

/// The proxy's files of all policies.
fn lists(policies: &[Policy]) -> Vec<(&'static str, String)> {
    let hosts: BTreeSet<String> = policies.iter().flat_map(|p| p.hosts.clone()).collect();
    let private: BTreeSet<String> = policies.iter().flat_map(|p| p.private.clone()).collect();
    let mut teams: BTreeMap<(Ipv4Net, Ipv4Net), BTreeSet<String>> = BTreeMap::new();
    for (networks, allowed) in policies.iter().flat_map(|policy| &policy.teams) {
        teams.entry(*networks).or_default().extend(allowed.clone());
    }
    let list = |items: BTreeSet<String>, never: &str| {
        // Squid warns on an empty list; this entry matches nothing.
        let items = if items.is_empty() { BTreeSet::from([never.to_owned()]) } else { items };
        items.into_iter().map(|item| format!("{item}\n")).collect::<String>()
    };
    let mut own = "# What single teams may reach besides.\n".to_owned();
    for (number, ((agents, previews), allowed)) in teams.into_iter().enumerate() {
        let allowed = without_covered(allowed).into_iter().collect::<Vec<_>>().join(" ");
        let _ = writeln!(own, "acl team_{number} src {agents} {previews}");
        let _ = writeln!(own, "acl team_{number}_hosts dstdomain -n {allowed}");
        let rule = format!("team_{number} team_{number}_hosts");
        let _ = writeln!(own, "http_access deny {rule} private !allow_private");
        let _ = writeln!(own, "http_access allow {rule}");
    }
    let contents = [
        CONFIGURATION.to_owned(),
        list(without_covered(hosts), "invalid.invalid"),
        list(private, "255.255.255.255"),
        own,
    ];
    FILES.into_iter().zip(contents).collect()
}

/// Without names that an entry with a dot covers: squid ends when it reads both.
fn without_covered(hosts: BTreeSet<String>) -> BTreeSet<String> {
    let covers = |wide: &String, name: &String| {
        wide != name
            && wide
                .strip_prefix('.')
                .is_some_and(|domain| name == domain || name.strip_suffix(wide.as_str()).is_some())
    };
    let is_covered = |name: &String| hosts.iter().any(|wide| covers(wide, name));
    hosts.iter().filter(|name| !is_covered(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn policy(names: &[&str], private: &[&str]) -> Policy {
        Policy { hosts: hosts(names), private: hosts(private), ..Policy::default() }
    }

    #[test]
    fn the_lists_hold_what_any_instance_allows_whoever_makes_them() {
        let one = policy(&["a.example", "b.example"], &["10.1.0.0/16"]);
        let other = policy(&["b.example", "c.example"], &[]);
        let made = lists(&[one.clone(), other.clone()]);
        assert_eq!(made[1].1, "a.example\nb.example\nc.example\n");
        assert_eq!(made[2].1, "10.1.0.0/16\n");
        assert_eq!(made, lists(&[other, one]));
        let none = lists(&[Policy::default()]);
        assert_eq!((&*none[1].1, &*none[2].1), ("invalid.invalid\n", "255.255.255.255\n"));
    }

    #[test]
    fn a_name_that_a_wider_one_covers_is_left_out() {
        let all = hosts(&[
            ".example.org",
            "example.org",
            "a.example.org",
            ".b.example.org",
            "xexample.org",
        ]);
        assert_eq!(without_covered(all), hosts(&[".example.org", "xexample.org"]));
    }

    #[test]
    fn a_policy_is_read_as_it_was_written_and_without_what_is_none() {
        let mut written = policy(&["a.example", ".b.example"], &["10.0.0.0/8", "::1"]);
        written.seen = 1_700_000_000;
        let networks = (slot_subnet(AGENT_NETWORKS, 3), slot_subnet(PREVIEW_NETWORKS, 3));
        written.teams.insert(networks, hosts(&["only.example"]));
        assert_eq!(Policy::read(&written.text()), written);
        let hostile = "host a b\nhost x\"y\nprivate all\nhost \nteam 1 2 c.example\nelse\n";
        assert_eq!(Policy::read(hostile), Policy::default());
    }

    #[test]
    fn a_team_has_its_own_hosts_from_its_own_networks_only() {
        let mut one = policy(&[], &[]);
        let networks = (slot_subnet(AGENT_NETWORKS, 1), slot_subnet(PREVIEW_NETWORKS, 1));
        one.teams.insert(networks, hosts(&["only.example"]));
        let text = &lists(&[one])[3].1;
        for line in [
            "acl team_0 src 172.21.0.32/27 172.22.0.32/27",
            "acl team_0_hosts dstdomain -n only.example",
            "http_access deny team_0 team_0_hosts private !allow_private",
            "http_access allow team_0 team_0_hosts",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        let template = CONFIGURATION;
        let at = |needle: &str| template.find(needle).unwrap();
        assert!(at("include /etc/covibes/teams.conf") > at("http_access deny !tunnel_ports"));
        assert!(at("include /etc/covibes/teams.conf") < at("http_access deny !allowed"));
    }
}
