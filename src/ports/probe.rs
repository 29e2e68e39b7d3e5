//! Asking a container whether it is well, from the host.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// It answered with this status; redirects are not followed.
    Http {
        /// The status.
        status: u16,
        /// At most 64 KiB of body.
        body: Vec<u8>,
    },
    /// It accepted a connection.
    Connected,
    /// Nothing listens.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// It answered something that is not HTTP, or hung up.
    Broken(String),
}

/// Asks containers at their own addresses.
#[async_trait]
pub trait Probe: Send + Sync {
    /// `GET path` with `Host: host`, bounded by `time_max` in all.
    async fn http(
        &self,
        address: SocketAddr,
        host: &str,
        path: &str,
        time_max: Duration,
    ) -> ProbeAnswer;

    /// A TCP connect.
    async fn tcp(&self, address: SocketAddr, time_max: Duration) -> ProbeAnswer;
}
