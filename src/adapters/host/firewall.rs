//! Firewall rules for the team bridges, in an nftables table of our own.
//!
//! An internal Docker network does not protect the host: its gateway and the
//! host's addresses stay reachable, and another team's published port too,
//! through the user-land proxy. Nor does Docker keep two bridges apart all the
//! time: whenever any network is made, it takes the jumps to its isolation
//! chains out of `FORWARD` and puts them back. So nothing here stands in
//! Docker's chains, and nothing relies on them: a base chain of its own forbids
//! whatever another table allows, and is replaced in one transaction.

use std::fmt::Write;
use std::net::IpAddr;

use super::program;
use crate::domain::limits::PROXY_PORT;
use crate::domain::plan::SLOTS;
use crate::ports::host::{Finding, HostRules};

/// What previews may not reach: everything that is not the public internet.
pub(super) const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The whole table as one transaction of `nft`. Bridges of later teams are
/// covered before they exist.
fn table_text(rules: &HostRules) -> String {
    let resolvers = rules.resolvers.iter().filter(|r| matches!(r, IpAddr::V4(_)));
    let resolvers: String = resolvers
        .map(|resolver| {
            format!("    ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 return\n")
        })
        .collect();
    let allowed = rules.allow_private.iter().filter(|n| matches!(n, ipnet::IpNet::V4(_)));
    let allowed: String =
        allowed.map(|network| format!("    ip daddr {network} return\n")).collect();
    let not_public = NOT_PUBLIC.join(", ");
    let refuse = "reject with icmpx type admin-prohibited";
    // Replies pass before anything is refused, or the worker's own probes break.
    format!(
        r#"add table inet covibes
delete table inet covibes
table inet covibes {{
  set same_bridge {{
    type ifname . ifname
    elements = {{ {same_bridge} }}
  }}
  chain to_host {{
    type filter hook input priority -10; policy accept;
    iifname "cvi-*" jump team_to_host
    iifname "cvp-*" jump team_to_host
  }}
  chain team_to_host {{
    ct state established,related return
    tcp dport {PROXY_PORT} return
    {refuse}
  }}
  chain forwarded {{
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    iifname "cvi-*" jump from_agents
    iifname "cvp-*" jump from_previews
    iifname . oifname @same_bridge accept
    oifname "cvi-*" {refuse}
  }}
  chain from_agents {{
    iifname . oifname @same_bridge return
    {refuse}
  }}
  chain from_previews {{
    iifname . oifname @same_bridge return
    oifname "cvi-*" {refuse}
    oifname "cvp-*" {refuse}
{resolvers}{allowed}    ip daddr {{ {not_public} }} {refuse}
    meta nfproto ipv6 {refuse}
  }}
}}
"#,
        same_bridge = same_bridge(),
    )
}

/// What stays within one bridge, which this hook sees where bridges call the
/// firewall. A rule cannot compare a packet's two interfaces, so all are listed.
fn same_bridge() -> String {
    let mut pairs = String::new();
    for kind in ["cvi", "cvp"] {
        for slot in 0..SLOTS {
            let _ = write!(pairs, "\"{kind}-{slot}\" . \"{kind}-{slot}\", ");
        }
    }
    pairs
}

/// Sets the rules; every part that the host denies becomes a finding.
pub(super) async fn ensure(rules: &HostRules) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = program("nft", &["-f", "-"], Some(&table_text(rules))).await {
        findings.push(Finding {
            subject: "host_rules",
            message: format!("teams are not kept from the host and from each other: {error}"),
        });
    }
    // The table forbids only. Where the host's own rules drop what comes in, the
    // way to the proxy must be opened among them.
    for bridge in ["cvi+", "cvp+"] {
        let port = PROXY_PORT.to_string();
        let rule = ["-i", bridge, "-p", "tcp", "--dport", &port, "-j", "ACCEPT"];
        let check = [&["-w", "10", "-C", "INPUT"], &rule[..]].concat();
        if program("iptables", &check, None).await.is_ok() {
            continue;
        }
        let insert = [&["-w", "10", "-I", "INPUT", "1"], &rule[..]].concat();
        if let Err(error) = program("iptables", &insert, None).await {
            findings.push(Finding {
                subject: "host_rules",
                message: format!("a host that drops what comes in drops the proxy's: {error}"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        table_text(&HostRules {
            resolvers: ["10.0.0.53".parse().unwrap(), "fe80::1".parse().unwrap()].into(),
            allow_private: vec!["10.9.0.0/24".parse().unwrap(), "172.16.0.0/12".parse().unwrap()],
        })
    }

    #[test]
    fn replies_pass_before_anything_is_refused() {
        for chain in ["team_to_host", "forwarded"] {
            let text = text();
            let rules = text.split(&format!("chain {chain} {{")).nth(1).unwrap();
            let first = rules
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty() && !line.starts_with("type"));
            assert!(first.unwrap().starts_with("ct state established"), "{chain}: {first:?}");
        }
    }

    #[test]
    fn what_is_allowed_comes_before_what_is_not_public_and_after_other_teams() {
        let text = text();
        let line = |needle: &str| {
            text.lines().position(|l| l.contains(needle)).unwrap_or_else(|| panic!("{needle}"))
        };
        let not_public = line("ip daddr { 0.0.0.0/8");
        assert!(line("10.0.0.53 ") < not_public);
        assert!(line("10.9.0.0/24 return") < not_public);
        // Not even a policy that names the team networks opens one to another.
        let others = line(r#"oifname "cvp-*" reject"#);
        assert!(others < line("172.16.0.0/12 return"));
        assert!(!text.contains("fe80"), "the table's addresses are of IPv4");
    }

    #[test]
    fn every_slot_reaches_itself() {
        let text = text();
        for bridge in ["cvi-0", "cvp-0", "cvi-2047", "cvp-2047"] {
            assert!(text.contains(&format!("\"{bridge}\" . \"{bridge}\"")), "{bridge}");
        }
    }
}
