//! Jobs: all of them to choose from, and one with its steps along the time.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::format::{duration, text};
use super::overview::what_to_do;
use super::{nothing, pre, state, time};
use crate::app::board::{JobLine, JobState, StepLine};
use crate::domain::job::ActionKind;
use crate::domain::step::StepId;

/// Rows of one page.
const ROWS_MAX: usize = 200;

/// What is looked for.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Search {
    pub(super) team: String,
    pub(super) action: String,
    pub(super) state: String,
    pub(super) code: String,
}

impl Search {
    /// Whether a job is looked for. A team's name may be a part of one, or a job's id.
    pub(super) fn wants(&self, job: &JobLine) -> bool {
        let named = job.team.contains(&self.team) || job.id.starts_with(&self.team);
        let code = job.failure.as_ref().map_or("", |failure| &failure.code);
        named
            && (self.action.is_empty() || self.action == job.action)
            && (self.state.is_empty() || self.state == job.state.as_str())
            && (self.code.is_empty() || self.code == code)
    }
}

/// Draws all that fit.
pub(super) fn render(
    jobs: &[JobLine],
    search: &Search,
    codes: &BTreeSet<String>,
    now: i64,
) -> Markup {
    html! {
        div.head {
            h1 { "Jobs" }
            form.filter method="get" action="/jobs" role="search" {
                label { span { "Team or id" }
                    input type="search" name="team" value=(text(&search.team)); }
                label { span { "Action" } select name="action" {
                    option value="" { "any" }
                    @for word in ActionKind::ALL.map(ActionKind::as_str) {
                        option value=(word) selected[word == search.action] { (word) }
                    }
                } }
                label { span { "State" } select name="state" {
                    option value="" { "any" }
                    @for word in JobState::ALL.map(JobState::as_str) {
                        option value=(word) selected[word == search.state] { (word) }
                    }
                } }
                label { span { "Code" } select name="code" {
                    option value="" { "any" }
                    @for code in codes {
                        option value=(code) selected[*code == search.code] { (text(code)) }
                    }
                } }
                button { "Filter" }
            }
        }
        (table(jobs, now, true))
        p.quiet {
            "The last jobs of this host, at most " (ROWS_MAX) " of them. Older ones are in the log of events: "
            code { "covibes jobs --since 24h" }
        }
    }
}

/// Jobs as rows.
pub(super) fn table(jobs: &[JobLine], now: i64, with_team: bool) -> Markup {
    if jobs.is_empty() {
        return nothing("No job.");
    }
    html! {
        table {
            thead { tr {
                th scope="col" { "Job" }
                @if with_team { th scope="col" { "Team" } }
                th scope="col" { "State" }
                th scope="col" { "Outcome" }
                th.number scope="col" { "Took" }
                th.number scope="col" { "When" }
            } }
            tbody {
                @for job in jobs.iter().take(ROWS_MAX) {
                    tr data-key=(job.id) {
                        th scope="row" {
                            a href={ "/jobs/" (job.id) } {
                                (text(job.title()))
                            }
                        }
                        @if with_team {
                            td data-name="Team" {
                                a href={ "/teams/" (job.team) } { (text(&job.team)) }
                            }
                        }
                        td data-name="State" { (state(job.state.as_str())) }
                        td data-name="Outcome" { (outcome(job)) }
                        td.number data-name="Took" { (duration(job.millis(now))) }
                        td.number data-name="When" { (time(job.last_unix_ms())) }
                    }
                }
            }
        }
    }
}

fn outcome(job: &JobLine) -> Markup {
    html! {
        @if let Some(failure) = &job.failure {
            code { (text(&failure.code)) } " " (text(&failure.message))
        } @else if !job.state.is_end() {
            @if let Some(short) = &job.short_of { "waits for room (" (text(short)) ")" }
            @else if job.position > 0 { "behind " (job.position) " of its team" }
            @else if let Some(step) = job.last_step() {
                strong { (text(&step.step)) } " " (text(&step.message))
            }
        } @else { (text(&job.message)) }
    }
}

/// Draws one. `evidence` says that what was kept of its run can be read.
pub(super) fn one(job: &JobLine, now: i64, evidence: bool) -> Markup {
    html! {
        div.head {
            h1 { (text(job.title())) " of " a href={ "/teams/" (job.team) } { (text(&job.team)) } " "
                (state(job.state.as_str())) }
        }
        p.lead {
            "began " (time(job.began_unix_ms)) " · "
            @if job.state.is_end() { "took " } @else { "for " } (duration(job.millis(now)))
            @if job.attempts > 1 { " · attempt " (job.attempts) }
            @if !job.message.is_empty() { " · " (text(&job.message)) }
            @if let Some(by) = &job.by {
                " · because of " a href={ "/jobs/" (by) } { "a later job" }
            }
        }
        p.quiet { "Job " code.id { (text(&job.id)) } }
        @if let Some(failure) = &job.failure {
            section.failure aria-labelledby="failure-h" {
                h2 #failure-h { code { (text(&failure.code)) } }
                p { strong { (text(&failure.message)) } }
                p { (text(&failure.hint)) }
                p.quiet {
                    @if let Some(step) = &failure.step { "Step " (text(step)) " · " }
                    "fault: " (text(&failure.fault)) " · attempt " (failure.attempt) " · "
                    (what_to_do(&failure.code))
                    @if evidence { " · " a href={ "/jobs/" (job.id) "/evidence" } { "Evidence" } }
                    " · " a href={ "/dead-letters/" (job.id) } { "Its message" }
                }
                @if !failure.log.is_empty() { (pre(&failure.log)) }
            }
        }
        section aria-labelledby="steps-h" {
            h2 #steps-h { "Steps" }
            @if job.steps.is_empty() { (nothing("No step has begun.")) } @else { (timeline(job, now)) }
        }
        @if !job.retries.is_empty() {
            section aria-labelledby="retries-h" {
                h2 #retries-h { "Tried again" }
                ul.plain {
                    @for retry in &job.retries {
                        li {
                            code { (text(&retry.code)) } " " (text(&retry.message))
                            span.quiet { " again after " (duration(retry.delay_ms)) " " }
                            (time(retry.at_unix_ms))
                        }
                    }
                }
            }
        }
    }
}

fn millis(step: &StepLine, now: i64) -> u64 {
    step.millis.unwrap_or_else(|| {
        let since = if step.began_unix_ms > 0 { now - step.began_unix_ms } else { 0 };
        u64::try_from(since).unwrap_or(0)
    })
}

/// Each step's bar begins where the one before it ends.
fn timeline(job: &JobLine, now: i64) -> Markup {
    let total: u64 = job.steps.iter().map(|step| millis(step, now)).sum::<u64>().max(1);
    let mut before = 0;
    let mut rows = Vec::new();
    for step in &job.steps {
        let millis = millis(step, now);
        rows.push((step, before, millis));
        before += millis;
    }
    let share = |part: u64| 100.0 * part as f64 / total as f64;
    html! {
        table.timeline {
            thead { tr {
                th scope="col" { "Step" }
                th scope="col" { "State" }
                th.number scope="col" { "Took" }
                th scope="col" { "Along the time" }
                th scope="col" { "Outcome" }
            } }
            tbody {
                @for (step, before, millis) in &rows {
                    @let word = match (step.millis, step.failed) {
                        (None, _) if !job.state.is_end() => "running now",
                        (None, _) => "interrupted",
                        (Some(_), true) => "failed",
                        (Some(_), false) => "done",
                    };
                    tr data-key=(step.step) {
                        th scope="row" { (text(&step.step)) }
                        td data-name="State" { span.state data-state=(level(word)) { (word) } }
                        td.number data-name="Took" { (duration(*millis)) }
                        td.line data-name="Along the time" {
                            svg data-state=(level(word)) aria-hidden="true" {
                                rect.used x={ (format!("{:.2}", share(*before))) "%" }
                                    width={ (format!("{:.2}", share(*millis).max(0.4))) "%" }
                                    height="100%" rx="2" {}
                            }
                        }
                        td data-name="Outcome" { (text(&step.message)) }
                    }
                }
                @for step in StepId::ALL.map(StepId::as_str) {
                    @if !job.state.is_end() && job.action == "start"
                        && !job.steps.iter().any(|known| known.step == step) {
                        tr.quiet data-key=(step) {
                            th scope="row" { (step) }
                            td data-name="State" { span.state data-state="off" { "to come" } }
                            td {} td {} td {}
                        }
                    }
                }
            }
        }
    }
}

fn level(word: &str) -> &'static str {
    match word {
        "done" => "ok",
        "running now" => "busy",
        "failed" => "bad",
        _ => "off",
    }
}
