//! Hearing what the sync services in their containers do.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

/// Where a sync service is asked, and with which word.
#[derive(Clone)]
pub struct SyncDoor {
    /// The container's own address.
    pub address: SocketAddr,
    /// The service's token.
    pub token: String,
}

// Never derived: the token must not reach a log through `{:?}`.
impl std::fmt::Debug for SyncDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SyncDoor({})", self.address)
    }
}

/// What a team wants to know of its sync service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncLook {
    /// Everything is in step with the remote.
    InStep {
        /// The commit that the workspace is at.
        head: Option<String>,
        /// Whether files were moved just now.
        moved: bool,
    },
    /// Local work is in the way of something.
    Conflict {
        /// What, for people.
        message: String,
        /// Local commits that the remote lacks.
        ahead: Option<u64>,
        /// Commits of the remote that are not here.
        behind: Option<u64>,
        /// Files in the way.
        paths: Vec<String>,
    },
    /// Git did not do what it was asked.
    Failed {
        /// Its words.
        words: String,
    },
    /// There is nothing to be in step with, on purpose.
    Idle,
}

/// The sync services of this host.
#[async_trait]
pub trait Syncs: Send + Sync {
    /// Shows how a service stands, and again whenever that is news, until it
    /// ends or falls silent. Nothing if it does not answer.
    async fn follow(&self, door: &SyncDoor) -> Option<BoxStream<'static, SyncLook>>;

    /// Has a service sync now, and shows how it stands then. Nothing if it does
    /// not answer in time.
    async fn sync(&self, door: &SyncDoor, time_max: Duration) -> Option<SyncLook>;
}
