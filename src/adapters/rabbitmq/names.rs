//! The names of exchanges and queues, all below one prefix.

use crate::domain::ids::{HostId, TeamId};

/// The key of the binding that tells a placement table from a lost one. No
/// team id begins with `_`.
pub const TABLE_MARKER: &str = "_table";

/// The names below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { prefix: "covibes".to_owned() }
    }
}

impl Names {
    /// Names below `prefix`: letters, digits, `-`, `_` and `.`, at most 40, so
    /// that no name grows beyond the protocol's 255 bytes.
    #[must_use]
    pub fn new(prefix: &str) -> Option<Self> {
        let fits = !prefix.is_empty() && prefix.len() <= 40;
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        // `amq.` is the broker's own.
        (fits && plain && !prefix.starts_with("amq.")).then(|| Self { prefix: prefix.to_owned() })
    }

    /// The topic exchange to which jobs are published.
    #[must_use]
    pub fn jobs(&self) -> String {
        self.of("jobs")
    }

    /// The one queue of all jobs.
    #[must_use]
    pub fn dispatch(&self) -> String {
        self.of("dispatch")
    }

    /// The direct exchange whose bindings are the placement table.
    #[must_use]
    pub fn route(&self) -> String {
        self.of("route")
    }

    /// A host's mailbox.
    #[must_use]
    pub fn mailbox(&self, host: &HostId) -> String {
        self.of(&format!("host.{host}"))
    }

    /// The topic exchange between workers.
    #[must_use]
    pub fn ctl(&self) -> String {
        self.of("ctl")
    }

    /// The topic exchange of events.
    #[must_use]
    pub fn events(&self) -> String {
        self.of("events")
    }

    /// The stream that keeps events.
    #[must_use]
    pub fn events_log(&self) -> String {
        self.of("events.log")
    }

    /// The topic exchange of dead letters.
    #[must_use]
    pub fn dead_letter_exchange(&self) -> String {
        self.of("dlx")
    }

    /// The queue of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        self.of("dlq")
    }

    /// Whether a queue of this name belongs to the installation, or may come to.
    #[must_use]
    pub fn is_own(&self, queue: &str) -> bool {
        queue.strip_prefix(&self.prefix).is_some_and(|rest| {
            let own = ["dispatch", "host.", "events.log", "dlq"];
            rest.strip_prefix('.').is_some_and(|rest| own.iter().any(|name| rest.starts_with(name)))
        })
    }

    fn of(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

/// The routing key of a team's job.
#[must_use]
pub fn job_key(team: &TeamId, action: &str) -> String {
    format!("team.{team}.{action}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_below_their_prefix() {
        let host = HostId::parse("docker-1").unwrap();
        assert_eq!(Names::default().mailbox(&host), "covibes.host.docker-1");
        assert_eq!(Names::new("t1").unwrap().events_log(), "t1.events.log");
        let names = Names::default();
        for own in ["covibes.dispatch", "covibes.host.h1", "covibes.events.log", "covibes.dlq"] {
            assert!(names.is_own(own), "{own}");
        }
        for other in ["covibes.dashboard.x", "covibes", "x.covibes.dlq", "amq.rabbitmq.reply-to.x"]
        {
            assert!(!names.is_own(other), "{other}");
        }
        for bad in ["", "a b", "a/b", "amq.x", &"a".repeat(41)] {
            assert_eq!(Names::new(bad), None, "{bad}");
        }
    }
}
