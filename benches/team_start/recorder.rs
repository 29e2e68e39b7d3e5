//! Writes down what is asked of the daemon: a socket between Covibes and
//! Docker that passes bytes on and keeps the requests.
//!
//! bollard opens a connection per request, so the first bytes of each are one
//! request and the connection's life is the call's duration.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// One request to the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// When it came, since the recorder began.
    pub(crate) at: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// The socket in between; it goes with the value.
pub(crate) struct Recorder {
    pub(crate) socket: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Recorder {
    /// Listens on `socket` and passes on to `daemon`.
    pub(crate) fn listen(socket: PathBuf, daemon: &str) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(&socket).context("cannot listen for the recorder")?;
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (kept, daemon, began) = (Arc::clone(&calls), daemon.to_owned(), Instant::now());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, daemon) = (Arc::clone(&kept), daemon.clone());
                tokio::spawn(async move {
                    let at = began.elapsed();
                    if let Ok(mut call) = pass_on(stream, &daemon).await {
                        call.at = at;
                        call.took = began.elapsed() - at;
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                    }
                });
            }
        });
        Ok(Self { socket, calls, task })
    }

    /// What was asked since the last time, oldest first.
    pub(crate) fn take(&self) -> Vec<Call> {
        let mut calls =
            std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner));
        calls.sort_by_key(|call| call.at);
        calls
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one whole request, passes it on, then copies both ways to the end.
async fn pass_on(mut client: UnixStream, daemon: &str) -> anyhow::Result<Call> {
    let mut daemon = UnixStream::connect(daemon).await?;
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            anyhow::bail!("no request came");
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    while bytes.len() < end + length {
        if client.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    daemon.write_all(&bytes).await?;
    let mut words = head.split_whitespace().map(str::to_owned);
    let mut call = Call {
        at: Duration::ZERO,
        took: Duration::ZERO,
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        body: bytes.split_off(end),
    };
    // Build contexts are not of interest.
    call.body.truncate(1 << 20);
    tokio::io::copy_bidirectional(&mut client, &mut daemon).await?;
    Ok(call)
}
