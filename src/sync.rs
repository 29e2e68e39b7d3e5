//! The sync service: Git operations on the workspace, inside the sync container.
//!
//! It fetches and fast-forwards a clean checkout, or keeps the workspace in step
//! with a read-only directory, and never loses local work: whatever it cannot do
//! safely it reports and leaves alone.

mod board;
mod cycle;
mod git;
mod health;
mod http;
mod observe;
mod remote;
mod repository;
pub mod settings;
mod shapes;
mod system;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::service::mirror::{self, ChangedCopies, Done, MirrorOptions};
use crate::service::watch::COALESCE;
use crate::service::{Scope, ServiceError, http as service_http};
use board::Board;
use observe::SyncMetrics;
use settings::{Source, SyncSettings};

/// Git gets a second to take its locks away; SIGTERM must end all within two.
const DRAIN_BOUND: Duration = Duration::from_millis(1900);

/// Callers that wait for one and the same cycle.
const WAITING_MAX: usize = 16;

/// Dependencies are installed for the container, not copied from the host.
const NOT_COPIED: &[&str] = &["node_modules"];

/// What the parts of the service share.
#[derive(Debug)]
struct Shared {
    settings: SyncSettings,
    scope: Scope,
    board: Board,
    metrics: SyncMetrics,
    cycles: mpsc::Sender<Done>,
    mirror: Option<mpsc::Sender<Done>>,
}

/// A sync service that listens but has not begun.
#[derive(Debug)]
pub struct Sync {
    shared: Arc<Shared>,
    listener: TcpListener,
    cycles: mpsc::Receiver<Done>,
    mirror: Option<mpsc::Receiver<Done>>,
}

impl Sync {
    /// Listens for questions and orders.
    pub async fn bind(settings: SyncSettings) -> Result<Self, ServiceError> {
        let listener = service_http::listen(settings.listen).await?;
        let (cycle_sender, cycles) = mpsc::channel(WAITING_MAX);
        let (mirror_sender, mirror) = match settings.source {
            Source::Mirror(_) => {
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                (Some(sender), Some(receiver))
            }
            Source::Nothing | Source::Remote(_) => (None, None),
        };
        let shared = Shared {
            settings,
            scope: Scope::new(),
            board: Board::new(),
            metrics: SyncMetrics::new(),
            cycles: cycle_sender,
            mirror: mirror_sender,
        };
        Ok(Self { shared: Arc::new(shared), listener, cycles, mirror })
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
        scope.spawn(cycle::run_cycles(shared.clone(), self.cycles));
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
    Sync::bind(settings).await?.serve(until).await
}

#[cfg(test)]
mod tests;
