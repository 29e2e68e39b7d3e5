//! Tells the worker what the board says. Open: it holds no secret, and only the
//! team's own network and the worker reach it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};

use super::board::{Board, StateBody, StateName};

/// Builds the routes.
pub(super) fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/health", get(health))
        .route("/log", get(log))
        .with_state(board)
}

async fn state(State(board): State<Arc<Board>>) -> Json<StateBody> {
    Json(board.report())
}

async fn health(State(board): State<Arc<Board>>) -> (StatusCode, Json<StateBody>) {
    let report = board.report();
    let code = match report.state {
        StateName::Running => StatusCode::OK,
        StateName::Starting | StateName::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(report))
}

async fn log(State(board): State<Arc<Board>>) -> Json<Vec<String>> {
    Json(board.last_lines())
}
