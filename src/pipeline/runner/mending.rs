//! Starts again what died of a team, and makes anew what somebody took away.
//!
//! A job of the host's own, in the team's lane, with its lease. What only ended is
//! started as it is, within a moment; what is gone, or stands on something that is
//! gone, is made by the whole way of a start. What somebody stopped by hand is left
//! alone (ADR 0050).

use std::collections::BTreeMap;

use super::own::{OwnReason, nothing_to_do};
use super::{Runner, Worked, stop_failed};
use crate::domain::event::{ContainerFact, EventKind, TeamState};
use crate::domain::ids::PartName;
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::monitor::Wanted;
use crate::pipeline::run::{Run, Stop};
use crate::ports::engine::{EngineError, Observed, ObservedContainer, label};

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Care {
    /// These are started as they are.
    start: Vec<ContainerName>,
    /// These run and are started anew.
    restart: Vec<ContainerName>,
    /// These stand on something that is gone.
    remove: Vec<ContainerName>,
    /// Something has to be made: why.
    make: Option<String>,
}

impl Runner {
    /// Does it.
    pub(super) async fn mend(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let (team, engine) = (run.team(), &self.ports.engine);
        let record = run.reporter.record().await;
        let Some(spec) = self.wanted(&record) else {
            return Ok(nothing_to_do("the team does not run"));
        };
        let wanted = Wanted::of(&self.ports.settings, &record);
        let observed = engine.list(&self.filter(team)).await.map_err(stop_failed)?;
        let (ill, left_alone) = self.monitor.ill_and_left_alone(team);
        let network = |role| Wanted::network_of(&self.ports.settings, team, role);
        let mut care = care_for(&wanted, &observed, network, |name| left_alone.contains(name));
        let is_there = |name: &&ContainerName| {
            observed.containers.iter().any(|c| c.name == **name && c.state == "running")
        };
        let taken: Vec<_> = care.remove.clone();
        care.restart.extend(ill.iter().filter(is_there).filter(|n| !taken.contains(n)).cloned());
        if care == Care::default() {
            return Ok(nothing_to_do("every part runs"));
        }
        // The proxy may have gone with what died.
        self.prepare(run).await?;
        let mut done = Vec::new();
        for name in &care.start {
            match engine.start_container(name).await {
                Ok(()) => done.push(name.clone()),
                // Docker has lost it, or what it stands on: it is made anew.
                Err(EngineError::Lost { .. } | EngineError::NotFound { .. }) => {
                    care.remove.push(name.clone());
                }
                Err(EngineError::PortTaken) => care.remove.push(name.clone()),
                Err(error) => return Err(stop_failed(error)),
            }
        }
        for name in &care.restart {
            match engine.restart_container(name, super::actions::STOP_GRACE).await {
                Ok(()) => done.push(name.clone()),
                Err(EngineError::Lost { .. } | EngineError::NotFound { .. }) => {
                    care.remove.push(name.clone());
                }
                Err(error) => return Err(stop_failed(error)),
            }
        }
        for name in &done {
            self.tell_restarted(run, &observed, name).await?;
        }
        for name in &care.remove {
            engine.stop_container(name, super::actions::STOP_GRACE).await.map_err(stop_failed)?;
            engine.remove_container(name).await.map_err(stop_failed)?;
        }
        let gone = care.remove.first().map(|name| format!("{name} cannot be started as it is"));
        if let Some(why) = care.make.or(gone) {
            run.say(format!("making what is missing: {why}"));
            let mut worked = self.start(run, &spec).await?;
            worked.message = format!("mended: {why}; {}", worked.message);
            return Ok(worked);
        }
        let names: Vec<_> = done.iter().map(ToString::to_string).collect();
        Ok(Worked {
            changed: true,
            links: BTreeMap::new(),
            message: format!("started again: {}", names.join(", ")),
            state: None,
        })
    }

    async fn tell_restarted(
        &self,
        run: &Run<'_>,
        observed: &Observed,
        name: &ContainerName,
    ) -> Result<(), Stop> {
        let before = self.monitor.picture(run.team()).and_then(|picture| {
            let part = picture.parts.into_iter().find(|part| part.container == *name)?;
            part.cause.or(part.last_failure.map(|failure| failure.cause))
        });
        self.monitor.restarted(run.team(), name);
        let container = observed.containers.iter().find(|container| container.name == *name);
        let Some(role) = container.and_then(role_of) else { return Ok(()) };
        self.ports.metrics.container_restarted(role);
        let label = container.and_then(|container| container.labels.get(label::NAME));
        let before = before.unwrap_or_else(|| "it did not run".to_owned());
        let kind = EventKind::Container {
            fact: ContainerFact::Restarted,
            role,
            part: label.and_then(|name| PartName::parse(name).ok()),
            cause: format!("the worker started it again: {before}"),
            exit_code: None,
            log: Vec::new(),
        };
        Ok(run.reporter.tell(kind).await?)
    }

    /// Stops a team by itself, if that is still to be done.
    pub(super) async fn stop_by_itself(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let Some(OwnReason::End(reason)) = self.own_jobs.reason(run.job.id) else {
            return Ok(nothing_to_do("nobody asked for it"));
        };
        // Whoever came in between gave it a new life.
        let is_up = run.reporter.read(|record| record.up).await;
        if !is_up || self.monitor.is_over(run.team()) != Some(reason) {
            return Ok(nothing_to_do("something happened in it meanwhile"));
        }
        let mut worked = self.stop(run).await?;
        worked.state = Some((TeamState::Stopped, reason.cause().to_owned()));
        worked.message = format!("stopped: {}", reason.cause());
        Ok(worked)
    }
}

fn role_of(container: &ObservedContainer) -> Option<Role> {
    Role::parse(container.labels.get(label::ROLE)?)
}

/// What has to be done so that all runs that should.
fn care_for(
    wanted: &Wanted,
    observed: &Observed,
    network: impl Fn(Role) -> Option<String>,
    left_alone: impl Fn(&ContainerName) -> bool,
) -> Care {
    let mut care = Care::default();
    let has_network = |name: &String| observed.networks.iter().any(|n| n.name.as_str() == name);
    let has_volume = |name: &String| observed.volumes.iter().any(|v| v.name.as_str() == name);
    let networks = wanted.networks.iter().filter(|name| !has_network(name));
    let volumes = wanted.volumes.iter().filter(|name| !has_volume(name));
    care.make = networks
        .map(|name| format!("the network {name} is gone"))
        .chain(volumes.map(|name| format!("the volume {name} is gone")))
        .next();
    for part in &wanted.parts {
        let found = observed
            .containers
            .iter()
            .find(|container| container.name == part.name && !is_side_name(&container.name));
        let Some(found) = found else {
            if left_alone(&part.name) {
                continue;
            }
            let why = || format!("the container {} is gone", part.name);
            care.make = care.make.take().or_else(|| Some(why()));
            continue;
        };
        let own_network = network(part.role);
        let stands_on_nothing = own_network.as_ref().is_some_and(|name| !has_network(name));
        match found.state.as_str() {
            _ if stands_on_nothing => care.remove.push(part.name.clone()),
            "running" => {
                let is_attached = own_network.is_none_or(|name| found.networks.contains(&name));
                if !is_attached {
                    // A restart attaches nothing that was detached by hand.
                    care.remove.push(part.name.clone());
                }
            }
            // Docker is about to start it.
            "restarting" => {}
            _ if left_alone(&part.name) => {}
            "dead" | "removing" => care.remove.push(part.name.clone()),
            _ => care.start.push(part.name.clone()),
        }
    }
    care
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{InstanceName, TeamId};
    use crate::domain::record::TeamRecord;
    use crate::domain::settings::Settings;
    use crate::domain::spec::{PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource};
    use crate::ports::engine::{ObservedNetwork, ObservedVolume};

    const NETWORKS: [&str; 2] = ["covibes_agent_net_a", "covibes_preview_net_a"];

    fn wanted() -> Wanted {
        let main = PartName::parse("main").unwrap();
        let spec = Spec {
            workspace: WorkspaceSource::Local,
            agents: Vec::new(),
            previews: vec![PreviewSpec { name: main, branch: None, ttl: None }],
            sync_interval: SYNC_INTERVAL_DEFAULT,
            ttl: None,
            idle_stop: None,
        };
        let team = TeamId::parse("a").unwrap();
        let record = TeamRecord { up: true, spec: Some(spec), ..TeamRecord::new(team) };
        Wanted::of(&Settings::default(), &record)
    }

    /// A team as it should be, changed by `change`.
    fn check(change: impl FnOnce(&mut Observed), expected: [&[&str]; 2], makes: bool) {
        let wanted = wanted();
        let network = |role| {
            let team = TeamId::parse("a").unwrap();
            assert!(InstanceName::default_worker().is_default());
            Wanted::network_of(&Settings::default(), &team, role)
        };
        let container = |part: &crate::pipeline::monitor::WantedPart| ObservedContainer {
            id: "x".to_owned(),
            name: part.name.clone(),
            state: "running".to_owned(),
            labels: BTreeMap::new(),
            host_ports: Vec::new(),
            addresses: Vec::new(),
            networks: network(part.role).into_iter().collect(),
        };
        let net = |name: &&str| ObservedNetwork {
            name: crate::domain::names::NetworkName::from_engine(name).unwrap(),
            labels: BTreeMap::new(),
            subnets: Vec::new(),
            created_unix_ms: 0,
        };
        let volume = |name: &String| ObservedVolume {
            name: crate::domain::names::VolumeName::from_engine(name).unwrap(),
            labels: BTreeMap::new(),
            device: None,
        };
        let mut observed = Observed {
            containers: wanted.parts.iter().map(container).collect(),
            networks: NETWORKS.iter().map(net).collect(),
            volumes: wanted.volumes.iter().map(volume).collect(),
        };
        change(&mut observed);
        let care = care_for(&wanted, &observed, network, |name| name.as_str().ends_with("hand"));
        let text = |names: &[ContainerName]| {
            names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text(&care.start), expected[0], "{care:?}");
        assert_eq!(text(&care.remove), expected[1], "{care:?}");
        assert_eq!(care.make.is_some(), makes, "{care:?}");
    }

    #[test]
    fn what_ended_is_started_and_what_is_gone_is_made() {
        let (sync, main) = ("covibes_sync_a", "covibes_preview_a_main");
        check(|_| {}, [&[], &[]], false);
        check(|all| all.containers[0].state = "exited".to_owned(), [&[sync], &[]], false);
        check(|all| all.containers[1].state = "created".to_owned(), [&[main], &[]], false);
        check(|all| all.containers[1].state = "dead".to_owned(), [&[], &[main]], false);
        check(|all| all.containers[1].state = "restarting".to_owned(), [&[], &[]], false);
        check(|all| _ = all.containers.remove(0), [&[], &[]], true);
        check(|all| _ = all.volumes.remove(0), [&[], &[]], true);
        check(|all| _ = all.networks.remove(1), [&[], &[main]], true);
        check(|all| all.containers[0].networks.clear(), [&[], &[sync]], false);
    }
}
