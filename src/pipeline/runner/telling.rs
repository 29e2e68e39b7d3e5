//! Tells what the monitor saw change, as events and as lines of the log.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tracing::Instrument as _;

use super::Runner;
use crate::domain::event::{ContainerFact, EventKind};
use crate::domain::ids::TeamId;
use crate::observe::spans;

/// The wait before something is told again that nobody heard.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl Runner {
    /// Tells what the monitor saw, of each team one after the other.
    pub(super) async fn tell_changes(&self) {
        let mut busy = BTreeSet::new();
        let mut telling = FuturesUnordered::new();
        loop {
            while let Some((team, kind)) = self.monitor.next_to_tell(&busy) {
                busy.insert(team.clone());
                let span = spans::of_team(&team);
                telling.push(self.tell_one(team, kind).instrument(span));
            }
            tokio::select! {
                Some(team) = telling.next(), if !telling.is_empty() => {
                    busy.remove(&team);
                }
                () = self.monitor.something_to_tell() => {}
                () = self.ports.clock.sleep(TELL_AGAIN) => {}
            }
        }
    }

    async fn tell_one(&self, team: TeamId, kind: EventKind) -> TeamId {
        if self.monitor.wanted(&team).is_none() {
            // It went meanwhile, perhaps to another host, which speaks for it now.
            return team;
        }
        let told = match self.open_team(&team, None, 1).await {
            Ok(reporter) => reporter.tell(kind.clone()).await,
            Err(over) => Err(over),
        };
        if told.is_err() {
            // Nobody hears it now: without a session there is nothing to tell with.
            self.monitor.not_told(&team, kind, TELL_AGAIN);
            return team;
        }
        match &kind {
            EventKind::Container { fact, role, part, cause, .. } => {
                match fact {
                    ContainerFact::Oom => self.ports.metrics.container_oom(*role),
                    ContainerFact::Restarted => self.ports.metrics.container_restarted(*role),
                    _ => {}
                }
                let part = part.as_ref().map(|part| part.as_str());
                tracing::info!(role = role.as_str(), fact = fact.as_str(), part, "{cause}");
            }
            EventKind::Team { state, cause, .. } => {
                tracing::info!(state = state.as_str(), "the team changed: {cause}");
            }
            _ => {}
        }
        team
    }
}
