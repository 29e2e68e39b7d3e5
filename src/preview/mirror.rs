//! The writable copy of the workspace in which a dev server runs that must
//! write beside its sources (`mode: mirror`).
//!
//! The server starts when the first copy is whole. What it writes into the copy
//! stays there; where the workspace has, or had, a file of that name, the
//! workspace decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::board::{Board, Exit};
use super::settings::{MirrorSettings, RunSettings};
use crate::service::Scope;
use crate::service::mirror::{
    ChangedCopies, Done, MirrorFacts, MirrorOptions, MirrorState, keep_in_step,
};

/// A page should follow an edit within half a second, the dev server's own time
/// included; an editor that writes and renames is done in this.
const COALESCE: Duration = Duration::from_millis(50);

/// What is installed or made for the preview alone: modules are mounted, Git's
/// own files are of no use to a page, and the output of a build in the
/// workspace would take the place of the dev server's.
const NOT_COPIED: &[&str] = &[
    "node_modules",
    ".git",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".astro",
    ".angular",
    ".react-router",
    ".turbo",
    ".venv",
    "__pycache__",
];

/// Follows the workspace until the scope stops.
pub(super) async fn follow(
    scope: Scope,
    settings: RunSettings,
    mirror: MirrorSettings,
    board: Arc<Board>,
    state: watch::Sender<MirrorState>,
) {
    let tree = mirror.tree();
    if let Err(error) = tokio::fs::create_dir_all(&tree).await {
        let reason = format!("cannot make {}: {}", tree.display(), error.kind());
        state.send_replace(MirrorState::Failed(reason));
        return;
    }
    let options = MirrorOptions {
        source: mirror.source.clone(),
        target: tree,
        own: Some(mirror.own()),
        skipped: NOT_COPIED,
        changed_copies: ChangedCopies::Replaced,
        quiet_start: true,
        coalesce: COALESCE,
        force_polling: settings.force_polling,
    };
    // Nobody orders a look: the sender only keeps the channel open.
    let (_orders, ordered) = mpsc::channel::<Done>(1);
    let tell = move |facts: &MirrorFacts| {
        board.mirrored(facts.clone());
        state.send_replace(facts.state.clone());
    };
    keep_in_step(scope, options, ordered, tell).await;
}

/// Waits for the first whole copy; nothing, if the scope stops before it.
pub(super) async fn first_copy(
    scope: &Scope,
    board: &Board,
    state: &mut watch::Receiver<MirrorState>,
) -> Option<()> {
    loop {
        match state.borrow_and_update().clone() {
            MirrorState::InStep => return Some(()),
            MirrorState::Starting => {}
            MirrorState::Failed(reason) => {
                board.failed(Exit::NotStarted(format!("cannot copy the workspace: {reason}")));
            }
        }
        tokio::select! {
            () = scope.stopping() => return None,
            changed = state.changed() => if changed.is_err() {
                // It ended, and what it said last was told: only the end is left.
                scope.stopping().await;
                return None;
            }
        }
    }
}
