//! Serves connections one by one, with little memory for each: whoever reads
//! slowly, or not at all, holds a few kilobytes and is let go after a while.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{debug, warn};

/// Connections at once: every listener of `/events`, and as many who ask.
const CONNECTIONS_MAX: usize = 2048;

/// What is read ahead and written behind, per connection.
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
            // Closed at once: a refusal in words would have to be waited for.
            continue;
        };
        let (router, end) = (router.clone(), end.clone());
        tasks.spawn(async move {
            serve(stream, peer, router, end).await;
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, end: CancellationToken) {
    bound(&stream);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        request.extensions_mut().insert(Peer(peer));
        async move {
            Ok::<_, Infallible>(
                router.call(request.map(Body::new)).await.unwrap_or_else(|never| match never {}),
            )
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
