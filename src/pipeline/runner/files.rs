//! Looks at the files of running teams: whether something happens in them, and whether a
//! workspace is larger than it may be.

use std::time::Duration;

use tokio::time::Instant;

use super::Runner;
use crate::config::layout::Layout;
use crate::domain::ids::TeamId;
use crate::domain::limits::WORKSPACE_BYTES_MAX;

/// How often the files of teams with `idle_stop` are looked at.
const TRACE_EVERY: Duration = Duration::from_secs(30);

/// How often each workspace is measured (DESIGN 1).
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// A measurement is followed by a rest of this many times its length: of many large
/// workspaces each is measured more rarely, and all together take a hundredth of a CPU.
const MEASURE_RESTS: u32 = 100;

impl Runner {
    pub(super) async fn trace_idle_teams(&self) {
        loop {
            for team in self.monitor.idle_teams() {
                let layout = Layout::new(&self.ports.settings, &team);
                let mut places = vec![layout.workspace(), layout.worktrees()];
                if let Ok(reporter) = self.open_team(&team, None, 1).await {
                    let shown = reporter.read(|record| record.workspace_path.clone()).await;
                    places.extend(shown.map(Into::into));
                }
                let trace = self.ports.host.trace(&places).await;
                self.monitor.traced(&team, trace);
            }
            self.ports.clock.sleep(TRACE_EVERY).await;
        }
    }

    /// Says of each team that runs whether its workspace is too large. Nothing of it is
    /// removed, and nobody is stopped: the host's own disk is guarded by `host.disk_low`.
    pub(super) async fn measure_workspaces(&self) {
        loop {
            let began = Instant::now();
            for team in self.monitor.states().into_keys() {
                let begins = Instant::now();
                if self.is_users_own(&team).await {
                    continue;
                }
                let workspace = Layout::new(&self.ports.settings, &team).workspace();
                let bytes = self.ports.host.size_of(&workspace, WORKSPACE_BYTES_MAX).await;
                let is_over = bytes > WORKSPACE_BYTES_MAX;
                let cause = || {
                    let gib = WORKSPACE_BYTES_MAX >> 30;
                    format!("its workspace holds more than {gib} GB: remove what is not needed")
                };
                self.monitor.measured(&team, is_over.then(cause));
                self.ports.clock.sleep(begins.elapsed() * MEASURE_RESTS).await;
            }
            self.ports.clock.sleep(MEASURE_EVERY.saturating_sub(began.elapsed())).await;
        }
    }

    /// Whether a team works in a directory that its user has, which has no size of ours.
    async fn is_users_own(&self, team: &TeamId) -> bool {
        match self.open_team(team, None, 1).await {
            Ok(reporter) => reporter.read(|record| record.workspace_path.is_some()).await,
            Err(_) => true,
        }
    }
}
