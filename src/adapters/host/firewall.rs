//! Firewall rules for the team bridges, in two chains of our own.
//!
//! An internal Docker network does not protect the host: its gateway and the
//! host's addresses stay reachable, and another team's published port too,
//! through the user-land proxy. Rules on the bridges' names close it.

use std::fmt::Write;
use std::net::IpAddr;

use super::program;
use crate::domain::limits::PROXY_PORT;
use crate::domain::plan::PREVIEW_NETWORKS;
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

/// The whole rule set as one transaction of `iptables-restore`.
fn rules_text(rules: &HostRules) -> String {
    let mut text = String::from("*filter\n:COVIBES-IN - [0:0]\n:COVIBES-FWD - [0:0]\n");
    let mut rule = |chain: &str, rest: &str| {
        let _ = writeln!(text, "-A {chain} {rest}");
    };
    // Replies must pass: a plain drop would break the worker's own probes.
    rule("COVIBES-IN", "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN");
    rule("COVIBES-IN", &format!("-p tcp --dport {PROXY_PORT} -j ACCEPT"));
    rule("COVIBES-IN", "-j REJECT");
    rule("COVIBES-FWD", "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN");
    for resolver in rules.resolvers.iter().filter(|r| matches!(r, IpAddr::V4(_))) {
        rule("COVIBES-FWD", &format!("-d {resolver} -p udp --dport 53 -j RETURN"));
        rule("COVIBES-FWD", &format!("-d {resolver} -p tcp --dport 53 -j RETURN"));
    }
    for network in rules.allow_private.iter().filter(|n| matches!(n, ipnet::IpNet::V4(_))) {
        rule("COVIBES-FWD", &format!("-d {network} -j RETURN"));
    }
    // Within one bridge; between bridges Docker's own isolation drops.
    rule("COVIBES-FWD", &format!("-d {PREVIEW_NETWORKS} -j RETURN"));
    for network in NOT_PUBLIC {
        rule("COVIBES-FWD", &format!("-d {network} -j REJECT"));
    }
    rule("COVIBES-FWD", "-j RETURN");
    text.push_str("COMMIT\n");
    text
}

/// Sets the rules; every part that the host denies becomes a finding.
pub(super) async fn ensure(rules: &HostRules) -> Vec<Finding> {
    let finding = |message: String| Finding {
        subject: "host_rules",
        message: format!("teams are not kept from the host: {message}"),
    };
    if let Err(error) =
        program("iptables-restore", &["-w", "10", "--noflush"], Some(&rules_text(rules))).await
    {
        return vec![finding(error)];
    }
    let mut findings = Vec::new();
    for (chain, bridge, target) in [
        ("INPUT", "cvi+", "COVIBES-IN"),
        ("INPUT", "cvp+", "COVIBES-IN"),
        ("DOCKER-USER", "cvp+", "COVIBES-FWD"),
    ] {
        let rule = ["-i", bridge, "-j", target];
        let check = [&["-w", "10", "-C", chain], &rule[..]].concat();
        if program("iptables", &check, None).await.is_err() {
            let insert = [&["-w", "10", "-I", chain, "1"], &rule[..]].concat();
            if let Err(error) = program("iptables", &insert, None).await {
                findings.push(finding(error));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_pass_before_anything_is_refused() {
        let text = rules_text(&HostRules {
            resolvers: ["10.0.0.53".parse().unwrap()].into(),
            allow_private: vec!["10.9.0.0/24".parse().unwrap()],
        });
        for chain in ["COVIBES-IN", "COVIBES-FWD"] {
            let first = text.lines().find(|l| l.starts_with(&format!("-A {chain}"))).unwrap();
            assert!(first.contains("ESTABLISHED"), "{first}");
        }
        let line = |needle: &str| text.lines().position(|l| l.contains(needle)).unwrap();
        assert!(line("10.0.0.53") < line("-d 10.0.0.0/8"));
        assert!(line("10.9.0.0/24 -j RETURN") < line("-d 10.0.0.0/8"));
    }
}
