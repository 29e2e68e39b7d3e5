//! What follows a start that ended badly: evidence first, then undo.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Runner, team_event};
use crate::config::layout::Layout;
use crate::domain::event::TeamState;
use crate::domain::failure::Failure;
use crate::domain::job::Action;
use crate::domain::limits::{PREVIEW_STATE_PORT, SERVICE_PORT};
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::domain::record::TeamRecord;
use crate::domain::step::StepId;
use crate::pipeline::run::Run;
use crate::pipeline::undo::{self, Left};
use crate::ports::engine::label;
use crate::ports::probe::ProbeAnswer;

impl Runner {
    /// Takes back a start that ended early, as its end demands.
    pub(super) async fn clean_up(&self, run: &Run<'_>, failure: &Failure) -> bool {
        let Action::Start(_) = run.job.action else { return false };
        self.keep_evidence(run, failure).await;
        let keep = if run.before.containers { self.healthy(run).await } else { Vec::new() };
        match self.take_back(run, &keep).await {
            Ok(left) => {
                let (state, cause) = match left {
                    Left::Nothing => (TeamState::Failed, "the start failed and was undone"),
                    Left::Something => (TeamState::Degraded, "the change failed; the rest runs"),
                };
                tracing::info!(state = state.as_str(), "run taken back: {cause}");
                self.note_failed_start(run, state).await;
                let _ = run.reporter.tell(team_event(state, cause, BTreeMap::new())).await;
                true
            }
            Err(error) => {
                tracing::error!(%error, "undo failed; the reaper tries again");
                self.note_failed_start(run, TeamState::Failed).await;
                let cause = "undo failed; what is left will be removed later";
                let _ =
                    run.reporter.tell(team_event(TeamState::Failed, cause, BTreeMap::new())).await;
                false
            }
        }
    }

    /// Notes what a failed start left. One of the host's own changes nothing about what
    /// should run: it is tried again.
    async fn note_failed_start(&self, run: &Run<'_>, state: TeamState) {
        let before = self.own_jobs.state_before(run.job.id);
        let note = |record: &mut TeamRecord| match before {
            Some(before) => record.state = before,
            None => {
                record.state = state;
                record.up = state == TeamState::Degraded;
            }
        };
        run.reporter.update(note).await;
    }

    /// Undoes a run; when nothing of the team is left, also what it made on the
    /// host. A workspace goes only if this job made it.
    pub(super) async fn take_back(
        &self,
        run: &Run<'_>,
        keep: &[ContainerName],
    ) -> Result<Left, Failure> {
        let left = undo::undo(&self.ports, run.team(), (run.id, run.job.id), keep).await?;
        let observed = self.ports.engine.list(&self.filter(run.team())).await?;
        if left == Left::Something || !observed.volumes.is_empty() {
            return Ok(left);
        }
        let host = &self.ports.host;
        let layout = Layout::new(&self.ports.settings, run.team());
        self.remove_mount_points(run).await;
        for path in [layout.worktrees(), layout.cache()] {
            if host.exists(&path).await {
                host.remove_tree(&path).await?;
            }
        }
        if !run.before.workspace && host.is_own_workspace(&layout.workspace()).await {
            host.remove_tree(&layout.workspace()).await?;
        }
        Ok(left)
    }

    /// Removes the mount points that were made in the team's workspace, where
    /// they are still empty.
    pub(super) async fn remove_mount_points(&self, run: &Run<'_>) {
        let record = run.reporter.record().await;
        let layout = Layout::new(&self.ports.settings, run.team());
        // A person's directory that was copied has its mount points in the copy.
        let copied = self.ports.host.is_own_workspace(&layout.workspace()).await;
        let root = match record.workspace_path.map(PathBuf::from) {
            Some(path) if !copied => path,
            _ => layout.workspace(),
        };
        for relative in &record.mount_points {
            self.ports.host.remove_mount_point(&root, relative).await;
        }
        run.reporter.update(|record| record.mount_points.clear()).await;
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
                Some(Role::Preview) => (PREVIEW_STATE_PORT, "/health"),
                Some(Role::Agent | Role::Sync) => (SERVICE_PORT, "/health"),
                Some(Role::Oneshot | Role::Egress) | None => continue,
            };
            let socket = (*address, port).into();
            let answer =
                self.ports.probe.http(socket, "localhost", path, Duration::from_secs(2)).await;
            if matches!(answer, ProbeAnswer::Http { status, .. } if status < 500) {
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
        let path = Layout::new(&self.ports.settings, run.team()).evidence(run.id);
        if let Err(error) = self.ports.host.write_file(&path, text.as_bytes(), 0o600, 0).await {
            tracing::warn!(%error, "evidence cannot be stored");
        }
    }
}
