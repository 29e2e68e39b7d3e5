//! One team: what it should be, what it is, and what can be done about it.

use maud::{Markup, html};

use super::format::{bytes, number, text};
use super::teams::is_link;
use super::{bar, jobs, nothing, stale, state, time};
use crate::app::board::JobLine;
use crate::app::office::views::{Desired, PartView, TeamView};
use crate::domain::job::ActionKind;

/// What can be asked for, with what it means.
pub(super) const ACTIONS: [(ActionKind, &str); 5] = [
    (
        ActionKind::Start,
        "Brings the team to what was last asked for; what runs as wanted is left alone.",
    ),
    (ActionKind::Restart, "Restarts every container. Agents' running tasks are interrupted."),
    (ActionKind::Sync, "Runs Git now."),
    (ActionKind::Stop, "Removes containers and networks. Workspace and volumes stay."),
    (
        ActionKind::Destroy,
        "Removes everything that Covibes made for the team, its workspace too. \
        Refused while the workspace holds work that was not pushed.",
    ),
];

/// Draws it.
pub(super) fn render(
    team: &TeamView,
    desired: Option<&Desired>,
    recent: &[JobLine],
    now: i64,
    trouble: Option<&String>,
) -> Markup {
    html! {
        div.head {
            h1 { (text(&team.team)) " " (state(&team.state)) }
            div.actions {
                @for (action, _) in ACTIONS {
                    a.button href={ "/teams/" (team.team) "/" (action.as_str()) }
                        data-danger[action == ActionKind::Destroy] { (title(action)) }
                }
            }
        }
        (stale(trouble))
        p.lead {
            @if !team.cause.is_empty() { (text(&team.cause)) " · " }
            "since " (time(team.since_unix_ms))
            @if let Some(desired) = desired { " · generation " (desired.generation) }
            @if let Some((well, words)) = &team.sync {
                " · Git: " span.state data-state=(if *well { "ok" } else { "bad" }) { (text(words)) }
            }
        }
        @for (at, why) in [(team.ends_unix_ms.0, "its ttl"), (team.ends_unix_ms.1, "idle_stop")] {
            @if let Some(at) = at {
                p.quiet { "Ends by " (why) " " (time(at)) " unless it is started again." }
            }
        }
        @if let Some(desired) = desired { (wanted(desired, &team.state)) }
        section aria-labelledby="parts-h" {
            h2 #parts-h { "Parts" }
            @if team.parts.is_empty() {
                (nothing("No containers. A start makes them."))
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Part" }
                        th scope="col" { "State" }
                        th scope="col" { "Health" }
                        th.number scope="col" { "Restarts" }
                        th scope="col" { "Memory" }
                        th scope="col" { "CPU" }
                        th scope="col" { "Link" }
                        th scope="col" { "Log" }
                    } }
                    tbody { @for part in &team.parts { (row(team, part)) } }
                }
            }
        }
        section aria-labelledby="jobs-h" {
            h2 #jobs-h { "Jobs" }
            (jobs::table(recent, now, false))
            p.quiet { a href={ "/jobs?team=" (team.team) } { "All jobs of this team" } }
        }
        section aria-labelledby="files-h" {
            h2 #files-h { "Files" }
            p { a href={ "/teams/" (team.team) "/compose.yaml" } { "compose.yaml" }
                " " span.quiet { "what Covibes planned, to read" } }
        }
    }
}

fn row(team: &TeamView, part: &PartView) -> Markup {
    html! {
        tr data-key=(part.container) {
            th scope="row" {
                (text(part.title())) " "
                @if !part.name.is_empty() { span.quiet { (text(&part.role)) } }
            }
            td data-name="State" { (state(&part.state)) }
            td data-name="Health" {
                @if part.health.is_empty() { span.quiet { "–" } } @else { (state(&part.health)) }
                @if let Some(error) = &part.error { " " span.error { (text(error)) } }
            }
            td.number data-name="Restarts" {
                @match part.restarts { Some(n) => (n), None => span.quiet { "–" } }
                @if part.oom_kills > 0 { span.error { " (" (part.oom_kills) " for memory)" } }
            }
            td data-name="Memory" { (memory(part)) }
            td data-name="CPU" { (cpu(part)) }
            td data-name="Link" {
                @match part.url.as_deref().filter(|url| is_link(url)) {
                    Some(url) => a href=(url) target="_blank" rel="noopener noreferrer" {
                        (text(url.split_once("://").map_or(url, |(_, place)| place)))
                    },
                    None => span.quiet { "–" },
                }
            }
            td data-name="Log" {
                a href={ "/teams/" (team.team) "/logs/" (part.container) }
                    aria-label={ "Log of " (text(part.title())) } { "log" }
            }
        }
    }
}

fn memory(part: &PartView) -> Markup {
    html! {
        @match (part.memory_bytes, part.memory_limit_bytes) {
            (Some(used), Some(limit)) if limit > 0 => {
                (bar("Memory", used as f64, limit as f64,
                    &format!("{} of {}", bytes(used as f64), bytes(limit as f64))))
            }
            (Some(used), _) => (bytes(used as f64)),
            (None, _) => span.quiet { "–" },
        }
    }
}

fn cpu(part: &PartView) -> Markup {
    html! {
        @match (part.cpus, part.cpus_limit) {
            (Some(used), Some(limit)) if limit > 0.0 => {
                (bar("CPU", used, limit, &format!("{} of {}", number(used), number(limit))))
            }
            (Some(used), _) => (number(used)),
            (None, _) => span.quiet { "–" },
        }
    }
}

fn wanted(desired: &Desired, state: &str) -> Markup {
    html! {
        section aria-labelledby="wanted-h" {
            h2 #wanted-h { "Asked for" }
            @if desired.adopted {
                p.note data-state="warn" {
                    "The worker's record was lost; this team was found by its labels. \
                     A new start says again what it should be."
                }
            }
            dl.pairs {
                @if let Some(workspace) = &desired.workspace {
                    div { dt { "Files" } dd { (text(workspace)) } }
                }
                div { dt { "Agents" } dd { (list(&desired.agents)) } }
                div {
                    dt { "Previews" }
                    dd {
                        @if desired.previews.is_empty() { span.quiet { "none" } }
                        @for (number, (name, branch)) in desired.previews.iter().enumerate() {
                            @if number > 0 { ", " }
                            (text(name))
                            @if let Some(branch) = branch { span.quiet { " of " (text(branch)) } }
                        }
                    }
                }
                div {
                    dt { "Drift" }
                    dd {
                        @if !desired.compared {
                            span.quiet { "not looked for while the team is " (text(state)) }
                        } @else if desired.drift.is_empty() {
                            span.state data-state="ok" { "none" }
                        } @else {
                            @for line in &desired.drift {
                                span.state data-state="warn" { (text(line)) } " "
                            }
                        }
                    }
                }
            }
        }
    }
}

fn list(names: &[String]) -> Markup {
    html! {
        @if names.is_empty() { span.quiet { "none" } } @else { (text(&names.join(", "))) }
    }
}

/// An action as a button says it.
pub(super) fn title(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Start => "Start",
        ActionKind::Stop => "Stop",
        ActionKind::Restart => "Restart",
        ActionKind::Sync => "Sync",
        ActionKind::Status => "Snapshot",
        ActionKind::Destroy => "Destroy",
    }
}

/// Asks whether it is meant.
pub(super) fn confirm(team: &str, action: ActionKind, says: &str) -> Markup {
    html! {
        section.narrow {
            h1 { (title(action)) " " (text(team)) "?" }
            p { (says) }
            form.actions method="post" action={ "/teams/" (team) "/" (action.as_str()) } {
                button.main data-danger[action == ActionKind::Destroy] {
                    (title(action)) " " (text(team))
                }
                a.button href={ "/teams/" (team) } { "Cancel" }
            }
        }
    }
}
