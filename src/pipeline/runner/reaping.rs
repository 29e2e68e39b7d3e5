//! Removes what nobody owns: of this instance only, seen so for five minutes, in no
//! plan and no run.
//!
//! Volumes and networks that belong to a stopped team stay. An empty or failed
//! listing says nothing, so nothing is removed by it. Whoever removes holds the
//! team's lease and looks once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::Runner;
use super::recovery::team_of;
use crate::domain::event::TeamState;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::names::{ContainerName, NetworkName, VolumeName};
use crate::domain::plan::Role;
use crate::observe::spans;
use crate::pipeline::monitor::Wanted;
use crate::ports::engine::{Filter, Observed, label};

/// How long something has to be nobody's (DESIGN 5).
const OLD: Duration = Duration::from_secs(300);

/// Something in Docker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Container(ContainerName),
    Network(NetworkName),
    Volume(VolumeName),
}

impl Thing {
    fn kind(&self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::Network(_) => "network",
            Self::Volume(_) => "volume",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Container(name) => name.as_str(),
            Self::Network(name) => name.as_str(),
            Self::Volume(name) => name.as_str(),
        }
    }
}

/// Since when each thing has been nobody's.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<BTreeMap<Thing, Instant>>);

impl Orphans {
    /// Takes what is nobody's now; gives what has been so for long enough.
    fn seen(&self, now: &BTreeSet<Thing>, at: Instant) -> Vec<Thing> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|thing, _| now.contains(thing));
        for thing in now {
            since.entry(thing.clone()).or_insert(at);
        }
        since.iter().filter(|(_, since)| at - **since >= OLD).map(|(t, _)| t.clone()).collect()
    }
}

type Labels = BTreeMap<String, String>;

/// What of a listing is nobody's. `known` gives what should be there of a team, and
/// whether nobody is at work on it; of a team that is not known nothing is decided.
pub(super) fn orphans_of(
    observed: &Observed,
    known: impl Fn(&TeamId) -> Option<(Wanted, bool)>,
) -> BTreeSet<Thing> {
    let is_oneshot = |labels: &Labels| {
        labels.get(label::ROLE).map(String::as_str) == Some(Role::Oneshot.as_str())
    };
    let mut orphans = BTreeSet::new();
    let decide = |labels: &Labels, is_owned: &dyn Fn(&Wanted) -> bool| {
        let Some(team) = team_of(labels) else {
            // Ours by its label, and no team's.
            return true;
        };
        known(&team).is_some_and(|(wanted, is_free)| is_free && !is_owned(&wanted))
    };
    for container in &observed.containers {
        let is_owned = |wanted: &Wanted| {
            let is_part = wanted.parts.iter().any(|part| part.name == container.name);
            // Of one whose record was lost every part is one.
            let is_part = is_part || wanted.parts.is_empty();
            wanted.up && is_part && !is_oneshot(&container.labels)
        };
        if decide(&container.labels, &is_owned) {
            orphans.insert(Thing::Container(container.name.clone()));
        }
    }
    for network in &observed.networks {
        if decide(&network.labels, &|wanted| wanted.up) {
            orphans.insert(Thing::Network(network.name.clone()));
        }
    }
    for volume in &observed.volumes {
        let is_owned =
            |wanted: &Wanted| !is_oneshot(&volume.labels) && wanted.state != TeamState::Destroyed;
        if decide(&volume.labels, &is_owned) {
            orphans.insert(Thing::Volume(volume.name.clone()));
        }
    }
    orphans
}

fn labels_of<'a>(all: &'a Observed, thing: &Thing) -> Option<&'a Labels> {
    match thing {
        Thing::Container(name) => {
            all.containers.iter().find(|c| c.name == *name).map(|c| &c.labels)
        }
        Thing::Network(name) => all.networks.iter().find(|n| n.name == *name).map(|n| &n.labels),
        Thing::Volume(name) => all.volumes.iter().find(|v| v.name == *name).map(|v| &v.labels),
    }
}

impl Runner {
    /// Looks for what nobody owns, removes what has been so for long; gives how much
    /// there is.
    pub(super) async fn look_for_orphans(&self, observed: &Observed) -> u64 {
        let orphans = orphans_of(observed, |team| self.monitor.wanted(team));
        let count = orphans.len() as u64;
        self.ports.metrics.orphans(count);
        for thing in self.orphans.seen(&orphans, Instant::now()) {
            let team = labels_of(observed, &thing).and_then(team_of);
            let span = team.as_ref().map_or_else(Span::none, spans::of_team);
            self.reap_and_tell(&thing).instrument(span).await;
        }
        count
    }

    async fn reap_and_tell(&self, thing: &Thing) {
        let (kind, name) = (thing.kind(), thing.name());
        match self.reap(thing).await {
            Ok(false) => {}
            Ok(true) => {
                self.ports.metrics.orphan_removed(kind);
                tracing::warn!(kind, name, "removed what nobody owned");
            }
            Err(error) => tracing::warn!(kind, name, %error, "what nobody owns cannot be removed"),
        }
    }

    /// Removes one thing, if it is still nobody's; says whether it did.
    async fn reap(&self, thing: &Thing) -> Result<bool, Failure> {
        let engine = &self.ports.engine;
        let instance = self.ports.settings.instance.clone();
        let all = engine.list(&Filter { instance, team: None }).await?;
        let Some(labels) = labels_of(&all, thing) else { return Ok(false) };
        let _lease = match team_of(labels) {
            // Somebody is at it: then it is not nobody's.
            Some(team) => match self.leases.try_acquire(&team) {
                Some(lease) => Some(lease),
                None => return Ok(false),
            },
            None => None,
        };
        if !orphans_of(&all, |team| self.monitor.wanted(team)).contains(thing) {
            return Ok(false);
        }
        match thing {
            Thing::Container(name) => engine.remove_container(name).await?,
            Thing::Network(name) => engine.remove_network(name).await?,
            Thing::Volume(name) => engine.remove_volume(name).await?,
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::TeamRecord;
    use crate::domain::settings::Settings;
    use crate::domain::spec::{SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource};
    use crate::ports::engine::{ObservedContainer, ObservedNetwork, ObservedVolume};

    fn labels(team: &str, role: &str) -> Labels {
        [(label::TEAM, team), (label::ROLE, role)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn container(name: &str, team: &str, role: &str) -> ObservedContainer {
        ObservedContainer {
            id: String::new(),
            name: ContainerName::from_engine(name).unwrap(),
            state: "running".to_owned(),
            labels: labels(team, role),
            host_ports: Vec::new(),
            addresses: Vec::new(),
            networks: Vec::new(),
        }
    }

    fn wanted(up: bool, state: TeamState) -> Wanted {
        let spec = Spec {
            workspace: WorkspaceSource::Local,
            agents: Vec::new(),
            previews: Vec::new(),
            sync_interval: SYNC_INTERVAL_DEFAULT,
            ttl: None,
            idle_stop: None,
        };
        let team = TeamId::parse("a").unwrap();
        let record = TeamRecord { up, state, spec: Some(spec), ..TeamRecord::new(team) };
        Wanted::of(&Settings::default(), &record)
    }

    fn check(known: Option<(Wanted, bool)>, expected: &[&str]) {
        let observed = Observed {
            containers: vec![
                container("covibes_sync_a", "a", "sync"),
                container("covibes_preview_a_gone", "a", "preview"),
                container("covibes_install_a_1", "a", "oneshot"),
                container("covibes_of_nobody", "", "sync"),
            ],
            networks: vec![ObservedNetwork {
                name: NetworkName::from_engine("covibes_agent_net_a").unwrap(),
                labels: labels("a", "agent"),
                subnets: Vec::new(),
                created_unix_ms: 0,
            }],
            volumes: vec![
                ObservedVolume {
                    name: VolumeName::from_engine("workspace_a").unwrap(),
                    labels: labels("a", "sync"),
                    device: None,
                },
                ObservedVolume {
                    name: VolumeName::from_engine("install_overlay_a").unwrap(),
                    labels: labels("a", "oneshot"),
                    device: None,
                },
            ],
        };
        let found = orphans_of(&observed, |_| known.clone());
        let mut found: Vec<_> = found.iter().map(Thing::name).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_what_is_in_no_plan_and_no_run_is_nobodys() {
        let nobody = "covibes_of_nobody";
        let (oneshot, overlay) = ("covibes_install_a_1", "install_overlay_a");
        let gone = "covibes_preview_a_gone";
        // Its record cannot be read, or a run is at work on it.
        check(None, &[nobody]);
        check(Some((wanted(true, TeamState::Running), false)), &[nobody]);
        check(Some((wanted(true, TeamState::Running), true)), &[oneshot, nobody, gone, overlay]);
        let (sync, net) = ("covibes_sync_a", "covibes_agent_net_a");
        check(
            Some((wanted(false, TeamState::Stopped), true)),
            &[net, oneshot, nobody, gone, sync, overlay],
        );
        check(
            Some((wanted(false, TeamState::Destroyed), true)),
            &[net, oneshot, nobody, gone, sync, overlay, "workspace_a"],
        );
    }

    #[test]
    fn five_minutes_without_a_break_are_needed() {
        let orphans = Orphans::default();
        let thing = Thing::Volume(VolumeName::from_engine("x").unwrap());
        let (some, none) = (BTreeSet::from([thing.clone()]), BTreeSet::new());
        let mut at = Instant::now();
        assert_eq!(orphans.seen(&some, at), []);
        at += OLD;
        assert_eq!(orphans.seen(&none, at), []);
        assert_eq!(orphans.seen(&some, at), []);
        assert_eq!(orphans.seen(&some, at + OLD), [thing]);
    }
}
