//! The first page: is anything wrong, how much is going on, what is left.

use maud::{Markup, html};

use super::format::{bytes, duration, number, runbook, text};
use super::{bar, nothing, state, time};
use crate::app::board::{JobLine, JobState, Minute};
use crate::app::office::views::{Amount, Deeds, Overview, QueueLine, Unit};

/// Width and height of the chart's own units.
const CHART: (usize, usize) = (600, 60);

/// Draws it.
pub(super) fn render(view: &Overview, failed: &[JobLine], deeds: &Deeds) -> Markup {
    let hour = view.minutes.iter().fold(Minute::default(), |all, minute| Minute {
        succeeded: all.succeeded + minute.succeeded,
        failed: all.failed + minute.failed,
        other: all.other + minute.other,
    });
    let ended = hour.succeeded + hour.failed;
    html! {
        h1.away { "Overview" }
        @for trouble in &view.troubles {
            p.note data-state=(trouble.level) role="alert" data-key=(text(&trouble.text)) {
                (text(&trouble.text))
                @if let Some(name) = trouble.runbook {
                    " " a href={ "/runbooks/" (name) } { "What to do" }
                }
            }
        }
        section.facts aria-label="At a glance" {
            (fact("Worker", &state(if view.draining { "draining" } else { "up" }),
                &format!("{} · {}", view.version, view.instance)))
            (fact("Broker", &state(&view.broker), if view.dispatches { "this host dispatches" }
                else { "another host dispatches" }))
            (fact("Docker", &state(if view.docker { "up" } else { "lost" }),
                &format!("{} · {}", plural(view.containers, "container"),
                    duration(view.docker_ms))))
            (fact("Jobs", &html! { strong { (view.running) } " running" },
                &format!("{} waiting", view.waiting)))
            (fact("Last hour", &html! { strong { (ended + hour.other) } " ended" },
                &match ended {
                    0 => "–".to_owned(),
                    _ => format!("{} % succeeded", 100 * hour.succeeded / ended),
                }))
            (fact("Dead letters", &letters(view), "put aside"))
        }
        div.columns {
            section aria-labelledby="teams-h" {
                h2 #teams-h { "Teams" }
                @if view.teams.is_empty() {
                    (nothing("No team yet. Publish a start job, or run covibes submit start."))
                } @else {
                    dl.counts {
                        @for (word, count) in &view.teams {
                            div data-key=(word) {
                                dt { (state(word)) }
                                dd { a href={ "/teams?state=" (word) } { (count) } }
                            }
                        }
                    }
                }
            }
            section aria-labelledby="queues-h" {
                h2 #queues-h { "Queues" }
                (queues(view.queues.as_deref()))
            }
            section.wide aria-labelledby="rate-h" {
                h2 #rate-h { "Jobs ended per minute" }
                (chart(&view.minutes))
            }
            section aria-labelledby="capacity-h" {
                h2 #capacity-h { "Capacity" }
                @if view.capacity.is_empty() { (nothing("The host is being looked at.")) }
                dl.bars {
                    @for amount in &view.capacity {
                        div data-key=(amount.name) {
                            dt { (amount.name) }
                            dd { (bar(amount.name, amount.used, amount.limit, &words(amount))) }
                        }
                    }
                }
            }
            section aria-labelledby="steps-h" {
                h2 #steps-h { "How long steps take" }
                @if view.steps.is_empty() {
                    (nothing("No step has finished since the worker began."))
                } @else {
                    table.small {
                        thead { tr {
                            th scope="col" { "Step" }
                            th.number scope="col" { "p50" }
                            th.number scope="col" { "p95" }
                            th.number scope="col" { "Of" }
                        } }
                        tbody {
                            @for step in &view.steps {
                                tr data-key=(step.step) {
                                    th scope="row" { (step.step) }
                                    td.number data-name="p50" { (duration(step.p50_ms)) }
                                    td.number data-name="p95" { (duration(step.p95_ms)) }
                                    td.number data-name="Of" { (step.count) }
                                }
                            }
                        }
                    }
                }
            }
            section aria-labelledby="failed-h" {
                h2 #failed-h { "What failed last" }
                @if failed.is_empty() { (nothing("Nothing has failed.")) } @else {
                    ul.plain {
                        @for job in failed {
                            li data-key=(job.id) {
                                a href={ "/jobs/" (job.id) } { (text(&job.team)) " " (text(job.title())) }
                                @if let Some(failure) = &job.failure {
                                    " " code { (text(&failure.code)) }
                                }
                                " " (time(job.last_unix_ms()))
                            }
                        }
                    }
                }
                @if !view.failures.is_empty() {
                    p.quiet {
                        @for failure in &view.failures {
                            a href={ "/jobs?code=" (failure.code) } { (text(&failure.code)) }
                            " × " (failure.count) " "
                        }
                    }
                }
            }
            section aria-labelledby="deeds-h" {
                h2 #deeds-h { "What operators did" }
                (done(deeds))
            }
        }
    }
}

fn fact(name: &str, value: &Markup, more: &str) -> Markup {
    html! {
        div.fact data-key=(name) {
            span.name { (name) }
            span.value { (value) }
            span.more { (text(more)) }
        }
    }
}

fn plural(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn letters(view: &Overview) -> Markup {
    let queues = view.queues.iter().flatten();
    let count = queues.into_iter().find(|queue| queue.name.ends_with(".dlq"));
    html! {
        @match count {
            Some(queue) => a href="/dead-letters" { strong { (queue.messages) } },
            None => span.quiet { "unknown" },
        }
    }
}

fn queues(queues: Option<&[QueueLine]>) -> Markup {
    let Some(queues) = queues else {
        return nothing("The broker does not say.");
    };
    html! {
        table.small {
            thead { tr {
                th scope="col" { "Queue" }
                th.number scope="col" { "Ready" }
                th.number scope="col" { "Consumers" }
            } }
            tbody {
                @for queue in queues {
                    tr data-key=(queue.name) {
                        th scope="row" { (text(&queue.name)) }
                        td.number data-name="Ready" { (queue.messages) }
                        td.number data-name="Consumers" { (queue.consumers) }
                    }
                }
            }
        }
    }
}

fn words(amount: &Amount) -> String {
    let write = |value: f64| match amount.unit {
        Unit::Count => number(value),
        Unit::Bytes => bytes(value),
        Unit::Share => format!("{:.0} %", value * 100.0),
    };
    format!("{} of {}", write(amount.used), write(amount.limit))
}

/// Two bars a minute, one above the other: done, and not.
fn chart(minutes: &[Minute]) -> Markup {
    let most = minutes.iter().map(|m| m.succeeded + m.failed + m.other).max().unwrap_or(0);
    if most == 0 {
        return nothing("No job has ended in the last hour.");
    }
    let (width, height) = CHART;
    let each = width / minutes.len().max(1);
    let tall = |count: u32| count as usize * height / most as usize;
    let failed: u32 = minutes.iter().map(|m| m.failed).sum();
    let all: u32 = minutes.iter().map(|m| m.succeeded + m.failed + m.other).sum();
    let label = format!(
        "{all} jobs ended in the last hour, {failed} of them failed; at most {most} in a minute"
    );
    html! {
        svg.chart viewBox={ "0 0 " (width) " " (height) } preserveAspectRatio="none" role="img"
            aria-label=(label) {
            @for (index, minute) in minutes.iter().enumerate() {
                @let (bad, good) = (tall(minute.failed), tall(minute.succeeded + minute.other));
                rect.good x=(index * each) y=(height - good - bad) width=(each - 2) height=(good) {}
                rect.bad x=(index * each) y=(height - bad) width=(each - 2) height=(bad) {}
            }
        }
        p.quiet.ends { span { "an hour ago" } span { "at most " (most) } span { "now" } }
    }
}

fn done(deeds: &Deeds) -> Markup {
    if deeds.0.is_empty() {
        return nothing("Nobody has done anything here yet.");
    }
    html! {
        ul.plain {
            @for deed in &deeds.0 {
                li data-key={ (deed.time) (deed.target) } {
                    strong { (text(&deed.deed)) } " " (text(&deed.target))
                    @if let Some(job) = &deed.job {
                        " " a href={ "/jobs/" (job) } { "job" }
                    }
                    span.quiet { " by " (text(&deed.by)) " from " (text(&deed.from)) " " }
                    (time(deed.time.parse::<jiff::Timestamp>()
                        .map_or(0, jiff::Timestamp::as_millisecond)))
                }
            }
        }
    }
}

/// Jobs that failed last.
pub(super) fn failed(jobs: &[&JobLine]) -> Vec<JobLine> {
    let failed = |job: &&&JobLine| matches!(job.state, JobState::Failed | JobState::Rejected);
    jobs.iter().filter(failed).take(6).map(|job| (*job).clone()).collect()
}

/// A link to what to do about a code.
pub(super) fn what_to_do(code: &str) -> Markup {
    let name = runbook(code);
    html! { a href={ "/runbooks/" (name) } { "Runbook " (name) } }
}
