//! The worker's own HTTP: metrics, liveness, readiness, version, and the agents'
//! API below `/api`.
//!
//! On loopback unless configured, and deaf to foreign `Host` headers, so that a
//! page in somebody's browser cannot read it by DNS tricks. Read-only but for
//! `/api`, which needs a token.

mod agents;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use self::agents::Api;
use crate::domain::ids::HostId;
use crate::observe::Metrics;
use crate::ports::broker::{BrokerState, Phase};
use crate::ports::engine::Engine;
use crate::worker::hosts::Hosts;
use crate::worker::lanes::LaneLoad;

/// How long an answer of Docker is believed.
const DOCKER_BELIEVED: Duration = Duration::from_secs(5);

/// What readiness depends on.
pub struct Readiness {
    /// How the worker stands with the broker.
    pub broker: watch::Receiver<BrokerState>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Docker.
    pub engine: Arc<dyn Engine>,
    /// Cancelled when the worker drains.
    pub shutdown: CancellationToken,
    /// How much the lanes hold.
    pub load: Arc<LaneLoad>,
    /// Whom the dispatcher waits for.
    pub hosts: Arc<Hosts>,
}

struct Shared {
    ready: Readiness,
    docker: Mutex<Option<(Instant, bool)>>,
}

/// Serves until `end`. `hosts` are names by which it is asked besides addresses.
pub async fn serve(
    listener: TcpListener,
    ready: Readiness,
    api: Api,
    hosts: Vec<String>,
    end: CancellationToken,
) {
    let shared = Arc::new(Shared { ready, docker: Mutex::new(None) });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .with_state(shared)
        .nest("/api", agents::router(api, end.clone()))
        .layer(middleware::from_fn_with_state(Arc::new(hosts), only_own_host));
    let result = axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await;
    if let Err(error) = result {
        tracing::error!(%error, "HTTP ended");
    }
}

/// Answers 421 unless the request names an address, this machine, or a name that
/// the operator gave it.
async fn only_own_host(
    State(hosts): State<Arc<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    let host =
        request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let given = hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    if given || name == "localhost" || name.parse::<IpAddr>().is_ok() {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "this host is asked by address, as localhost or by a name in `http.hosts`\n",
        )
            .into_response()
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.ready.metrics.lane_waiting(shared.ready.load.waiting());
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, shared.ready.metrics.render()).into_response()
}

async fn version() -> Json<serde_json::Value> {
    let revision = option_env!("COVIBES_REVISION").unwrap_or("unknown");
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "revision": revision}))
}

#[derive(Deserialize)]
struct Verbosity {
    verbose: Option<String>,
}

async fn readyz(State(shared): State<Arc<Shared>>, Query(query): Query<Verbosity>) -> Response {
    let broker = shared.ready.broker.borrow().clone();
    let connected = matches!(broker.phase, Phase::Connected);
    let draining = shared.ready.shutdown.is_cancelled();
    let docker = docker_answers(&shared).await;
    let ok = connected && docker && !draining;
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.verbose.is_none() && ok {
        return (status, "ok\n").into_response();
    }
    // No reason not to be ready: this host's own teams lack nothing.
    let (dispatches, awaited) = shared.ready.hosts.dispatching();
    let awaited: Vec<_> = awaited.iter().map(HostId::as_str).collect();
    let body = json!({
        "ready": ok,
        "checks": {
            "broker": {"ok": connected, "phase": broker.phase.as_str(), "last_error": broker.last_error},
            "docker": {"ok": docker},
            "draining": {"ok": !draining},
        },
        "dispatcher": {"active": dispatches, "waits_for_hosts": awaited},
        "running": shared.ready.load.running(),
        "waiting": shared.ready.load.waiting(),
    });
    (status, Json(body)).into_response()
}

async fn docker_answers(shared: &Shared) -> bool {
    let mut last = shared.docker.lock().await;
    if let Some((at, up)) = *last
        && at.elapsed() < DOCKER_BELIEVED
    {
        return up;
    }
    // A hung daemon must not hang readiness.
    let asked = tokio::time::timeout(Duration::from_secs(2), shared.ready.engine.version());
    let up = matches!(asked.await, Ok(Ok(_)));
    *last = Some((Instant::now(), up));
    up
}
