//! Executes jobs: the six steps of a start, and the shorter ways of the other
//! actions, each ending in one confirmed final event.
//!
//! Order at the end of a job: outcome and final event fsynced in the record,
//! final event confirmed, then whoever holds the message settles it. A repeat
//! of the same job redoes what follows the record and no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::converge::{Change, ChangeKind, is_side_name};
use super::interrupt::{Interrupt, Reason};
use super::job_runner::{Finished, JobRunner};
use super::lease::TeamLease;
use super::preparation::Preparation;
use super::reporter::Reporter;
use super::run::{JOB_TIME_MAX, Run, Stop};
use super::steps;
use super::undo::{self, Left};
use super::{Ports, admission};
use crate::config::plan::{PlanInput, PreviewInput};
use crate::domain::event::{EventKind, PreviewFact, Snapshot, SnapshotPart, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{PartName, RunId, TeamId};
use crate::domain::job::{Action, Job, Outcome};
use crate::domain::names::{ContainerName, ImageRef};
use crate::domain::plan::{NetworkPlan, Owner, Plan, Role};
use crate::domain::record::{JobRecord, TeamRecord};
use crate::domain::settings::Settings;
use crate::domain::spec::{Spec, WorkspaceSource};
use crate::domain::step::StepId;
use crate::policy::backoff::Backoff;
use crate::ports::engine::{Filter, Observed, label};
use crate::ports::messages::{DeadLetter, SessionOver};

/// How long platform faults are retried in the lane (DESIGN 3.5).
const RETRY_BUDGET: Duration = Duration::from_secs(600);

/// The first delay is drawn from 0 up to this.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest delay.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// How often a port that was taken meanwhile is exchanged for another.
const PORT_TRIES: u32 = 3;

/// Executes jobs against the ports.
pub struct Runner {
    ports: Ports,
    preparation: Arc<Preparation>,
    builds: Arc<Semaphore>,
    /// Choosing subnets and ports of two teams at once could choose the same.
    choosing: tokio::sync::Mutex<()>,
}

/// What came of the work, before it is told.
struct Worked {
    changed: bool,
    links: BTreeMap<PartName, String>,
    message: String,
    state: Option<(TeamState, String)>,
}

/// What step 3 adds to what the steps before it gave.
struct Resolved {
    previews: Vec<PreviewInput>,
    ports: BTreeMap<PartName, u16>,
    generation: u64,
}

/// What a start knows before step 3.
struct PlanContext<'a> {
    spec: &'a Spec,
    slot: u16,
    mtu: u32,
    workspace: &'a steps::workspace::Workspace,
    agent_image: &'a ImageRef,
    sync_image: &'a ImageRef,
}

impl<'a> PlanContext<'a> {
    fn input(
        &self,
        run: &'a Run<'_>,
        settings: &'a Settings,
        resolved: &'a Resolved,
    ) -> PlanInput<'a> {
        PlanInput {
            settings,
            team: run.team(),
            spec: self.spec,
            generation: resolved.generation,
            job: run.job.id,
            run: run.id,
            slot: self.slot,
            ports: &resolved.ports,
            mtu: self.mtu,
            owner: self.workspace.owner,
            workspace: &self.workspace.path,
            mirror_source: self.workspace.mirror_source.as_deref(),
            agent_image: self.agent_image,
            sync_image: self.sync_image,
            previews: &resolved.previews,
        }
    }
}

impl Runner {
    /// A runner over these ports.
    #[must_use]
    pub fn new(ports: Ports, preparation: Arc<Preparation>) -> Self {
        let builds = Arc::new(Semaphore::new(ports.settings.capacity.builds_at_once.max(1)));
        Self { ports, preparation, builds, choosing: tokio::sync::Mutex::new(()) }
    }

    /// The ports it works with.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    fn filter(&self, team: &TeamId) -> Filter {
        Filter { instance: self.ports.settings.instance.clone(), team: Some(team.clone()) }
    }

    async fn work(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        match &run.job.action {
            Action::Start(spec) => self.start(run, spec).await,
            Action::Stop => self.stop(run).await,
            Action::Destroy => self.destroy(run).await,
            Action::Restart { targets } => self.restart(run, targets).await,
            Action::Sync => self.sync(run).await,
            Action::Status => Ok(Worked {
                changed: false,
                links: BTreeMap::new(),
                message: "snapshot published".to_owned(),
                state: None,
            }),
        }
    }

    async fn start(&self, run: &Run<'_>, spec: &Spec) -> Result<Worked, Stop> {
        let started = Instant::now();
        run.reporter.tell(team_event(TeamState::Starting, "a start job", BTreeMap::new())).await?;
        // Admitted and prepared before step 1; it holds nothing while it waits.
        let slot = {
            let _one = self.choosing.lock().await;
            self.admit(run, spec).await.map_err(Stop::Failed)?
        };
        self.prepare(run).await?;
        let images = self.preparation.catalog();
        let (sync_image, agent_image) = (
            images.image(&super::image_catalog::ImageKind::Sync),
            images.image(&super::image_catalog::ImageKind::Agent),
        );
        let mtu = self.ports.host.uplink_mtu().await;

        let needs = steps::workspace::Needs { spec, slot, sync_image: sync_image.clone() };
        let workspace = run
            .step(StepId::Workspace, async {
                self.clear_leftovers(run).await?;
                if matches!(spec.workspace, WorkspaceSource::Git(_)) {
                    let networks = agent_network_only(run, slot, mtu);
                    super::containers::ensure_networks(&self.ports, &networks).await?;
                    let uid = crate::domain::limits::CONTAINER_UID;
                    super::containers::ensure_git_credentials(&self.ports, run.team(), spec, uid)
                        .await?;
                }
                steps::workspace::prepare(run, &needs).await
            })
            .await?;
        let found = run.step(StepId::Detect, steps::detect::detect(run, spec, &workspace)).await?;

        let mut avoid = BTreeSet::new();
        let mut tries = 0;
        loop {
            tries += 1;
            let context = PlanContext {
                spec,
                slot,
                mtu,
                workspace: &workspace,
                agent_image: &agent_image,
                sync_image: &sync_image,
            };
            let (plan, resolved) =
                run.step(StepId::Config, self.resolve(run, &context, &found, &avoid)).await?;
            let input = context.input(run, &self.ports.settings, &resolved);
            match self.bring_up(run, spec, &plan, &input).await {
                Err(Stop::Failed(failure))
                    if super::containers::is_port_conflict(&failure) && tries < PORT_TRIES =>
                {
                    avoid.extend(resolved.ports.values());
                }
                Err(stop) => return Err(stop),
                Ok(changes) => {
                    let changed = !changes.is_empty();
                    let millis = started.elapsed().as_millis();
                    let message = if changed {
                        changes_text(&changes)
                    } else {
                        format!("nothing to do, checked in {millis} ms")
                    };
                    return Ok(Worked {
                        changed,
                        links: plan.links.clone(),
                        message,
                        state: Some((TeamState::Running, "every part is healthy".to_owned())),
                    });
                }
            }
        }
    }

    /// The work of step 3: previews with their images, ports, the plan.
    async fn resolve(
        &self,
        run: &Run<'_>,
        context: &PlanContext<'_>,
        found: &[steps::detect::Found],
        avoid: &BTreeSet<u16>,
    ) -> Result<((Plan, Resolved), String), Failure> {
        let previews = steps::config::previews(&self.preparation, found)?;
        let before = run.reporter.record().await.ports;
        {
            let _one = self.choosing.lock().await;
            steps::config::assign_ports(run, context.spec, avoid).await?;
        }
        let record = run.reporter.record().await;
        if record.ports != before {
            // Chosen ports are on disk before anything uses them.
            run.reporter.save().await?;
        }
        let resolved = Resolved { previews, ports: record.ports, generation: record.generation };
        let input = context.input(run, &self.ports.settings, &resolved);
        let (plan, message) = steps::config::resolve(run, &input).await?;
        Ok(((plan, resolved), message))
    }

    /// Steps 4 to 6 on a resolved plan.
    async fn bring_up(
        &self,
        run: &Run<'_>,
        spec: &Spec,
        plan: &Plan,
        input: &PlanInput<'_>,
    ) -> Result<Vec<Change>, Stop> {
        run.step(
            StepId::Build,
            steps::build::build(run, &self.preparation, &self.builds, plan, input),
        )
        .await?;
        let changes = run.step(StepId::Start, steps::start::start(run, plan, spec, input)).await?;
        for change in changes.iter().filter(|c| c.kind != ChangeKind::Remove) {
            if let Some(container) = plan.containers.iter().find(|c| c.name == change.name)
                && let (Role::Preview, Some(preview)) =
                    (container.owner.role, container.owner.part.clone())
            {
                let fact = PreviewFact::Starting;
                run.reporter.tell(EventKind::Preview { fact, preview, url: None }).await?;
            }
        }
        run.step(StepId::Health, steps::health::wait(run, plan)).await?;
        let observed =
            self.ports.engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
        undo::restore_or_drop_side_names(&self.ports, &observed).await.map_err(Stop::Failed)?;
        Ok(changes)
    }

    /// Whether the host takes the team on, and with which subnets.
    async fn admit(&self, run: &Run<'_>, spec: &Spec) -> Result<u16, Failure> {
        let filter = Filter { instance: self.ports.settings.instance.clone(), team: None };
        let observed = self.ports.engine.list(&filter).await?;
        let resources = self.ports.host.resources().await?;
        admission::admit(&self.ports.settings, &resources, &observed, run.team().as_str(), spec)?;
        let all = self.ports.engine.all_networks().await?;
        let is_own = |labels: &BTreeMap<String, String>| {
            labels.get(label::TEAM).map(String::as_str) == Some(run.team().as_str())
                && labels.get(label::INSTANCE).map(String::as_str)
                    == Some(self.ports.settings.instance.as_str())
        };
        let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|n| is_own(&n.labels));
        let subnets = |list: &[&crate::ports::engine::ObservedNetwork]| {
            list.iter().flat_map(|n| n.subnets.clone()).collect::<Vec<_>>()
        };
        let record = run.reporter.record().await;
        // Two teams that were admitted and have no networks yet must differ.
        let mut taken = subnets(&others);
        for team in self.ports.records.teams().await? {
            if team != *run.team()
                && let Some(other) = self.ports.records.load(&team).await?
                && let Some(slot) = other.slot
                && !matches!(other.state, TeamState::Destroyed)
            {
                taken.push(crate::domain::plan::slot_subnet(
                    crate::domain::plan::AGENT_NETWORKS,
                    slot,
                ));
            }
        }
        let slot = admission::choose_slot(&subnets(&own), record.slot, &taken)?;
        let fresh = spec_changed(&record, spec);
        run.reporter
            .update(|record| {
                record.slot = Some(slot);
                if fresh {
                    record.generation += 1;
                }
                record.spec = Some(spec.clone());
                record.state = TeamState::Starting;
            })
            .await;
        run.reporter.save().await?;
        Ok(slot)
    }

    /// Host preparation, told as progress of the first step.
    async fn prepare(&self, run: &Run<'_>) -> Result<(), Stop> {
        let mut interrupt = run.interrupt();
        let say = |line: String| {
            tracing::debug!("{line}");
            run.say(line);
        };
        let work = self.preparation.ensure(&self.ports, &say);
        tokio::select! {
            reason = interrupt.wait() => Err(Stop::Interrupted(reason)),
            result = work => result.map(drop).map_err(Stop::Failed),
            () = tokio::time::sleep(JOB_TIME_MAX) => Err(Stop::Failed(Failure::new(
                Code::JobDeadline,
                "preparing the host took longer than 20 minutes",
            ))),
        }
    }

    /// Removes one-shot containers and overlays of interrupted runs.
    async fn clear_leftovers(&self, run: &Run<'_>) -> Result<(), Failure> {
        let observed = self.ports.engine.list(&self.filter(run.team())).await?;
        let oneshot = |labels: &BTreeMap<String, String>| {
            labels.get(label::ROLE).map(String::as_str) == Some(Role::Oneshot.as_str())
        };
        for container in observed.containers.iter().filter(|c| oneshot(&c.labels)) {
            self.ports.engine.remove_container(&container.name).await?;
        }
        for volume in observed.volumes.iter().filter(|v| oneshot(&v.labels)) {
            self.ports.engine.remove_volume(&volume.name).await?;
        }
        undo::restore_or_drop_side_names(&self.ports, &observed).await
    }

    async fn stop(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let removed = self.take_down(run).await?;
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
        let grace = Duration::from_secs(10);
        let stop_one = async |name: &ContainerName| {
            engine.stop_container(name, grace).await?;
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

    async fn destroy(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let mut changed = self.take_down(run).await?;
        let engine = &self.ports.engine;
        let observed = engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
        for volume in &observed.volumes {
            engine.remove_volume(&volume.name).await.map_err(stop_failed)?;
            changed = true;
        }
        let record = run.reporter.record().await;
        let layout = crate::config::layout::Layout::new(&self.ports.settings, run.team());
        let host = &self.ports.host;
        // Mount points in a person's own directory, where nothing else is ours.
        let places = record.workspace_path.clone().map(std::path::PathBuf::from);
        for relative in &record.mount_points {
            let root = places.clone().unwrap_or_else(|| layout.workspace());
            host.remove_mount_point(&root, relative).await;
        }
        let own = layout.workspace();
        if host.is_own_workspace(&own).await {
            changed = true;
            host.remove_tree(&own).await.map_err(Stop::Failed)?;
        }
        for path in [layout.worktrees(), layout.cache()] {
            if host.exists(&path).await {
                changed = true;
                host.remove_tree(&path).await.map_err(Stop::Failed)?;
            }
        }
        run.reporter
            .update(|record| {
                record.spec = None;
                record.slot = None;
                record.ports.clear();
                record.mount_points.clear();
                record.workspace_path = None;
            })
            .await;
        Ok(Worked {
            changed,
            links: BTreeMap::new(),
            message: if changed { "destroyed" } else { "there was nothing" }.to_owned(),
            state: Some((TeamState::Destroyed, "a destroy job".to_owned())),
        })
    }

    async fn restart(&self, run: &Run<'_>, targets: &[String]) -> Result<Worked, Stop> {
        let record = run.reporter.record().await;
        let observed =
            self.ports.engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
        let Some(spec) = record.spec.clone() else {
            let code =
                if observed.containers.is_empty() { Code::TeamNotFound } else { Code::RecordLost };
            return Err(Stop::Failed(Failure::new(code, "nothing is known about the team")));
        };
        let is_target = |container: &&crate::ports::engine::ObservedContainer| {
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
            let grace = Duration::from_secs(10);
            let engine = &self.ports.engine;
            engine.restart_container(&container.name, grace).await.map_err(stop_failed)?;
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

    async fn sync(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        let layout = crate::config::layout::Layout::new(&self.ports.settings, run.team());
        let names = crate::domain::names::Names::new(&self.ports.settings.instance, run.team());
        let container = names.container(Role::Sync, None);
        let state = self.ports.engine.inspect_container(&container).await.map_err(stop_failed)?;
        let address = state.filter(|s| s.running).and_then(|s| s.address).ok_or_else(|| {
            Stop::Failed(Failure::new(Code::TeamNotFound, "the team does not run"))
        })?;
        let token = crate::config::layout::Layout::token_dir(&layout.sync()).join("token");
        let token = self.ports.host.read_file(&token).await.map_err(Stop::Failed)?;
        let token = String::from_utf8(token.unwrap_or_default()).unwrap_or_default();
        let socket = (address, crate::domain::limits::SERVICE_PORT).into();
        let answer = self.ports.probe.post(socket, "/sync", &token, Duration::from_secs(60)).await;
        match answer {
            crate::ports::probe::ProbeAnswer::Http { status: 200..=299, body } => {
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let text = |key: &str| body.get(key).and_then(|v| v.as_str()).map(str::to_owned);
                if text("outcome").as_deref() == Some("conflict") {
                    let message = "local work is in the way; nothing was touched".to_owned();
                    run.reporter.tell(EventKind::SyncConflict { message }).await?;
                } else {
                    run.reporter.tell(EventKind::SyncSynced { head: text("head") }).await?;
                }
                Ok(Worked {
                    changed: true,
                    links: BTreeMap::new(),
                    message: "synced".to_owned(),
                    state: None,
                })
            }
            _ => Err(Stop::Failed(Failure::new(
                Code::ServiceUnhealthy,
                "the sync service did not answer",
            ))),
        }
    }

    /// Runs a job with retries of platform faults, until it ended or was
    /// interrupted.
    async fn with_retries(&self, run: &mut Run<'_>) -> Result<Worked, Stop> {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST).with_budget(RETRY_BUDGET);
        loop {
            let failure = match self.work(run).await {
                Err(Stop::Failed(failure)) if failure.is_retryable() => failure,
                other => return other,
            };
            let Some(delay) = backoff.delay(self.ports.clock.random(), began.elapsed()) else {
                return Err(Stop::Failed(failure));
            };
            self.ports.metrics.step_retried(&failure);
            tracing::warn!(
                team.id = %run.team(), run.id = %run.id, code = failure.code.as_str(),
                delay_ms = delay.as_millis() as u64, "platform fault, the run is repeated"
            );
            let kind = EventKind::JobRetrying { failure, delay };
            run.reporter.tell(kind).await?;
            let mut interrupt = run.interrupt();
            tokio::select! {
                reason = interrupt.wait() => return Err(Stop::Interrupted(reason)),
                () = self.ports.clock.sleep(delay) => {}
            }
            run.attempt += 1;
        }
    }

    /// Takes back a start that ended early, as its end demands.
    async fn clean_up(&self, run: &Run<'_>, first: bool, failure: &mut Failure) -> bool {
        let Action::Start(_) = run.job.action else { return false };
        self.keep_evidence(run, failure).await;
        let keep = if first { Vec::new() } else { self.healthy(run).await };
        match undo::undo(&self.ports, run.team(), run.id, &keep).await {
            Ok(left) => {
                let (state, cause) = match left {
                    Left::Nothing => (TeamState::Failed, "the start failed and was undone"),
                    Left::Something => (TeamState::Degraded, "the change failed; the rest runs"),
                };
                run.reporter.update(|record| record.state = state).await;
                let _ = run.reporter.tell(team_event(state, cause, BTreeMap::new())).await;
                true
            }
            Err(error) => {
                tracing::error!(team.id = %run.team(), run.id = %run.id, %error, "undo failed");
                run.reporter.update(|record| record.state = TeamState::Failed).await;
                let cause = "undo failed; what is left will be removed later";
                let _ =
                    run.reporter.tell(team_event(TeamState::Failed, cause, BTreeMap::new())).await;
                false
            }
        }
    }

    /// Containers of this run that run well: they stay when a change fails.
    async fn healthy(&self, run: &Run<'_>) -> Vec<ContainerName> {
        let Ok(observed) = self.ports.engine.list(&self.filter(run.team())).await else {
            return Vec::new();
        };
        let mut keep = Vec::new();
        for container in &observed.containers {
            let role = container.labels.get(label::ROLE).and_then(|r| Role::parse(r));
            let Some(address) =
                container.addresses.first().filter(|_| container.state == "running")
            else {
                continue;
            };
            let (port, path) = match role {
                Some(Role::Preview) => (crate::domain::limits::PREVIEW_STATE_PORT, "/health"),
                Some(Role::Agent | Role::Sync) => (crate::domain::limits::SERVICE_PORT, "/health"),
                Some(Role::Oneshot | Role::Egress) | None => continue,
            };
            let socket = (*address, port).into();
            let answer =
                self.ports.probe.http(socket, "localhost", path, Duration::from_secs(2)).await;
            if matches!(answer, crate::ports::probe::ProbeAnswer::Http { status, .. } if status < 500)
            {
                keep.push(container.name.clone());
            }
        }
        keep
    }

    /// Stores what is known about a failure before anything is removed.
    async fn keep_evidence(&self, run: &Run<'_>, failure: &Failure) {
        let mut text = format!(
            "job {}\nrun {}\nteam {}\ncode {}\nstep {}\nmessage {}\n",
            run.job.id,
            run.id,
            run.team(),
            failure.code,
            failure.step.map_or("-", StepId::as_str),
            failure.message
        );
        if let Ok(observed) = self.ports.engine.list(&self.filter(run.team())).await {
            for container in &observed.containers {
                text.push_str(&format!("\n== {} ({})\n", container.name, container.state));
                let lines = self.ports.engine.log_tail(&container.name, 100).await;
                text.push_str(&lines.unwrap_or_default().join("\n"));
            }
        }
        text.push_str(&format!("\n== last lines\n{}\n", failure.log.join("\n")));
        let path =
            crate::config::layout::Layout::new(&self.ports.settings, run.team()).evidence(run.id);
        if let Err(error) = self.ports.host.write_file(&path, text.as_bytes(), 0o600, 0).await {
            tracing::warn!(%error, "evidence cannot be stored");
        }
    }

    /// Stores the outcome with its final event, then publishes it.
    async fn conclude(
        &self,
        run: &Run<'_>,
        outcome: &Outcome,
        kind: EventKind,
        state: Option<TeamState>,
    ) -> Result<(), SessionOver> {
        let event = run.reporter.encode(kind).await;
        let job = run.job;
        run.reporter
            .update(|record| {
                if let Some(state) = state {
                    record.state = state;
                }
                let step_millis =
                    record.job(job.id).map(|j| j.step_millis.clone()).unwrap_or_default();
                record.put_job(JobRecord {
                    id: job.id,
                    attempt: job.attempt,
                    action: job.action.kind(),
                    run: run.id,
                    outcome: Some(outcome_text(outcome)),
                    final_event: Some(event.clone()),
                    step_millis,
                });
            })
            .await;
        if let Err(error) = run.reporter.save_final().await {
            // Without the record a repeat would do the work again, which is
            // safe; telling a final event and forgetting it would not be.
            tracing::error!(team.id = %run.team(), %error, "the record cannot be written");
            return Err(SessionOver { reason: "the record cannot be written".to_owned() });
        }
        run.reporter.publish(&event).await
    }

    async fn snapshot(&self, team: &TeamId) -> Result<Snapshot, Failure> {
        let record = self.ports.records.load(team).await?;
        let observed = self.ports.engine.list(&self.filter(team)).await?;
        Ok(snapshot_of(&self.ports, team, record.as_ref(), &observed))
    }
}

/// What a dashboard needs of one team.
#[must_use]
pub fn snapshot_of(
    ports: &Ports,
    team: &TeamId,
    record: Option<&TeamRecord>,
    observed: &Observed,
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
                (Role::Preview, Some(part), Some(port)) => Some(format!(
                    "http://{}.{}:{port}",
                    crate::domain::names::host_label(part, team),
                    ports.settings.preview_domain
                )),
                _ => None,
            };
            Some(SnapshotPart { role, part, state: container.state.clone(), url })
        })
        .collect();
    Snapshot {
        state: record.map_or(TeamState::Stopped, |r| r.state),
        generation: record.map_or(0, |r| r.generation),
        parts,
    }
}

fn spec_changed(record: &TeamRecord, spec: &Spec) -> bool {
    record.spec.as_ref() != Some(spec) || record.generation == 0
}

fn stop_failed(error: crate::ports::engine::EngineError) -> Stop {
    Stop::Failed(error.into())
}

fn team_event(state: TeamState, cause: &str, links: BTreeMap<PartName, String>) -> EventKind {
    EventKind::Team { state, cause: cause.to_owned(), links }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("failed:{}", failure.code),
        other => other.as_str().to_owned(),
    }
}

fn changes_text(changes: &[Change]) -> String {
    let words: Vec<String> =
        changes.iter().map(|c| format!("{} {}", c.kind.as_str(), c.name)).collect();
    words.join(", ")
}

fn agent_network_only(run: &Run<'_>, slot: u16, mtu: u32) -> Vec<NetworkPlan> {
    let settings = &run.ports.settings;
    let names = crate::domain::names::Names::new(&settings.instance, run.team());
    vec![NetworkPlan {
        name: names.agent_network(),
        owner: Owner {
            instance: settings.instance.clone(),
            team: Some(run.team().clone()),
            role: Role::Agent,
            part: None,
            generation: 0,
            job: Some(run.job.id),
            run: Some(run.id),
        },
        internal: true,
        subnet: crate::domain::plan::slot_subnet(crate::domain::plan::AGENT_NETWORKS, slot),
        bridge: format!("cvi-{slot}"),
        mtu,
    }]
}

/// A dead letter for a failed job.
fn dead_letter(failure: &Failure, attempts: u32) -> DeadLetter {
    DeadLetter {
        reason: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        attempts,
        step: failure.step.map(|s| s.as_str().to_owned()),
    }
}

#[async_trait]
impl JobRunner for Runner {
    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver> {
        self.ports.metrics.job_received(job.action.kind());
        let Ok(reporter) = Reporter::open(&self.ports, &job.team, Some(job.id), job.attempt).await
        else {
            return Ok(());
        };
        if let Some(known) = reporter.record().await.job(job.id)
            && known.outcome.is_some()
            && known.attempt >= job.attempt
        {
            return Ok(());
        }
        let kind = EventKind::JobAccepted { action: job.action.kind(), position, short: None };
        let event = reporter.encode_unnumbered(kind).await;
        reporter.publish(&event).await
    }

    async fn run(
        &self,
        lease: TeamLease,
        job: &Job,
        interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let action = job.action.kind();
        let started = Instant::now();
        let reporter = match self.open(job).await {
            Ok(reporter) => reporter,
            Err(over) => return Err(over),
        };
        let record = reporter.record().await;
        if let Some(finished) = self.repeat(job, &record, &reporter).await? {
            return Ok(finished);
        }
        self.ports.metrics.job_began(action, Duration::ZERO);
        let id = RunId(self.ports.clock.new_id());
        let first = self
            .ports
            .engine
            .list(&self.filter(&job.team))
            .await
            .map(|observed| observed.containers.is_empty())
            .unwrap_or(false);
        reporter
            .update(|record| {
                record.put_job(JobRecord {
                    id: job.id,
                    attempt: job.attempt,
                    action,
                    run: id,
                    outcome: None,
                    final_event: None,
                    step_millis: BTreeMap::new(),
                });
            })
            .await;
        if let Err(error) = reporter.save().await {
            tracing::error!(team.id = %job.team, %error, "the record cannot be written");
        }
        tracing::info!(
            team.id = %job.team, job.id = %job.id, run.id = %id, action = action.as_str(),
            "job begins"
        );
        let deadline = started + JOB_TIME_MAX;
        let mut run = Run::new(&self.ports, job, id, reporter, interrupt, deadline);
        let result = self.with_retries(&mut run).await;
        self.ports.metrics.job_left(action);
        let finished = self.end(&run, first, started, result).await;
        drop(lease);
        finished
    }

    async fn skip(&self, job: &Job, because: &Reason) -> Result<Finished, SessionOver> {
        let reporter = self.open(job).await?;
        let (outcome, kind) = match because {
            Reason::Cancel { by } => {
                (Outcome::Cancelled, EventKind::JobCancelled { by: Some(*by) })
            }
            Reason::Supersede { by } => {
                (Outcome::Superseded, EventKind::JobSuperseded { by: Some(*by) })
            }
            Reason::None => (
                Outcome::Succeeded { changed: false },
                EventKind::JobSucceeded {
                    action: job.action.kind(),
                    changed: false,
                    duration: Duration::ZERO,
                    links: BTreeMap::new(),
                    message: "an equal job before it did the work".to_owned(),
                },
            ),
            Reason::Abandon => {
                return Err(SessionOver { reason: "the run was abandoned".to_owned() });
            }
        };
        let (_, interrupt) = super::interrupt::pair();
        let now = Instant::now();
        let id = RunId(self.ports.clock.new_id());
        let run = Run::new(&self.ports, job, id, reporter, interrupt, now + JOB_TIME_MAX);
        self.ports.metrics.job_ended(
            job.action.kind(),
            &outcome,
            Duration::ZERO,
            self.ports.clock.unix_millis(),
        );
        self.conclude(&run, &outcome, kind, None).await?;
        Ok(Finished::Done)
    }

    async fn status(&self, job: &Job) -> Result<Finished, SessionOver> {
        let snapshot = match self.snapshot(&job.team).await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                let letter = dead_letter(&failure, job.attempt);
                self.tell_unrecorded(
                    job,
                    EventKind::JobFailed { action: job.action.kind(), failure, undone: false },
                )
                .await?;
                return Ok(Finished::Dead(letter));
            }
        };
        self.tell_unrecorded(job, EventKind::TeamSnapshot(snapshot)).await?;
        self.tell_unrecorded(
            job,
            EventKind::JobSucceeded {
                action: job.action.kind(),
                changed: false,
                duration: Duration::ZERO,
                links: BTreeMap::new(),
                message: "snapshot published".to_owned(),
            },
        )
        .await?;
        Ok(Finished::Done)
    }

    async fn rejected(
        &self,
        team: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        self.ports.metrics.message_rejected(failure.code);
        if let Some(team) = team {
            let job = job_id.and_then(|raw| crate::domain::ids::JobId::parse(raw).ok());
            if let Ok(reporter) = Reporter::open(&self.ports, team, job, 1).await {
                let kind = EventKind::JobRejected { failure: failure.clone() };
                let event = reporter.encode_unnumbered(kind).await;
                reporter.publish(&event).await?;
            }
        }
        Ok(Finished::Dead(dead_letter(failure, 1)))
    }
}

impl Runner {
    /// Opens the team's record; a disk that refuses hands the job back.
    async fn open(&self, job: &Job) -> Result<Reporter, SessionOver> {
        Reporter::open(&self.ports, &job.team, Some(job.id), job.attempt).await.map_err(|error| {
            tracing::error!(team.id = %job.team, %error, "the record cannot be read");
            SessionOver { reason: "the record cannot be read".to_owned() }
        })
    }

    /// Events outside the team's lane carry no sequence: only the lane counts.
    async fn tell_unrecorded(&self, job: &Job, kind: EventKind) -> Result<(), SessionOver> {
        let reporter = self.open(job).await?;
        let event = reporter.encode_unnumbered(kind).await;
        reporter.publish(&event).await
    }

    /// A job that the record knows as ended: its final event again, no effect.
    async fn repeat(
        &self,
        job: &Job,
        record: &TeamRecord,
        reporter: &Reporter,
    ) -> Result<Option<Finished>, SessionOver> {
        let Some(known) = record.job(job.id).filter(|k| k.attempt >= job.attempt) else {
            return Ok(None);
        };
        let (Some(outcome), Some(event)) = (&known.outcome, &known.final_event) else {
            return Ok(None);
        };
        reporter.publish(event).await?;
        tracing::info!(team.id = %job.team, job.id = %job.id, outcome, "job is known, told again");
        Ok(Some(match outcome.strip_prefix("failed:") {
            Some(code) => Finished::Dead(DeadLetter {
                reason: code.to_owned(),
                message: "the job failed before".to_owned(),
                attempts: known.attempt,
                step: None,
            }),
            None => Finished::Done,
        }))
    }

    /// Tells how a job ended, and cleans up what its end demands.
    async fn end(
        &self,
        run: &Run<'_>,
        first: bool,
        started: Instant,
        result: Result<Worked, Stop>,
    ) -> Result<Finished, SessionOver> {
        let job = run.job;
        let action = job.action.kind();
        let duration = started.elapsed();
        let (outcome, kind, state) = match result {
            Ok(worked) => {
                if let Some((state, cause)) = &worked.state {
                    let event = team_event(*state, cause, worked.links.clone());
                    run.reporter.tell(event).await?;
                }
                let state = worked.state.as_ref().map(|(state, _)| *state);
                let kind = EventKind::JobSucceeded {
                    action,
                    changed: worked.changed,
                    duration,
                    links: worked.links,
                    message: worked.message,
                };
                (Outcome::Succeeded { changed: worked.changed }, kind, state)
            }
            Err(Stop::Failed(mut failure)) => {
                failure.attempt = run.attempt;
                let undone = self.clean_up(run, first, &mut failure).await;
                let kind = EventKind::JobFailed { action, failure: failure.clone(), undone };
                (Outcome::Failed(failure), kind, None)
            }
            Err(Stop::Interrupted(Reason::Cancel { by })) => {
                if let Err(error) = undo::undo(&self.ports, run.team(), run.id, &[]).await {
                    tracing::error!(team.id = %run.team(), %error, "undo failed");
                }
                (Outcome::Cancelled, EventKind::JobCancelled { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Supersede { by })) => {
                (Outcome::Superseded, EventKind::JobSuperseded { by: Some(by) }, None)
            }
            Err(Stop::Interrupted(Reason::Abandon | Reason::None)) => {
                return Err(SessionOver { reason: "the run was abandoned".to_owned() });
            }
            Err(Stop::Session(over)) => return Err(over),
        };
        let now = self.ports.clock.unix_millis();
        self.ports.metrics.job_ended(action, &outcome, duration, now);
        self.conclude(run, &outcome, kind, state).await?;
        tracing::info!(
            team.id = %job.team, job.id = %job.id, run.id = %run.id,
            outcome = outcome.as_str(), millis = duration.as_millis() as u64, "job ends"
        );
        Ok(match &outcome {
            Outcome::Failed(failure) => Finished::Dead(dead_letter(failure, run.attempt)),
            _ => Finished::Done,
        })
    }
}
