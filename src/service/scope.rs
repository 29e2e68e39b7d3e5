//! The lifetime of a service: one stop signal and one set of tracked tasks.
//!
//! Background work is spawned here and nowhere else, so that the end of the
//! service is the end of all it started.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// A cheap handle on the service's lifetime.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Scope {
    /// Makes a scope that nobody has stopped yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns work that must watch [`Scope::stopping`] itself.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }

    /// Runs blocking file work on the blocking pool.
    ///
    /// # Cancellation
    /// The work goes on when the future is dropped; the scope waits for it.
    pub async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.tasks.spawn_blocking(work).await.ok()
    }

    /// Resolves when the service is to end.
    pub fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    /// Tells whether the service is to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Makes a token that ends with the service, or sooner by itself.
    pub fn child_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Begins the end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops, and waits at most `bound` for the tracked tasks; false if some remain.
    pub async fn drain(&self, bound: Duration) -> bool {
        self.stop();
        self.tasks.close();
        tokio::time::timeout(bound, self.tasks.wait()).await.is_ok()
    }
}
