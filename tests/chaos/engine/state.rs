//! What a daemon holds.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio_util::task::AbortOnDropHandle;

use super::Health;
use super::health;

/// Labels of a thing.
pub(super) type Labels = BTreeMap<String, String>;

/// Something of a team in Docker.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) team: String,
    pub(crate) runs: bool,
}

/// A container.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) labels: Labels,
    pub(super) network: String,
    pub(super) volumes: Vec<String>,
    pub(super) running: bool,
    pub(super) started: bool,
    pub(super) address: Ipv4Addr,
    /// The port of the host that leads into it.
    pub(super) published: Option<u16>,
}

/// A network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) labels: Labels,
    pub(super) subnet: String,
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) labels: Labels,
    pub(super) options: Labels,
}

/// Everything.
pub(crate) struct State {
    number: u8,
    next_address: u16,
    health: Health,
    /// Published ports that answer, by container.
    doors: BTreeMap<String, AbortOnDropHandle<()>>,
    /// The process that stands for all containers' own; 0 for none, whose figures
    /// nobody can read.
    pub(crate) pid: u32,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) volumes: BTreeMap<String, Volume>,
}

/// Who owns a thing.
pub(super) fn label(labels: &Labels, name: &str) -> Option<String> {
    labels.get(name).cloned()
}

impl State {
    pub(super) fn new(number: u8, health: Health) -> Self {
        Self {
            number,
            next_address: 1,
            health,
            doors: BTreeMap::new(),
            pid: 0,
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    pub(super) fn new_address(&mut self) -> Ipv4Addr {
        self.next_address = self.next_address.wrapping_add(1).max(1);
        let [high, low] = self.next_address.to_be_bytes();
        Ipv4Addr::new(127, 64 + self.number, high, low)
    }

    pub(super) fn set_running(&mut self, name: &str, running: bool) {
        if let Some(container) = self.containers.get_mut(name) {
            container.running = running;
            container.started |= running;
            self.health.set(container.address, running);
            match container.published.filter(|_| running) {
                Some(port) => {
                    self.doors.entry(name.to_owned()).or_insert_with(|| health::door(port));
                }
                None => drop(self.doors.remove(name)),
            }
        }
    }

    /// All that belongs to teams.
    pub(crate) fn things(&self) -> Vec<Thing> {
        let thing = |kind, name: &String, labels: &Labels, runs| {
            let team = label(labels, "covibes.team")?;
            Some(Thing { kind, name: name.clone(), team, runs })
        };
        let (containers, networks) = (self.containers.iter(), self.networks.iter());
        containers
            .map(|(name, c)| thing("container", name, &c.labels, c.running))
            .chain(networks.map(|(name, n)| thing("network", name, &n.labels, false)))
            .chain(self.volumes.iter().map(|(name, v)| thing("volume", name, &v.labels, false)))
            .flatten()
            .collect()
    }

    /// A container that was started is stopped by a restart of its daemon.
    pub(crate) fn stop_all(&mut self) {
        let names: Vec<_> = self.containers.keys().cloned().collect();
        for name in names {
            self.set_running(&name, false);
        }
    }
}
