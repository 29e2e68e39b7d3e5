//! Which address shows what.

use std::sync::Arc;

use axum::extract::{Path, Query, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use maud::{Markup, html};

use super::format::text;
use super::letters::Chosen;
use super::{
    Frame, ICON, headers, hosts, jobs, letters, logs, message, overview, render, runbooks, team,
    teams,
};
use crate::adapters::rabbitmq::dead_letters::DEAD_LETTERS_LOOK_MAX;
use crate::app::board::JobLine;
use crate::app::office::{Caller, Deed, NotDone, Office};
use crate::config::layout::Layout;
use crate::domain::ids::TeamId;
use crate::domain::job::ActionKind;
use crate::observe::Chain;

/// Jobs on a team's own page.
const RECENT_MAX: usize = 12;

/// Dead letters on one page.
const LETTERS_MAX: usize = 200;

/// Dead letters are not an event: a message is put aside after its job's end was told.
const LETTERS_EVERY: u32 = 3000;

/// Logs that are followed at once.
const FOLLOWED_MAX: usize = 64;

/// What the page needs.
#[derive(Clone)]
struct Desk {
    office: Arc<Office>,
    followed: Arc<tokio::sync::Semaphore>,
}

/// The page's routes, `/` and below.
pub fn router(office: Arc<Office>) -> Router {
    let desk = Desk { office, followed: Arc::new(tokio::sync::Semaphore::new(FOLLOWED_MAX)) };
    Router::new()
        .route("/", get(overview_page))
        .route("/teams", get(teams_page))
        .route("/teams/{team}", get(team_page))
        .route("/teams/{team}/compose.yaml", get(compose_file))
        .route("/teams/{team}/logs/{container}", get(log_page))
        .route("/teams/{team}/logs/{container}/follow", get(log_follow))
        .route("/teams/{team}/{action}", get(action_page).post(act))
        .route("/jobs", get(jobs_page))
        .route("/jobs/{job}", get(job_page))
        .route("/jobs/{job}/evidence", get(evidence))
        .route("/dead-letters", get(letters_page).post(settle))
        .route("/dead-letters/confirm", get(confirm_page))
        .route("/dead-letters/{id}", get(letter_page))
        .route("/hosts", get(hosts_page))
        .route("/runbooks/{name}", get(runbook_page))
        .with_state(desk)
}

/// What every page of it needs, for whoever asks.
pub fn assets() -> Router {
    let icon = async || (headers("image/svg+xml"), ICON).into_response();
    Router::new().route("/page.svg", get(icon))
}

impl Desk {
    fn frame(&self, title: &str, section: &'static str) -> Frame {
        let host = self.office.hosts.own().to_string();
        Frame { title: title.to_owned(), section, host, live: true, every: None }
    }

    /// A page that no event changes.
    fn still(&self, title: &str, section: &'static str) -> Frame {
        Frame { live: false, ..self.frame(title, section) }
    }

    fn show(&self, title: &str, section: &'static str, content: &Markup) -> Response {
        render(StatusCode::OK, &self.frame(title, section), content)
    }

    fn missing(&self, what: &str) -> Response {
        let about = html! { p { "It may be gone, or belong to another host: see "
        a href="/hosts" { "Hosts" } "." } };
        // What is not there yet may come.
        let frame = self.frame(what, "");
        message(StatusCode::NOT_FOUND, &frame, what, &about)
    }

    fn not_done(&self, section: &'static str, error: &NotDone) -> Response {
        let status = match error {
            NotDone::NoSpec => StatusCode::CONFLICT,
            NotDone::Audit(_) => StatusCode::INTERNAL_SERVER_ERROR,
            NotDone::Broker(_) => StatusCode::BAD_GATEWAY,
        };
        let words = Chain(error).to_string();
        tracing::warn!(error = words, "an operator's wish was not carried out");
        let frame = self.still("Not done", section);
        message(status, &frame, "Not done", &html! { p role="alert" { (text(&words)) } })
    }

    fn jobs(&self, wanted: impl Fn(&JobLine) -> bool, count: usize) -> Vec<JobLine> {
        let board = self.office.feed.board();
        board.jobs().into_iter().filter(|job| wanted(job)).take(count).cloned().collect()
    }
}

async fn overview_page(State(desk): State<Desk>) -> Response {
    let (view, deeds) = tokio::join!(desk.office.overview(), desk.office.deeds());
    let failed = overview::failed(&desk.office.feed.board().jobs());
    desk.show("Overview", "/", &overview::render(&view, &failed, &deeds))
}

async fn teams_page(State(desk): State<Desk>, Query(search): Query<teams::Search>) -> Response {
    let (teams, trouble) = desk.office.teams().await;
    desk.show("Teams", "/teams", &teams::render(&teams, &search, trouble.as_ref()))
}

async fn team_page(State(desk): State<Desk>, Path(name): Path<String>) -> Response {
    let Ok(name) = TeamId::parse(&name) else { return desk.missing("There is no such team") };
    let (team, trouble) = desk.office.team(&name).await;
    let Some(team) = team else { return desk.missing("There is no such team here") };
    let desired = desk.office.desired(&name, &team).await;
    let recent = desk.jobs(|job| job.team == name.as_str(), RECENT_MAX);
    let now = desk.office.now();
    let content = team::render(&team, desired.as_ref(), &recent, now, trouble.as_ref());
    desk.show(name.as_str(), "/teams", &content)
}

async fn compose_file(State(desk): State<Desk>, Path(name): Path<String>) -> Response {
    let Ok(name) = TeamId::parse(&name) else { return desk.missing("There is no such team") };
    let path = Layout::new(&desk.office.ports.settings, &name).compose();
    match tokio::fs::read_to_string(path).await {
        Ok(file) => download(&format!("{name}-compose.yaml"), "application/yaml", file),
        Err(_) => desk.missing("Nothing was planned for this team here"),
    }
}

/// A file to keep; its name holds letters, digits and `-._` only.
fn download(name: &str, content_type: &'static str, file: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    (headers(content_type), [(header::CONTENT_DISPOSITION, disposition)], file).into_response()
}

async fn log_page(
    State(desk): State<Desk>,
    Path((name, container)): Path<(String, String)>,
    Query(search): Query<logs::Search>,
) -> Response {
    let Ok(name) = TeamId::parse(&name) else { return desk.missing("There is no such team") };
    let office = &desk.office;
    let Some(found) = office.container(&name, &container).await else {
        return desk.missing("This team has no such part here");
    };
    let (team, _) = office.team(&name).await;
    let parts = team.map(|team| team.parts).unwrap_or_default();
    let part = parts.into_iter().find(|part| part.container == container).unwrap_or_default();
    let lines = match office.ports.engine.log_tail(&found, search.lines()).await {
        Ok(lines) => lines,
        Err(_) => return desk.missing("Docker does not give this log"),
    };
    if search.download.is_some() {
        let all: Vec<_> = lines.iter().map(|line| super::format::line(line)).collect();
        return download(&format!("{container}.log"), "text/plain; charset=utf-8", all.join("\n"));
    }
    // The log itself follows; its page is not asked for again.
    let frame = desk.still(&format!("Log of {}", part.title()), "/teams");
    render(StatusCode::OK, &frame, &logs::render(name.as_str(), &part, &lines, &search))
}

async fn log_follow(
    State(desk): State<Desk>,
    Path((name, container)): Path<(String, String)>,
    Query(search): Query<logs::Search>,
) -> Response {
    let Ok(name) = TeamId::parse(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let Some(container) = desk.office.container(&name, &container).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(permit) = Arc::clone(&desk.followed).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let engine = Arc::clone(&desk.office.ports.engine);
    logs::follow(engine, container, search.lines(), permit)
}

fn action_of(raw: &str) -> Option<(ActionKind, &'static str)> {
    team::ACTIONS.into_iter().find(|(action, _)| action.as_str() == raw)
}

async fn action_page(
    State(desk): State<Desk>,
    Path((name, action)): Path<(String, String)>,
) -> Response {
    match (TeamId::parse(&name), action_of(&action)) {
        (Ok(name), Some((action, says))) => {
            let frame = desk.still(team::title(action), "/teams");
            render(StatusCode::OK, &frame, &team::confirm(name.as_str(), action, says))
        }
        _ => desk.missing("There is nothing like this"),
    }
}

async fn act(
    State(desk): State<Desk>,
    Path((name, action)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let (Ok(name), Some((action, _))) = (TeamId::parse(&name), action_of(&action)) else {
        return desk.missing("There is nothing like this");
    };
    match desk.office.act(&Deed::Team(name, action), &caller).await {
        Ok(job) => Redirect::to(&format!("/jobs/{job}")).into_response(),
        Err(error) => desk.not_done("/teams", &error),
    }
}

async fn jobs_page(State(desk): State<Desk>, Query(search): Query<jobs::Search>) -> Response {
    let found = desk.jobs(|job| search.wants(job), usize::MAX);
    let codes = desk.office.feed.board().codes();
    desk.show("Jobs", "/jobs", &jobs::render(&found, &search, &codes, desk.office.now()))
}

async fn job_page(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let job = desk.office.feed.board().job_of(&id).cloned();
    let Some(job) = job else {
        // It was published a moment ago, from here: its first event is on its way.
        let is_id = uuid::Uuid::parse_str(&id).is_ok();
        let about = html! {
            p { "This host has not heard of job " code.id { (text(&id)) } " yet, or no longer." }
            p { a href="/jobs" { "All jobs" } }
        };
        let frame = Frame { live: is_id, ..desk.frame("Job", "/jobs") };
        let status = if is_id { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND };
        return message(status, &frame, "No word of this job", &about);
    };
    let evidence = desk.office.evidence(&job).await.is_some();
    let title = format!("{} of {}", job.title(), job.team);
    desk.show(&title, "/jobs", &jobs::one(&job, desk.office.now(), evidence))
}

async fn evidence(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let job = desk.office.feed.board().job_of(&id).cloned();
    let kept = match job {
        Some(job) => desk.office.evidence(&job).await,
        None => None,
    };
    let Some(kept) = kept else { return desk.missing("Nothing was kept of this job") };
    let lines: Vec<String> = kept.lines().map(super::format::line).collect();
    let lines = crate::wire::redact::Redactor::default().lines(&lines);
    let content = html! {
        h1 { "Evidence" }
        p.quiet { "What was kept of the failed run before it was taken back · "
            a href={ "/jobs/" (text(&id)) } { "The job" } }
        (super::pre(&lines))
    };
    render(StatusCode::OK, &desk.still("Evidence", "/jobs"), &content)
}

async fn letters_page(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let chosen = match Chosen::read(&query.unwrap_or_default()) {
        Ok(chosen) => chosen,
        Err(why) => return refused(&desk, why),
    };
    match desk.office.letters(&chosen.filter, LETTERS_MAX).await {
        Ok(found) => {
            let frame = desk.frame("Dead letters", "/dead-letters");
            let frame = Frame { every: Some(LETTERS_EVERY), ..frame };
            render(StatusCode::OK, &frame, &letters::render(&found, &chosen))
        }
        Err(error) => desk.not_done("/dead-letters", &NotDone::Broker(error)),
    }
}

fn refused(desk: &Desk, why: &str) -> Response {
    let frame = desk.still("Not done", "/dead-letters");
    message(StatusCode::BAD_REQUEST, &frame, why, &html! {})
}

async fn letter_page(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let chosen = Chosen::named(id);
    match desk.office.letters_whole(&chosen.filter, 1).await {
        Ok(found) => match found.first() {
            Some(letter) => {
                let frame = desk.still("Dead letter", "/dead-letters");
                render(StatusCode::OK, &frame, &letters::one(letter))
            }
            None => desk.missing("This message is no longer among the dead letters"),
        },
        Err(error) => desk.not_done("/dead-letters", &NotDone::Broker(error)),
    }
}

async fn confirm_page(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let chosen = match Chosen::read(&query) {
        Ok(chosen) if matches!(chosen.deed.as_str(), "requeue" | "drop") => chosen,
        Ok(_) => return refused(&desk, "Say what is to be done: requeue or drop."),
        Err(why) => return refused(&desk, why),
    };
    // The form of ticked rows without a tick: all would be a surprise.
    if chosen.filter.message_ids.is_empty() && !query.contains("all=") {
        let about = html! { p { "Tick the messages that are meant." }
        p { a href="/dead-letters" { "Back" } } };
        let frame = desk.still("Nothing chosen", "/dead-letters");
        return message(StatusCode::BAD_REQUEST, &frame, "Nothing is chosen", &about);
    }
    match desk.office.letters_whole(&chosen.filter, DEAD_LETTERS_LOOK_MAX).await {
        Ok(found) => {
            let frame = desk.still("Sure?", "/dead-letters");
            render(StatusCode::OK, &frame, &letters::confirm(&chosen, &found))
        }
        Err(error) => desk.not_done("/dead-letters", &NotDone::Broker(error)),
    }
}

async fn settle(
    State(desk): State<Desk>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let body = axum::body::to_bytes(request.into_body(), 64 * 1024).await;
    let form = body.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let chosen = match form.as_deref().map(Chosen::read) {
        Some(Ok(chosen)) => chosen,
        Some(Err(why)) => return refused(&desk, why),
        None => return refused(&desk, "The form could not be read."),
    };
    let deed = match chosen.deed.as_str() {
        "requeue" => Deed::Requeue(chosen.filter),
        "drop" => Deed::Drop(chosen.filter),
        _ => return refused(&desk, "Say what is to be done: requeue or drop."),
    };
    match desk.office.act(&deed, &caller).await {
        Ok(done) => {
            let about = html! { p role="status" { (done) } p { a href="/dead-letters" { "Dead letters" } } };
            message(StatusCode::OK, &desk.still("Done", "/dead-letters"), "Done", &about)
        }
        Err(error) => desk.not_done("/dead-letters", &error),
    }
}

async fn hosts_page(State(desk): State<Desk>) -> Response {
    desk.show("Hosts", "/hosts", &hosts::render(&desk.office.hosts()))
}

async fn runbook_page(State(desk): State<Desk>, Path(name): Path<String>) -> Response {
    match runbooks::of(&name) {
        Some(source) => {
            let content =
                html! { article.narrow { h1.away { (text(&name)) } div.prose { (source) } } };
            render(StatusCode::OK, &desk.still(&name, ""), &content)
        }
        None => desk.missing("There is no such runbook"),
    }
}
