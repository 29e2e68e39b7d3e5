//! A stopped team that goes to another host, or comes from one (ADR 0014): its
//! record travels, and its workspace is cloned anew by the next start. So it may
//! go only if nothing of its files is here alone.

use crate::config::layout::Layout;
use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::limits::CONTAINER_UID;
use crate::domain::record::TeamRecord;
use crate::domain::spec::WorkspaceSource;
use crate::pipeline::image_catalog::ImageKind;
use crate::pipeline::lease::TeamLease;
use crate::pipeline::local_work::{self, LocalWork};
use crate::pipeline::reporter::Reporter;
use crate::wire::control::RECORD_BYTES_MAX;

use super::Runner;

impl Runner {
    async fn reporter_of(&self, team: &TeamId) -> Result<Reporter, Failure> {
        self.recovered().await?;
        Reporter::open(&self.ports, &self.memories, team, None, 1).await
    }

    /// The team's record as text, if the team may go.
    pub(super) async fn pack_up(&self, lease: &TeamLease) -> Result<String, Failure> {
        let team = lease.team();
        let reporter = self.reporter_of(team).await?;
        self.holds_that_it_is_stopped(team).await?;
        let record = reporter.record().await;
        let own = Layout::new(&self.ports.settings, team).workspace();
        if self.ports.host.exists(&own).await || record.workspace_path.is_some() {
            self.holds_that_nothing_is_here_alone(&record).await?;
        }
        self.ports.records.pack(&record, RECORD_BYTES_MAX)
    }

    async fn holds_that_it_is_stopped(&self, team: &TeamId) -> Result<(), Failure> {
        let observed = self.ports.engine.list(&self.filter(team)).await?;
        if observed.containers.is_empty() && observed.networks.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Code::TeamRunning, "the team has containers or networks"))
    }

    async fn holds_that_nothing_is_here_alone(&self, record: &TeamRecord) -> Result<(), Failure> {
        let team = &record.team;
        let layout = Layout::new(&self.ports.settings, team);
        let is_own = self.ports.host.is_own_workspace(&layout.workspace()).await;
        let git = match &record.spec {
            Some(spec) => match &spec.workspace {
                WorkspaceSource::Git(git) if is_own && record.workspace_path.is_none() => git,
                WorkspaceSource::Git(_) | WorkspaceSource::Local => {
                    let message = "its workspace does not come from a repository";
                    return Err(Failure::new(Code::WorkspaceLocal, message));
                }
            },
            None => {
                let message = "nothing is known about where its workspace comes from";
                return Err(Failure::new(Code::RecordLost, message));
            }
        };
        let image = self.preparation.ensure_image(&self.ports, &ImageKind::Sync, &|_| {}).await?;
        let found = local_work::look(&self.ports, team, &git.url, image).await?;
        match found {
            LocalWork::None => Ok(()),
            LocalWork::Some(what) => Err(Failure::new(
                Code::TeamHasLocalWork,
                format!("its workspace holds what is nowhere else: {what}"),
            )),
        }
    }

    /// Takes over the record of a team that comes here. One that is here
    /// already, or is older than what is here, changes nothing.
    pub(super) async fn take_over(&self, lease: &TeamLease, text: &str) -> Result<(), Failure> {
        let team = lease.team();
        let coming = self.ports.records.unpack(text, team)?;
        let reporter = self.reporter_of(team).await?;
        if !reporter.read(|own| is_news(own, &coming)).await {
            return self.keep_a_place(&reporter.record().await).await;
        }
        self.holds_that_it_is_stopped(team).await.map_err(|failure| Failure {
            message: format!("on the host where it should go, {}", failure.message),
            ..failure
        })?;
        let own = Layout::new(&self.ports.settings, team).workspace();
        if self.ports.host.exists(&own).await {
            let message = format!(
                "the host where it should go has a workspace of the team from before, {}; keep \
                 what is worth it and remove it",
                own.display()
            );
            return Err(Failure::new(Code::TeamHasLocalWork, message));
        }
        if let Some(spec) = &coming.spec {
            // Nothing is held for it: its next start asks again, and waits.
            let _one = self.choosing.lock().await;
            self.survey(team, spec, None).await?;
        }
        self.shares.note_slot(team, None);
        reporter
            .update(|own| {
                *own = TeamRecord {
                    sequence: own.sequence.max(coming.sequence),
                    state: coming.state,
                    slot: None,
                    workspace_path: None,
                    mount_points: Vec::new(),
                    adopted: false,
                    up: false,
                    // The log is asked before anything is told: the host before
                    // may have told more than its record says.
                    given_away: true,
                    ..coming
                };
            })
            .await;
        reporter.save().await?;
        self.keep_a_place(&reporter.record().await).await
    }

    /// Makes the workspace of a team that came, empty until its next start: with
    /// neither containers nor workspace here, the end of any job before that would
    /// give the team's place back.
    async fn keep_a_place(&self, record: &TeamRecord) -> Result<(), Failure> {
        let is_cloned =
            record.spec.as_ref().is_some_and(|s| matches!(s.workspace, WorkspaceSource::Git(_)));
        if record.state != TeamState::Destroyed && is_cloned {
            let own = Layout::new(&self.ports.settings, &record.team).workspace();
            self.ports.host.ensure_workspace(&own, CONTAINER_UID, CONTAINER_UID).await?;
        }
        Ok(())
    }

    /// Removes what is left of a team that has moved, but for a tombstone.
    pub(super) async fn clear_away(&self, lease: &TeamLease) -> Result<(), Failure> {
        let team = lease.team();
        let reporter = self.reporter_of(team).await?;
        self.holds_that_it_is_stopped(team).await?;
        self.remove_kept(team).await?;
        let now = self.ports.clock.unix_millis();
        reporter
            .update(|record| {
                record.forget_life(now);
                record.state = TeamState::Destroyed;
                record.given_away = true;
            })
            .await;
        reporter.save_final().await
    }

    pub(super) async fn has_record(&self, team: &TeamId) -> bool {
        match self.ports.records.load(team).await {
            Ok(Some(record)) => record.state != TeamState::Destroyed,
            Ok(None) | Err(_) => false,
        }
    }
}

/// Whether a record that comes says more than the own one.
fn is_news(own: &TeamRecord, coming: &TeamRecord) -> bool {
    let is_blank = own.generation == 0 && own.jobs.is_empty();
    match (own.state, coming.state) {
        _ if is_blank => true,
        // What is left of a life elsewhere, sent again.
        (_, TeamState::Destroyed) => false,
        (TeamState::Destroyed, _) => true,
        _ => coming.jobs.last().is_some_and(|last| own.job(last.id).is_none()),
    }
}
