//! A world in memory: an Engine, a host, probes, records and a clock whose
//! faults can be chosen. Its end state can be asked, which a real one's cannot
//! in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use covibes::detect::tree::{MemoryTree, Tree};
use covibes::domain::event::EncodedEvent;
use covibes::domain::failure::Failure;
use covibes::domain::ids::TeamId;
use covibes::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use covibes::domain::plan::{ContainerPlan, NetworkPlan, Owner, VolumePlan};
use covibes::domain::record::TeamRecord;
use covibes::domain::settings::Settings;
use covibes::observe::Metrics;
use covibes::pipeline::Ports;
use covibes::pipeline::image_catalog::{ImageCatalog, ImageSources};
use covibes::pipeline::interrupt::{Interrupter, Reason};
use covibes::pipeline::preparation::Preparation;
use covibes::pipeline::runner::Runner;
use covibes::ports::clock::Clock;
use covibes::ports::engine::{
    ContainerState, Engine, EngineError, EngineVersion, Filter, ImageBuild, Observed,
    ObservedContainer, ObservedNetwork, ObservedVolume, OnLine, label,
};
use covibes::ports::host::{Finding, Host, HostResources, HostRules, WorkspaceDir};
use covibes::ports::messages::{EventSink, SessionOver};
use covibes::ports::probe::{Probe, ProbeAnswer};
use covibes::ports::records::Records;
use uuid::Uuid;

/// What a chosen call does instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has no effect.
    Fails,
    /// It takes effect, and the answer is lost.
    TakesEffectThenFails,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, (BTreeMap<String, String>, String, Vec<u16>)>,
    networks: BTreeMap<String, (BTreeMap<String, String>, ipnet::Ipv4Net)>,
    volumes: BTreeMap<String, BTreeMap<String, String>>,
    images: BTreeSet<String>,
    /// Changing calls so far, as `operation name`.
    calls: Vec<String>,
    /// The nth changing call (from 0) that goes wrong.
    fault: Option<(usize, Fault)>,
    /// Interrupts the run at the nth changing call.
    interrupt_at: Option<(usize, Reason, Interrupter)>,
    exit_codes: BTreeMap<String, i64>,
    paths: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    records: BTreeMap<TeamId, TeamRecord>,
    events: Vec<EncodedEvent>,
    preview_state: String,
    /// Whether the daemon refuses every start of a container.
    starts_refused: bool,
}

/// The world; cloning shares it.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    pub(crate) fn new() -> Self {
        let world = Self(Arc::default());
        world.lock().preview_state = "running".to_owned();
        world.lock().images.insert(ImageCatalog::debian().to_string());
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A runner over this world, as after a start of the process.
    pub(crate) async fn runner(&self) -> Runner {
        let sources = ImageSources { binary_dir: PathBuf::from("/bin"), ..Default::default() };
        let catalog = ImageCatalog::load(self, sources).await.unwrap();
        let settings = Settings { cache_sized: false, ..Settings::default() };
        let shared = Arc::new(self.clone());
        let ports = Ports {
            engine: shared.clone(),
            host: shared.clone(),
            probe: shared.clone(),
            clock: shared.clone(),
            records: shared.clone(),
            events: shared,
            open_tree,
            metrics: Arc::new(Metrics::new()),
            settings: Arc::new(settings),
        };
        Runner::new(ports, Arc::new(Preparation::new(catalog)))
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    pub(crate) fn fail_at(&self, call: usize, fault: Fault) {
        self.lock().fault = Some((call, fault));
    }

    pub(crate) fn interrupt_at(&self, call: usize, reason: Reason, interrupter: Interrupter) {
        self.lock().interrupt_at = Some((call, reason, interrupter));
    }

    pub(crate) fn exit_code(&self, task: &str, code: i64) {
        self.lock().exit_codes.insert(task.to_owned(), code);
    }

    pub(crate) fn preview_state(&self, state: &str) {
        self.lock().preview_state = state.to_owned();
    }

    /// A container that somebody else made.
    pub(crate) fn put_foreign(&self, name: &str) {
        let value = (BTreeMap::new(), "running".to_owned(), Vec::new());
        self.lock().containers.insert(name.to_owned(), value);
    }

    pub(crate) fn has_container(&self, name: &str) -> bool {
        self.lock().containers.contains_key(name)
    }

    pub(crate) fn refuse_starts(&self) {
        self.lock().starts_refused = true;
    }

    pub(crate) fn events(&self) -> Vec<EncodedEvent> {
        self.lock().events.clone()
    }

    pub(crate) fn record(&self, team: &TeamId) -> Option<TeamRecord> {
        self.lock().records.get(team).cloned()
    }

    /// A team's containers with their states.
    pub(crate) fn containers(&self, team: &str) -> BTreeMap<String, String> {
        self.lock()
            .containers
            .iter()
            .filter(|(_, (labels, ..))| labels.get(label::TEAM).map(String::as_str) == Some(team))
            .map(|(name, (_, state, _))| (name.clone(), state.clone()))
            .collect()
    }

    /// Everything of a team that exists in Docker.
    pub(crate) fn leftovers(&self, team: &str) -> Vec<String> {
        let inner = self.lock();
        let of = |labels: &BTreeMap<String, String>| {
            labels.get(label::TEAM).map(String::as_str) == Some(team)
        };
        let mut all: Vec<String> = Vec::new();
        all.extend(inner.containers.iter().filter(|(_, c)| of(&c.0)).map(|(n, _)| n.clone()));
        all.extend(inner.networks.iter().filter(|(_, n)| of(&n.0)).map(|(n, _)| n.clone()));
        all.extend(inner.volumes.iter().filter(|(_, l)| of(l)).map(|(n, _)| n.clone()));
        all
    }

    /// Paths below the data directory that hold the team's name.
    pub(crate) fn paths(&self, team: &str) -> Vec<PathBuf> {
        let inner = self.lock();
        inner.paths.iter().filter(|p| p.to_string_lossy().contains(team)).cloned().collect()
    }

    /// One changing call: counted, and wrong if that was asked for.
    fn change<T>(
        &self,
        call: String,
        effect: impl FnOnce(&mut Inner) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut inner = self.lock();
        let nth = inner.calls.len();
        inner.calls.push(call);
        if let Some((_, reason, interrupter)) = inner.interrupt_at.take_if(|(at, ..)| *at == nth) {
            interrupter.interrupt(reason);
        }
        let lost = || EngineError::Unreachable { source: "the answer was lost".into() };
        match inner.fault.take_if(|(at, _)| *at == nth) {
            Some((_, Fault::Fails)) => Err(lost()),
            Some((_, Fault::TakesEffectThenFails)) => {
                effect(&mut inner)?;
                Err(lost())
            }
            None => effect(&mut inner),
        }
    }
}

fn open_tree(_: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    let manifest = r#"{"name":"x","private":true,"scripts":{"dev":"vite"},
        "dependencies":{"react":"19.0.0"},"devDependencies":{"vite":"8.0.0"}}"#;
    Ok(Box::new(MemoryTree::new([
        ("package.json", manifest),
        ("package-lock.json", r#"{"lockfileVersion":3}"#),
        ("vite.config.js", ""),
    ])))
}

fn labels(owner: &Owner, config_hash: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (label::INSTANCE.to_owned(), owner.instance.to_string()),
        (label::ROLE.to_owned(), owner.role.as_str().to_owned()),
    ]);
    let mut put = |key: &str, value: Option<String>| {
        labels.extend(value.map(|value| (key.to_owned(), value)));
    };
    put(label::TEAM, owner.team.as_ref().map(ToString::to_string));
    put(label::NAME, owner.part.as_ref().map(ToString::to_string));
    put(label::RUN, owner.run.as_ref().map(ToString::to_string));
    put(label::CONFIG_HASH, config_hash.map(str::to_owned));
    labels
}

fn matches(filter: &Filter, labels: &BTreeMap<String, String>) -> bool {
    labels.get(label::INSTANCE).map(String::as_str) == Some(filter.instance.as_str())
        && filter
            .team
            .as_ref()
            .is_none_or(|t| labels.get(label::TEAM).map(String::as_str) == Some(t.as_str()))
}

#[async_trait]
impl Engine for World {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        Ok(EngineVersion { version: "memory".to_owned(), api: "1.41".to_owned() })
    }

    async fn list(&self, filter: &Filter) -> Result<Observed, EngineError> {
        let inner = self.lock();
        let containers = inner.containers.iter().filter(|(_, c)| matches(filter, &c.0));
        let networks = inner.networks.iter().filter(|(_, n)| matches(filter, &n.0));
        let volumes = inner.volumes.iter().filter(|(_, l)| matches(filter, l));
        Ok(Observed {
            containers: containers
                .map(|(name, (labels, state, ports))| ObservedContainer {
                    name: ContainerName::from_engine(name).unwrap(),
                    state: state.clone(),
                    labels: labels.clone(),
                    host_ports: ports.clone(),
                    addresses: vec![Ipv4Addr::new(172, 21, 0, 2)],
                })
                .collect(),
            networks: networks
                .map(|(name, (labels, subnet))| ObservedNetwork {
                    name: NetworkName::from_engine(name).unwrap(),
                    labels: labels.clone(),
                    subnets: vec![*subnet],
                })
                .collect(),
            volumes: volumes
                .map(|(name, labels)| ObservedVolume {
                    name: VolumeName::from_engine(name).unwrap(),
                    labels: labels.clone(),
                    device: None,
                })
                .collect(),
        })
    }

    async fn all_networks(&self) -> Result<Vec<ObservedNetwork>, EngineError> {
        let inner = self.lock();
        let all = inner.networks.iter().map(|(name, (labels, subnet))| ObservedNetwork {
            name: NetworkName::from_engine(name).unwrap(),
            labels: labels.clone(),
            subnets: vec![*subnet],
        });
        Ok(all.collect())
    }

    async fn create_network(&self, plan: &NetworkPlan) -> Result<(), EngineError> {
        if self.lock().networks.contains_key(plan.name.as_str()) {
            return Ok(());
        }
        self.change(format!("create_network {}", plan.name), |inner| {
            let value = (labels(&plan.owner, None), plan.subnet);
            inner.networks.insert(plan.name.to_string(), value);
            Ok(())
        })
    }

    async fn remove_network(&self, name: &NetworkName) -> Result<(), EngineError> {
        self.change(format!("remove_network {name}"), |inner| {
            inner.networks.remove(name.as_str());
            Ok(())
        })
    }

    async fn create_volume(&self, plan: &VolumePlan) -> Result<(), EngineError> {
        if self.lock().volumes.contains_key(plan.name.as_str()) {
            return Ok(());
        }
        self.change(format!("create_volume {}", plan.name), |inner| {
            inner.volumes.insert(plan.name.to_string(), labels(&plan.owner, None));
            Ok(())
        })
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), EngineError> {
        self.change(format!("remove_volume {name}"), |inner| {
            inner.volumes.remove(name.as_str());
            Ok(())
        })
    }

    async fn create_container(
        &self,
        plan: &ContainerPlan,
        config_hash: &str,
    ) -> Result<(), EngineError> {
        self.change(format!("create_container {}", plan.name), |inner| {
            if inner.containers.contains_key(plan.name.as_str()) {
                return Err(EngineError::Conflict { what: plan.name.to_string() });
            }
            let ports = plan.publish.iter().map(|p| p.host_port).collect();
            let value = (labels(&plan.owner, Some(config_hash)), "created".to_owned(), ports);
            inner.containers.insert(plan.name.to_string(), value);
            Ok(())
        })
    }

    async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.change(format!("start_container {name}"), |inner| {
            let is_team = name.as_str().contains("team_alpha");
            if inner.starts_refused && is_team {
                return Err(EngineError::Unreachable { source: "no answer".into() });
            }
            let container = inner.containers.get_mut(name.as_str());
            let container =
                container.ok_or_else(|| EngineError::NotFound { what: name.to_string() })?;
            container.1 = "running".to_owned();
            Ok(())
        })
    }

    async fn stop_container(&self, name: &ContainerName, _: Duration) -> Result<(), EngineError> {
        self.change(format!("stop_container {name}"), |inner| {
            if let Some(container) = inner.containers.get_mut(name.as_str()) {
                container.1 = "exited".to_owned();
            }
            Ok(())
        })
    }

    async fn restart_container(
        &self,
        name: &ContainerName,
        _: Duration,
    ) -> Result<(), EngineError> {
        self.change(format!("restart_container {name}"), |_| Ok(()))
    }

    async fn hangup_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.change(format!("hangup_container {name}"), |_| Ok(()))
    }

    async fn rename_container(
        &self,
        name: &ContainerName,
        to: &ContainerName,
    ) -> Result<(), EngineError> {
        self.change(format!("rename_container {name}"), |inner| {
            let container = inner.containers.remove(name.as_str());
            let container =
                container.ok_or_else(|| EngineError::NotFound { what: name.to_string() })?;
            inner.containers.insert(to.to_string(), container);
            Ok(())
        })
    }

    async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        if !self.lock().containers.contains_key(name.as_str()) {
            return Ok(());
        }
        self.change(format!("remove_container {name}"), |inner| {
            inner.containers.remove(name.as_str());
            Ok(())
        })
    }

    async fn inspect_container(
        &self,
        name: &ContainerName,
    ) -> Result<Option<ContainerState>, EngineError> {
        let inner = self.lock();
        Ok(inner.containers.get(name.as_str()).map(|(labels, state, _)| ContainerState {
            running: state == "running",
            status: state.clone(),
            exit_code: Some(0),
            oom_killed: false,
            restart_count: 0,
            pid: None,
            address: Some(Ipv4Addr::new(172, 21, 0, 2)),
            labels: labels.clone(),
        }))
    }

    async fn wait_container(
        &self,
        name: &ContainerName,
        on_line: OnLine<'_>,
    ) -> Result<i64, EngineError> {
        let code = self.change(format!("wait_container {name}"), |inner| {
            if let Some(container) = inner.containers.get_mut(name.as_str()) {
                container.1 = "exited".to_owned();
            }
            let wanted = inner.exit_codes.iter().find(|(task, _)| name.as_str().contains(*task));
            Ok(wanted.map_or(0, |(_, code)| *code))
        })?;
        on_line("npm https://registry.example/");
        // An interrupt that came meanwhile is noticed at an await, as in life.
        tokio::task::yield_now().await;
        Ok(code)
    }

    async fn log_tail(&self, _: &ContainerName, _: usize) -> Result<Vec<String>, EngineError> {
        Ok(vec!["last words".to_owned()])
    }

    async fn image_exists(&self, image: &ImageRef) -> Result<bool, EngineError> {
        Ok(self.lock().images.contains(image.as_str()))
    }

    async fn build_image(&self, build: &ImageBuild, _: OnLine<'_>) -> Result<(), EngineError> {
        self.change(format!("build_image {}", build.image), |inner| {
            inner.images.insert(build.image.to_string());
            Ok(())
        })
    }
}

#[async_trait]
impl Host for World {
    async fn resources(&self) -> Result<HostResources, Failure> {
        Ok(HostResources {
            memory_bytes: 64 << 30,
            cpus: 16.0,
            disk_used: 0.1,
            disk_available_bytes: 1 << 40,
        })
    }

    async fn uplink_mtu(&self) -> u32 {
        1500
    }

    async fn block_device(&self, _: &Path) -> Option<PathBuf> {
        None
    }

    async fn ensure_dir(&self, path: &Path, _: u32, _: u32) -> Result<(), Failure> {
        self.lock().paths.insert(path.to_owned());
        Ok(())
    }

    async fn ensure_workspace(&self, path: &Path, _: u32, _: u32) -> Result<WorkspaceDir, Failure> {
        let fresh = self.lock().paths.insert(path.to_owned());
        Ok(if fresh { WorkspaceDir::Created } else { WorkspaceDir::Ours })
    }

    async fn is_own_workspace(&self, path: &Path) -> bool {
        self.lock().paths.contains(path)
    }

    async fn chown_tree(&self, _: &Path, _: u32, _: u32) -> Result<(), Failure> {
        Ok(())
    }

    async fn ensure_mount_point(&self, _: &Path, _: &str, _: u32, _: u32) -> Result<bool, Failure> {
        Ok(false)
    }

    async fn remove_mount_point(&self, _: &Path, _: &str) {}

    async fn ensure_link(&self, _: &Path, _: &str, _: &str) -> bool {
        false
    }

    async fn exists(&self, path: &Path) -> bool {
        // A directory exists by what lies in it.
        self.lock().paths.iter().any(|p| p.starts_with(path))
    }

    async fn owner(&self, _: &Path) -> Result<(u32, u32), Failure> {
        Ok((1000, 1000))
    }

    async fn remove_tree(&self, path: &Path) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.paths.retain(|p| !p.starts_with(path));
        inner.files.retain(|p, _| !p.starts_with(path));
        Ok(())
    }

    async fn swap_dir(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.paths.remove(from);
        inner.paths.insert(to.to_owned());
        Ok(())
    }

    async fn write_file(&self, path: &Path, content: &[u8], _: u32, _: u32) -> Result<(), Failure> {
        self.lock().files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    async fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match path.starts_with("/bin") {
            true => Some(b"binary".to_vec()),
            false => self.lock().files.get(path).cloned(),
        })
    }

    async fn digest_file(&self, _: &Path) -> Result<Option<String>, Failure> {
        Ok(Some("digest".to_owned()))
    }

    async fn ensure_sized_dir(
        &self,
        path: &Path,
        _: u64,
        _: u32,
        _: u32,
    ) -> Result<Option<Finding>, Failure> {
        self.lock().paths.insert(path.to_owned());
        Ok(None)
    }

    async fn ensure_rules(&self, _: &HostRules) -> Result<Vec<Finding>, Failure> {
        Ok(Vec::new())
    }

    async fn limit_network(&self, _: u32, _: u64) -> Option<Finding> {
        None
    }

    async fn resolve(&self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    async fn resolvers(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    async fn port_is_free(&self, _: IpAddr, _: u16) -> bool {
        true
    }
}

#[async_trait]
impl Probe for World {
    async fn http(&self, address: SocketAddr, _: &str, path: &str, _: Duration) -> ProbeAnswer {
        let state = self.lock().preview_state.clone();
        if address.port() == 9300 {
            let body = format!(r#"{{"state":"{state}","exit_code":3,"listening":[]}}"#);
            let status = if state == "running" || path == "/state" { 200 } else { 503 };
            return ProbeAnswer::Http { status, body: body.into_bytes() };
        }
        let is_preview = address.port() != 8080;
        if is_preview && state != "running" {
            ProbeAnswer::Refused
        } else {
            ProbeAnswer::Http { status: 200, body: Vec::new() }
        }
    }

    async fn post(&self, _: SocketAddr, _: &str, _: &str, _: Duration) -> ProbeAnswer {
        ProbeAnswer::Http { status: 200, body: br#"{"outcome":"up_to_date"}"#.to_vec() }
    }

    async fn tcp(&self, _: SocketAddr, _: Duration) -> ProbeAnswer {
        ProbeAnswer::Connected
    }
}

#[async_trait]
impl Clock for World {
    fn unix_millis(&self) -> i64 {
        // Stands still: order must never come from it.
        1_795_435_200_000
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn new_secret(&self) -> String {
        "0".repeat(64)
    }

    fn random(&self) -> f64 {
        0.5
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl Records for World {
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
        Ok(self.record(team))
    }

    async fn save(&self, record: &TeamRecord) -> Result<(), Failure> {
        self.lock().records.insert(record.team.clone(), record.clone());
        Ok(())
    }

    async fn teams(&self) -> Result<Vec<TeamId>, Failure> {
        Ok(self.lock().records.keys().cloned().collect())
    }
}

#[async_trait]
impl EventSink for World {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        self.lock().events.push(event.clone());
        Ok(())
    }
}
