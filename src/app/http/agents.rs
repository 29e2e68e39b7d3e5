//! The agents' API for dashboards: `/api/teams/{team}/agents/{agent}/...`.
//!
//! An agent listens on an internal network, which no browser reaches. The worker
//! passes requests on, with the agent's own token in place of its own. Only the
//! paths of the list go through: a dashboard neither ends an agent nor says what
//! the team's events have told.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use futures::stream::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::adapters::agents::HttpAgents;
use crate::app::configuration::HttpSettings;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::names::Names;
use crate::domain::plan::Role;
use crate::pipeline::Ports;
use crate::pipeline::first_tasks::door;
use crate::pipeline::monitor::Monitor;

mod teams;

/// As much as an agent takes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Streams that are passed on at once; a browser opens a handful.
const STREAMS_MAX: usize = 256;

/// A shorter word could be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

/// What a page may ask with, and what it may read of an answer.
const ALLOWED_METHODS: &str = "GET, POST, DELETE";
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id";
const EXPOSED_HEADERS: &str = "location, retry-after";

/// How long a browser remembers a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// Headers that go on to the agent, and back from it.
const FORWARDED: [&str; 3] = ["content-type", "idempotency-key", "last-event-id"];
const RETURNED: [&str; 5] =
    ["content-type", "cache-control", "retry-after", "allow", "www-authenticate"];

/// What the agents' API needs.
pub struct Api {
    ports: Ports,
    monitor: Arc<Monitor>,
    token: Option<[u8; 32]>,
    origins: Vec<String>,
    streams: Arc<tokio::sync::Semaphore>,
}

impl Api {
    /// Reads the token.
    ///
    /// # Errors
    /// The token's file is missing or holds none.
    pub fn new(
        ports: Ports,
        monitor: Arc<Monitor>,
        settings: &HttpSettings,
    ) -> anyhow::Result<Self> {
        let token = settings.token_file.as_deref().map(read_token).transpose()?;
        let origins = settings.cors_origins.clone();
        let streams = Arc::new(tokio::sync::Semaphore::new(STREAMS_MAX));
        Ok(Self { ports, monitor, token, origins, streams })
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let (Some(token), Some(word)) = (&self.token, bearer(headers)) else { return false };
        let presented: [u8; 32] = Sha256::digest(word).into();
        // Hashes of equal length and no early exit: time tells nothing of the token.
        let difference = presented.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

fn read_token(path: &FilePath) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `http.token_file` {}", path.display()))?;
    let word = text.trim();
    if word.len() < TOKEN_BYTES_MIN || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("`http.token_file` must hold one word of at least 16 printable characters");
    }
    Ok(Sha256::digest(word).into())
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, word) = value.split_first_chunk::<7>()?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| word.trim_ascii())
}

#[derive(Clone)]
struct Shared {
    api: Arc<Api>,
    end: CancellationToken,
}

/// The routes below `/api`.
pub(super) fn router(api: Api, end: CancellationToken) -> Router {
    let shared = Shared { api: Arc::new(api), end };
    Router::new()
        .route("/teams", get(teams::all))
        .route("/teams/{team}", get(teams::one))
        .route("/teams/{team}/agents/{agent}/{*path}", any(pass))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // The outer one first: a refusal, too, can be read by the page that asked.
        .layer(middleware::from_fn_with_state(shared.clone(), require_token))
        .layer(middleware::from_fn_with_state(shared.clone(), cross_origin))
        .with_state(shared)
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

async fn nothing_here() -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
}

/// Lets pages of the configured origins in, and no others.
async fn cross_origin(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let known = origin.to_str().is_ok_and(|origin| shared.api.origins.iter().any(|o| o == origin));
    if !known {
        let message = "Pages of this origin may not ask; see `http.cors_origins`";
        return vary(refuse(StatusCode::FORBIDDEN, "origin.denied", message));
    }
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    vary(response)
}

/// The answer differs by origin, which caches must know.
fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}

async fn require_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if shared.api.token.is_none() {
        let message = "Name a file with a token in `http.token_file` to open this";
        return refuse(StatusCode::FORBIDDEN, "api.closed", message);
    }
    if shared.api.admits(request.headers()) {
        return next.run(request).await;
    }
    let refused = refuse(StatusCode::UNAUTHORIZED, "unauthorized", "This needs the worker's token");
    ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
}

/// The path of the agent's API, if it may be asked for.
fn allowed_path(path: &str, method: &Method) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_id = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let reads = method == Method::GET || method == Method::HEAD;
    let allowed = match parts[..] {
        ["health" | "metrics" | "events" | "changes" | "openapi.json"] => reads,
        ["tasks"] => reads || method == Method::POST,
        ["tasks", id] => is_id(id) && (reads || method == Method::DELETE),
        ["tasks", id, "events"] => is_id(id) && reads,
        _ => false,
    };
    allowed.then(|| format!("/{path}"))
}

async fn pass(
    State(shared): State<Shared>,
    Path((team, agent, path)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let not_found = |message: &str| refuse(StatusCode::NOT_FOUND, "agent.not_found", message);
    let (Ok(team), Ok(agent)) = (TeamId::parse(&team), PartName::parse(&agent)) else {
        return not_found("This is no name of a team or an agent");
    };
    let Some(target) = allowed_path(&path, &method) else {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "The agent shows nothing like this here",
        );
    };
    let Ok(body) = body else {
        let message = "The body is over 256 KiB";
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", message);
    };
    let Ok(permit) = Arc::clone(&shared.api.streams).try_acquire_owned() else {
        let message = "Too many requests are passed on already";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "api.busy", message);
    };
    let ports = &shared.api.ports;
    let name = Names::new(&ports.settings.instance, &team).container(Role::Agent, Some(&agent));
    let address = match ports.engine.inspect_container(&name).await {
        Ok(Some(state)) if state.running => state.address,
        Ok(_) => None,
        Err(_) => {
            let message = "The Docker daemon does not answer";
            return refuse(StatusCode::BAD_GATEWAY, "docker.unreachable", message);
        }
    };
    let Some(address) = address else {
        return not_found("No such agent runs on this host");
    };
    let Ok(door) = door(ports, &team, &agent, (address, SERVICE_PORT).into()).await else {
        return not_found("The agent's token is gone; start the team again");
    };
    let forwarded: Vec<(&str, &str)> = FORWARDED
        .iter()
        .filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)))
        .collect();
    let answer = match HttpAgents.send(&door, method, &target, &forwarded, body).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(team.id = %team, %agent, %error, "an agent was not reached");
            let message = "The agent does not answer";
            return refuse(StatusCode::BAD_GATEWAY, "agent.unreachable", message);
        }
    };
    let mut response = Response::builder().status(answer.status);
    for name in RETURNED {
        if let Some(value) = answer.headers.get(name) {
            response = response.header(HeaderName::from_static(name), value);
        }
    }
    if let Some(place) = answer.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) {
        let place = format!("/api/teams/{team}/agents/{agent}{place}");
        response = response.header(header::LOCATION, place);
    }
    // The permit lives as long as the stream, and the stream no longer than the worker.
    let end = shared.end.clone();
    let stream = answer.body.stream().map(move |chunk| {
        let _ = &permit;
        chunk
    });
    let body = Body::from_stream(stream.take_until(end.cancelled_owned()));
    response.body(body).unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, expected: Option<&str>) {
        assert_eq!(allowed_path(path, &method).as_deref(), expected, "{method} {path}");
    }

    #[test]
    fn only_what_a_dashboard_needs_goes_through() {
        check(Method::GET, "tasks", Some("/tasks"));
        check(Method::POST, "tasks", Some("/tasks"));
        check(Method::GET, "tasks/0190-a/events", Some("/tasks/0190-a/events"));
        check(Method::DELETE, "tasks/0190-a", Some("/tasks/0190-a"));
        check(Method::GET, "health", Some("/health"));
        for path in ["shutdown", "tasks/0190-a/told", "tasks/", "tasks/..", "tasks/../shutdown", ""]
        {
            check(Method::POST, path, None);
            check(Method::GET, path, None);
        }
        check(Method::DELETE, "tasks", None);
        check(Method::GET, "tasks/a b", None);
        check(Method::GET, "tasks/a?b", None);
    }
}
