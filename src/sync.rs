//! The sync service: Git operations on the workspace, inside the sync container.
//!
//! It fetches and fast-forwards clean checkouts, or keeps the workspace in step
//! with a read-only directory, commits and pushes what agents changed when asked,
//! and never loses local work: whatever it cannot do safely it reports and leaves
//! alone.

mod board;
mod commits;
mod cycle;
mod git;
mod health;
mod http;
mod leftovers;
mod locks;
mod look;
mod mending;
mod moves;
mod notes;
mod observe;
mod pairs;
mod remote;
mod repository;
pub mod settings;
mod shapes;
mod strategy;
mod system;
mod turns;
mod worktrees;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::service::mirror::{self, ChangedCopies, Done, MirrorOptions};
use crate::service::watch::COALESCE;
use crate::service::{Scope, ServiceError, http as service_http};
use board::{Board, Outcome, Standing};
use observe::SyncMetrics;
use settings::{Source, SyncSettings};
use turns::Order;

/// Git gets a second to take its locks away; SIGTERM must end all within two.
const DRAIN_BOUND: Duration = Duration::from_millis(1900);

/// Callers that wait for one and the same cycle.
const WAITING_MAX: usize = 16;

/// Of what Git and a server say.
const DETAIL_CHARS_MAX: usize = 1000;

/// What a remote sends is one file, and a workspace has 10 GB.
const FILE_BYTES_MAX: u64 = 10 << 30;

/// Dependencies are installed for the container, not copied from the host.
const NOT_COPIED: &[&str] = &["node_modules"];

/// What the parts of the service share.
#[derive(Debug)]
struct Shared {
    settings: SyncSettings,
    scope: Scope,
    board: Board,
    metrics: SyncMetrics,
    turns: mpsc::Sender<Order>,
    mirror: Option<mpsc::Sender<Done>>,
}

impl Shared {
    fn new(
        settings: SyncSettings,
        turns: mpsc::Sender<Order>,
        mirror: Option<mpsc::Sender<Done>>,
    ) -> Self {
        let (scope, board, metrics) = (Scope::new(), Board::new(), SyncMetrics::new());
        Self { settings, scope, board, metrics, turns, mirror }
    }

    /// Takes out of Git's words, and a server's, what nobody should read.
    fn redact(&self, text: &str) -> String {
        redact(text, self.settings.git.token_file.as_ref().map(|path| path.as_str()))
    }
}

/// Takes the token, and anything before an `@` in an address, out of a text.
fn redact(text: &str, token_file: Option<&str>) -> String {
    let mut text = text.to_owned();
    let token = token_file.and_then(|path| std::fs::read_to_string(path).ok());
    for word in token.iter().flat_map(|token| token.trim().split(':')) {
        // A short word is a user's name, or no secret.
        if word.len() >= 8 {
            text = text.replace(word, "[secret]");
        }
    }
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['/', ' ', '\'', '"', '\n']).unwrap_or(part.len());
        let rest = part[..end].rfind('@').map_or(part, |at| &part[at + 1..]);
        clean.push_str("://");
        clean.push_str(rest);
    }
    clean.chars().filter(|c| !c.is_control() || *c == '\n').take(DETAIL_CHARS_MAX).collect()
}

/// A sync service that listens but has not begun.
#[derive(Debug)]
pub struct Sync {
    shared: Arc<Shared>,
    listener: TcpListener,
    turns: mpsc::Receiver<Order>,
    mirror: Option<mpsc::Receiver<Done>>,
}

impl Sync {
    /// Listens for questions and orders.
    pub async fn bind(settings: SyncSettings) -> Result<Self, ServiceError> {
        let listener = service_http::listen(settings.listen).await?;
        let (turn_sender, turns) = mpsc::channel(WAITING_MAX);
        let (mirror_sender, mirror) = match settings.source {
            Source::Mirror(_) => {
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                (Some(sender), Some(receiver))
            }
            Source::Nothing | Source::Remote(_) => (None, None),
        };
        let shared = Shared::new(settings, turn_sender, mirror_sender);
        Ok(Self { shared: Arc::new(shared), listener, turns, mirror })
    }

    /// Returns where the API is served.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `until`; a running Git operation ends first.
    pub async fn serve(self, until: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let shared = self.shared;
        let scope = shared.scope.clone();
        tracing::info!(team = %shared.settings.team, "serving");
        scope.spawn(turns::take_turns(shared.clone(), self.turns));
        scope.spawn(look::keep_looking(shared.clone()));
        if let (Source::Mirror(source), Some(orders)) = (&shared.settings.source, self.mirror) {
            let options = MirrorOptions {
                source: source.clone(),
                target: shared.settings.workspace.clone(),
                own: None,
                skipped: NOT_COPIED,
                changed_copies: ChangedCopies::Kept,
                quiet_start: false,
                coalesce: COALESCE,
                force_polling: false,
            };
            let shared = shared.clone();
            scope.spawn(mirror::keep_in_step(scope.clone(), options, orders, move |facts| {
                shared.metrics.mirrored(facts);
                shared.board.mirrored(facts.clone());
            }));
        }
        let served = tokio::select! {
            served = service_http::serve(self.listener, http::router(shared), &scope) => served,
            () = until => Ok(()),
        };
        if !scope.drain(DRAIN_BOUND).await {
            tracing::warn!("some work did not end in time");
        }
        served
    }
}

/// Runs the service until SIGTERM.
pub async fn run(settings: SyncSettings) -> Result<(), ServiceError> {
    let until = service_http::terminated()?;
    if matches!(settings.source, Source::Remote(_))
        && let Err(error) = system::limit_file_size(FILE_BYTES_MAX)
    {
        tracing::warn!(%error, "a remote may send more than the workspace may hold");
    }
    Sync::bind(settings).await?.serve(until).await
}

/// Runs one cycle without listening, as a start does to make its worktrees.
///
/// # Errors
/// Says in Git's words what did not come into step.
pub async fn run_once(settings: SyncSettings) -> Result<(), String> {
    if let Err(error) = system::limit_file_size(FILE_BYTES_MAX) {
        tracing::warn!(%error, "a remote may send more than the workspace may hold");
    }
    let (turns, _) = mpsc::channel(1);
    let shared = Shared::new(settings, turns, None);
    let cycle = cycle::run_cycle(&shared, &mut cycle::Memory::default(), None).await;
    if let Outcome::Failed(text) = cycle.outcome {
        return Err(text);
    }
    for shown in cycle.worktrees {
        match shown.standing {
            Standing::NoBranch | Standing::BranchGone => {
                return Err(format!("couldn't find remote ref {}", shown.branch));
            }
            Standing::Failed(text) => return Err(text),
            Standing::UpToDate
            | Standing::FastForwarded
            | Standing::Created
            | Standing::Mended(_)
            | Standing::Joined { .. }
            | Standing::Conflict(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
