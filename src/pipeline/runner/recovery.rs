//! What a process finds of the one before it: runs that nobody ended, and teams
//! whose record is lost.

use super::Runner;
use crate::domain::event::TeamState;
use crate::domain::failure::Failure;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::plan::Role;
use crate::domain::record::TeamRecord;
use crate::pipeline::admission;
use crate::pipeline::converge::is_side_name;
use crate::ports::engine::{Observed, label};

impl Runner {
    /// Takes note once, before anything else, of what the records say: of the
    /// runs in which the worker died, whose jobs are suspects from now on
    /// (DESIGN 3.5, ADR 0015), and of the subnets that are taken.
    ///
    /// # Errors
    /// The records cannot be listed or written; it is tried again.
    pub(super) async fn recovered(&self) -> Result<(), Failure> {
        self.recovery.get_or_try_init(|| self.look_at_records()).await.map(drop)
    }

    async fn look_at_records(&self) -> Result<(), Failure> {
        let records = &self.ports.records;
        let mut open = Vec::new();
        for team in records.teams().await? {
            match records.load(&team).await {
                Ok(Some(record)) => {
                    let is_gone = record.state == TeamState::Destroyed;
                    self.shares.note_slot(&team, record.slot.filter(|_| !is_gone));
                    if record.jobs.iter().any(|job| job.trial.open) {
                        open.push(record);
                    }
                }
                Ok(None) => {}
                // One team's bad file is no trouble of the others.
                Err(error) => {
                    tracing::error!(team.id = %team, %error, "the record cannot be read");
                }
            }
        }
        let runs = open.iter().flat_map(|record| &record.jobs).filter(|job| job.trial.open).count();
        // The suspect first: if this is cut short, what is counted next time
        // must not leave it as the only one.
        let is_suspect =
            |record: &TeamRecord| record.jobs.iter().any(|job| job.trial.open && job.trial.suspect);
        open.sort_by_key(|record| !is_suspect(record));
        for mut record in open {
            for job in record.jobs.iter_mut().filter(|job| job.trial.open) {
                job.trial.died(runs == 1);
                tracing::warn!(
                    team.id = %record.team, job.id = %job.id, strikes = job.trial.strikes, runs,
                    "the worker ended while it ran this job"
                );
            }
            records.save(&record).await?;
        }
        Ok(())
    }
}

/// Fills a record that knows nothing from what runs of the team: the real one
/// was lost. Stop and destroy need no more than that; a restart needs the spec,
/// and says `record.lost`.
pub(super) fn adopt(record: &mut TeamRecord, observed: &Observed) -> bool {
    if record.generation > 0 || observed.containers.is_empty() {
        return false;
    }
    let generation = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(label::GENERATION).and_then(|raw| raw.parse().ok()).unwrap_or(1)
    };
    record.generation =
        observed.containers.iter().map(|c| generation(&c.labels)).max().unwrap_or(1);
    record.adopted = true;
    record.slot =
        observed.networks.iter().flat_map(|network| &network.subnets).find_map(admission::slot_of);
    for container in observed.containers.iter().filter(|c| !is_side_name(&c.name)) {
        let is_preview =
            container.labels.get(label::ROLE).map(String::as_str) == Some(Role::Preview.as_str());
        let part = container.labels.get(label::NAME).and_then(|raw| PartName::parse(raw).ok());
        if let (true, Some(part), Some(port)) = (is_preview, part, container.host_ports.first()) {
            record.ports.insert(part, *port);
        }
    }
    let runs = observed.containers.iter().any(|container| container.state == "running");
    record.state = if runs { TeamState::Running } else { TeamState::Degraded };
    record.up = true;
    tracing::warn!(team.id = %record.team, "the team's record was lost; made one from its labels");
    true
}

/// The team of something with these labels.
pub(super) fn team_of(labels: &std::collections::BTreeMap<String, String>) -> Option<TeamId> {
    TeamId::parse(labels.get(label::TEAM)?).ok()
}
