//! Floor 3: the runner, the six steps, undo and convergence.

pub mod admission;
pub mod caches;
pub mod calls;
pub mod containers;
pub mod converge;
pub mod egress;
pub mod estate;
pub mod first_tasks;
pub mod housekeeping;
pub mod image_catalog;
pub mod interrupt;
pub mod job_runner;
pub mod lease;
pub mod local_work;
pub mod monitor;
pub mod oneshot;
pub mod own_image;
pub mod preparation;
pub mod preview_board;
pub mod reporter;
pub mod run;
pub mod runner;
pub mod runtimes;
pub mod steps;
pub mod traced_engine;
pub mod tunnels;
pub mod undo;
pub mod unused_images;

use std::path::Path;
use std::sync::Arc;

use crate::detect::tree::Tree;
use crate::domain::failure::Failure;
use crate::domain::settings::Settings;
use crate::observe::Metrics;
use crate::ports::agents::Agents;
use crate::ports::clock::Clock;
use crate::ports::engine::Engine;
use crate::ports::host::Host;
use crate::ports::messages::EventSink;
use crate::ports::probe::Probe;
use crate::ports::records::Records;
use crate::ports::syncs::Syncs;

/// Opens a directory of untrusted files for reading.
pub type OpenTree = fn(&Path) -> Result<Box<dyn Tree + Send>, Failure>;

/// Everything that the pipeline asks of the world.
#[derive(Clone)]
pub struct Ports {
    /// Docker.
    pub engine: Arc<dyn Engine>,
    /// The host itself.
    pub host: Arc<dyn Host>,
    /// The agent services in their containers.
    pub agents: Arc<dyn Agents>,
    /// The sync services in their containers.
    pub syncs: Arc<dyn Syncs>,
    /// Probes of containers.
    pub probe: Arc<dyn Probe>,
    /// Time and identifiers.
    pub clock: Arc<dyn Clock>,
    /// Durable state.
    pub records: Arc<dyn Records>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// Untrusted trees.
    pub open_tree: OpenTree,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The operator's decisions.
    pub settings: Arc<Settings>,
}
