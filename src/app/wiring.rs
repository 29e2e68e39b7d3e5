//! Puts the real adapters behind the ports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::adapters::agents::HttpAgents;
use crate::adapters::docker::DockerEngine;
use crate::adapters::host::LinuxHost;
use crate::adapters::memory_queue::MemoryEvents;
use crate::adapters::probe::HttpProbe;
use crate::adapters::records::{FileRecords, PeekedRecords};
use crate::adapters::syncs::HttpSyncs;
use crate::adapters::system::SystemClock;
use crate::adapters::tree::WorkspaceTree;
use crate::app::clients;
use crate::app::configuration::Configuration;
use crate::detect::tree::Tree;
use crate::domain::failure::{Code, Failure};
use crate::observe::Metrics;
use crate::pipeline::Ports;
use crate::pipeline::image_catalog::{ImageCatalog, ImageSources};
use crate::pipeline::preparation::Preparation;
use crate::ports::host::Host;
use crate::ports::messages::EventSink;
use crate::ports::records::Records;

/// Everything that runs jobs.
pub struct Wired {
    /// The ports.
    pub ports: Ports,
    /// Host preparation.
    pub preparation: Arc<Preparation>,
}

/// Wires the real world up.
///
/// # Errors
/// The state directory is held by another process, or a file is missing.
pub async fn wire(
    configuration: &Configuration,
    events: Arc<dyn EventSink>,
) -> anyhow::Result<Wired> {
    let records = FileRecords::open_soon(&configuration.settings.state_dir.join("teams"))
        .await
        .context("cannot open the state directory")?;
    wire_over(configuration, events, Arc::new(records)).await
}

/// Wires the real world up for whoever only looks, also beside a worker.
///
/// # Errors
/// A file is missing.
pub async fn wire_to_look(configuration: &Configuration) -> anyhow::Result<Wired> {
    let records = PeekedRecords::new(&configuration.settings.state_dir.join("teams"));
    wire_over(configuration, Arc::new(MemoryEvents::new(1)), Arc::new(records)).await
}

async fn wire_over(
    configuration: &Configuration,
    events: Arc<dyn EventSink>,
    records: Arc<dyn Records>,
) -> anyhow::Result<Wired> {
    let settings = Arc::new(configuration.settings.clone());
    let host: Arc<dyn Host> = Arc::new(LinuxHost::new(vec![
        settings.data_dir.clone(),
        settings.state_dir.clone(),
        settings.host_dir.clone(),
    ]));
    let disk = host.block_device(&settings.data_dir).await;
    let disk = disk.map(|device| device.display().to_string());
    let metrics = Arc::new(Metrics::new());
    let engine = DockerEngine::new(&configuration.file.docker.socket, disk, Arc::clone(&metrics));
    let catalog = ImageCatalog::load(&*host, image_sources(configuration)?).await?;
    let ports = Ports {
        engine: Arc::new(engine),
        host,
        agents: Arc::new(HttpAgents),
        syncs: Arc::new(HttpSyncs),
        probe: Arc::new(HttpProbe),
        clock: Arc::new(SystemClock),
        records,
        events,
        open_tree,
        metrics,
        settings,
    };
    let preparation = Preparation::new(catalog).with_client_hosts(clients::hosts());
    Ok(Wired { ports, preparation: Arc::new(preparation) })
}

/// Opens an untrusted directory for detection.
///
/// # Errors
/// It cannot be opened.
pub fn open_tree(root: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    match WorkspaceTree::open(root) {
        Ok(tree) => Ok(Box::new(tree)),
        Err(error) => {
            let code = Code::parse(error.code()).unwrap_or(Code::WorkspaceIo);
            Err(Failure::new(code, error.to_string()))
        }
    }
}

/// What of this host goes into images.
///
/// # Errors
/// A file that the configuration names is missing.
pub fn image_sources(configuration: &Configuration) -> anyhow::Result<ImageSources> {
    let images = &configuration.file.images;
    let binary_dir = match &images.binaries {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .context("cannot find the own program")?
            .parent()
            .map(Path::to_owned)
            .context("the own program has no directory")?,
    };
    let ca_bundle = std::fs::read(&images.ca_bundle).with_context(|| {
        format!(
            "cannot read `images.ca_bundle` {}; install ca-certificates or name another",
            images.ca_bundle.display()
        )
    })?;
    Ok(ImageSources {
        ca_bundle,
        npmrc: client_lines(&["/etc/npmrc", "/usr/etc/npmrc"], ".npmrc", is_npm_registry),
        pip_conf: pip_conf(),
        binary_dir,
    })
}

/// The lines of a client's configuration that name registries and hold no
/// secret: image layers can be read by every team.
fn client_lines(system: &[&str], home: &str, keep: fn(&str) -> bool) -> Vec<u8> {
    let mut paths: Vec<PathBuf> = system.iter().map(PathBuf::from).collect();
    if let Some(directory) = std::env::var_os("HOME") {
        paths.push(PathBuf::from(directory).join(home));
    }
    let mut lines = String::new();
    for path in paths {
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            if keep(line.trim()) && !line.contains('@') {
                lines.push_str(line.trim());
                lines.push('\n');
            }
        }
    }
    lines.into_bytes()
}

fn is_npm_registry(line: &str) -> bool {
    line.starts_with("registry=") || line.starts_with("registry =")
}

fn is_pip_index(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    matches!(key, "index-url" | "extra-index-url") && line.contains('=')
}

fn pip_conf() -> Vec<u8> {
    let mut lines = client_lines(&["/etc/pip.conf"], ".config/pip/pip.conf", is_pip_index);
    lines.extend(client_lines(&[], ".pip/pip.conf", is_pip_index));
    if lines.is_empty() {
        return lines;
    }
    [b"[global]\n".to_vec(), lines].concat()
}
