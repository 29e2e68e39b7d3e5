//! `covibes.ctl`: what workers say to all others. Nothing of it is kept, and
//! nothing that must not be lost is said here.

use async_trait::async_trait;

use super::messages::SessionOver;
use crate::domain::control::CtlMessage;
use crate::domain::failure::Failure;
use crate::domain::ids::HostId;

/// What others say, one's own words included.
#[async_trait]
pub trait CtlSource: Send {
    /// The next message; `None` when the session is over. What is not a message
    /// is counted and left out.
    ///
    /// # Cancellation
    /// Safe.
    async fn next(&mut self) -> Option<CtlMessage>;
}

/// Says something to all.
#[async_trait]
pub trait CtlSink: Send + Sync {
    /// Resolves when the broker has it; nobody may have heard it.
    ///
    /// # Errors
    /// The session is over.
    async fn say(&self, message: &CtlMessage) -> Result<(), SessionOver>;
}

/// Remembers which hosts there are, over restarts.
#[async_trait]
pub trait KnownHosts: Send + Sync {
    /// Every host that was heard and not evicted.
    ///
    /// # Errors
    /// The disk refuses.
    async fn load(&self) -> Result<Vec<HostId>, Failure>;

    /// Replaces the list; resolves when it is on disk.
    ///
    /// # Errors
    /// The disk refuses.
    async fn save(&self, hosts: &[HostId]) -> Result<(), Failure>;
}
