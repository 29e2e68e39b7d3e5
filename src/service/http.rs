//! HTTP for the services: listening, an orderly end, error bodies, metrics text
//! and the client of the container's own healthcheck.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http_body_util::{BodyExt, Empty, Limited};
use prometheus::{Registry, TextEncoder};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::{Scope, ServiceError};

/// Open connections get this long after the stop: SIGTERM must end all within 2 s.
const CONNECTION_GRACE: Duration = Duration::from_millis(500);

/// Docker gives a healthcheck 5 s; answer sooner than it kills.
const HEALTHCHECK_BOUND: Duration = Duration::from_secs(4);

/// A health body is a few hundred bytes.
const HEALTHCHECK_BYTES_MAX: usize = 64 * 1024;

/// An answer that tells a caller what it did wrong, or what is missing.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// Makes an error; `message` is written for the caller and holds no secret.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// Tells the caller when to come back.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// The body of every answer that tells of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorBody {
    /// What is wrong.
    error: ErrorDetail,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ErrorDetail {
    /// A word for programs.
    code: &'static str,
    /// A sentence for people.
    message: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorDetail { code: self.code, message: self.message } };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().into());
        }
        response
    }
}

/// Listens on an address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|source| ServiceError::Listen { address, source })
}

/// Serves until the scope stops; connections then get a short grace.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    scope: &Scope,
) -> Result<(), ServiceError> {
    // Events are small and wanted at once.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(scope.stopping());
    let grace_over = async {
        scope.stopping().await;
        tokio::time::sleep(CONNECTION_GRACE).await;
    };
    tokio::select! {
        ended = served.into_future() => ended.map_err(ServiceError::Serve),
        () = grace_over => Ok(()),
    }
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// Fails at once when the signals cannot be watched.
pub fn terminated() -> Result<impl Future<Output = ()>, ServiceError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Renders a registry in the text format of Prometheus.
pub fn metrics_page(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(page) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(_) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "The metrics are broken")
                .into_response()
        }
    }
}

/// Asks a service on this host for its health; true means a 2xx answer in time.
pub async fn is_healthy(port: u16) -> bool {
    let asked = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        let request = hyper::Request::get("/health")
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .ok()?;
        let answered = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status();
            Limited::new(response.into_body(), HEALTHCHECK_BYTES_MAX).collect().await.ok()?;
            Some(status.is_success())
        };
        tokio::select! {
            healthy = answered => healthy,
            _ = connection => None,
        }
    };
    tokio::time::timeout(HEALTHCHECK_BOUND, asked).await.ok().flatten().unwrap_or(false)
}
