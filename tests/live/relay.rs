//! Relays before the broker and before Docker, that can be cut, and that can
//! note what passes. Dropping one ends its connections and its listening.

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Where Docker really is.
const DOCKER: &str = "/var/run/docker.sock";

/// Request lines in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, chunk: &[u8]) {
        // A client sends a request's head in one piece; a body never looks like one.
        let text = String::from_utf8_lossy(chunk);
        let heads = text.lines().filter(|line| line.ends_with(" HTTP/1.1"));
        self.0.lock().unwrap().extend(heads.map(str::to_owned));
    }
}

/// A port before the broker.
pub(crate) struct TcpRelay {
    _accepting: AbortOnDropHandle<()>,
}

impl TcpRelay {
    /// Listens on a port and passes everything to `target`.
    pub(crate) async fn start(port: u16, target: (String, u16)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let accept =
            move |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(near, _)| near);
        let connect = move || {
            let target = target.clone();
            async move { TcpStream::connect(target).await }
        };
        Self { _accepting: relay(accept, connect, Requests::default()) }
    }
}

/// A socket before Docker.
pub(crate) struct DockerRelay {
    path: PathBuf,
    pub(crate) requests: Requests,
    _accepting: AbortOnDropHandle<()>,
}

impl DockerRelay {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let requests = Requests::default();
        let accept =
            move |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(near, _)| near);
        let _accepting = relay(accept, || UnixStream::connect(DOCKER), requests.clone());
        Self { path: path.to_owned(), requests, _accepting }
    }
}

impl Drop for DockerRelay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn relay<Near, Far, Connecting>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<std::io::Result<Near>> + Send + 'static,
    connect: impl Fn() -> Connecting + Send + Sync + Clone + 'static,
    requests: Requests,
) -> AbortOnDropHandle<()>
where
    Near: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Far: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Connecting: Future<Output = std::io::Result<Far>> + Send,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok(near) = poll_fn(&mut accept).await {
            let (connect, requests) = (connect.clone(), requests.clone());
            connections.spawn(async move {
                if let Ok(far) = connect().await {
                    pass(near, far, requests).await;
                }
            });
            while connections.try_join_next().is_some() {}
        }
    }))
}

async fn pass<Near, Far>(near: Near, far: Far, requests: Requests)
where
    Near: AsyncRead + AsyncWrite + Unpin,
    Far: AsyncRead + AsyncWrite + Unpin,
{
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = near_read.read(&mut buffer).await {
            requests.note(&buffer[..n]);
            if far_write.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        let _ = far_write.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut far_read, &mut near_write).await;
        let _ = near_write.shutdown().await;
    };
    tokio::join!(there, back);
}
