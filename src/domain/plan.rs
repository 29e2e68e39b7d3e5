//! The plan: the resolved, pure description of every container, network and
//! volume of a team.
//!
//! What is not in here cannot be created: there is no field for privileges,
//! capabilities, devices or the Docker socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::ids::{InstanceName, JobId, PartName, RunId, TeamId};
use super::limits::Limits;
use super::names::{ContainerName, ImageRef, NetworkName, VolumeName};

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// An AI coding agent.
    Agent,
    /// A dev server.
    Preview,
    /// Git operations on the workspace.
    Sync,
    /// A clone or an install; gone when it is done.
    Oneshot,
    /// The host's egress proxy.
    Egress,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Agent, Self::Preview, Self::Sync, Self::Oneshot, Self::Egress];

    /// The role's name in labels, container names and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Preview => "preview",
            Self::Sync => "sync",
            Self::Oneshot => "oneshot",
            Self::Egress => "egress",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == raw)
    }
}

/// Whose a resource is; becomes its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The instance that made it.
    pub instance: InstanceName,
    /// The team, or `None` for what belongs to the host.
    pub team: Option<TeamId>,
    /// What it is for.
    pub role: Role,
    /// Which agent or preview.
    pub part: Option<PartName>,
    /// The generation that made it; not part of the config hash.
    pub generation: u64,
    /// The job that made it.
    pub job: Option<JobId>,
    /// The run that made it.
    pub run: Option<RunId>,
}

/// One of a team's two networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Its name.
    pub name: NetworkName,
    /// Whose it is. The role is `Agent` or `Preview`.
    pub owner: Owner,
    /// Whether containers on it have no route out.
    pub internal: bool,
    /// Its /27.
    pub subnet: Ipv4Net,
    /// The bridge's interface name, `cvi-<slot>` or `cvp-<slot>`.
    pub bridge: String,
    /// The host's uplink MTU: Docker's default of 1500 loses packets below it.
    pub mtu: u32,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A directory of the host.
    Bind(PathBuf),
    /// A throw-away overlay over a directory.
    Overlay {
        /// Read only.
        lower: PathBuf,
        /// Takes the writes.
        upper: PathBuf,
        /// The file system's own scratch.
        work: PathBuf,
    },
    /// A volume that Docker keeps.
    Managed,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlan {
    /// Its name.
    pub name: VolumeName,
    /// Whose it is.
    pub owner: Owner,
    /// What it is made of.
    pub source: VolumeSource,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A named volume.
    Volume(VolumeName),
    /// A directory or file of the host, never one below a workspace.
    Bind(PathBuf),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it shows.
    pub source: MountSource,
    /// Where.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// A writable, empty, in-memory directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where.
    pub target: String,
    /// Bytes; they count towards the memory limit.
    pub bytes: u64,
    /// Whether programs may be run from it.
    pub executable: bool,
}

/// The network a container joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkChoice {
    /// A team's network.
    Team(NetworkName),
    /// The host's own: the egress proxy's exception and nobody else's.
    Host,
    /// None at all.
    None,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The port inside.
    pub container_port: u16,
    /// The address outside; 127.0.0.1 unless configured.
    pub host_ip: IpAddr,
    /// The port outside. A preference: not part of the config hash.
    pub host_port: u16,
}

/// How the worker probes a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// `GET path`; any status below 500 means alive.
    Http {
        /// The port inside.
        port: u16,
        /// The path.
        path: String,
    },
    /// A TCP connect.
    Tcp {
        /// The port inside.
        port: u16,
    },
    /// Nothing to ask.
    None,
}

/// Who starts a container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Docker does the first five; then the worker takes over.
    OnFailure,
    /// Nobody: one-shot tasks.
    Never,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Its name.
    pub name: ContainerName,
    /// Whose it is.
    pub owner: Owner,
    /// What it runs from.
    pub image: ImageRef,
    /// Numeric user and group, never 0.
    pub user: (u32, u32),
    /// The whole argument vector.
    pub command: Vec<String>,
    /// Its environment, without secrets.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub working_dir: String,
    /// Its host name.
    pub hostname: String,
    /// The network it joins.
    pub network: NetworkChoice,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Its in-memory directories.
    pub tmpfs: Vec<Tmpfs>,
    /// What it may use.
    pub limits: Limits,
    /// The one published port of a preview.
    pub publish: Option<Publish>,
    /// The worker's own probe.
    pub probe: ProbeKind,
    /// Docker's exec-form healthcheck, empty for none.
    pub healthcheck: Vec<String>,
    /// Who starts it again.
    pub restart: Restart,
    /// How long it has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

/// Dependencies to install for one preview before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// Which preview.
    pub preview: PartName,
    /// Directory of the host that the install sees through its overlay.
    pub lower: PathBuf,
    /// The app's directory below the workspace, `.` for the root.
    pub app_dir: String,
    /// The one-shot container.
    pub container: ContainerPlan,
    /// Where the finished tree is swapped in.
    pub modules: PathBuf,
    /// Changes when lockfile, manifest, command or runtime change.
    pub key: String,
    /// Modules of the packages of a workspace; none without one.
    pub packages: Option<PackagesPlan>,
    /// The throw-away overlay's volume and where it stands in the container.
    pub overlay: VolumeName,
}

/// Where the packages of a workspace have modules of their own: a directory of
/// root's with a child for each, swapped in as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesPlan {
    /// Where they are kept.
    pub kept: PathBuf,
    /// Where an install puts them.
    pub staging: PathBuf,
    /// The names of the children.
    pub children: Vec<String>,
}

/// A team, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The instance that runs it.
    pub instance: InstanceName,
    /// The team.
    pub team: TeamId,
    /// Counts the accepted specs of the team.
    pub generation: u64,
    /// Its networks.
    pub networks: Vec<NetworkPlan>,
    /// Its volumes.
    pub volumes: Vec<VolumePlan>,
    /// Its containers.
    pub containers: Vec<ContainerPlan>,
    /// What to install first.
    pub installs: Vec<InstallPlan>,
    /// Preview name to link.
    pub links: BTreeMap<PartName, String>,
}

impl Plan {
    /// The container of a role and part.
    #[must_use]
    pub fn container(&self, role: Role, part: Option<&PartName>) -> Option<&ContainerPlan> {
        self.containers.iter().find(|c| c.owner.role == role && c.owner.part.as_ref() == part)
    }
}

/// The address space of agent networks (DESIGN 1).
pub const AGENT_NETWORKS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 21, 0, 0), 16);

/// The address space of preview networks (DESIGN 1).
pub const PREVIEW_NETWORKS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 22, 0, 0), 16);

/// Teams whose networks fit into one /16 of /27s.
pub const SLOTS: u16 = 2048;

/// The /27 of a slot.
#[must_use]
pub fn slot_subnet(space: Ipv4Net, slot: u16) -> Ipv4Net {
    let base = u32::from(space.network()) + u32::from(slot) * 32;
    Ipv4Net::new_assert(Ipv4Addr::from(base), 27)
}
