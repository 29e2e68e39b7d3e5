//! A start: admission, host preparation, the six steps.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Runner, Worked, stop_failed, team_event};
use crate::config::plan::{PlanInput, PreviewInput};
use crate::config::project::ProjectFile;
use crate::domain::event::{EventKind, PreviewFact, TeamState};
use crate::domain::failure::Failure;
use crate::domain::ids::PartName;
use crate::domain::names::{ImageRef, Names};
use crate::domain::plan::{AGENT_NETWORKS, NetworkPlan, Owner, Plan, Role, slot_subnet};
use crate::domain::record::TeamRecord;
use crate::domain::settings::Settings;
use crate::domain::spec::{Spec, WorkspaceSource};
use crate::domain::step::StepId;
use crate::pipeline::converge::{Change, ChangeKind};
use crate::pipeline::own_image::OwnBuilds;
use crate::pipeline::run::{Run, Stop};
use crate::pipeline::{first_tasks, steps, undo};
use crate::ports::engine::label;

/// How often a port that was taken meanwhile is exchanged for another.
const PORT_TRIES: u32 = 3;

/// What step 3 adds to what the steps before it gave.
struct Resolved {
    previews: Vec<PreviewInput>,
    ports: BTreeMap<PartName, u16>,
    generation: u64,
    own_builds: OwnBuilds,
}

/// What a start knows before step 3.
struct PlanContext<'a> {
    spec: &'a Spec,
    slot: u16,
    mtu: u32,
    workspace: &'a steps::workspace::Workspace,
    agent_image: &'a ImageRef,
    sync_image: &'a ImageRef,
    project: &'a ProjectFile,
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
            project: self.project,
        }
    }
}

impl Runner {
    pub(super) async fn start(&self, run: &Run<'_>, spec: &Spec) -> Result<Worked, Stop> {
        let started = Instant::now();
        run.reporter.tell(team_event(TeamState::Starting, "a start job", BTreeMap::new())).await?;
        // Admitted and prepared before step 1; it holds nothing while it waits.
        let slot = {
            let _one = self.choosing.lock().await;
            self.admit(run, spec).await.map_err(Stop::Failed)?
        };
        self.prepare(run).await?;
        let allowed = self.preparation.allow_team(&self.ports, run.team(), slot).await;
        allowed.map_err(Stop::Failed)?;
        let images = self.preparation.catalog();
        let (sync_image, agent_image) = (
            images.image(&crate::pipeline::image_catalog::ImageKind::Sync),
            images.image(&crate::pipeline::image_catalog::ImageKind::Agent),
        );
        let mtu = self.ports.host.uplink_mtu().await;

        let needs = steps::workspace::Needs { spec, slot, sync_image: sync_image.clone() };
        let workspace = run
            .step(StepId::Workspace, async {
                self.clear_leftovers(run).await?;
                if matches!(spec.workspace, WorkspaceSource::Git(_)) {
                    let networks = agent_network_only(run, slot, mtu);
                    crate::pipeline::containers::ensure_networks(&self.ports, &networks).await?;
                    let uid = crate::domain::limits::CONTAINER_UID;
                    crate::pipeline::containers::ensure_git_credentials(
                        &self.ports,
                        run.team(),
                        spec,
                        uid,
                    )
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
                project: &found.project,
            };
            let (plan, resolved) = run
                .step(StepId::Config, self.resolve(run, &context, &found.previews, &avoid))
                .await?;
            let input = context.input(run, &self.ports.settings, &resolved);
            match self.bring_up(run, spec, &plan, &input, &resolved.own_builds).await {
                Err(Stop::Failed(failure))
                    if crate::pipeline::containers::is_port_conflict(&failure)
                        && tries < PORT_TRIES =>
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
        let (previews, own_builds) =
            steps::config::previews(run, &self.preparation, found, &context.workspace.path).await?;
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
        let (ports, generation) = (record.ports, record.generation);
        let resolved = Resolved { previews, ports, generation, own_builds };
        let input = context.input(run, &self.ports.settings, &resolved);
        let (plan, message) = steps::config::resolve(run, &input).await?;
        self.admit_plan(run.team(), context.spec, &plan).await?;
        Ok(((plan, resolved), message))
    }

    /// Steps 4 to 6 on a resolved plan.
    async fn bring_up(
        &self,
        run: &Run<'_>,
        spec: &Spec,
        plan: &Plan,
        input: &PlanInput<'_>,
        own_builds: &OwnBuilds,
    ) -> Result<Vec<Change>, Stop> {
        let images = steps::build::Images { preparation: &self.preparation, own: own_builds };
        run.step(StepId::Build, steps::build::build(run, &images, &self.builds, plan, input))
            .await?;
        let changes = run.step(StepId::Start, steps::start::start(run, plan, spec, input)).await?;
        for change in changes.iter().filter(|c| c.kind != ChangeKind::Remove) {
            if let Some(container) = plan.containers.iter().find(|c| c.name == change.name)
                && let (Role::Preview, Some(preview)) =
                    (container.owner.role, container.owner.part.clone())
            {
                let fact = PreviewFact::Starting;
                let kind = EventKind::Preview { fact, preview, url: None, error: None };
                run.reporter.tell(kind).await?;
            }
        }
        let health = async {
            let ((), message) = steps::health::wait(run, plan).await?;
            let posted = first_tasks::post(run, plan, spec).await?;
            let tasks = if posted == 0 { String::new() } else { format!(", {posted} first tasks") };
            Ok(((), message + &tasks))
        };
        run.step(StepId::Health, health).await?;
        // Leftovers were cleared before step 1, so what stands aside now was
        // set aside by these changes.
        if !changes.is_empty() {
            let observed =
                self.ports.engine.list(&self.filter(run.team())).await.map_err(stop_failed)?;
            undo::restore_or_drop_side_names(&self.ports, &observed).await.map_err(Stop::Failed)?;
        }
        Ok(changes)
    }

    /// Takes the team on, with the subnets that it was let in with.
    async fn admit(&self, run: &Run<'_>, spec: &Spec) -> Result<u16, Failure> {
        let previous = run.reporter.read(|record| record.slot).await;
        let slot = match self.shares.slot(run.team()).filter(|_| run.attempt == 1) {
            Some(slot) => slot,
            // Nobody asked before it began, or what was true may have changed.
            None => self.survey(run.team(), spec, previous).await?,
        };
        self.shares.note_slot(run.team(), Some(slot));
        let fresh = run.reporter.read(|record| spec_changed(record, spec)).await;
        let now = self.ports.clock.unix_millis();
        let is_own = self.own_jobs.has(run.job.id);
        // On disk with the record's next save, which is the end of this run.
        let kept = !fresh && previous == Some(slot) && run.attempt == 1 && run.before.containers;
        run.reporter
            .update(|record| {
                record.slot = Some(slot);
                if fresh {
                    record.generation += 1;
                }
                record.spec = Some(spec.clone());
                record.note_previews(spec, now);
                if !is_own {
                    record.started_unix_ms = Some(now);
                }
                record.state = TeamState::Starting;
                record.adopted = false;
                record.destroyed_unix_ms = None;
            })
            .await;
        // That a run began is on disk already; what it stands on is too,
        // unless it is new.
        if !kept {
            run.reporter.save().await?;
        }
        Ok(slot)
    }

    /// Host preparation, told as progress of the first step.
    pub(super) async fn prepare(&self, run: &Run<'_>) -> Result<(), Stop> {
        let mut interrupt = run.interrupt();
        let say = |line: String| {
            tracing::debug!("{line}");
            run.say(line);
        };
        let work = self.preparation.ensure(&self.ports, &say);
        tokio::select! {
            reason = interrupt.wait() => Err(Stop::Interrupted(reason)),
            result = work => result.map(drop).map_err(Stop::Failed),
            () = tokio::time::sleep_until(run.deadline()) => Err(Stop::Failed(Run::too_late())),
        }
    }

    /// Removes one-shot containers and overlays of interrupted runs.
    async fn clear_leftovers(&self, run: &Run<'_>) -> Result<(), Failure> {
        let listed;
        let observed = match run.found() {
            Some(found) => found,
            None => {
                listed = self.ports.engine.list(&self.filter(run.team())).await?;
                &listed
            }
        };
        let oneshot = |labels: &BTreeMap<String, String>| {
            labels.get(label::ROLE).map(String::as_str) == Some(Role::Oneshot.as_str())
        };
        for container in observed.containers.iter().filter(|c| oneshot(&c.labels)) {
            self.ports.engine.remove_container(&container.name).await?;
        }
        for volume in observed.volumes.iter().filter(|v| oneshot(&v.labels)) {
            self.ports.engine.remove_volume(&volume.name).await?;
        }
        undo::restore_or_drop_side_names(&self.ports, observed).await
    }
}

fn spec_changed(record: &TeamRecord, spec: &Spec) -> bool {
    record.spec.as_ref() != Some(spec) || record.generation == 0
}

fn changes_text(changes: &[Change]) -> String {
    let words: Vec<String> =
        changes.iter().map(|c| format!("{} {}", c.kind.as_str(), c.name)).collect();
    words.join(", ")
}

fn agent_network_only(run: &Run<'_>, slot: u16, mtu: u32) -> Vec<NetworkPlan> {
    let settings = &run.ports.settings;
    let names = Names::new(&settings.instance, run.team());
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
        subnet: slot_subnet(AGENT_NETWORKS, slot),
        bridge: format!("cvi-{slot}"),
        mtu,
    }]
}
