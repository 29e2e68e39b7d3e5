//! The shorter ways: stop, destroy, restart, sync, and the snapshot of a status.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use super::syncs::{failure_of, sync_door, sync_event};
use super::{Runner, Worked, stop_failed, team_event};
use crate::config::layout::Layout;
use crate::domain::event::{Snapshot, SnapshotPart, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::health::TeamPicture;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::names::{ContainerName, Names};
use crate::domain::plan::Role;
use crate::domain::record::TeamRecord;
use crate::pipeline::Ports;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::preview_board::PreviewLook;
use crate::pipeline::reporter::Reporter;
use crate::pipeline::run::{Run, Stop};
use crate::ports::engine::{EngineError, Observed, ObservedContainer, label};
use crate::ports::syncs::SyncLook;

/// How long a container has between SIGTERM and SIGKILL.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a sync on request may take.
const SYNC_TIME_MAX: Duration = Duration::from_secs(60);

impl Runner {
    pub(super) async fn stop(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let removed = self.take_down(run).await?;
        // A preview's time begins anew with the next start.
        run.reporter.update(|record| record.previews_since.clear()).await;
        let message = if removed { "stopped" } else { "it was not running" };
        Ok(Worked {
            changed: removed,
            links: BTreeMap::new(),
            message: message.to_owned(),
            state: Some((TeamState::Stopped, "a stop job".to_owned())),
        })
    }

    /// Removes containers and networks; says whether there were any.
    async fn take_down(&self, run: &Run<'_>) -> Result<bool, Stop> {
        let engine = &self.ports.engine;
        let observed = engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
        if observed.containers.is_empty() && observed.networks.is_empty() {
            return Ok(false);
        }
        run.reporter.tell(team_event(TeamState::Stopping, "a job", BTreeMap::new())).await?;
        let stop_one = async |name: &ContainerName| {
            engine.stop_container(name, STOP_GRACE).await?;
            engine.remove_container(name).await
        };
        let stops: Vec<_> = observed.containers.iter().map(|c| stop_one(&c.name).boxed()).collect();
        let at_once = self.ports.settings.capacity.starts_at_once.max(1);
        let mut stops = futures::stream::iter(stops).buffer_unordered(at_once);
        while let Some(result) = stops.next().await {
            result.map_err(stop_failed)?;
        }
        for network in &observed.networks {
            engine.remove_network(&network.name).await.map_err(stop_failed)?;
        }
        Ok(true)
    }

    pub(super) async fn destroy(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let mut changed = self.take_down(run).await?;
        self.remove_mount_points(run).await;
        changed |= self.remove_kept(run.team()).await.map_err(Stop::Failed)?;
        let now = self.ports.clock.unix_millis();
        run.reporter.update(|record| record.forget_life(now)).await;
        Ok(Worked {
            changed,
            links: BTreeMap::new(),
            message: if changed { "destroyed" } else { "there was nothing" }.to_owned(),
            state: Some((TeamState::Destroyed, "a destroy job".to_owned())),
        })
    }

    /// Removes what a stopped team keeps: volumes, a workspace that Covibes
    /// made, worktrees, cache. Says whether there was any.
    pub(super) async fn remove_kept(&self, team: &TeamId) -> Result<bool, Failure> {
        let engine = &self.ports.engine;
        let mut changed = false;
        for volume in &engine.list(&self.filter(team)).await?.volumes {
            engine.remove_volume(&volume.name).await?;
            changed = true;
        }
        let layout = Layout::new(&self.ports.settings, team);
        let host = &self.ports.host;
        let own = layout.workspace();
        if host.is_own_workspace(&own).await {
            changed = true;
            host.remove_tree(&own).await?;
        }
        for path in [layout.worktrees(), layout.cache()] {
            if host.exists(&path).await {
                changed = true;
                host.remove_tree(&path).await?;
            }
        }
        self.shares.note_slot(team, None);
        Ok(changed)
    }

    pub(super) async fn restart(&self, run: &Run<'_>, targets: &[String]) -> Result<Worked, Stop> {
        let record = run.reporter.record().await;
        let observed =
            self.ports.engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
        let Some(spec) = record.spec.clone() else {
            let is_lost = record.adopted || !observed.containers.is_empty();
            let code = if is_lost { Code::RecordLost } else { Code::TeamNotFound };
            return Err(Stop::Failed(Failure::new(code, "nothing is known about the team")));
        };
        let is_target = |container: &&ObservedContainer| {
            let name = container.labels.get(label::NAME);
            let role = container.labels.get(label::ROLE);
            !is_side_name(&container.name)
                && (targets.is_empty()
                    || targets.iter().any(|t| Some(t) == name || Some(t) == role))
        };
        let chosen: Vec<_> = observed.containers.iter().filter(is_target).collect();
        if chosen.is_empty() && !targets.is_empty() {
            return Err(Stop::Failed(Failure::new(
                Code::TargetNotFound,
                "the team has no part of that name",
            )));
        }
        for container in chosen {
            let engine = &self.ports.engine;
            match engine.restart_container(&container.name, STOP_GRACE).await {
                // The start that follows makes it anew.
                Err(EngineError::Lost { .. } | EngineError::NotFound { .. }) => {
                    engine.remove_container(&container.name).await.map_err(stop_failed)?;
                }
                result => result.map_err(stop_failed)?,
            }
            if let Some(role) = container.labels.get(label::ROLE).and_then(|r| Role::parse(r)) {
                self.ports.metrics.container_restarted(role);
            }
        }
        // The start that follows verifies health and mends whatever is missing.
        let mut worked = self.start(run, &spec).await?;
        worked.changed = true;
        worked.message = "restarted".to_owned();
        Ok(worked)
    }

    pub(super) async fn sync(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let names = Names::new(&self.ports.settings.instance, run.team());
        let container = names.container(Role::Sync, None);
        let state = self.ports.engine.inspect_container(&container).await.map_err(stop_failed)?;
        let address = state.filter(|s| s.running).and_then(|s| s.address).ok_or_else(|| {
            Stop::Failed(Failure::new(Code::TeamNotFound, "the team does not run"))
        })?;
        let silent = || {
            let message = "the sync service did not answer";
            Stop::Failed(Failure::new(Code::ServiceUnhealthy, message))
        };
        let socket = (address, SERVICE_PORT).into();
        let door = sync_door(&self.ports, run.team(), socket).await.ok_or_else(silent)?;
        let look = self.ports.syncs.sync(&door, SYNC_TIME_MAX).await.ok_or_else(silent)?;
        // A failure is told by whoever follows the service, and by the job's own end.
        if !matches!(look, SyncLook::Failed { .. })
            && let Some(kind) = sync_event(&look)
        {
            run.reporter.tell(kind).await?;
        }
        let message = match look {
            SyncLook::Failed { words } => return Err(Stop::Failed(failure_of(&words))),
            SyncLook::InStep { moved: true, .. } => "synced",
            SyncLook::InStep { moved: false, .. } => "in step already",
            SyncLook::Conflict { .. } => "local work is in the way; nothing was touched",
            SyncLook::Idle => "there is nothing to be in step with",
        };
        Ok(Worked {
            changed: true,
            links: BTreeMap::new(),
            message: message.to_owned(),
            state: None,
        })
    }

    pub(super) async fn look(&self, reporter: &Reporter) -> Result<Snapshot, Failure> {
        let record = reporter.record().await;
        let observed = self.ports.engine.list(&self.filter(&record.team)).await?;
        let looks = reporter.previews();
        let picture = self.monitor.picture(&record.team);
        Ok(snapshot_of(&self.ports, &record.team, Some(&record), &observed, &looks, picture))
    }
}

/// What a dashboard needs of one team.
#[must_use]
pub(super) fn snapshot_of(
    ports: &Ports,
    team: &TeamId,
    record: Option<&TeamRecord>,
    observed: &Observed,
    looks: &BTreeMap<PartName, PreviewLook>,
    picture: Option<TeamPicture>,
) -> Snapshot {
    let parts = observed
        .containers
        .iter()
        .filter(|c| !is_side_name(&c.name))
        .filter_map(|container| {
            let role = container.labels.get(label::ROLE).and_then(|r| Role::parse(r))?;
            let part = container.labels.get(label::NAME).and_then(|n| PartName::parse(n).ok());
            let port = part.as_ref().and_then(|p| record?.ports.get(p));
            let url = match (role, &part, port) {
                (Role::Preview, Some(part), Some(port)) => {
                    Some(ports.settings.preview_link(part, team, *port))
                }
                _ => None,
            };
            let look = part.as_ref().filter(|_| role == Role::Preview).and_then(|p| looks.get(p));
            let look = look.filter(|_| container.state == "running");
            Some(SnapshotPart {
                role,
                url,
                state: container.state.clone(),
                preview: look.map(|look| look.fact),
                error: look.and_then(|look| look.error.clone()),
                part,
            })
        })
        .collect();
    Snapshot {
        state: match &picture {
            // A job of somebody's tells the state itself; one that only mends does not.
            Some(picture)
                if picture.wanted
                    && (!picture.busy || record.is_some_and(|r| r.state == TeamState::Running)) =>
            {
                picture.state
            }
            // What the last job left, or the one that is at work says.
            _ => record.map_or(TeamState::Stopped, |r| r.state),
        },
        generation: record.map_or(0, |r| r.generation),
        parts,
        picture: picture.map(Box::new),
    }
}
