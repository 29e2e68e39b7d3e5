//! Serves connections one by one, with little memory for each: whoever reads
//! slowly, or not at all, holds a few kilobytes and is let go after a while.
//!
//! Who has not shown the token may hold few connections for long: past a number of them
//! the oldest go, so that somebody who opens one after the other, or sends a head byte by
//! byte, keeps nobody else out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{debug, warn};

/// Connections at once: every listener of `/events`, and as many who ask.
const CONNECTIONS_MAX: usize = 2048;

/// Connections of those who have not shown the token: those who ask for metrics and
/// health, and those who are about to ask for more.
const STRANGERS_MAX: usize = 256;

/// So long each of them is kept. A head takes milliseconds, but a thousand dashboards
/// come back at once when a worker does.
const STRANGERS_KEPT: Duration = Duration::from_secs(2);

/// What is read ahead and written behind, per connection; so much of a head is read.
const BUFFER_BYTES: usize = 16 * 1024;

/// What the kernel keeps for a reader who is slow.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long a reader may take nothing, and how long a request's head may take.
const STALLED_MAX: Duration = Duration::from_secs(60);
const HEAD_MAX: Duration = Duration::from_secs(30);

/// How long answers may take once the worker ends.
const END_MAX: Duration = Duration::from_secs(2);

/// Accepting fails for lack of file descriptors; it is not tried in a loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `end`, and until what runs then has been answered.
pub(super) async fn run(listener: TcpListener, router: Router, end: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let strangers = Arc::new(Strangers::default());
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "HTTP takes no connection just now");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            // Closed at once: a refusal in words would have to be waited for. Whoever
            // comes back finds room.
            strangers.thin_out();
            continue;
        };
        let (router, end, stranger) = (router.clone(), end.clone(), strangers.enter());
        tasks.spawn(async move {
            let let_go = stranger.let_go.clone();
            let served = serve(stream, peer, router, &stranger, end);
            let _ = let_go.run_until_cancelled(served).await;
            drop((stranger, permit));
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stranger: &Stranger,
    end: CancellationToken,
) {
    bound(&stream);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        request.extensions_mut().insert(Peer(peer));
        async move {
            let answer = router.call(request.map(Body::new)).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            if answer.extensions().get::<LetIn>().is_some() {
                stranger.is_known();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(END_MAX, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// Marks the answer to somebody who showed the token.
#[derive(Debug, Clone, Copy)]
pub(super) struct LetIn;

/// Connections of those who have not shown the token, the oldest first.
#[derive(Default)]
struct Strangers(Mutex<Numbered>);

#[derive(Default)]
struct Numbered {
    next: u64,
    open: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One of them.
struct Stranger {
    number: u64,
    /// Cancelled when too many came after it.
    let_go: CancellationToken,
    all: Arc<Strangers>,
}

impl Strangers {
    fn enter(self: &Arc<Self>) -> Stranger {
        let let_go = CancellationToken::new();
        let number = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let number = all.next;
            all.next += 1;
            all.open.insert(number, (Instant::now(), let_go.clone()));
            number
        };
        self.thin_out();
        Stranger { number, let_go, all: Arc::clone(self) }
    }

    /// Lets the oldest go of those who are too many.
    fn thin_out(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while all.open.len() > STRANGERS_MAX
            && let Some(oldest) = all.open.first_entry()
            && oldest.get().0.elapsed() >= STRANGERS_KEPT
        {
            oldest.remove().1.cancel();
        }
    }
}

impl Stranger {
    /// From now on its connection is bounded as those of listeners are.
    fn is_known(&self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.open.remove(&self.number);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_known();
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Bounds what the kernel keeps; without it a connection works all the same.
fn bound(stream: &TcpStream) {
    let socket = stream.as_fd();
    let millis = u32::try_from(STALLED_MAX.as_millis()).unwrap_or(u32::MAX);
    let done = sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES)
        .and_then(|()| sockopt::set_tcp_user_timeout(socket, millis))
        .and_then(|()| sockopt::set_tcp_nodelay(socket, true));
    if let Err(error) = done {
        debug!(%error, "a connection could not be bounded");
    }
}

#[cfg(test)]
mod tests;
