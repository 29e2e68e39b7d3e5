//! A world in memory: an Engine, a host, probes, records and a clock whose
//! faults can be chosen. Its end state can be asked, which a real one's cannot
//! in milliseconds.

mod agents;
mod daemon;
mod engine;
mod host;
mod services;
mod syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use covibes::detect::tree::{MemoryTree, Tree};
use covibes::domain::event::EncodedEvent;
use covibes::domain::failure::Failure;
use covibes::domain::ids::TeamId;
use covibes::domain::record::TeamRecord;
use covibes::domain::settings::Settings;
use covibes::observe::Metrics;
use covibes::pipeline::image_catalog::{ImageCatalog, ImageSources};
use covibes::pipeline::interrupt::{Interrupter, Reason};
use covibes::pipeline::preparation::Preparation;
use covibes::pipeline::runner::Runner;
use covibes::pipeline::{OpenTree, Ports};
use covibes::ports::engine::{EngineError, label};
use tokio::sync::{Notify, watch};

/// What a chosen call does instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has no effect.
    Fails,
    /// It takes effect, and the answer is lost.
    TakesEffectThenFails,
}

/// Labels, state and published ports.
type Container = (BTreeMap<String, String>, String, Vec<u16>);

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Container>,
    networks: BTreeMap<String, (BTreeMap<String, String>, ipnet::Ipv4Net)>,
    volumes: BTreeMap<String, BTreeMap<String, String>>,
    images: BTreeSet<String>,
    /// Those that a container has.
    used_images: BTreeSet<String>,
    /// Changing calls so far, as `operation name`.
    calls: Vec<String>,
    /// The nth changing call (from 0) that goes wrong.
    fault: Option<(usize, Fault)>,
    /// Interrupts the run at the nth changing call.
    interrupt_at: Option<(usize, Reason, Interrupter)>,
    exit_codes: BTreeMap<String, i64>,
    /// The last lines of one-shot tasks.
    lines: BTreeMap<String, Vec<String>>,
    paths: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    records: BTreeMap<TeamId, TeamRecord>,
    /// Records that were sent to another host.
    packed: Vec<TeamRecord>,
    events: Vec<EncodedEvent>,
    preview_state: String,
    /// Where dev servers listen that do not run.
    preview_listens: Option<u16>,
    /// Whether it says a line whenever it is asked.
    preview_is_busy: bool,
    preview_lines: u64,
    /// The status of its pages, if they are not well.
    preview_status: Option<u16>,
    /// Whether it copies a file then instead.
    preview_copies: bool,
    /// Whether the daemon refuses every start of a container.
    starts_refused: bool,
    /// Moments at which the process dies, once each, and one that always kills.
    deaths: Vec<String>,
    always_deadly: Option<String>,
    died: u32,
    death: Arc<Notify>,
    /// What the host has, in gibibytes.
    memory_gib: u64,
    disk_used: f64,
    watch_use: covibes::ports::host::WatchUse,
    foreign_ports: BTreeSet<u16>,
    /// A one-shot task of this name takes nine minutes.
    slow_task: Option<String>,
    /// Calls whose name holds this never answer.
    hanging: Option<String>,
    /// Calls whose name holds this are a bug of ours.
    panicking: Option<String>,
    told: Arc<watch::Sender<usize>>,
    /// What the log says of a team without a record.
    log_is_silent: bool,
    last_sequence: Option<u64>,
    now_unix_ms: i64,
    /// The record of this team cannot be read.
    unreadable: Option<TeamId>,
    agents: agents::AgentsInner,
    daemon: daemon::Daemon,
    syncs: syncs::SyncsInner,
}

/// The world; cloning shares it.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    pub(crate) fn new() -> Self {
        let world = Self(Arc::default());
        {
            let mut inner = world.lock();
            inner.preview_state = "running".to_owned();
            (inner.memory_gib, inner.disk_used) = (64, 0.1);
            // Stands still: order must never come from it.
            inner.now_unix_ms = 1_795_435_200_000;
        }
        world.lock().images.insert(ImageCatalog::debian().to_string());
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A runner over this world, as after a start of the process.
    pub(crate) async fn runner(&self) -> Runner {
        self.runner_with(Settings::default(), open_tree).await
    }

    /// A runner with other settings.
    pub(crate) async fn runner_of(&self, settings: Settings) -> Runner {
        self.runner_with(settings, open_tree).await
    }

    /// A runner with another way to open a workspace.
    pub(crate) async fn runner_that_opens(&self, open_tree: OpenTree) -> Runner {
        self.runner_with(Settings::default(), open_tree).await
    }

    async fn runner_with(&self, settings: Settings, open_tree: OpenTree) -> Runner {
        self.made(settings, open_tree).await.0
    }

    /// A runner, and what it asks of the world.
    pub(crate) async fn runner_and_ports(&self) -> (Runner, Ports) {
        self.made(Settings::default(), open_tree).await
    }

    async fn made(&self, settings: Settings, open_tree: OpenTree) -> (Runner, Ports) {
        let sources = ImageSources { binary_dir: PathBuf::from("/bin"), ..Default::default() };
        let catalog = ImageCatalog::load(self, sources).await.unwrap();
        let settings = Settings { cache_sized: false, ..settings };
        let shared = Arc::new(self.clone());
        let ports = Ports {
            engine: shared.clone(),
            host: shared.clone(),
            agents: shared.clone(),
            syncs: shared.clone(),
            probe: shared.clone(),
            clock: shared.clone(),
            records: shared.clone(),
            events: shared,
            open_tree,
            metrics: Arc::new(Metrics::new()),
            settings: Arc::new(settings),
        };
        (Runner::new(ports.clone(), Arc::new(Preparation::new(catalog))), ports)
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

    /// A one-shot task of this name ends with these lines.
    pub(crate) fn says(&self, task: &str, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self.lock().lines.insert(task.to_owned(), lines);
    }

    /// Reads the records that the other world packed.
    pub(crate) fn gets_records_of(&self, other: &Self) {
        let packed = other.lock().packed.clone();
        self.lock().packed = packed;
    }

    /// A container, of whomever, has every image that is there now; or none has.
    pub(crate) fn uses_its_images(&self, used: bool) {
        let mut inner = self.lock();
        inner.used_images = if used { inner.images.clone() } else { BTreeSet::new() };
    }

    pub(crate) fn preview_state(&self, state: &str) {
        self.lock().preview_state = state.to_owned();
    }

    /// What pages answer, and whether each says a line more.
    pub(crate) fn pages_answer(&self, status: Option<u16>) {
        let mut inner = self.lock();
        (inner.preview_status, inner.preview_is_busy) = (status, status.is_some());
    }

    /// Where a dev server listens that is still starting, and whether it still says something.
    pub(crate) fn preview_listens(&self, port: u16, is_busy: bool) {
        let mut inner = self.lock();
        inner.preview_state = "starting".to_owned();
        (inner.preview_listens, inner.preview_is_busy) = (Some(port), is_busy);
    }

    /// The next preview copies the workspace, and does not come to an end.
    pub(crate) fn preview_copies(&self, is_busy: bool) {
        let mut inner = self.lock();
        inner.preview_state = "starting".to_owned();
        (inner.preview_copies, inner.preview_is_busy) = (true, is_busy);
    }

    /// From now on a container can only be removed.
    pub(crate) fn loses(&self, name: &str) {
        let mut inner = self.lock();
        inner.containers.get_mut(name).expect("it is there").1 = engine::LOST.to_owned();
    }

    /// A container that somebody else made.
    pub(crate) fn put_foreign(&self, name: &str) {
        let value = (BTreeMap::new(), "running".to_owned(), Vec::new());
        self.lock().containers.insert(name.to_owned(), value);
    }

    /// What Docker says of a container.
    pub(crate) fn state_of(&self, name: &str) -> String {
        self.lock().containers.get(name).expect("it is there").1.clone()
    }

    pub(crate) fn has_container(&self, name: &str) -> bool {
        self.lock().containers.contains_key(name)
    }

    pub(crate) fn refuse_starts(&self) {
        self.lock().starts_refused = true;
    }

    /// The process dies when it comes to `moment`, once.
    pub(crate) fn die_at(&self, moment: &str) {
        self.lock().deaths.push(moment.to_owned());
    }

    /// The process dies whenever it creates a container of this name.
    pub(crate) fn is_deadly(&self, name: &str) {
        self.lock().always_deadly = Some(name.to_owned());
    }

    /// How often a process died.
    pub(crate) fn died(&self) -> u32 {
        self.lock().died
    }

    /// Resolves when the process dies.
    pub(crate) async fn death(&self) {
        let death = Arc::clone(&self.lock().death);
        death.notified().await;
    }

    /// A moment at which a process may die.
    pub(crate) async fn moment(&self, moment: &str) {
        let dies = {
            let mut inner = self.lock();
            let once = inner.deaths.iter().position(|m| m == moment);
            let always = inner.always_deadly.as_ref().is_some_and(|name| {
                moment.starts_with("create_container") && moment.contains(name.as_str())
            });
            if let Some(index) = once {
                inner.deaths.remove(index);
            }
            let dies = once.is_some() || always;
            if dies {
                inner.died += 1;
                inner.death.notify_one();
            }
            dies
        };
        if dies {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn has_memory(&self, gib: u64) {
        self.lock().memory_gib = gib;
    }

    pub(crate) fn has_watches(&self, watch_use: covibes::ports::host::WatchUse) {
        self.lock().watch_use = watch_use;
    }

    /// Somebody else listens on this port.
    pub(crate) fn listens(&self, port: u16) {
        self.lock().foreign_ports.insert(port);
    }

    pub(crate) fn has_disk_used(&self, share: f64) {
        self.lock().disk_used = share;
    }

    /// One-shot tasks of this name take nine minutes.
    pub(crate) fn is_slow(&self, task: &str) {
        self.lock().slow_task = Some(task.to_owned());
    }

    /// Calls of this name never answer.
    pub(crate) fn hangs(&self, call: Option<&str>) {
        self.lock().hanging = call.map(str::to_owned);
    }

    /// Calls of this name panic.
    pub(crate) fn panics(&self, call: &str) {
        self.lock().panicking = Some(call.to_owned());
    }

    /// Waits for the first event of which `look` gives something.
    pub(crate) async fn until_told<T>(&self, look: impl Fn(&EncodedEvent) -> Option<T>) -> T {
        let mut told = self.lock().told.subscribe();
        loop {
            if let Some(found) = self.events().iter().find_map(&look) {
                return found;
            }
            told.changed().await.unwrap();
        }
    }

    async fn hang(&self, call: &str) {
        let panics = self.lock().panicking.take_if(|p| call.contains(p.as_str())).is_some();
        assert!(!panics, "a bug at {call}");
        let hangs = self.lock().hanging.as_ref().is_some_and(|h| call.contains(h.as_str()));
        if hangs {
            std::future::pending::<()>().await;
        }
    }

    /// The log of events does not answer, or does again.
    pub(crate) fn log_is_silent(&self, silent: bool) {
        self.lock().log_is_silent = silent;
    }

    pub(crate) fn log_ends_with(&self, sequence: u64) {
        self.lock().last_sequence = Some(sequence);
    }

    pub(crate) fn pass(&self, millis: i64) {
        self.lock().now_unix_ms += millis;
    }

    /// The disk refuses to read this team's record.
    pub(crate) fn cannot_read(&self, team: &TeamId) {
        self.lock().unreadable = Some(team.clone());
    }

    /// All records are gone.
    pub(crate) fn lose_records(&self) {
        self.lock().records.clear();
    }

    pub(crate) fn events(&self) -> Vec<EncodedEvent> {
        self.lock().events.clone()
    }

    pub(crate) fn record(&self, team: &TeamId) -> Option<TeamRecord> {
        self.lock().records.get(team).cloned()
    }

    /// A small file of the host.
    pub(crate) fn file(&self, path: &str) -> Option<String> {
        let inner = self.lock();
        inner.files.get(Path::new(path)).map(|bytes| String::from_utf8(bytes.clone()).unwrap())
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
        tracing::trace!("the world is asked: {call}");
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

pub(crate) fn open_tree(_: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    let manifest = r#"{"name":"x","private":true,"scripts":{"dev":"vite"},
        "dependencies":{"react":"19.0.0"},"devDependencies":{"vite":"8.0.0"}}"#;
    Ok(Box::new(MemoryTree::new([
        ("package.json", manifest),
        ("package-lock.json", r#"{"lockfileVersion":3}"#),
        ("vite.config.js", ""),
    ])))
}
