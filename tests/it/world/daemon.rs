//! What happens in the world's daemon past the worker, and its stream of events.

use std::collections::BTreeMap;

use covibes::domain::names::ContainerName;
use covibes::ports::engine::{
    EngineContainerFact, EngineEvent, EngineEvents, EngineFact, EngineMoment, label,
};
use covibes::ports::host::Kept;
use covibes::ports::probe::ProbeAnswer;
use futures::stream::{self, StreamExt as _};
use tokio::sync::broadcast;

use super::World;

/// What a world's daemon does by itself.
pub(crate) struct Daemon {
    events: broadcast::Sender<EngineEvent>,
    /// Nanoseconds of its clock.
    nanos: i64,
    /// Containers whose name holds this end as soon as they begin.
    pub(super) broken: Option<String>,
    /// What agents and sync services answer instead of being well.
    pub(super) services: Option<ProbeAnswer>,
    pub(super) shows_nothing: bool,
    /// Processes have numbers, and one that is waited for is gone.
    pub(super) has_processes: bool,
    /// Directories behind volumes are gone.
    pub(super) directories_gone: bool,
    /// What lies on the disk, beside paths.
    pub(super) kept: Vec<Kept>,
    /// Probes so far.
    pub(super) probes: usize,
    /// Stands for the state of all files.
    pub(super) files: u64,
    /// How large every workspace is.
    pub(super) workspace_bytes: u64,
}

impl Default for Daemon {
    fn default() -> Self {
        let (events, _) = broadcast::channel(1024);
        Self {
            events,
            nanos: 1_795_435_200_000_000_000,
            broken: None,
            services: None,
            shows_nothing: false,
            has_processes: false,
            directories_gone: false,
            kept: Vec::new(),
            probes: 0,
            files: 0,
            workspace_bytes: 0,
        }
    }
}

/// The network of a container that is a team's, if it is there.
pub(super) fn network_of(
    labels: &BTreeMap<String, String>,
    networks: &BTreeMap<String, (BTreeMap<String, String>, ipnet::Ipv4Net)>,
) -> Option<String> {
    let kind = match labels.get(label::ROLE)?.as_str() {
        "preview" => "preview",
        _ => "agent",
    };
    let prefix = match labels.get(label::INSTANCE)?.as_str() {
        "main" => "covibes".to_owned(),
        other => format!("covibes.{other}"),
    };
    let name = format!("{prefix}_{kind}_net_{}", labels.get(label::TEAM)?);
    networks.contains_key(&name).then_some(name)
}

impl World {
    pub(super) fn daemon_events(&self) -> EngineEvents {
        let events = self.lock().daemon.events.subscribe();
        stream::unfold(events, async |mut events| Some((Ok(events.recv().await.ok()?), events)))
            .boxed()
    }

    /// The daemon says something about a container; gives what it said.
    pub(crate) fn says_of(&self, name: &str, fact: EngineContainerFact) -> EngineEvent {
        let mut inner = self.lock();
        inner.daemon.nanos += 1_000_000;
        let labels = inner.containers.get(name).map(|(labels, ..)| labels.clone());
        let event = EngineEvent {
            at: EngineMoment(inner.daemon.nanos),
            fact: EngineFact::Container {
                id: format!("{name}-id"),
                name: ContainerName::from_engine(name).unwrap(),
                labels: labels.unwrap_or_default(),
                fact,
            },
        };
        // Nobody may be listening.
        let _ = inner.daemon.events.send(event.clone());
        event
    }

    /// The daemon says something again, or late.
    pub(crate) fn says_again(&self, event: EngineEvent) {
        let _ = self.lock().daemon.events.send(event);
    }

    /// A container ends, and nobody is told.
    pub(crate) fn ends_silently(&self, name: &str) {
        let mut inner = self.lock();
        inner.containers.get_mut(name).expect("it is there").1 = "exited".to_owned();
    }

    /// A container ends.
    pub(crate) fn ends(&self, name: &str, exit_code: i64) -> EngineEvent {
        self.ends_silently(name);
        self.says_of(name, EngineContainerFact::Died { exit_code })
    }

    /// Somebody stops a container by hand.
    pub(crate) fn is_stopped_by_hand(&self, name: &str) {
        self.says_of(name, EngineContainerFact::Signalled { signal: 15 });
        self.ends(name, 143);
        self.says_of(name, EngineContainerFact::Stopped);
    }

    /// Somebody pauses a container by hand.
    pub(crate) fn is_paused_by_hand(&self, name: &str) {
        self.lock().containers.get_mut(name).expect("it is there").1 = "paused".to_owned();
        self.says_of(name, EngineContainerFact::Paused);
    }

    /// Somebody lets it go on.
    pub(crate) fn is_unpaused_by_hand(&self, name: &str) {
        self.lock().containers.get_mut(name).expect("it is there").1 = "running".to_owned();
        self.says_of(name, EngineContainerFact::Unpaused);
    }

    /// Somebody removes a network, with what stands on it detached.
    pub(crate) fn loses_network(&self, name: &str) {
        let mut inner = self.lock();
        inner.networks.remove(name).expect("it is there");
        inner.daemon.nanos += 1_000_000;
        let at = EngineMoment(inner.daemon.nanos);
        let fact = EngineFact::Network { name: name.to_owned() };
        let _ = inner.daemon.events.send(EngineEvent { at, fact });
    }

    /// Containers of this name end as soon as they begin, or no more.
    pub(crate) fn is_broken(&self, name: Option<&str>) {
        self.lock().daemon.broken = name.map(str::to_owned);
    }

    /// Processes can be seen from now on.
    pub(crate) fn has_processes(&self) {
        self.lock().daemon.has_processes = true;
    }

    /// What agents and sync services answer.
    pub(crate) fn services_answer(&self, answer: Option<ProbeAnswer>) {
        self.lock().daemon.services = answer;
    }

    /// Somebody starts a container again.
    pub(crate) fn restart(&self, name: &str) {
        self.lock().containers.get_mut(name).expect("it is there").1 = "running".to_owned();
    }

    /// A container is gone, and nobody is told.
    pub(crate) fn vanishes(&self, name: &str) {
        self.lock().containers.remove(name).expect("it was there");
    }

    /// Listings are empty, or true again.
    pub(crate) fn shows_nothing(&self, nothing: bool) {
        self.lock().daemon.shows_nothing = nothing;
    }

    /// The directories behind volumes are gone, or there again.
    pub(crate) fn loses_directories(&self, gone: bool) {
        self.lock().daemon.directories_gone = gone;
    }

    /// Something has lain on the disk for so many days.
    pub(crate) fn keeps(&self, path: &str, is_dir: bool, days: i64) {
        let mut inner = self.lock();
        let modified_unix_ms = inner.now_unix_ms - days * 24 * 3_600_000;
        let kept = Kept { path: path.into(), bytes: 1, is_dir, modified_unix_ms };
        inner.daemon.kept.push(kept);
    }

    /// How many probes there were.
    pub(crate) fn probes(&self) -> usize {
        self.lock().daemon.probes
    }

    /// The clock of the daemon is set.
    pub(crate) fn sets_clock(&self, nanos: i64) {
        self.lock().daemon.nanos += nanos;
    }

    /// Every workspace is as large as this.
    pub(crate) fn fills_workspaces(&self, bytes: u64) {
        self.lock().daemon.workspace_bytes = bytes;
    }

    /// The files of all workspaces are in another state.
    pub(crate) fn touches_files(&self, state: u64) {
        self.lock().daemon.files = state;
    }

    /// Somebody makes a container with a team's labels.
    pub(crate) fn puts_beside(&self, like: &str, name: &str) {
        let mut inner = self.lock();
        let copy = inner.containers.get(like).expect("it is there").clone();
        inner.containers.insert(name.to_owned(), copy);
    }
}
