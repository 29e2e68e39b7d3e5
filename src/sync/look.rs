//! Looks at the files of the workspace, after each cycle that did not.
//!
//! A look reads no more than the names and times of files, takes no lock of Git's,
//! and so may run beside the next cycle.

use std::sync::Arc;

use tokio::time::Instant;

use super::board::Look;
use super::cycle::public_text;
use super::git::Git;
use super::repository;
use super::{Shared, git::GitError};

/// Runs until the service stops.
pub(super) async fn keep_looking(shared: Arc<Shared>) {
    loop {
        let cycles = tokio::select! {
            () = shared.scope.stopping() => return,
            cycles = shared.board.unlooked() => cycles,
        };
        let changes = match look(&shared).await {
            Ok(changes) => Ok(changes),
            Err(GitError::Stopping { .. }) => return,
            Err(error) => {
                let text = public_text(&shared, &error);
                tracing::warn!(error = text, "the workspace cannot be looked at");
                Err(text)
            }
        };
        shared.metrics.looked(changes.as_ref().ok());
        shared.board.looked(cycles, Look { finished: Instant::now(), changes });
    }
}

/// A workspace that is no repository any more has no changes.
async fn look(shared: &Shared) -> Result<repository::Changes, GitError> {
    let settings = &shared.settings;
    let opened = Git::open(&settings.git, &shared.scope, &settings.workspace).await?;
    let Some(git) = opened else { return Ok(repository::Changes::default()) };
    repository::status(&git).await.map(|(_, changes)| changes)
}
