//! The proof that its holder is alone with a team.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::domain::ids::TeamId;

/// Whoever holds it is the only one in this process acting on the team.
#[derive(Debug)]
pub struct TeamLease {
    team: TeamId,
    _guard: OwnedMutexGuard<()>,
}

impl TeamLease {
    /// The team it is about.
    #[must_use]
    pub fn team(&self) -> &TeamId {
        &self.team
    }
}

/// Hands out leases.
#[derive(Debug, Default)]
pub struct TeamLeases {
    teams: Mutex<HashMap<TeamId, Arc<tokio::sync::Mutex<()>>>>,
}

impl TeamLeases {
    /// Waits for the team to be free.
    ///
    /// # Cancellation
    /// Safe: a dropped wait takes nothing.
    pub async fn acquire(&self, team: &TeamId) -> TeamLease {
        let lock = self.lock_of(team);
        TeamLease { team: team.clone(), _guard: lock.lock_owned().await }
    }

    /// The lease, if the team is free now.
    #[must_use]
    pub fn try_acquire(&self, team: &TeamId) -> Option<TeamLease> {
        let guard = self.lock_of(team).try_lock_owned().ok()?;
        Some(TeamLease { team: team.clone(), _guard: guard })
    }

    fn lock_of(&self, team: &TeamId) -> Arc<tokio::sync::Mutex<()>> {
        let mut teams = self.teams.lock().unwrap_or_else(PoisonError::into_inner);
        // Entries nobody holds are dropped here, so the map stays as small as
        // the number of busy teams.
        if teams.len() > 64 {
            teams.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(teams.entry(team.clone()).or_default())
    }
}
