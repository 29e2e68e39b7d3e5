//! The routes of the agent's API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;

use super::observe::AgentEvent;
use super::shapes::{AcceptedBody, TaskBody, TaskListBody, TaskRequestBody};
use super::task::{TaskId, TaskRequest};
use super::tasks::{QueueFull, RETRY_AFTER};
use super::{Shared, changes, events, output};
use crate::service::auth::require_token;
use crate::service::health::{Health, Status};
use crate::service::http::{ApiError, metrics_page};
use crate::service::system::now;

/// A prompt of 128 KiB, written with escapes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Sooner than proxies and browsers take a silent stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Api = State<Arc<Shared>>;

/// Builds the routes; only `/health` is open.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let token = shared.settings.token.clone();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/tasks", get(list).post(add))
        .route("/tasks/{id}", get(show).delete(cancel))
        .route("/tasks/{id}/events", get(follow))
        .route("/changes", get(follow_changes))
        .route("/shutdown", post(shutdown))
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(token.clone(), require_token))
        .route("/health", get(health))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn health(State(shared): Api) -> Health {
    shared.monitor.health(&shared.settings)
}

async fn metrics(State(shared): Api) -> Response {
    let (running, waiting) = shared.tasks.counts();
    shared.metrics.running.set(running as i64);
    shared.metrics.waiting.set(waiting as i64);
    for check in shared.monitor.health(&shared.settings).checks {
        let ok = i64::from(check.status == Status::Ok);
        shared.metrics.check_ok.with_label_values(&[check.name]).set(ok);
    }
    metrics_page(&shared.metrics.registry)
}

async fn add(
    State(shared): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let too_large = || {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", "The body is over 256 KiB")
    };
    let body = body.map_err(|_| too_large())?;
    let body: TaskRequestBody = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "body.invalid", format!("Bad JSON: {error}"))
    })?;
    let request = TaskRequest::try_from(body)?;
    match shared.tasks.add(request, now()) {
        Ok((id, position)) => {
            AgentEvent::Queued { id, position }.emit(&shared.metrics);
            let place = [(header::LOCATION, format!("/tasks/{id}"))];
            let body = AcceptedBody { id: id.to_string(), position };
            Ok((StatusCode::ACCEPTED, place, Json(body)).into_response())
        }
        Err(QueueFull) => {
            AgentEvent::Refused.emit(&shared.metrics);
            let message = "16 tasks wait already";
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue.full", message)
                .retry_after(RETRY_AFTER))
        }
    }
}

async fn list(State(shared): Api) -> Json<TaskListBody> {
    let (running, waiting) = shared.tasks.counts();
    Json(TaskListBody { running, waiting, tasks: shared.tasks.look_at_all(TaskBody::of) })
}

async fn show(State(shared): Api, Path(id): Path<String>) -> Result<Json<TaskBody>, ApiError> {
    shared.tasks.look(parse(&id)?, TaskBody::of).map(Json).ok_or_else(no_such_task)
}

/// 202 while the task is being ended, 200 when it is over.
async fn cancel(State(shared): Api, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = parse(&id)?;
    let forgotten = shared.tasks.cancel(id, now()).ok_or_else(no_such_task)?;
    output::forget(&shared.settings.output_dir(), forgotten).await;
    let (over, body) = shared
        .tasks
        .look(id, |task| (task.is_over(), TaskBody::of(task)))
        .ok_or_else(no_such_task)?;
    let status = if over { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(body)).into_response())
}

async fn follow(
    State(shared): Api,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .unwrap_or(0);
    let events = events::follow(shared, parse(&id)?, after).ok_or_else(no_such_task)?;
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

async fn follow_changes(State(shared): Api) -> Response {
    let events = changes::follow(shared).await;
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn shutdown(State(shared): Api) -> Response {
    tracing::info!("asked to shut down");
    shared.scope.stop();
    (StatusCode::ACCEPTED, Json(json!({"stopping": true}))).into_response()
}

async fn no_such_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
}

fn parse(id: &str) -> Result<TaskId, ApiError> {
    TaskId::parse_str(id).map_err(|_| no_such_task())
}

fn no_such_task() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "task.not_found", "There is no such task")
}
