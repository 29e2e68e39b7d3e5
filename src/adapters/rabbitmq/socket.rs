//! The socket beneath the client: TLS with the operator's authorities, and
//! frames that the client can read.
//!
//! The client asks a runtime for a connected socket. This runtime is Tokio's,
//! except that its sockets have done their TLS already and read through
//! [`Mender`]. So the pool's client, which cannot be given a socket, has both
//! too. See ADR 0023.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use lapin::tcp::TLSConfig;

use super::frames::Mender;

/// How long a connect may take: a node that is cut off answers nothing at all,
/// and the next address of the list waits behind it.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How a connection is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// The name that the broker's certificate must have.
    pub(super) host: String,
    /// Authorities to trust besides the system's.
    pub(super) authorities: Option<PathBuf>,
}

/// Tokio with sockets of ours.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    tokio: Tokio,
    tls: Option<Tls>,
}

impl Sockets {
    /// For connections that are made with `tls`, or without.
    pub(super) fn runtime(tls: Option<Tls>) -> Runtime<Self> {
        // The client reads and writes in a thread of its own, which is in no
        // runtime by itself.
        let tokio = match tokio::runtime::Handle::try_current() {
            Ok(handle) => Tokio::default().with_handle(handle),
            Err(_) => Tokio::default(),
        };
        Runtime::new(Self { tokio, tls })
    }
}

impl RuntimeKit for Sockets {}

impl Executor for Sockets {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(work)
    }
}

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// The client registers no sockets of others.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Socket, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(address);
        let tls = self.tls.clone();
        async move {
            let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
            let plain = AsyncTcpStream::Plain(connected.map_err(|_| io::ErrorKind::TimedOut)??);
            let stream = match tls {
                None => plain,
                Some(tls) => secured(plain, &tls).await?,
            };
            Ok(Socket { stream, mender: Mender::new() })
        }
    }
}

type TokioStream = <Tokio as Reactor>::TcpStream;

async fn secured(
    plain: AsyncTcpStream<TokioStream>,
    tls: &Tls,
) -> io::Result<AsyncTcpStream<TokioStream>> {
    let authorities = match &tls.authorities {
        // Read for each connection, so that a renewed file needs no restart.
        Some(path) => Some(tokio::fs::read_to_string(path).await.map_err(|error| {
            let reason = format!("cannot read the authorities in {}: {error}", path.display());
            io::Error::new(error.kind(), reason)
        })?),
        None => None,
    };
    let config = TLSConfig { identity: None, cert_chain: authorities.as_deref() };
    plain.into_tls(&tls.host, config).await.map_err(|error| {
        let hint = if error.to_string().contains("UnknownIssuer") {
            "; if the broker's authority is your own, name its file in `amqp.ca_file`"
        } else {
            ""
        };
        io::Error::new(error.kind(), format!("no TLS with {}: {error}{hint}", tls.host))
    })
}

/// A connected socket.
pub(super) struct Socket {
    stream: AsyncTcpStream<TokioStream>,
    mender: Mender,
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let given = this.mender.give(to);
            if given > 0 || to.is_empty() {
                return Poll::Ready(Ok(given));
            }
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, this.mender.room()))?;
            this.mender.read(read);
            if read == 0 {
                return Poll::Ready(Ok(this.mender.give(to)));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}
