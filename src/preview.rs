//! The preview supervisor: runs a team's dev server inside the preview container.
//!
//! It keeps the server's process group, passes its output on unchanged, tells
//! the worker what it sees (`GET /state` on a port of its own) and starts a
//! failed server again when a file changes. It never judges a project: it
//! reports exit codes and listening sockets, and the worker draws conclusions.

mod board;
mod errors;
mod http;
mod live_reload;
mod mirror;
pub mod settings;
mod sockets;
mod static_files;
mod supervisor;
mod system;
mod watching;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::service::{Scope, ServiceError, http as service_http};
use board::Board;
use settings::{RunSettings, StaticSettings};

/// SIGTERM is answered by the dev server within 5 s or ended by SIGKILL; a little more for us.
const DRAIN_BOUND: Duration = Duration::from_secs(7);

/// A supervisor that listens but has not begun.
#[derive(Debug)]
pub struct Preview {
    settings: RunSettings,
    listener: TcpListener,
}

impl Preview {
    /// Listens for questions about the state.
    pub async fn bind(settings: RunSettings) -> Result<Self, ServiceError> {
        let listener = service_http::listen(settings.state_address).await?;
        Ok(Self { settings, listener })
    }

    /// Returns where the state is served.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs the dev server until `until`; its process group ends first.
    pub async fn serve(self, until: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let scope = Scope::new();
        let own_port = self.listener.local_addr().map_err(ServiceError::Serve)?.port();
        let board =
            Arc::new(Board::new(self.settings.port, own_port, self.settings.health.clone()));
        let router = http::router(board.clone());
        scope.spawn(supervisor::supervise(scope.clone(), self.settings, board));
        let served = tokio::select! {
            served = service_http::serve(self.listener, router, &scope) => served,
            () = until => Ok(()),
        };
        scope.drain(DRAIN_BOUND).await;
        served
    }
}

/// Runs the supervisor until SIGTERM.
pub async fn run(settings: RunSettings) -> Result<(), ServiceError> {
    let until = service_http::terminated()?;
    Preview::bind(settings).await?.serve(until).await
}

/// Serves a directory's files until SIGTERM.
pub async fn serve_static(settings: StaticSettings) -> Result<(), ServiceError> {
    let until = service_http::terminated()?;
    let listener = service_http::listen(settings.address).await?;
    let scope = Scope::new();
    let router = static_files::router(settings.dir, scope.clone());
    tokio::select! {
        served = service_http::serve(listener, router, &scope) => served?,
        () = until => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
