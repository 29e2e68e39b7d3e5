//! The agents' API for dashboards: `/api/teams/{team}/agents/{agent}/...`.
//!
//! An agent listens on an internal network, which no browser reaches. The worker
//! passes requests on, with the agent's own token in place of its own. Only the
//! paths of the list go through: a dashboard neither ends an agent nor says what
//! the team's events have told.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::gate::refuse;
use crate::adapters::agents::HttpAgents;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::names::Names;
use crate::domain::plan::Role;
use crate::pipeline::Ports;
use crate::pipeline::first_tasks::door;

/// As much as an agent takes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Streams that are passed on at once; a browser opens a handful.
const STREAMS_MAX: usize = 256;

/// Headers that go on to the agent, and back from it.
const FORWARDED: [&str; 3] = ["content-type", "idempotency-key", "last-event-id"];
const RETURNED: [&str; 5] =
    ["content-type", "cache-control", "retry-after", "allow", "www-authenticate"];

#[derive(Clone)]
struct Shared {
    ports: Ports,
    streams: Arc<tokio::sync::Semaphore>,
    end: CancellationToken,
}

/// The routes, `/api` left out.
pub(super) fn router(ports: Ports, end: CancellationToken) -> Router {
    let shared = Shared { ports, streams: Arc::new(tokio::sync::Semaphore::new(STREAMS_MAX)), end };
    Router::new()
        .route("/teams/{team}/agents/{agent}/{*path}", any(pass))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
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
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let message = "Too many requests are passed on already";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "api.busy", message);
    };
    let ports = &shared.ports;
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
