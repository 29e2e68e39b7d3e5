//! The agent service: an HTTP API around the `claude` CLI, inside the agent container.
//!
//! One task runs at a time, a few wait, and each task's output is kept on disk
//! within bounds so that a reader may come late. What is known of tasks outlives
//! the service: `store` writes it down. The CLI's keys go from secret
//! files into the CLI's environment and nowhere else.

mod changes;
mod events;
mod health;
mod http;
mod memory;
mod news;
mod observe;
pub mod openapi;
mod output;
mod reach;
mod runner;
mod secrets;
pub mod settings;
mod shapes;
mod store;
mod stream;
mod system;
mod task;
mod tasks;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::service::system::now;
use crate::service::{Scope, ServiceError, http as service_http};
use changes::ChangeFeed;
use health::Monitor;
use observe::AgentMetrics;
use runner::Leftovers;
use settings::AgentSettings;
use store::Store;
use tasks::Tasks;

/// The running task is ended within about a second; SIGTERM must end all within two.
const DRAIN_BOUND: Duration = Duration::from_millis(1900);

/// What the parts of the service share.
#[derive(Debug)]
struct Shared {
    settings: AgentSettings,
    scope: Scope,
    tasks: Tasks,
    monitor: Monitor,
    metrics: AgentMetrics,
    changes: ChangeFeed,
    store: Store,
    leftovers: Leftovers,
}

/// An agent service that listens but has not begun.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    listener: TcpListener,
}

impl Agent {
    /// Listens, and prepares the directory for output.
    pub async fn bind(settings: AgentSettings) -> Result<Self, ServiceError> {
        let listener = service_http::listen(settings.listen).await?;
        let output_dir = settings.output_dir();
        let remembered = store::recall(&output_dir, now())
            .map_err(|source| ServiceError::Prepare { path: output_dir.clone(), source })?;
        let metrics = AgentMetrics::new();
        let shared = Shared {
            scope: Scope::new(),
            tasks: Tasks::new(remembered),
            store: Store::new(output_dir),
            leftovers: Leftovers::default(),
            monitor: Monitor::new(),
            changes: ChangeFeed::default(),
            metrics,
            settings,
        };
        Ok(Self { shared: Arc::new(shared), listener })
    }

    /// Returns where the API is served.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `until`, or until `POST /shutdown`; the running task ends first.
    pub async fn serve(self, until: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let shared = self.shared;
        let scope = shared.scope.clone();
        tracing::info!(team = %shared.settings.team, agent = %shared.settings.agent, "serving");
        store_all(&shared).await;
        scope.spawn(runner::run_tasks(shared.clone()));
        scope.spawn(health::watch_memory(shared.clone()));
        scope.spawn(health::watch(shared.clone()));
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

/// Writes down what an earlier process could not: that its task was interrupted.
async fn store_all(shared: &Shared) {
    for id in shared.tasks.look_at_all(|task| task.id) {
        shared.store.keep(&shared.tasks, id).await;
    }
}

/// Runs the service until SIGTERM.
pub async fn run(settings: AgentSettings) -> Result<(), ServiceError> {
    let until = service_http::terminated()?;
    Agent::bind(settings).await?.serve(until).await
}

#[cfg(test)]
mod tests;
