//! What the three in-container services share: HTTP with an orderly end, the
//! bearer token, health bodies, logs, process groups and change watching.
//!
//! A service is small and long-lived, runs as uid 1000 on a read-only root and
//! must end within two seconds of SIGTERM. Everything it starts hangs on one
//! [`Scope`], so that nothing outlives it. This module knows no service.

pub mod auth;
pub mod health;
pub mod http;
pub mod lines;
pub mod logs;
pub mod mirror;
pub mod process;
pub mod proxy;
pub mod scope;
pub mod system;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;

pub use scope::Scope;
pub use system::Environment;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The exit status for a configuration that can never work (`EX_CONFIG`).
pub const EXIT_CONFIG: u8 = 78;

/// Blocking file work that is still under way at the end gets this long.
const BLOCKING_GRACE: Duration = Duration::from_millis(50);

/// Runs a service's whole life on a small runtime.
///
/// # Errors
/// Fails when the threads cannot be started.
pub fn run_to_end<T>(life: impl Future<Output = T>) -> std::io::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(life);
    // Dropping it instead would wait for a look at a large tree, however long it takes.
    runtime.shutdown_timeout(BLOCKING_GRACE);
    Ok(result)
}

/// A setting that is missing or makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A required variable is unset.
    #[error("{name} is not set")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// A variable holds something else than it must.
    #[error("{name} must be {expected}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A file that a variable names cannot be used.
    #[error("cannot read the file that {name} names ({path})")]
    File {
        /// The variable.
        name: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Why a service could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A setting is wrong; starting again does not help.
    #[error("the service is not configured")]
    Setting(#[from] SettingError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("cannot serve HTTP")]
    Serve(#[source] std::io::Error),
    /// A directory that the service needs cannot be made.
    #[error("cannot prepare {path}")]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SIGTERM could not be answered, so the service does not begin.
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
}

impl ServiceError {
    /// Returns the exit status that tells a supervisor whether to try again.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_) => EXIT_CONFIG,
            Self::Listen { .. } | Self::Serve(_) | Self::Prepare { .. } | Self::Signals(_) => 1,
        }
    }
}
