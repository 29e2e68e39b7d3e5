//! The routes of the sync service's API.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::commits::{Refusal, Request};
use super::shapes::{
    CommitRequestBody, CommittedBody, PushRequestBody, PushedBody, StatusBody, SyncRequestBody,
};
use super::strategy::{Strategy, Wish};
use super::turns::Order;
use super::{Shared, health};
use crate::service::auth::require_token;
use crate::service::health::Health;
use crate::service::http::{ApiError, metrics_page};

/// Longer than one slow cycle; a caller that waits longer may ask `/status`.
const SYNC_BOUND: Duration = Duration::from_secs(300);

/// A look at 50,000 files takes three seconds of a tenth of a CPU; what it would
/// have told is absent then.
const LOOK_BOUND: Duration = Duration::from_secs(10);

/// Ten thousand paths.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Sooner than proxies take a silent stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Callers should not crowd.
const RETRY_AFTER: Duration = Duration::from_secs(5);

type Api = State<Arc<Shared>>;

/// Builds the routes; only `/health` is open.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let token = shared.settings.token.clone();
    Router::new()
        .route("/status", get(status))
        .route("/sync", post(sync))
        .route("/commit", post(commit))
        .route("/push", post(push))
        .route("/events", get(follow))
        .route("/metrics", get(metrics))
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(token, require_token))
        .route("/health", get(answer_health))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn answer_health(State(shared): Api) -> Health {
    health::health(&shared)
}

async fn metrics(State(shared): Api) -> Response {
    metrics_page(&shared.metrics.registry)
}

/// Answers when the files were looked at after the last cycle, which is soon.
async fn status(State(shared): Api) -> Json<StatusBody> {
    tokio::select! {
        () = shared.board.until_looked() => {}
        () = tokio::time::sleep(LOOK_BOUND) => {}
        () = shared.scope.stopping() => {}
    }
    Json(StatusBody::of(&shared.settings, &shared.board))
}

/// Runs a cycle that begins after the request, and a pass of the mirror before it.
///
/// What is changed in the workspace is in the answer only if the cycle had to know it.
async fn sync(
    State(shared): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<StatusBody>, ApiError> {
    let wish = wish(&shared, read(body)?)?;
    if wish.is_some() && shared.settings.report_only {
        let message = "the workspace is a person's own directory; nothing is moved there";
        return Err(ApiError::new(StatusCode::CONFLICT, "workspace.unfit", message));
    }
    let synced = async {
        if let Some(mirror) = &shared.mirror {
            let (done, finished) = oneshot::channel();
            order(mirror, done)?;
            finished.await.map_err(|_| stopping())?;
        }
        let (done, finished) = oneshot::channel();
        order(&shared.turns, Order::Cycle { wish, done })?;
        finished.await.map_err(|_| stopping())
    };
    within(synced).await?;
    Ok(Json(StatusBody::of(&shared.settings, &shared.board)))
}

/// Reads what is to be joined, and how.
fn wish(shared: &Shared, body: SyncRequestBody) -> Result<Option<Wish>, ApiError> {
    let SyncRequestBody { strategy, worktree } = body;
    let bad =
        |code: &'static str, message: &str| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let is_known = |name: &String| shared.settings.worktrees.iter().any(|(known, _)| known == name);
    if worktree.as_ref().is_some_and(|name| !is_known(name)) {
        return Err(bad("worktree.unknown", "`worktree` names no preview with one; see /status"));
    }
    let Some(word) = strategy else {
        return match worktree {
            Some(_) => Err(bad("strategy.missing", "`worktree` goes with a `strategy`")),
            None => Ok(None),
        };
    };
    let unknown = || bad("strategy.unknown", "`strategy` is rebase, merge or branch");
    let strategy = Strategy::parse(&word).ok_or_else(unknown)?;
    Ok(Some(Wish { strategy, worktree }))
}

/// Commits what an agent changed to its branch.
async fn commit(
    State(shared): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CommittedBody>, ApiError> {
    let CommitRequestBody { agent, message, paths } = read(body)?;
    let request = Request { agent, message, paths };
    let (answer, answered) = oneshot::channel();
    order(&shared.turns, Order::Commit { request, answer })?;
    let committed = within(async { answered.await.map_err(|_| stopping()) }).await?;
    Ok(Json(committed.map_err(refused)?.into()))
}

/// Pushes an agent's branch.
async fn push(
    State(shared): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PushedBody>, ApiError> {
    let PushRequestBody { agent } = read(body)?;
    let (answer, answered) = oneshot::channel();
    order(&shared.turns, Order::Push { agent, answer })?;
    let pushed = within(async { answered.await.map_err(|_| stopping()) }).await?;
    Ok(Json(pushed.map_err(refused)?.into()))
}

/// Shows the status as it is, and again whenever somebody would want to know.
async fn follow(State(shared): Api) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut news = shared.board.news();
    news.mark_changed();
    let until = shared.scope.stopping();
    let events = stream::unfold((shared, news), |(shared, mut news)| async move {
        loop {
            news.changed().await.ok()?;
            let number = *news.borrow_and_update();
            if shared.board.cycle().is_some() {
                let body = StatusBody::of(&shared.settings, &shared.board);
                let data = serde_json::to_string(&body).unwrap_or_default();
                let event = Event::default().id(number.to_string()).event("status").data(data);
                return Some((Ok(event), (shared, news)));
            }
        }
    });
    Sse::new(events.take_until(until)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Reads a body of JSON, or says what is wrong with it; none is an empty object.
fn read<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let too_large =
        |_| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", "The body is too large");
    let body = body.map_err(too_large)?;
    let bytes: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "body.invalid", format!("Bad JSON: {error}"))
    })
}

fn refused(refusal: Refusal) -> ApiError {
    let (status, code) = match &refusal {
        Refusal::Bad(_) => (StatusCode::BAD_REQUEST, "body.invalid"),
        Refusal::Unfit(_) => (StatusCode::CONFLICT, "workspace.unfit"),
        Refusal::Failed(_) => (StatusCode::BAD_GATEWAY, "git.failed"),
    };
    ApiError::new(status, code, refusal.to_string())
}

fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping")
}

async fn within<T>(work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let timeout = |_| {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "sync.timeout", "The sync goes on; see /status")
    };
    tokio::time::timeout(SYNC_BOUND, work).await.map_err(timeout)?
}

fn order<T>(worker: &mpsc::Sender<T>, order: T) -> Result<(), ApiError> {
    worker.try_send(order).map_err(|_| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue.full", "Enough callers wait already")
            .retry_after(RETRY_AFTER)
    })
}

async fn no_such_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
}
