//! The machine's clock, identifiers and chance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use uuid::Uuid;

use crate::ports::clock::Clock;

/// The real clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn unix_millis(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn new_secret(&self) -> String {
        // Each version 4 identifier holds 122 bits of the system's randomness.
        format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
    }

    fn random(&self) -> f64 {
        // 32 random bits of a version 4 identifier: no crate of its own for jitter.
        let bytes = *Uuid::new_v4().as_bytes();
        let bits = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        f64::from(bits) / f64::from(u32::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
