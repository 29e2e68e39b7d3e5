//! Looks at running previews and tells what changed: compiling, ready, failing
//! with the first line that says why. Whether their lockfiles changed, or their
//! time is over, is looked at beside it.
//!
//! Telling is not acting: it needs no lease. While a run is under way, its steps
//! tell what they see, and nobody else does.

use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::Runner;
use crate::config::layout::Layout;
use crate::domain::event::{EventKind, PreviewFact, TeamState};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::names::host_label;
use crate::domain::plan::Role;
use crate::pipeline::caches;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::preview_board::{self, PreviewLook};
use crate::ports::engine::{Observed, ObservedContainer, label};

/// How often a running preview is looked at (DESIGN 5).
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A page that takes longer is being compiled, and is asked for again.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often caches are measured, in looks.
const CACHES_EVERY: u32 = 20;

/// A look is a request to a supervisor and one to a page.
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
        let teams: Vec<_> = teams.collect();
        futures::stream::iter(teams).for_each_concurrent(LOOKS_AT_ONCE, |team| team).await;
    }

    async fn look_at_team(&self, team: &TeamId, observed: &Observed, with_caches: bool) {
        self.ask_for_own_job(team).await;
        for container in observed.containers.iter().filter(|c| is_running_preview(c)) {
            let Some(preview) =
                container.labels.get(label::NAME).and_then(|name| PartName::parse(name).ok())
            else {
                continue;
            };
            if with_caches {
                let places = Layout::new(&self.ports.settings, team).preview(&preview);
                let (host, cache) = (&*self.ports.host, places.join("cache"));
                // It is measured again; the disk's own trouble is told elsewhere.
                let _ = caches::keep_within(host, &cache, caches::WHILE_RUNNING).await;
            }
            let Some(address) = container.addresses.first() else { continue };
            let look = preview_board::look(&*self.ports.probe, *address, PAGE_TIME_MAX).await;
            if let Some(look) = look {
                self.tell_look(team, preview, look).await;
            }
        }
    }

    /// Tells what a preview does, if that is new and no run is telling.
    async fn tell_look(&self, team: &TeamId, preview: PartName, look: PreviewLook) {
        // A bad record was logged where it was read.
        let Ok(reporter) = self.open_team(team, None, 1).await else { return };
        let before = reporter.previews().remove(&preview);
        let (state, port) =
            reporter.read(|record| (record.state, record.ports.get(&preview).copied())).await;
        let is_quiet = !matches!(
            state,
            TeamState::Starting | TeamState::Stopping | TeamState::Stopped | TeamState::Destroyed
        );
        if !is_quiet || before.as_ref() == Some(&look) {
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
        let PreviewLook { fact, error } = look;
        // Without a session nobody hears it; it is told at a later look.
        let _ = reporter.tell(EventKind::Preview { fact, preview, url, error }).await;
    }
}

fn is_running_preview(container: &ObservedContainer) -> bool {
    container.labels.get(label::ROLE).map(String::as_str) == Some(Role::Preview.as_str())
        && container.state == "running"
        && !is_side_name(&container.name)
}
