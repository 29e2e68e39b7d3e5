//! All teams, one a row.

use maud::{Markup, html};

use super::format::{bytes, text};
use super::{bar, nothing, stale, state, time};
use crate::app::office::views::{PartView, TeamView};
use crate::domain::event::TeamState;

/// What is looked for.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Search {
    pub(super) q: String,
    pub(super) state: String,
}

/// Draws them.
pub(super) fn render(teams: &[TeamView], search: &Search, trouble: Option<&String>) -> Markup {
    let wanted = |team: &&TeamView| {
        (search.q.is_empty() || team.team.contains(&search.q))
            && (search.state.is_empty() || team.state == search.state)
    };
    let shown: Vec<_> = teams.iter().filter(wanted).collect();
    html! {
        div.head {
            h1 { "Teams" }
            form.filter method="get" action="/teams" role="search" {
                label { span { "Name" } input type="search" name="q" value=(text(&search.q)); }
                label { span { "State" }
                    select name="state" {
                        option value="" { "any" }
                        @for word in TeamState::ALL.map(TeamState::as_str) {
                            option value=(word) selected[word == search.state] { (word) }
                        }
                    }
                }
                button { "Filter" }
            }
        }
        (stale(trouble))
        @if teams.is_empty() {
            (nothing("No team runs on this host. Publish a start job, or run covibes submit start."))
        } @else if shown.is_empty() {
            (nothing("No team fits."))
        } @else {
            table.teams {
                thead { tr {
                    th scope="col" { "Team" }
                    th scope="col" { "State" }
                    th scope="col" { "Previews" }
                    th.number scope="col" { "Parts" }
                    th.number scope="col" { "Restarts" }
                    th scope="col" { "Memory" }
                    th scope="col" { "Last job" }
                    th.number scope="col" { "Since" }
                } }
                tbody { @for team in &shown { (row(team)) } }
            }
        }
    }
}

fn row(team: &TeamView) -> Markup {
    let (running, all) = team.running();
    let restarts: Option<u64> = sum(&team.parts, |part| part.restarts);
    html! {
        tr data-key=(team.team) {
            th scope="row" { a href={ "/teams/" (team.team) } { (text(&team.team)) } }
            td data-name="State" { (state(&team.state)) }
            td data-name="Previews" {
                @for part in team.parts.iter().filter(|part| part.role == "preview") {
                    (preview(part)) " "
                }
            }
            td.number data-name="Parts" { (running) "/" (all) }
            td.number data-name="Restarts" { (restarts.map_or("–".to_owned(), |n| n.to_string())) }
            td data-name="Memory" { (memory(&team.parts)) }
            td data-name="Last job" {
                @if let Some(job) = &team.job {
                    a href={ "/jobs/" (job.id) } { (text(&job.action)) } " "
                    (state(job.state))
                    @if let Some(step) = &job.step { span.quiet { " " (text(step)) } }
                    @if let Some(code) = &job.code { " " code { (text(code)) } }
                }
            }
            td.number data-name="Since" { (time(team.since_unix_ms)) }
        }
    }
}

/// The sum of what is known; nothing if nothing is.
fn sum(parts: &[PartView], of: impl Fn(&PartView) -> Option<u64>) -> Option<u64> {
    parts.iter().filter_map(of).fold(None, |all, one| Some(all.unwrap_or(0) + one))
}

fn memory(parts: &[PartView]) -> Markup {
    let used = sum(parts, |part| part.memory_bytes);
    let limit = sum(parts, |part| part.memory_limit_bytes);
    html! {
        @match (used, limit) {
            (Some(used), Some(limit)) => {
                (bar("Memory", used as f64, limit as f64, &bytes(used as f64)))
            }
            _ => span.quiet { "–" },
        }
    }
}

/// A preview by name, as a link if it has one.
pub(super) fn preview(part: &PartView) -> Markup {
    let link = part.url.as_deref().filter(|url| is_link(url));
    html! {
        span.preview data-state=(super::format::level(&part.health)) {
            @match link {
                Some(url) => a href=(url) target="_blank" rel="noopener noreferrer" { (text(part.title())) },
                None => (text(part.title())),
            }
            @if !matches!(part.health.as_str(), "" | "ready") { " " span.quiet { (text(&part.health)) } }
        }
    }
}

/// Whether an address may stand in a link: never a script.
pub(super) fn is_link(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
