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

use super::observe::AgentEvent;
use super::shapes::{
    AcceptedBody, StoppingBody, TaskBody, TaskListBody, TaskRequestBody, ToldBody,
};
use super::task::{Task, TaskId, TaskRequest};
use super::tasks::{Added, QueueFull, RETRY_AFTER};
use super::{Shared, changes, events, news, openapi};
use crate::service::auth::require_token;
use crate::service::health::{Health, Status};
use crate::service::http::{ApiError, metrics_page};
use crate::service::system::now;

/// A prompt of 128 KiB, written with escapes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Sooner than proxies and browsers take a silent stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longer keys are no keys.
const KEY_BYTES_MAX: usize = 200;

type Api = State<Arc<Shared>>;

/// Builds the routes; only `/health` is open.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let token = shared.settings.token.clone();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/tasks", get(list).post(add))
        .route("/tasks/{id}", get(show).delete(cancel))
        .route("/tasks/{id}/events", get(follow))
        .route("/tasks/{id}/told", post(note_told))
        .route("/events", get(follow_all))
        .route("/changes", get(follow_changes))
        .route("/shutdown", post(shutdown))
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(token.clone(), require_token))
        .method_not_allowed_fallback(no_such_method)
        .route("/health", get(health))
        .route("/openapi.json", get(describe))
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

async fn describe() -> Json<serde_json::Value> {
    Json(openapi::document())
}

/// Reads a body of JSON, or says what is wrong with it.
fn read<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let too_large = || {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", "The body is over 256 KiB")
    };
    serde_json::from_slice(&body.map_err(|_| too_large())?).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "body.invalid", format!("Bad JSON: {error}"))
    })
}

/// The word under which a request that comes again is known.
fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let word = value.to_str().ok().filter(|word| (1..=KEY_BYTES_MAX).contains(&word.len()));
    let message = "Idempotency-Key must be 1 to 200 printable characters";
    let refused = || ApiError::new(StatusCode::BAD_REQUEST, "key.invalid", message);
    word.map(|word| Some(word.to_owned())).ok_or_else(refused)
}

async fn add(
    State(shared): Api,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request = TaskRequest::try_from(read::<TaskRequestBody>(body)?)?;
    let key = key(&headers)?;
    let has_key = key.is_some();
    let place = |id: TaskId| [(header::LOCATION, format!("/tasks/{id}"))];
    match shared.tasks.add(request, key, now()) {
        Ok(Added::New { id, position }) => {
            // Written down before it is promised.
            shared.store.keep(&shared.tasks, id).await;
            if has_key {
                shared.store.keep_keys(&shared.tasks).await;
            }
            AgentEvent::Queued { id, position }.emit(&shared.metrics);
            let body = AcceptedBody { id: id.to_string(), position, known: false };
            Ok((StatusCode::ACCEPTED, place(id), Json(body)).into_response())
        }
        Ok(Added::Known { id }) => {
            let body = AcceptedBody { id: id.to_string(), position: 0, known: true };
            Ok((StatusCode::OK, place(id), Json(body)).into_response())
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
    let show = |task: &Task| (!task.is_emptied).then(|| TaskBody::of(task));
    let tasks = shared.tasks.look_at_all(show).into_iter().flatten().collect();
    Json(TaskListBody { running, waiting, tasks })
}

async fn show(State(shared): Api, Path(id): Path<String>) -> Result<Json<TaskBody>, ApiError> {
    shared.tasks.look(parse(&id)?, TaskBody::of).map(Json).ok_or_else(no_such_task)
}

/// 202 while the task is being ended, 200 when it is over.
async fn cancel(State(shared): Api, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = parse(&id)?;
    let forgotten = shared.tasks.cancel(id, now()).ok_or_else(no_such_task)?;
    shared.store.keep(&shared.tasks, id).await;
    shared.store.forget(&shared.tasks, forgotten).await;
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

async fn note_told(
    State(shared): Api,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let id = parse(&id)?;
    if !shared.tasks.note_told(id, read::<ToldBody>(body)?.into()) {
        return Err(no_such_task());
    }
    shared.store.keep(&shared.tasks, id).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn follow_all(State(shared): Api) -> Response {
    Sse::new(news::follow(shared)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn follow_changes(State(shared): Api) -> Response {
    let events = changes::follow(shared).await;
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn shutdown(State(shared): Api) -> Response {
    tracing::info!("asked to shut down");
    shared.scope.stop();
    (StatusCode::ACCEPTED, Json(StoppingBody { stopping: true })).into_response()
}

async fn no_such_method() -> ApiError {
    let message = "This path has other methods; see /openapi.json";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
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
