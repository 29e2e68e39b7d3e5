//! How the teams of this host are: `GET /api/teams` and `GET /api/teams/{team}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Shared, refuse};
use crate::domain::ids::TeamId;
use crate::wire::team_health::TeamHealth;

/// All of them, by name, and how the Docker daemon answers.
pub(super) async fn all(State(shared): State<Shared>) -> Response {
    let monitor = &shared.api.monitor;
    let teams: Vec<_> = monitor.pictures().iter().map(TeamHealth::from).collect();
    let engine = monitor.engine();
    let docker =
        json!({"up": engine.is_up, "millis": engine.millis, "followed": engine.is_followed});
    Json(json!({"teams": teams, "docker": docker})).into_response()
}

/// One of them.
pub(super) async fn one(State(shared): State<Shared>, Path(team): Path<String>) -> Response {
    let picture = TeamId::parse(&team).ok().and_then(|team| shared.api.monitor.picture(&team));
    match picture {
        Some(picture) => Json(TeamHealth::from(&picture)).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "team.not_found", "This host has no such team"),
    }
}
