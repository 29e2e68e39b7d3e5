//! Relays before the broker and before Docker, that can be cut or hang, and that
//! can note what passes. Dropping one ends its connections and its listening.

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
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

/// What a test does to the connections of a relay, and sees of them.
#[derive(Debug, Clone)]
struct Way {
    requests: Requests,
    /// Ends those that are open now.
    cut: Arc<Mutex<CancellationToken>>,
    /// Whether anything passes. What hangs takes connections and answers nothing.
    passes: watch::Sender<bool>,
    /// Questions that have not passed: now, and at most so far.
    held: Arc<AtomicUsize>,
    held_max: Arc<AtomicUsize>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            requests: Requests::default(),
            cut: Arc::default(),
            passes: watch::Sender::new(true),
            held: Arc::default(),
            held_max: Arc::default(),
        }
    }
}

impl Way {
    fn hold(&self) -> Held {
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.held_max.fetch_max(held, Ordering::SeqCst);
        Held(Arc::clone(&self.held))
    }
}

/// A question that waits, until it is dropped.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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
        Self { _accepting: relay(accept, connect, Way::default()) }
    }
}

/// A socket before Docker.
pub(crate) struct DockerRelay {
    path: PathBuf,
    pub(crate) requests: Requests,
    way: Way,
    _accepting: AbortOnDropHandle<()>,
}

impl DockerRelay {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let way = Way::default();
        let requests = way.requests.clone();
        let accept =
            move |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(near, _)| near);
        let _accepting = relay(accept, || UnixStream::connect(DOCKER), way.clone());
        Self { path: path.to_owned(), requests, way, _accepting }
    }

    /// Ends every connection that is open; new ones are taken.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.way.cut.lock().unwrap()).cancel();
    }

    /// From now on nothing passes, or everything does again.
    pub(crate) fn hang(&self, hangs: bool) {
        self.way.held_max.store(0, Ordering::SeqCst);
        self.way.passes.send_replace(!hangs);
    }

    /// How many questions have waited at once since [`Self::hang`].
    pub(crate) fn held_max(&self) -> usize {
        self.way.held_max.load(Ordering::SeqCst)
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
    way: Way,
) -> AbortOnDropHandle<()>
where
    Near: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Far: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Connecting: Future<Output = std::io::Result<Far>> + Send,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok(near) = poll_fn(&mut accept).await {
            let (connect, way) = (connect.clone(), way.clone());
            let cut = way.cut.lock().unwrap().clone();
            connections.spawn(async move {
                let passing = async {
                    if let Ok(far) = connect().await {
                        pass(near, far, &way).await;
                    }
                };
                cut.run_until_cancelled(passing).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }))
}

async fn pass<Near, Far>(near: Near, far: Far, way: &Way)
where
    Near: AsyncRead + AsyncWrite + Unpin,
    Far: AsyncRead + AsyncWrite + Unpin,
{
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let note = |chunk: &[u8]| {
        way.requests.note(chunk);
        Some(way.hold())
    };
    let there = one_way(near_read, far_write, way.passes.subscribe(), note);
    let back = one_way(far_read, near_write, way.passes.subscribe(), |_: &[u8]| None);
    tokio::join!(there, back);
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passes: watch::Receiver<bool>,
    note: impl Fn(&[u8]) -> Option<Held>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut held = Vec::new();
    let mut is_held = None;
    loop {
        let may_pass = async { passes.wait_for(|passes| *passes).await.is_ok() };
        tokio::select! {
            // Also while it hangs: whoever gives up is gone.
            read = from.read(&mut buffer) => {
                let Ok(n @ 1..) = read else { break };
                // One for a question, however many pieces it has.
                let noted = note(&buffer[..n]);
                is_held = is_held.or(noted);
                held.extend_from_slice(&buffer[..n]);
            }
            is_open = may_pass, if !held.is_empty() => {
                if !is_open || to.write_all(&held).await.is_err() {
                    break;
                }
                held.clear();
                is_held = None;
            }
        }
    }
    if *passes.borrow() {
        let _ = to.write_all(&held).await;
    }
    let _ = to.shutdown().await;
}
