//! The Docker Engine, as far as Covibes needs it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use ipnet::Ipv4Net;

use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{InstanceName, TeamId};
use crate::domain::limits::Limits;
use crate::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use crate::domain::plan::{ContainerPlan, NetworkPlan, VolumePlan};

/// Why a call to the Engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The daemon did not answer, or not in time.
    #[error("the Docker daemon does not answer")]
    Unreachable {
        /// What the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such thing.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The daemon has lost track of the container: it cannot be started as it is.
    #[error("{what} cannot be started again")]
    Lost {
        /// The container.
        what: String,
    },
    /// The name is taken, by something with these labels.
    #[error("the name {what} is taken")]
    Conflict {
        /// The name.
        what: String,
    },
    /// The subnet overlaps another network's.
    #[error("the subnet overlaps another network")]
    SubnetOverlap,
    /// The published port is taken.
    #[error("the port is taken")]
    PortTaken,
    /// The daemon refused.
    #[error("the Docker daemon answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// An image build failed.
    #[error("the image build failed: {message}")]
    Build {
        /// The builder's words.
        message: String,
    },
}

impl EngineError {
    /// The closed code of this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } => Code::DockerUnreachable,
            Self::Conflict { .. } => Code::DockerForeignResource,
            Self::SubnetOverlap => Code::CapacitySubnets,
            Self::PortTaken => Code::PortExhausted,
            Self::Build { .. } => Code::BuildImageFailed,
            Self::NotFound { .. } | Self::Lost { .. } | Self::Refused { .. } => Code::DockerFailed,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        // The daemon's own words are for the operator's log, never for a tenant.
        tracing::warn!(error = %crate::observe::Chain(&error), "docker");
        let message = match &error {
            EngineError::Unreachable { .. } => "the Docker daemon does not answer".to_owned(),
            EngineError::NotFound { what } => format!("{what} disappeared"),
            EngineError::Lost { what } => format!("{what} cannot be started again"),
            EngineError::Conflict { what } => {
                format!("{what} exists and does not belong to this team")
            }
            EngineError::SubnetOverlap => "no free subnet was found".to_owned(),
            EngineError::PortTaken => "no free port was found".to_owned(),
            EngineError::Refused { status, .. } => {
                format!("the Docker daemon refused a request with status {status}")
            }
            EngineError::Build { .. } => "a Covibes image could not be built".to_owned(),
        };
        Self::new(error.code(), message)
    }
}

/// The labels on everything that Covibes makes.
pub mod label {
    /// The instance that made it.
    pub const INSTANCE: &str = "covibes.instance";
    /// The team.
    pub const TEAM: &str = "covibes.team";
    /// What it is for.
    pub const ROLE: &str = "covibes.role";
    /// Which agent or preview.
    pub const NAME: &str = "covibes.name";
    /// The container's own config hash.
    pub const CONFIG_HASH: &str = "covibes.config-hash";
    /// The generation that made it.
    pub const GENERATION: &str = "covibes.generation";
    /// The job that made it.
    pub const JOB: &str = "covibes.job";
    /// The run that made it.
    pub const RUN: &str = "covibes.run";
}

/// Which things a listing shows: this instance's, or one team's of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The instance.
    pub instance: InstanceName,
    /// One team, or all.
    pub team: Option<TeamId>,
}

/// A container as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// The Engine's own id of it: another one under the same name has another.
    pub id: String,
    /// Its name.
    pub name: ContainerName,
    /// The Engine's word: created, running, exited, ...
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Published host ports.
    pub host_ports: Vec<u16>,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The networks it is attached to.
    pub networks: Vec<String>,
}

/// A network as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its IPv4 subnets.
    pub subnets: Vec<Ipv4Net>,
    /// When it was made, in unix milliseconds; 0 if that is not known.
    pub created_unix_ms: i64,
}

/// A volume as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedVolume {
    /// Its name.
    pub name: VolumeName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The host directory it binds, if it does.
    pub device: Option<PathBuf>,
}

/// What exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Containers in any state.
    pub containers: Vec<ObservedContainer>,
    /// Networks.
    pub networks: Vec<ObservedNetwork>,
    /// Volumes.
    pub volumes: Vec<ObservedVolume>,
}

/// An image of Covibes' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedImage {
    /// Its name and tag.
    pub name: ImageRef,
    /// When it was made, in unix seconds.
    pub created_unix_s: i64,
    /// Bytes, layers that others share included.
    pub bytes: u64,
    /// Whether a container has it, running or not, whosever it is.
    pub in_use: bool,
}

/// A container in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// Whether its main process runs.
    pub running: bool,
    /// The Engine's word.
    pub status: String,
    /// How it ended.
    pub exit_code: Option<i64>,
    /// Whether the kernel ended something in it for memory.
    pub oom_killed: bool,
    /// How often Docker started it again.
    pub restart_count: u64,
    /// Its main process on the host.
    pub pid: Option<u32>,
    /// Its address on its network.
    pub address: Option<Ipv4Addr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A moment of the daemon's, in nanoseconds of its clock: only to be given back
/// to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineMoment(pub i64);

/// Something that happened in the daemon. A hint: what counts is what is found
/// when somebody looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// When.
    pub at: EngineMoment,
    /// What.
    pub fact: EngineFact,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineFact {
    /// To a container.
    Container {
        /// Its id.
        id: String,
        /// Its name.
        name: ContainerName,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// What.
        fact: EngineContainerFact,
    },
    /// A network lost a container, or is gone.
    Network {
        /// Its name.
        name: String,
    },
    /// A volume is gone.
    Volume {
        /// Its name.
        name: String,
    },
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineContainerFact {
    /// It runs.
    Started,
    /// Somebody sent it a signal.
    Signalled {
        /// Which.
        signal: i32,
    },
    /// Its main process ended.
    Died {
        /// How.
        exit_code: i64,
    },
    /// Somebody asked for its end, and got it.
    Stopped,
    /// Somebody froze its processes.
    Paused,
    /// Somebody let them go on.
    Unpaused,
    /// The kernel ended something in it for memory.
    OutOfMemory,
    /// It is gone.
    Removed,
}

/// What happens in the daemon, as it happens.
pub type EngineEvents = BoxStream<'static, Result<EngineEvent, EngineError>>;

/// The daemon, for `doctor` and the start log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineVersion {
    /// The daemon's version.
    pub version: String,
    /// The newest API it speaks.
    pub api: String,
}

/// A build context: paths and contents, and the build arguments.
#[derive(Debug, Clone)]
pub struct ImageBuild {
    /// What to call the result.
    pub image: ImageRef,
    /// Path in the context, mode, content.
    pub files: Vec<(String, u32, Vec<u8>)>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels on the image.
    pub labels: BTreeMap<String, String>,
    /// How it is held, if its instructions are a stranger's.
    pub held: Option<HeldBuild>,
}

/// What a build may do whose instructions nobody trusts.
#[derive(Debug, Clone)]
pub struct HeldBuild {
    /// A packed context in place of the files.
    pub context: Option<Bytes>,
    /// The Dockerfile in it.
    pub dockerfile: String,
    /// The stage that is wanted; the last one if none is named.
    pub stage: Option<String>,
    /// What each of its instructions may use.
    pub limits: Limits,
    /// The one network that they have.
    pub network: NetworkName,
}

/// Takes lines of output as they come. Called from the task that waits.
pub type OnLine<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The Docker Engine.
///
/// Every call is bounded in time by its implementation. "Already so" is
/// success for start, stop and remove. A dropped future leaves the call's
/// effect undecided: whoever goes on looks again.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Asks for the daemon's version.
    async fn version(&self) -> Result<EngineVersion, EngineError>;

    /// Lists what an instance or team owns, in any state.
    async fn list(&self, filter: &Filter) -> Result<Observed, EngineError>;

    /// Lists every network of the daemon with its subnets, also foreign ones.
    async fn all_networks(&self) -> Result<Vec<ObservedNetwork>, EngineError>;

    /// Creates a network; one that exists with the same owner is adopted.
    async fn create_network(&self, plan: &NetworkPlan) -> Result<(), EngineError>;

    /// Removes a network.
    async fn remove_network(&self, name: &NetworkName) -> Result<(), EngineError>;

    /// Creates a volume; one that exists with the same owner and source is adopted.
    async fn create_volume(&self, plan: &VolumePlan) -> Result<(), EngineError>;

    /// Removes a volume.
    async fn remove_volume(&self, name: &VolumeName) -> Result<(), EngineError>;

    /// Creates a container with the hardening of DESIGN 5.
    async fn create_container(
        &self,
        plan: &ContainerPlan,
        config_hash: &str,
    ) -> Result<(), EngineError>;

    /// Starts a container, or lets a paused one go on.
    async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError>;

    /// Stops a container: SIGTERM, and SIGKILL after `grace`.
    async fn stop_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError>;

    /// Stops and starts a container.
    async fn restart_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError>;

    /// Sends SIGHUP, on which the egress proxy reads its configuration again.
    async fn hangup_container(&self, name: &ContainerName) -> Result<(), EngineError>;

    /// Renames a container.
    async fn rename_container(
        &self,
        name: &ContainerName,
        to: &ContainerName,
    ) -> Result<(), EngineError>;

    /// Kills and removes a container and its anonymous volumes.
    async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError>;

    /// Shows a container in detail; `None` if there is none.
    async fn inspect_container(
        &self,
        name: &ContainerName,
    ) -> Result<Option<ContainerState>, EngineError>;

    /// Tells what happens to containers, networks and volumes, from `since` on: what
    /// the daemon still remembers comes again, some of it perhaps twice. Ends when
    /// the daemon does.
    async fn events(&self, since: Option<EngineMoment>) -> Result<EngineEvents, EngineError> {
        let _ = since;
        Ok(stream::pending().boxed())
    }

    /// Waits until a container's main process has ended, and gives its output
    /// to `on_line` as it comes.
    async fn wait_container(
        &self,
        name: &ContainerName,
        on_line: OnLine<'_>,
    ) -> Result<i64, EngineError>;

    /// The last lines of a container's output, oldest first.
    async fn log_tail(
        &self,
        name: &ContainerName,
        lines: usize,
    ) -> Result<Vec<String>, EngineError>;

    /// Gives the last lines of a container's output to `on_line`, and then what
    /// comes, until it has ended. Not bounded in time: a person watches.
    async fn follow_log(
        &self,
        name: &ContainerName,
        lines: usize,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError>;

    /// Whether an image is there.
    async fn image_exists(&self, image: &ImageRef) -> Result<bool, EngineError>;

    /// Lists the images of Covibes' own.
    async fn own_images(&self) -> Result<Vec<ObservedImage>, EngineError> {
        Ok(Vec::new())
    }

    /// Removes an image that no container uses; one that is used stays. Says whether
    /// it went.
    async fn remove_image(&self, image: &ImageRef) -> Result<bool, EngineError> {
        let _ = image;
        Ok(false)
    }

    /// Builds an image.
    async fn build_image(&self, build: &ImageBuild, on_line: OnLine<'_>)
    -> Result<(), EngineError>;
}
