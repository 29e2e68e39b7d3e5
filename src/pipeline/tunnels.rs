//! What the egress proxy says of each tunnel, read from its log.
//!
//! The proxy knows a team by its subnet and writes one line when a tunnel ends.
//! All instances of a host share it, so a worker reads what is its own teams'.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// How a tunnel went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelOutcome {
    /// It was open, and is closed now.
    Opened,
    /// The allow-list, or the address behind the name, does not permit it.
    Denied,
    /// The other side did not answer, or the name leads nowhere.
    Failed,
}

impl TunnelOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Opened, Self::Denied, Self::Failed];

    /// The outcome's name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// One line of the proxy's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// When it ended, in unix milliseconds.
    pub at_unix_ms: i64,
    /// Who asked.
    pub from: Ipv4Addr,
    /// How it went.
    pub outcome: TunnelOutcome,
    /// Bytes to whoever asked.
    pub bytes: u64,
    /// `host:port`, as it was asked for.
    pub target: String,
}

impl Tunnel {
    /// Reads a line; nothing if it is about something else.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, from, result, bytes, _, method, target, ..] = words[..] else { return None };
        let (_, status) = result.split_once('/')?;
        let outcome = match (method, status) {
            (_, "403" | "407") => TunnelOutcome::Denied,
            ("CONNECT", "200") => TunnelOutcome::Opened,
            _ => TunnelOutcome::Failed,
        };
        // Whatever was asked for, it does not steer a terminal or fill a log.
        let target = target.chars().filter(|c| c.is_ascii_graphic()).take(262).collect();
        let at_unix_ms = (at.parse::<f64>().ok()? * 1000.0) as i64;
        let (from, bytes) = (from.parse().ok()?, bytes.parse().ok()?);
        Some(Self { at_unix_ms, from, outcome, bytes, target })
    }

    /// Whether it is of a team with one of these networks, each with when it was made:
    /// what is older is of another team, which had the same addresses.
    #[must_use]
    pub fn is_from(&self, networks: &[(Ipv4Net, i64)]) -> bool {
        let is_it = |(network, since): &(Ipv4Net, i64)| {
            network.contains(&self.from) && *since <= self.at_unix_ms
        };
        networks.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, TunnelOutcome, u64, &str)>) {
        let read = Tunnel::read(line);
        let read = read.as_ref().map(|t| (t.from.to_string(), t.outcome, t.bytes, &*t.target));
        let expected = expected.map(|(from, o, b, target)| (from.to_owned(), o, b, target));
        assert_eq!(read, expected, "{line}");
    }

    #[test]
    fn a_line_says_who_asked_for_what_and_how_it_went() {
        let opened =
            "1764144000.123 172.21.0.3 TCP_TUNNEL/200 5123 1003 CONNECT a.example:443 192.0.2.1";
        check(opened, Some(("172.21.0.3", TunnelOutcome::Opened, 5123, "a.example:443")));
        let denied = "1764144000.123 172.21.0.3 TCP_DENIED/403 3900 0 CONNECT b.example:443 -";
        check(denied, Some(("172.21.0.3", TunnelOutcome::Denied, 3900, "b.example:443")));
        let plain = "1764144000.123 172.21.0.3 TCP_DENIED/403 3900 0 GET http://b.example/ -";
        check(plain, Some(("172.21.0.3", TunnelOutcome::Denied, 3900, "http://b.example/")));
        let failed = "1764144000.123 172.21.0.3 TCP_TUNNEL/503 0 10000 CONNECT c.example:443 -";
        check(failed, Some(("172.21.0.3", TunnelOutcome::Failed, 0, "c.example:443")));
        check("2026/11/26 08:00:00| Starting Squid Cache version 5.7", None);
        check("", None);
    }

    #[test]
    fn what_is_older_than_a_teams_network_was_another_teams() {
        let line = "1764144000.500 172.21.0.3 TCP_TUNNEL/200 1 1 CONNECT a.example:443 192.0.2.1";
        let tunnel = Tunnel::read(line).unwrap();
        let network: Ipv4Net = "172.21.0.0/27".parse().unwrap();
        assert!(tunnel.is_from(&[(network, 1_764_144_000_400)]));
        assert!(!tunnel.is_from(&[(network, 1_764_144_000_600)]));
        let other: Ipv4Net = "172.21.0.32/27".parse().unwrap();
        assert!(!tunnel.is_from(&[(other, 0)]));
    }
}
