//! A port before the broker that can be slow, silent, torn, or stop a worker's
//! words at a chosen moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::frames::{Frame, Frames, Moment};

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Connections stay and nothing passes.
    Silent,
    /// Everything takes this long, each way.
    Slow(Duration),
    /// Everything comes in pieces of a few bytes.
    Sliced,
}

/// What all connections of a relay share.
struct Shared {
    way: watch::Sender<Way>,
    /// Raised for every reset: connections of an older count end.
    resets: watch::Sender<u32>,
    armed: Mutex<Option<Armed>>,
    copied: std::sync::atomic::AtomicBool,
}

/// What a relay waits for.
struct Armed {
    moment: Moment,
    /// Has to be in the frame as well.
    about: String,
    fired: oneshot::Sender<()>,
}

/// The relay.
pub(crate) struct Relay {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            way: watch::Sender::new(Way::Open),
            resets: watch::Sender::new(0),
            armed: Mutex::default(),
            copied: std::sync::atomic::AtomicBool::new(false),
        });
        let all = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(connection(near, broker, Arc::clone(&all)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shared, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn set(&self, way: Way) {
        self.shared.way.send_replace(way);
    }

    /// Tears all connections with a reset.
    pub(crate) fn reset(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }

    /// Resolves when the worker is about to say what comes after `moment`; that
    /// is not passed on, nor anything after it on its connection.
    pub(crate) fn arm(&self, moment: Moment) -> oneshot::Receiver<()> {
        self.arm_about(moment, "")
    }

    /// As [`Relay::arm`], for a job.
    pub(crate) fn arm_about(&self, moment: Moment, job: &str) -> oneshot::Receiver<()> {
        let (fired, firing) = oneshot::channel();
        self.shared.copied.store(false, std::sync::atomic::Ordering::SeqCst);
        let armed = Armed { moment, about: job.to_owned(), fired };
        *self.shared.armed.lock().unwrap() = Some(armed);
        firing
    }

    pub(crate) fn disarm(&self) {
        *self.shared.armed.lock().unwrap() = None;
    }
}

impl Shared {
    /// Whether this is the moment; tells whoever waits for it.
    fn is_it(&self, Frame { bytes, moments }: &Frame) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        let mut armed = self.armed.lock().unwrap();
        let Some(Armed { moment, about, .. }) = &*armed else { return false };
        if moments.contains(&Moment::DeadLetterCopy) {
            self.copied.store(true, SeqCst);
        }
        let is_moment = match moment {
            Moment::MailboxAckOfDeadLetter => {
                self.copied.load(SeqCst) && moments.contains(&Moment::MailboxAck)
            }
            other => moments.contains(other),
        };
        let about = about.as_bytes();
        let is_it = is_moment
            && (about.is_empty() || bytes.windows(about.len()).any(|window| window == about));
        if is_it && let Some(Armed { fired, .. }) = armed.take() {
            let _ = fired.send(());
        }
        is_it
    }
}

async fn connection(near: TcpStream, broker: u16, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
    for stream in [&near, &far] {
        // A close that does not linger is a reset; one after a shutdown is not seen.
        let set = stream.set_nodelay(true).and_then(|()| stream.set_zero_linger());
        set.expect("the kernel takes the options");
    }
    let mut resets = shared.resets.subscribe();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = pass(near_read, far_write, &shared, Some(Frames::default()));
    let back = pass(far_read, near_write, &shared, None);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        // The halves are dropped with their futures.
        _ = resets.changed() => {}
    }
}

/// Passes bytes one way until it ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    mut frames: Option<Frames>,
) {
    let mut way = shared.way.subscribe();
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut ended = false;
    while !ended || !waiting.is_empty() {
        let now = *way.borrow_and_update();
        let silent = now == Way::Silent;
        let due = waiting.front().map(|(due, _)| *due);
        tokio::select! {
            _ = way.changed() => {}
            read = from.read(&mut buffer), if !ended && !silent => {
                let Ok(count @ 1..) = read else {
                    ended = true;
                    continue;
                };
                let due = match now {
                    Way::Slow(time) => Instant::now() + time,
                    Way::Open | Way::Silent | Way::Sliced => Instant::now(),
                };
                let Some(frames) = &mut frames else {
                    waiting.push_back((due, buffer[..count].to_vec()));
                    continue;
                };
                for frame in frames.push(&buffer[..count]) {
                    if shared.is_it(&frame) {
                        write_all(&mut to, &mut waiting).await;
                        // Whoever waited for this moment ends the worker.
                        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
                        let _ = to.shutdown().await;
                        return;
                    }
                    waiting.push_back((due, frame.bytes));
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)),
                if due.is_some() && !silent =>
            {
                let (_, bytes) = waiting.pop_front().expect("it is due");
                let piece = if now == Way::Sliced { 5 } else { bytes.len() };
                for piece in bytes.chunks(piece) {
                    if to.write_all(piece).await.is_err() {
                        return;
                    }
                    if now == Way::Sliced {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

async fn write_all(to: &mut OwnedWriteHalf, waiting: &mut VecDeque<(Instant, Vec<u8>)>) {
    for (_, bytes) in waiting.drain(..) {
        let _ = to.write_all(&bytes).await;
    }
}
