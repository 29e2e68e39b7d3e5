//! The worker's own HTTP: metrics, liveness, readiness and version for anybody;
//! the operator page, `/events` and `/api` for whoever has the token.
//!
//! On loopback unless configured, and deaf to foreign `Host` headers, so that a
//! page in somebody's browser cannot read it by DNS tricks.

mod agents;
mod events;
mod gate;
mod reads;
mod server;

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
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::gate::Gate;
pub use self::reads::json_of;
use crate::app::office::Office;
use crate::app::page;
use crate::domain::ids::HostId;
use crate::ports::broker::Phase;

/// How long an answer of Docker is believed.
const DOCKER_BELIEVED: Duration = Duration::from_secs(5);

struct Shared {
    office: Arc<Office>,
    docker: Mutex<Option<(Instant, bool)>>,
}

/// Serves until `end`. `names` are those by which it is asked besides addresses.
pub async fn serve(
    listener: TcpListener,
    office: Arc<Office>,
    gate: Gate,
    names: Vec<String>,
    end: CancellationToken,
) {
    server::run(listener, router(office, gate, names, end.clone()), end).await;
}

/// Everything that is served.
pub fn router(
    office: Arc<Office>,
    gate: Gate,
    names: Vec<String>,
    end: CancellationToken,
) -> Router {
    let listeners = events::Events {
        feed: Arc::clone(&office.feed),
        host: office.hosts.own().to_string(),
        listeners: Arc::new(Semaphore::new(events::LISTENERS_MAX)),
        end: end.clone(),
    };
    let gate = Arc::new(gate);
    let api = reads::router(Arc::clone(&office))
        .merge(agents::router(office.ports.clone(), end))
        .fallback(async || {
            gate::refuse(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
        });
    let guarded = page::router(Arc::clone(&office))
        .nest("/api", api)
        .merge(Router::new().route("/events", get(events::listen)).with_state(listeners))
        // The outer one first: a refusal, too, can be read by the page that asked.
        .layer(middleware::from_fn_with_state(Arc::clone(&gate), gate::token))
        .layer(middleware::from_fn_with_state(gate, gate::origins));
    let shared = Arc::new(Shared { office, docker: Mutex::new(None) });
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .with_state(shared)
        .merge(page::assets())
        .merge(guarded)
        .layer(middleware::from_fn_with_state(Arc::new(names), only_own_host))
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
    shared.office.ports.metrics.lane_waiting(shared.office.load.waiting());
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, shared.office.ports.metrics.render()).into_response()
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
    let broker = shared.office.broker.borrow().clone();
    let connected = matches!(broker.phase, Phase::Connected);
    let draining = shared.office.shutdown.is_cancelled();
    let docker = docker_answers(&shared).await;
    let ok = connected && docker && !draining;
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.verbose.is_none() && ok {
        return (status, "ok\n").into_response();
    }
    // No reason not to be ready: this host's own teams lack nothing.
    let (dispatches, awaited) = shared.office.hosts.dispatching();
    let awaited: Vec<_> = awaited.iter().map(HostId::as_str).collect();
    let body = json!({
        "ready": ok,
        "checks": {
            "broker": {"ok": connected, "phase": broker.phase.as_str(), "last_error": broker.last_error},
            "docker": {"ok": docker},
            "draining": {"ok": !draining},
        },
        "dispatcher": {"active": dispatches, "waits_for_hosts": awaited},
        "running": shared.office.load.running(),
        "waiting": shared.office.load.waiting(),
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
    let asked = tokio::time::timeout(Duration::from_secs(2), shared.office.ports.engine.version());
    let up = matches!(asked.await, Ok(Ok(_)));
    *last = Some((Instant::now(), up));
    up
}
