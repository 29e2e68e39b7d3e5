//! What the operator decides about a host. `app` reads it from file,
//! environment and flags; everything below only sees this.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::ids::{HostId, InstanceName, PartName, TeamId};
use super::names::host_label;

/// Where previews may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewEgress {
    /// To public addresses: a project's code may talk to anyone.
    Open,
    /// Through the egress proxy's allow-list.
    Proxy,
}

/// What agents, sync and one-shot tasks may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// Host names; a leading dot also allows everything below.
    pub allow: Vec<String>,
    /// Package registries by group name (`npm`, `pypi`). An empty list means:
    /// ask the group's own client.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Private networks that may be reached all the same.
    pub allow_private: Vec<IpNet>,
    /// What single teams may reach besides.
    pub teams: BTreeMap<TeamId, Vec<String>>,
}

/// What the operator decides about agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPolicy {
    /// Where the CLI finds its API, its host allowed by that; the CLI's own
    /// choice if absent.
    pub api_base_url: Option<url::Url>,
    /// What the CLI may do without asking.
    pub permission_mode: PermissionMode,
}

/// What the CLI may do without asking, and nobody is there to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionMode {
    /// Edit files. Commands need a task's `allowed_tools`.
    AcceptEdits,
    /// Everything: the container is what holds it.
    BypassPermissions,
    /// Read and plan.
    Plan,
    /// Read; all else needs `allowed_tools`.
    Default,
}

impl PermissionMode {
    /// The CLI's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcceptEdits => "acceptEdits",
            Self::BypassPermissions => "bypassPermissions",
            Self::Plan => "plan",
            Self::Default => "default",
        }
    }
}

/// Which repositories may be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitPolicy {
    /// Allowed hosts.
    pub hosts: Vec<String>,
    /// Private networks that these hosts may be in.
    pub allow_private: Vec<IpNet>,
}

/// How much a host takes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// Teams.
    pub teams_max: u32,
    /// Previews of one team.
    pub previews_per_team: usize,
    /// Reserved memory may be this many times the host's.
    pub memory_overcommit: f64,
    /// Reserved CPUs may be this many times the host's.
    pub cpu_overcommit: f64,
    /// Starts are refused above this share of the disk.
    pub disk_used_max: f64,
    /// Containers started at once: 4 is best on two cores, 8 adds little.
    pub starts_at_once: usize,
    /// Builds and installs at once.
    pub builds_at_once: usize,
}

/// The operator's decisions about one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// This worker's share of the host.
    pub instance: InstanceName,
    /// This host's name in the placement table.
    pub host: HostId,
    /// Workspaces, worktrees and caches.
    pub data_dir: PathBuf,
    /// What all instances of the host share: proxy configuration, image
    /// inventory. The same for all of them, wherever their data lies.
    pub host_dir: PathBuf,
    /// Records, evidence, build logs.
    pub state_dir: PathBuf,
    /// Secret files.
    pub secret_dir: PathBuf,
    /// First and last preview port.
    pub preview_ports: (u16, u16),
    /// Ports in that range that belong to others.
    pub preview_ports_excluded: Vec<u16>,
    /// The address on which previews are published.
    pub preview_ip: IpAddr,
    /// The domain of preview links.
    pub preview_domain: String,
    /// Links behind a reverse proxy, with `{host}`, `{preview}`, `{team}` and `{port}`.
    pub preview_public_url: Option<String>,
    /// Where previews may go.
    pub preview_egress: PreviewEgress,
    /// Images that Dockerfiles of repositories may be built upon; none: such are not built.
    pub dockerfile_bases: Vec<String>,
    /// Agents.
    pub agent: AgentPolicy,
    /// What everything else may reach.
    pub egress: Egress,
    /// Whose that policy is: the instance, also for a command that keeps its state
    /// apart from it.
    pub policy_of: InstanceName,
    /// Which repositories may be cloned.
    pub git: GitPolicy,
    /// How much the host takes on.
    pub capacity: Capacity,
    /// Whether a cache gets a file system of its own size.
    pub cache_sized: bool,
}

/// Ports of well-known services between 5000 and 8999 (DESIGN 1): databases,
/// brokers and consoles that a developer's machine is likely to run.
pub const PORTS_WELL_KNOWN: &[u16] = &[
    5037, 5060, 5061, 5222, 5269, 5353, 5355, 5432, 5433, 5601, 5671, 5672, 5900, 5901, 5984, 5985,
    5986, 6000, 6379, 6380, 6443, 6667, 7000, 7001, 7474, 7687, 8008, 8080, 8081, 8086, 8123, 8125,
    8200, 8333, 8443, 8500, 8501, 8600, 8888,
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: InstanceName::default_worker(),
            host: HostId::parse("localhost").expect("the literal matches the pattern"),
            data_dir: PathBuf::from("/var/covibes"),
            host_dir: PathBuf::from("/var/covibes/host"),
            state_dir: PathBuf::from("/var/lib/covibes"),
            secret_dir: PathBuf::from("/etc/covibes/secrets"),
            preview_ports: (5000, 8999),
            preview_ports_excluded: Vec::new(),
            preview_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            preview_domain: "localhost".to_owned(),
            preview_public_url: None,
            preview_egress: PreviewEgress::Open,
            dockerfile_bases: Vec::new(),
            agent: AgentPolicy { api_base_url: None, permission_mode: PermissionMode::AcceptEdits },
            egress: Egress {
                allow: vec!["api.anthropic.com".to_owned()],
                groups: BTreeMap::from([
                    ("npm".to_owned(), Vec::new()),
                    ("pypi".to_owned(), Vec::new()),
                ]),
                allow_private: Vec::new(),
                teams: BTreeMap::new(),
            },
            policy_of: InstanceName::default_worker(),
            git: GitPolicy {
                hosts: ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"]
                    .map(str::to_owned)
                    .to_vec(),
                allow_private: Vec::new(),
            },
            capacity: Capacity {
                teams_max: 200,
                previews_per_team: super::limits::PREVIEWS_MAX,
                memory_overcommit: 1.0,
                cpu_overcommit: 4.0,
                disk_used_max: 0.8,
                starts_at_once: 4,
                builds_at_once: 2,
            },
            cache_sized: true,
        }
    }
}

impl Settings {
    /// Settings of another instance: its own directories, the same host.
    #[must_use]
    pub fn for_instance(mut self, instance: InstanceName) -> Self {
        if !instance.is_default() {
            self.data_dir = self.data_dir.join("instances").join(instance.as_str());
            self.state_dir = self.state_dir.join("instances").join(instance.as_str());
        }
        self.policy_of = instance.clone();
        self.instance = instance;
        self
    }

    /// The link of a preview, as people get it.
    #[must_use]
    pub fn preview_link(&self, preview: &PartName, team: &TeamId, port: u16) -> String {
        let host = host_label(preview, team);
        match &self.preview_public_url {
            Some(template) => template
                .replace("{host}", &host)
                .replace("{preview}", preview.as_str())
                .replace("{team}", team.as_str())
                .replace("{port}", &port.to_string()),
            None => format!("http://{host}.{}:{port}", self.preview_domain),
        }
    }

    /// A port that previews may be published on.
    #[must_use]
    pub fn is_preview_port(&self, port: u16) -> bool {
        (self.preview_ports.0..=self.preview_ports.1).contains(&port)
            && !PORTS_WELL_KNOWN.contains(&port)
            && !self.preview_ports_excluded.contains(&port)
    }
}
