//! The routes of the sync service's API.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use tokio::sync::{mpsc, oneshot};

use super::shapes::StatusBody;
use super::{Done, Shared, health};
use crate::service::auth::require_token;
use crate::service::health::Health;
use crate::service::http::{ApiError, metrics_page};

/// Longer than one slow cycle; a caller that waits longer may ask `/status`.
const SYNC_BOUND: Duration = Duration::from_secs(300);

/// Callers should not crowd.
const RETRY_AFTER: Duration = Duration::from_secs(5);

type Api = State<Arc<Shared>>;

/// Builds the routes; only `/health` is open.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let token = shared.settings.token.clone();
    Router::new()
        .route("/status", get(status))
        .route("/sync", post(sync))
        .route("/metrics", get(metrics))
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(token, require_token))
        .route("/health", get(answer_health))
        .with_state(shared)
}

async fn answer_health(State(shared): Api) -> Health {
    health::health(&shared)
}

async fn metrics(State(shared): Api) -> Response {
    metrics_page(&shared.metrics.registry)
}

async fn status(State(shared): Api) -> Json<StatusBody> {
    Json(StatusBody::of(&shared.settings, &shared.board))
}

/// Runs a cycle that begins after the request, and a pass of the mirror before it.
async fn sync(State(shared): Api) -> Result<Json<StatusBody>, ApiError> {
    let synced = async {
        if let Some(mirror) = &shared.mirror {
            order(mirror).await?;
        }
        order(&shared.cycles).await
    };
    let timeout = |_| {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "sync.timeout", "The sync goes on; see /status")
    };
    tokio::time::timeout(SYNC_BOUND, synced).await.map_err(timeout)??;
    Ok(Json(StatusBody::of(&shared.settings, &shared.board)))
}

async fn order(worker: &mpsc::Sender<Done>) -> Result<(), ApiError> {
    let (done, finished) = oneshot::channel();
    worker.try_send(done).map_err(|_| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue.full", "Enough callers wait already")
            .retry_after(RETRY_AFTER)
    })?;
    finished.await.map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping")
    })
}

async fn no_such_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
}
