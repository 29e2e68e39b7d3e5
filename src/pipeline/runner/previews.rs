//! Looks after running previews: whether their lockfiles changed, their time is
//! over, their caches grow; and tells what the monitor's probes see of them:
//! compiling, ready, failing with the first line that says why.
//!
//! Telling is not acting: it needs no lease. While a run is under way, its steps
//! tell what they see, and nobody else does.

use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Runner;
use crate::config::layout::Layout;
use crate::domain::event::{EventKind, PreviewFact};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::names::host_label;
use crate::domain::plan::Role;
use crate::observe::spans;
use crate::pipeline::caches;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::preview_board::PreviewLook;
use crate::ports::engine::{Observed, ObservedContainer, label};

/// How often it is looked whether a team needs a job of the host's own.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How often caches are measured, in looks.
const CACHES_EVERY: u32 = 20;

/// Teams that are looked at at once.
const LOOKS_AT_ONCE: usize = 16;

impl Runner {
    /// Looks until `end`.
    pub(super) async fn look_after_previews(&self, end: &CancellationToken) {
        for turn in 1_u32.. {
            tokio::select! {
                () = end.cancelled() => return,
                () = self.ports.clock.sleep(LOOK_EVERY) => {}
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = self.look_at_previews(turn % CACHES_EVERY == 0) => {}
            }
        }
    }

    async fn look_at_previews(&self, with_caches: bool) {
        // Without Docker there is nothing to look at; the next turn comes.
        let Ok(observed) = self.observed_by_team(None).await else { return };
        let teams =
            observed.iter().map(|(team, of_team)| self.look_at_team(team, of_team, with_caches));
        let spans = observed.keys().map(spans::of_team);
        let teams: Vec<_> = teams.zip(spans).map(|(look, span)| look.instrument(span)).collect();
        futures::stream::iter(teams).for_each_concurrent(LOOKS_AT_ONCE, |team| team).await;
    }

    async fn look_at_team(&self, team: &TeamId, observed: &Observed, with_caches: bool) {
        self.ask_for_own_job(team).await;
        if !with_caches {
            return;
        }
        for container in observed.containers.iter().filter(|c| is_running_preview(c)) {
            let Some(preview) =
                container.labels.get(label::NAME).and_then(|name| PartName::parse(name).ok())
            else {
                continue;
            };
            let places = Layout::new(&self.ports.settings, team).preview(&preview);
            let (host, cache) = (&*self.ports.host, places.join("cache"));
            // It is measured again; the disk's own trouble is told elsewhere.
            let _ = caches::keep_within(host, &cache, caches::WHILE_RUNNING).await;
        }
    }

    /// Tells what a preview does, if that is new and no run is telling.
    pub(super) async fn tell_look(&self, team: &TeamId, preview: PartName, look: PreviewLook) {
        // A bad record was logged where it was read.
        let Ok(reporter) = self.open_team(team, None, 1).await else { return };
        let before = reporter.previews().remove(&preview);
        let (is_up, port) =
            reporter.read(|record| (record.up, record.ports.get(&preview).copied())).await;
        if !is_up || self.monitor.is_busy(team) || before.is_some_and(|before| before.shows(&look))
        {
            return;
        }
        let url = port.filter(|_| look.fact == PreviewFact::Ready).map(|port| {
            let domain = &self.ports.settings.preview_domain;
            format!("http://{}.{domain}:{port}", host_label(&preview, team))
        });
        tracing::info!(
            team.id = %team, preview = %preview, fact = look.fact.as_str(),
            "a preview changed: {}", look.error.as_deref().unwrap_or("nothing is wrong")
        );
        let PreviewLook { fact, error, .. } = look;
        self.monitor.tell(team, EventKind::Preview { fact, preview, url, error });
    }
}

fn is_running_preview(container: &ObservedContainer) -> bool {
    container.labels.get(label::ROLE).map(String::as_str) == Some(Role::Preview.as_str())
        && container.state == "running"
        && !is_side_name(&container.name)
}
