//! What is done for teams without a job: they are watched, snapshots told every
//! minute, records of lost teams made anew, and old tombstones removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Runner;
use super::actions::snapshot_of;
use super::recovery::{adopt, team_of};
use crate::domain::event::{EventKind, TeamState};
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::pipeline::reporter::Reporter;
use crate::ports::engine::{Filter, Observed};
use crate::ports::messages::SessionOver;

/// How often a dashboard that missed something gets the whole again (DESIGN 3).
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);

/// How often tombstones are looked at, in snapshots.
const TOMBSTONES_EVERY: u32 = 60;

impl Runner {
    /// Tends teams until `end`.
    pub async fn tend(self: Arc<Self>, end: CancellationToken) {
        tokio::join!(self.tend_records(&end), self.look_after_previews(&end), self.watch(&end));
    }

    async fn tend_records(&self, end: &CancellationToken) {
        for turn in 0_u32.. {
            let tend = async {
                self.adopt_lost_teams().await;
                if turn % TOMBSTONES_EVERY == 0 {
                    self.remove_tombstones().await;
                }
                // Without a session nobody hears it; the next minute comes.
                let _ = self.tell_snapshots(None).await;
                self.ports.clock.sleep(SNAPSHOT_EVERY).await;
            };
            tokio::select! {
                () = end.cancelled() => return,
                () = tend => {}
            }
        }
    }

    /// Tells a snapshot of one team, or of every team that runs here. All hosts hear
    /// the question for one team; only the one that has it may speak for it.
    pub(super) async fn tell_snapshots(&self, team: Option<&TeamId>) -> Result<(), SessionOver> {
        let observed = match self.observed_by_team(team).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::debug!(%error, "no snapshot: Docker does not answer");
                return Ok(());
            }
        };
        let teams = match team {
            Some(team) if observed.contains_key(team) || self.speaks_for(team).await => {
                vec![team.clone()]
            }
            Some(_) => Vec::new(),
            None => observed.keys().cloned().collect(),
        };
        for team in teams {
            // Its record is bad, which was logged; the others tell theirs.
            let Ok(reporter) = self.open_team(&team, None, 1).await else { continue };
            let nothing = Observed::default();
            let of_team = observed.get(&team).unwrap_or(&nothing);
            let looks = reporter.previews();
            let picture = self.monitor.picture(&team);
            let snapshot = reporter.read(|record| {
                snapshot_of(&self.ports, &team, Some(record), of_team, &looks, picture)
            });
            reporter.tell(EventKind::TeamSnapshot(snapshot.await)).await?;
        }
        Ok(())
    }

    /// Whether a team of which nothing runs here is this host's all the same: it
    /// was stopped here, and no other host may have it.
    async fn speaks_for(&self, team: &TeamId) -> bool {
        match self.ports.records.load(team).await {
            Ok(Some(record)) => !record.given_away && record.state != TeamState::Destroyed,
            Ok(None) | Err(_) => false,
        }
    }

    /// Makes records for teams that run here and have none: their directory was
    /// lost. Nobody acts on them meanwhile, because whoever does looks first.
    async fn adopt_lost_teams(&self) {
        let (Ok(observed), Ok(known)) =
            (self.observed_by_team(None).await, self.ports.records.teams().await)
        else {
            return;
        };
        for (team, of_team) in observed.iter().filter(|(team, _)| !known.contains(team)) {
            let Ok(reporter) = self.open_team(team, None, 1).await else { continue };
            if reporter.update(|record| adopt(record, of_team)).await
                && let Err(error) = reporter.save().await
            {
                tracing::error!(team.id = %team, %error, "the record cannot be written");
            }
        }
    }

    async fn remove_tombstones(&self) {
        let records = &self.ports.records;
        let now = self.ports.clock.unix_millis();
        for team in records.teams().await.unwrap_or_default() {
            let Ok(Some(record)) = records.load(&team).await else { continue };
            if record.is_outlived(now)
                && self.memories.forget(&team)
                && let Err(error) = records.remove(&team).await
            {
                tracing::error!(team.id = %team, %error, "an old record cannot be removed");
            }
        }
    }

    /// What there is in Docker, by team.
    pub(super) async fn observed_by_team(
        &self,
        team: Option<&TeamId>,
    ) -> Result<BTreeMap<TeamId, Observed>, Failure> {
        let instance = self.ports.settings.instance.clone();
        let observed = self.ports.engine.list(&Filter { instance, team: team.cloned() }).await?;
        let mut teams = by_team(&observed);
        // Of what only left networks and volumes nothing runs.
        teams.retain(|_, of_team| !of_team.containers.is_empty());
        Ok(teams)
    }

    /// Notes that nothing of a team runs here, and that another host may have it.
    pub(super) async fn note_given_away(&self, team: &TeamId) {
        let noted = match Reporter::open(&self.ports, &self.memories, team, None, 1).await {
            Ok(reporter) => {
                reporter
                    .update(|record| {
                        record.given_away = true;
                        record.up = false;
                        if record.state != TeamState::Destroyed {
                            record.state = TeamState::Stopped;
                        }
                    })
                    .await;
                reporter.save_final().await
            }
            Err(error) => Err(error),
        };
        self.monitor.forget(team);
        if let Err(error) = noted {
            tracing::error!(team.id = %team, %error, "that the team may go cannot be noted");
        }
    }
}

/// What a listing shows, by team.
pub(super) fn by_team(observed: &Observed) -> BTreeMap<TeamId, Observed> {
    let mut teams: BTreeMap<TeamId, Observed> = BTreeMap::new();
    for container in &observed.containers {
        if let Some(team) = team_of(&container.labels) {
            teams.entry(team).or_default().containers.push(container.clone());
        }
    }
    for network in &observed.networks {
        if let Some(team) = team_of(&network.labels) {
            teams.entry(team).or_default().networks.push(network.clone());
        }
    }
    for volume in &observed.volumes {
        if let Some(team) = team_of(&volume.labels) {
            teams.entry(team).or_default().volumes.push(volume.clone());
        }
    }
    teams
}
