//! How much lanes may hold, and how much they do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The sizes of lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanesConfig {
    /// Starts, restarts and syncs that run at once. Stops and destroys free
    /// resources, are short, and never wait for one of these.
    pub running_max: usize,
    /// Jobs that wait behind one team's running job.
    pub waiting_max_per_team: usize,
    /// Jobs that wait on the whole host: the prefetch window of 256 less 32, so
    /// that a stop is always seen.
    pub waiting_max: usize,
    /// From delivery to the end of a job, waiting and retries included: well
    /// under the broker's consumer timeout of 30 minutes (DESIGN 3.7).
    pub job_time_max: Duration,
    /// How often a start that waits for room looks again, besides whenever
    /// something on the host ends.
    pub room_interval: Duration,
}

impl Default for LanesConfig {
    fn default() -> Self {
        Self {
            running_max: 8,
            waiting_max_per_team: 16,
            waiting_max: 256 - 32,
            job_time_max: Duration::from_secs(20 * 60),
            // What other instances and people remove is seen by looking only.
            room_interval: Duration::from_secs(10),
        }
    }
}

/// How much the lanes hold, for metrics. Shared by the lanes of all sessions.
#[derive(Debug, Default)]
pub struct LaneLoad {
    running: AtomicUsize,
    waiting: AtomicUsize,
}

impl LaneLoad {
    /// Jobs that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Jobs that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, running: usize, waiting: usize) {
        self.running.store(running, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
    }
}
