//! What a listener lets in, how long, and whom it lets go first.

use std::io::ErrorKind;

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
    // The oldest of them goes without an answer, and not because its time is over: that of
    // the others who began a head would be as well.
    let gone = async {
        let mut some = [0; 64];
        while !matches!(silent[0].try_read(&mut some), Ok(0)) {
            drop(TcpStream::connect(address).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(ANSWER_MAX, gone).await.expect("the oldest goes");
    let youngest = silent.iter().step_by(3).next_back().unwrap();
    let read = youngest.try_read(&mut [0; 64]);
    assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "it is kept");
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
