//! Time and new identifiers.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

/// Wall-clock time for people, and fresh identifiers.
///
/// Budgets and deadlines run on tokio's clock, which tests can pause.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970. May jump; never used to order or to wait.
    fn unix_millis(&self) -> i64;

    /// A new, time-ordered identifier.
    fn new_id(&self) -> Uuid;

    /// A number in 0..1, for jitter.
    fn random(&self) -> f64;

    /// Resolves after `duration` on the clock that budgets run on.
    async fn sleep(&self, duration: Duration);
}
