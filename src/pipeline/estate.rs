//! What this host has, for those who place teams: room, teams, and whether
//! anything is left of one. And the end of all of it, after an eviction.
//!
//! An answer that Docker did not give is `None`: unknown is never "nothing".

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Ports;
use super::lease::TeamLease;
use crate::config::layout::Layout;
use crate::domain::control::{Holding, Room};
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::limits::{self, Limits};
use crate::domain::plan::Role;
use crate::ports::engine::{Filter, Observed, label};

/// How long a container of an evicted host has between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Asks about a host's teams.
#[async_trait]
pub trait Estate: Send + Sync {
    /// How much more the host could take on; jobs and waiting places are left
    /// at zero, since lanes know them.
    async fn room(&self) -> Option<Room>;

    /// Every team of which the host has anything.
    async fn inventory(&self) -> Option<Vec<Holding>>;

    /// Whether the host has anything of a team: a container, a network, a
    /// volume or a workspace.
    async fn has(&self, team: &TeamId) -> Option<bool>;

    /// Removes a team's containers and networks and keeps its workspace and
    /// volumes. Tells nothing: the team is another host's by now.
    ///
    /// # Errors
    /// Docker or the disk refuses; some of it may be done.
    async fn vacate(&self, lease: TeamLease) -> Result<(), Failure>;
}

/// The estate behind the pipeline's ports.
pub struct HostEstate {
    ports: Ports,
}

impl HostEstate {
    /// Asks these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports }
    }

    async fn list(&self, team: Option<TeamId>) -> Option<Observed> {
        let filter = Filter { instance: self.ports.settings.instance.clone(), team };
        self.ports.engine.list(&filter).await.ok()
    }
}

#[async_trait]
impl Estate for HostEstate {
    async fn room(&self) -> Option<Room> {
        let observed = self.list(None).await?;
        let resources = self.ports.host.resources().await.ok()?;
        let capacity = &self.ports.settings.capacity;
        let (memory, cpu) = reserved(&observed);
        let teams = teams_of(&observed).values().filter(|runs| **runs).count();
        let scaled = |amount: f64, overcommit: f64| (amount * overcommit) as i64;
        Some(Room {
            teams: i64::from(capacity.teams_max) - count(teams),
            memory_bytes: scaled(resources.memory_bytes as f64, capacity.memory_overcommit)
                - memory,
            cpu_millis: scaled(resources.cpus * 1000.0, capacity.cpu_overcommit) - cpu,
            disk_is_low: resources.disk_used > capacity.disk_used_max,
            jobs: 0,
            waiting: 0,
        })
    }

    async fn inventory(&self) -> Option<Vec<Holding>> {
        let mut teams = teams_of(&self.list(None).await?);
        for team in self.ports.records.teams().await.ok()? {
            if !teams.contains_key(&team)
                && self
                    .ports
                    .host
                    .is_own_workspace(&Layout::new(&self.ports.settings, &team).workspace())
                    .await
            {
                teams.insert(team, false);
            }
        }
        let mut holdings = Vec::with_capacity(teams.len());
        for (team, runs) in teams {
            // A record that is set aside says nothing of the team's containers.
            let record = self.ports.records.load(&team).await.ok().flatten();
            let sequence = record.map_or(0, |record| record.sequence);
            holdings.push(Holding { team, runs, sequence });
        }
        Some(holdings)
    }

    async fn has(&self, team: &TeamId) -> Option<bool> {
        let observed = self.list(Some(team.clone())).await?;
        if !teams_of(&observed).is_empty() {
            return Some(true);
        }
        let layout = Layout::new(&self.ports.settings, team);
        // A directory that Covibes did not make is nobody's reason to stay.
        Some(self.ports.host.is_own_workspace(&layout.workspace()).await)
    }

    async fn vacate(&self, lease: TeamLease) -> Result<(), Failure> {
        let team = lease.team();
        let filter =
            Filter { instance: self.ports.settings.instance.clone(), team: Some(team.clone()) };
        let engine = &self.ports.engine;
        let observed = engine.list(&filter).await?;
        for container in &observed.containers {
            engine.stop_container(&container.name, STOP_GRACE).await?;
            engine.remove_container(&container.name).await?;
        }
        for network in &observed.networks {
            engine.remove_network(&network.name).await?;
        }
        Ok(())
    }
}

/// The teams of which something is there, and whether that is a container.
#[must_use]
pub fn teams_of(observed: &Observed) -> BTreeMap<TeamId, bool> {
    let mut teams = BTreeMap::new();
    let team = |labels: &BTreeMap<String, String>| {
        labels.get(label::TEAM).and_then(|raw| TeamId::parse(raw).ok())
    };
    for team in observed.networks.iter().filter_map(|network| team(&network.labels)) {
        teams.entry(team).or_insert(false);
    }
    for team in observed.volumes.iter().filter_map(|volume| team(&volume.labels)) {
        teams.entry(team).or_insert(false);
    }
    for team in observed.containers.iter().filter_map(|container| team(&container.labels)) {
        teams.insert(team, true);
    }
    teams
}

/// What containers have set aside: bytes and thousandths of a CPU.
#[must_use]
pub fn reserved(observed: &Observed) -> (i64, i64) {
    let of = |limits: Limits| {
        let memory = i64::try_from(limits.memory_reserved_bytes).unwrap_or(i64::MAX);
        (memory, i64::from(limits.cpu_reserved_millis))
    };
    let each = observed.containers.iter().map(|container| {
        match container.labels.get(label::ROLE).and_then(|role| Role::parse(role)) {
            Some(Role::Agent) => of(limits::AGENT),
            Some(Role::Preview) => of(limits::PREVIEW),
            Some(Role::Sync) => of(limits::SYNC),
            Some(Role::Oneshot | Role::Egress) | None => (0, 0),
        }
    });
    each.fold((0, 0), |(memory, cpu), (m, c)| (memory + m, cpu + c))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
