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
mod tests {
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// Far more than an answer takes on a busy machine.
    const ANSWER_MAX: Duration = Duration::from_secs(30);

    async fn served() -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = async || {
            let mut answer = "known".into_response();
            answer.extensions_mut().insert(LetIn);
            answer
        };
        let router = Router::new().route("/open", get(async || "open")).route("/known", get(known));
        let run = run(listener, router, CancellationToken::new());
        (address, AbortOnDropHandle::new(tokio::spawn(run)))
    }

    /// Sends a text and gives what comes, up to `enough` or the end.
    async fn say(stream: &mut TcpStream, text: &str, enough: &str) -> String {
        let asked = async {
            // A server that has hung up says so below.
            let _ = stream.write_all(text.as_bytes()).await;
            let mut said = Vec::new();
            let mut some = [0; 4096];
            while let Ok(1..) = stream.read(&mut some).await.inspect(|n| said.extend(&some[..*n])) {
                if String::from_utf8_lossy(&said).contains(enough) {
                    break;
                }
            }
            String::from_utf8_lossy(&said).into_owned()
        };
        tokio::time::timeout(ANSWER_MAX, asked).await.expect("an answer or an end")
    }

    fn ask(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
    }

    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_out_and_goes_first() {
        let (address, _served) = served().await;
        let mut known = TcpStream::connect(address).await.unwrap();
        assert!(say(&mut known, &ask("/known"), "known").await.ends_with("known"));
        let mut silent = Vec::new();
        for number in 0..STRANGERS_MAX + 10 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some begin a head, and some were answered without the token.
            match number % 3 {
                0 => stream.write_all(b"GET / HT").await.unwrap(),
                1 => assert!(say(&mut stream, &ask("/open"), "open").await.ends_with("open")),
                _ => {}
            }
            silent.push(stream);
        }
        let mut newest = TcpStream::connect(address).await.unwrap();
        assert!(say(&mut newest, &ask("/open"), "open").await.ends_with("open"));
        assert!(say(&mut known, &ask("/known"), "known").await.ends_with("known"));
        // The oldest of them goes without an answer, long before its time is over.
        let began = Instant::now();
        let gone = async {
            let mut some = [0; 64];
            while !matches!(silent[0].try_read(&mut some), Ok(0)) {
                drop(TcpStream::connect(address).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(ANSWER_MAX, gone).await.expect("the oldest goes");
        assert!(began.elapsed() < HEAD_MAX);
        assert!(say(&mut newest, &ask("/open"), "open").await.ends_with("open"), "it is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_go_who_are_too_many_for_long() {
        let all = Arc::new(Strangers::default());
        let mut open: Vec<_> = (0..STRANGERS_MAX + 2).map(|_| all.enter()).collect();
        assert!(open.iter().all(|one| !one.let_go.is_cancelled()), "they came at once");
        tokio::time::advance(STRANGERS_KEPT).await;
        open[0].is_known();
        open.push(all.enter());
        let gone: Vec<_> = open.iter().map(|one| one.let_go.is_cancelled()).collect();
        assert_eq!(gone[..4], [false, true, true, false]);
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 2);
        drop(open);
        assert!(all.0.lock().unwrap().open.is_empty());
    }

    #[tokio::test]
    async fn a_head_is_bounded_in_bytes_and_in_number() {
        let (address, _served) = served().await;
        let long = format!("x-long: {}\r\n", "y".repeat(2 * BUFFER_BYTES));
        let many = "x: y\r\n".repeat(500);
        let path = format!("/{}", "z".repeat(2 * BUFFER_BYTES));
        for request in [
            format!("GET /open HTTP/1.1\r\nhost: x\r\n{long}\r\n"),
            format!("GET /open HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
            ask(&path),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let said = say(&mut stream, &request, "\r\n\r\n").await;
            let refused = said.starts_with("HTTP/1.1 431") || said.starts_with("HTTP/1.1 414");
            // Who is still sending may find the connection reset instead.
            assert!(refused || said.is_empty(), "{said}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(say(&mut stream, &ask("/open"), "open").await.ends_with("open"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_ends() {
        let (address, _served) = served().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        let mut ended = false;
        for _ in 0..120 {
            // A byte a second, on the test's own clock.
            tokio::time::advance(Duration::from_secs(1)).await;
            let mut some = [0; 512];
            let wrote = stream.write_all(b"G").await;
            let read = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut some)).await;
            if wrote.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
                ended = true;
                break;
            }
        }
        assert!(ended && began.elapsed() < 3 * HEAD_MAX, "{:?}", began.elapsed());
    }
}
