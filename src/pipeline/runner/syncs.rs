//! Follows the sync services that run here, and tells their teams what is news.
//!
//! A service shows how it stands to whoever begins to listen, so a worker that
//! comes anew tells a conflict again that is still there, and nothing that is
//! over.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Runner;
use super::following::{GaveUp, Here};
use crate::config::layout::Layout;
use crate::domain::event::EventKind;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::Role;
use crate::pipeline::Ports;
use crate::pipeline::oneshot::Ended;
use crate::pipeline::steps::workspace::git_failure;
use crate::ports::syncs::{SyncDoor, SyncLook};

impl Runner {
    /// Follows the sync services that run here until `end`.
    pub async fn follow_syncs(self: Arc<Self>, end: CancellationToken) {
        self.follow_all(Role::Sync, &end, |here| self.follow_sync(here).boxed()).await;
    }

    /// Follows one service until it ends or cannot be heard.
    async fn follow_sync(&self, here: Here) -> Here {
        let socket = SocketAddr::from((here.address, SERVICE_PORT));
        if let Some(door) = sync_door(&self.ports, &here.team, socket).await
            && let Some(mut looks) = self.ports.syncs.follow(&door).await
        {
            let mut last = None;
            while let Some(look) = looks.next().await {
                if is_news(last.as_ref(), &look) && self.tell_sync(&here.team, &look).await.is_err()
                {
                    break;
                }
                last = Some(look);
            }
        }
        here
    }

    async fn tell_sync(&self, team: &TeamId, look: &SyncLook) -> Result<(), GaveUp> {
        let Some(kind) = sync_event(look) else { return Ok(()) };
        let reporter = self.open_team(team, None, 1).await.map_err(|_| GaveUp)?;
        reporter.tell(kind).await.map_err(|_| GaveUp)
    }
}

/// Whether a team wants to hear of this after that.
fn is_news(last: Option<&SyncLook>, look: &SyncLook) -> bool {
    match look {
        SyncLook::Idle => false,
        SyncLook::InStep { moved: true, .. } => true,
        // That it works again.
        SyncLook::InStep { moved: false, .. } => {
            matches!(last, Some(SyncLook::Conflict { .. } | SyncLook::Failed { .. }))
        }
        SyncLook::Conflict { .. } | SyncLook::Failed { .. } => last != Some(look),
    }
}

/// What a team is told.
pub(super) fn sync_event(look: &SyncLook) -> Option<EventKind> {
    match look {
        SyncLook::Idle => None,
        SyncLook::InStep { head, .. } => Some(EventKind::SyncSynced { head: head.clone() }),
        SyncLook::Conflict { message, ahead, behind, paths } => Some(EventKind::SyncConflict {
            message: message.clone(),
            ahead: *ahead,
            behind: *behind,
            paths: paths.clone(),
        }),
        SyncLook::Failed { words } => Some(EventKind::SyncFailed { failure: failure_of(words) }),
    }
}

/// The failure behind Git's words.
pub(super) fn failure_of(words: &str) -> Failure {
    let lines = words.lines().map(str::to_owned).collect();
    git_failure(Ended { exit_code: 1, oom_killed: false, lines })
}

/// Where a team's sync service is asked.
pub(super) async fn sync_door(
    ports: &Ports,
    team: &TeamId,
    address: SocketAddr,
) -> Option<SyncDoor> {
    let path = Layout::token_dir(&Layout::new(&ports.settings, team).sync()).join("token");
    let token = ports.host.read_file(&path).await.ok()??;
    let token = String::from_utf8(token).ok()?.trim().to_owned();
    Some(SyncDoor { address, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_hears_of_moves_and_of_changes_but_not_of_rest() {
        let in_step = |moved| SyncLook::InStep { head: None, moved };
        let failed = |words: &str| SyncLook::Failed { words: words.to_owned() };
        for (last, look, expected) in [
            (None, in_step(false), false),
            (None, in_step(true), true),
            (Some(in_step(true)), in_step(true), true),
            (Some(failed("a")), in_step(false), true),
            (Some(failed("a")), failed("a"), false),
            (Some(failed("a")), failed("b"), true),
            (None, failed("a"), true),
            (Some(failed("a")), SyncLook::Idle, false),
        ] {
            assert_eq!(is_news(last.as_ref(), &look), expected, "{last:?} {look:?}");
        }
    }
}
