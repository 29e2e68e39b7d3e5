//! `/api`: what the operator page shows, as JSON.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::gate::refuse;
use crate::app::board::JobLine;
use crate::app::office::Office;
use crate::app::office::views::TeamView;
use crate::domain::health::PartHealth;
use crate::domain::ids::TeamId;
use crate::wire::job::timestamp_text;
use crate::wire::team_health::{PartHealthBody, TeamHealth};

/// Jobs in one answer.
const JOBS_MAX: usize = 500;

/// The routes, `/api` left out.
pub(super) fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/overview", get(overview))
        .route("/teams", get(teams))
        .route("/teams/{team}", get(team))
        .route("/jobs", get(jobs))
        .route("/jobs/{job}", get(job))
        .route("/hosts", get(hosts))
        .with_state(office)
}

async fn overview(State(office): State<Arc<Office>>) -> Response {
    Json(office.overview().await).into_response()
}

/// The teams, how Docker answers, and the place in `/events` from which on they change.
async fn teams(State(office): State<Arc<Office>>) -> Response {
    // Before the teams: an event that both tell of is known by its sequence.
    let place = place(&office);
    let (teams, trouble) = office.teams().await;
    let teams: Vec<Value> = teams.iter().map(|team| team_of(&office, team)).collect();
    let engine = office.monitor.engine();
    let docker =
        json!({"up": engine.is_up, "millis": engine.millis, "followed": engine.is_followed});
    let body = json!({"teams": teams, "docker": docker, "events": place, "trouble": trouble});
    Json(body).into_response()
}

async fn team(State(office): State<Arc<Office>>, Path(name): Path<String>) -> Response {
    let missing = || refuse(StatusCode::NOT_FOUND, "team.not_found", "This host has no such team");
    let Ok(name) = TeamId::parse(&name) else { return missing() };
    let place = place(&office);
    let (team, trouble) = office.team(&name).await;
    let Some(team) = team else { return missing() };
    let mut body = team_of(&office, &team);
    body["desired"] = json!(office.desired(&name, &team).await);
    (body["events"], body["trouble"]) = (json!(place), json!(trouble));
    Json(body).into_response()
}

/// A team's health as snapshots have it, and what events have said of it: its state
/// and number are those that a follower of `/events` has, too.
fn team_of(office: &Office, view: &TeamView) -> Value {
    let picture = TeamId::parse(&view.team).ok().and_then(|team| office.monitor.picture(&team));
    let watched = picture.as_ref().filter(|picture| !picture.busy && picture.wanted);
    let health = watched.map_or_else(|| unwatched(view), TeamHealth::from);
    let mut body = json!(health);
    for (key, value) in [
        ("state", json!(view.state)),
        ("cause", json!(view.cause)),
        ("since_unix_ms", json!(view.since_unix_ms)),
        ("sequence", json!(view.sequence)),
        ("links", json!(view.links)),
        ("sync", json!(view.sync)),
        ("job", json!(view.job)),
    ] {
        body[key] = value;
    }
    body
}

/// A team on which a job is at work, or which is not to run: what Docker has of it.
fn unwatched(view: &TeamView) -> TeamHealth {
    let parts = view.parts.iter().map(|part| PartHealthBody {
        role: part.role.clone(),
        part: (!part.name.is_empty()).then(|| part.name.clone()),
        container: part.container.clone(),
        state: part.state.clone(),
        health: PartHealth::Unknown.as_str().to_owned(),
        url: part.url.clone(),
        ..PartHealthBody::default()
    });
    TeamHealth {
        team: view.team.clone(),
        generation: view.generation,
        parts: parts.collect(),
        missing: view.missing.clone(),
        ..TeamHealth::default()
    }
}

/// The id of the last event, as `Last-Event-ID` has it; without a number if there
/// was none yet.
fn place(office: &Office) -> String {
    let last = office.feed.next().checked_sub(1).map_or(String::new(), |last| last.to_string());
    format!("{}.{last}", office.feed.boot())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    team: Option<String>,
    state: Option<String>,
}

async fn jobs(State(office): State<Arc<Office>>, Query(wish): Query<Wish>) -> Response {
    let board = office.feed.board();
    let wanted = |job: &&JobLine| {
        wish.team.as_ref().is_none_or(|team| *team == job.team)
            && wish.state.as_ref().is_none_or(|state| state == job.state.as_str())
    };
    let jobs: Vec<Value> =
        board.jobs().into_iter().filter(wanted).take(JOBS_MAX).map(json_of).collect();
    Json(json!({"jobs": jobs})).into_response()
}

async fn job(State(office): State<Arc<Office>>, Path(id): Path<String>) -> Response {
    let board = office.feed.board();
    match board.job_of(&id) {
        Some(job) => Json(json_of(job)).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "job.not_found", "This host knows no such job"),
    }
}

async fn hosts(State(office): State<Arc<Office>>) -> Response {
    Json(json!({"hosts": office.hosts()})).into_response()
}

/// A job, as `/api` and `covibes jobs --json` give it.
pub fn json_of(job: &JobLine) -> Value {
    let time = |at: i64| (at > 0).then(|| timestamp_text(at));
    let steps: Vec<Value> = job
        .steps
        .iter()
        .map(|step| {
            json!({"step": step.step, "began": time(step.began_unix_ms),
                "duration_ms": step.millis, "failed": step.failed, "message": step.message})
        })
        .collect();
    let retries: Vec<Value> = job
        .retries
        .iter()
        .map(|retry| {
            json!({"code": retry.code, "message": retry.message, "delay_ms": retry.delay_ms,
                "time": time(retry.at_unix_ms)})
        })
        .collect();
    json!({
        "id": job.id, "team": job.team, "action": job.action, "state": job.state.as_str(),
        "began": time(job.began_unix_ms), "ended": job.ended_unix_ms.and_then(time),
        "attempts": job.attempts, "position": job.position, "short": job.short_of,
        "steps": steps, "retries": retries, "failure": job.failure, "message": job.message,
        "by": job.by, "links": job.links,
    })
}
