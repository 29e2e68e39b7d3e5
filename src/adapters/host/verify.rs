//! Tries the host's rules as a team would meet them: from a network namespace
//! whose way to the host has the name of a team's bridge.
//!
//! Reading the rules says what they are meant to do; only trying says whether
//! something before them lets a packet through.

use std::net::{Ipv4Addr, TcpListener};

use super::program;
use crate::domain::limits::PROXY_PORT;
use crate::ports::host::Finding;

/// A link-local pair that nothing else uses.
const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
const TEAM: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);

/// The chains without which the rules are none of ours.
const CHAINS: [&str; 5] = [
    "chain to_host",
    "chain team_to_host",
    "chain forwarded",
    "chain from_agents",
    "chain from_previews",
];

/// What of the rules does not hold.
pub(super) async fn verify() -> Vec<Finding> {
    let finding = |message: String| Finding { subject: "host_rules", message };
    match program("nft", &["list", "table", "inet", "covibes"], None).await {
        Err(error) => {
            let hint = "teams are not kept from the host; `covibes host prepare` sets the rules";
            return vec![finding(format!("{hint} ({error})"))];
        }
        Ok(text) => {
            if let Some(missing) = CHAINS.iter().find(|chain| !text.contains(**chain)) {
                let hint = "`covibes host prepare` sets them again";
                return vec![finding(format!("the rules have no {missing}; {hint}"))];
            }
        }
    }
    let name = format!("covibes-doctor-{}", std::process::id());
    let tried = try_as_a_team(&name).await;
    // The pair goes with the namespace.
    let _ = program("ip", &["netns", "del", &name], None).await;
    match tried {
        Ok(found) => found.into_iter().map(finding).collect(),
        Err(error) => vec![finding(format!("the rules are set and could not be tried: {error}"))],
    }
}

async fn try_as_a_team(name: &str) -> Result<Vec<String>, String> {
    // On every address, as a careless service is.
    let listener = TcpListener::bind(("0.0.0.0", 0)).map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    // The name of an agents' bridge, which no slot has.
    let bridge = format!("cvi-d{}", std::process::id() % 1_000_000);
    let (host, team) = (format!("{HOST}/30"), format!("{TEAM}/30"));
    for arguments in [
        &["netns", "add", name][..],
        &["link", "add", &bridge, "type", "veth", "peer", "name", "eth0", "netns", name],
        &["addr", "add", &host, "dev", &bridge],
        &["link", "set", &bridge, "up"],
        &["-n", name, "addr", "add", &team, "dev", "eth0"],
        &["-n", name, "link", "set", "eth0", "up"],
    ] {
        program("ip", arguments, None).await?;
    }
    let reaches = async |port: u16| {
        let connect = format!("</dev/tcp/{HOST}/{port}");
        let inside = ["netns", "exec", name, "timeout", "3", "bash", "-c", &connect];
        program("ip", &inside, None).await.is_ok()
    };
    let mut found = Vec::new();
    if reaches(port).await {
        found.push("a team reaches services of this host; a rule before ours lets it".to_owned());
    }
    if !reaches(PROXY_PORT).await {
        found.push(format!(
            "a team does not reach the egress proxy on port {PROXY_PORT}; it is not running, or \
             a rule of the host's drops what comes to it"
        ));
    }
    Ok(found)
}
