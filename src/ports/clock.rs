//! Time and new identifiers.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

/// Wall-clock time for people, fresh identifiers, and chance.
///
/// Budgets and deadlines run on tokio's clock, which tests can pause.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970. May jump; never used to order or to wait.
    fn unix_millis(&self) -> i64;

    /// A new, time-ordered identifier.
    fn new_id(&self) -> Uuid;

    /// A new secret of at least 200 random bits, as lower-case hexadecimal.
    fn new_secret(&self) -> String;

    /// A number in 0..1, for jitter.
    fn random(&self) -> f64;

    /// Resolves after `duration` on the clock that budgets run on.
    async fn sleep(&self, duration: Duration);
}
