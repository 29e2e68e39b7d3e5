//! The spans in which work for a team is done. Every line written in one bears its
//! fields, so that no caller has to repeat them; how, says `lines.rs`.
//!
//! A run, its steps and their calls to the Engine are what a trace is made of
//! (`otlp.rs`). The others only lend their fields to lines: what is done for a team
//! without a run is no trace of anybody's.

use std::fmt::Display;

use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::domain::failure::Code;
use crate::domain::ids::TeamId;
use crate::domain::job::{Job, Outcome};
use crate::domain::step::StepId;

/// The target of the spans that a trace is made of.
pub const TRACED: &str = "covibes::trace";

/// The target of those whose fields lines bear, and nothing else.
pub const AROUND: &str = "covibes::around";

/// One run of a job: the beginning of a trace, or a part of the producer's.
#[must_use]
pub fn of_run(job: &Job) -> Span {
    let action = job.action.kind().as_str();
    let span = info_span!(
        target: TRACED, parent: None, "run",
        team.id = %job.team, job.id = %job.id, run.id = Empty, action, attempt = job.attempt,
        trace.id = trace_id(job), outcome = Empty, "error.type" = Empty,
        otel.name = action, otel.kind = "consumer",
        otel.status_code = Empty, otel.status_description = Empty,
    );
    #[cfg(feature = "otlp")]
    super::otlp::follow(&span, job);
    span
}

/// One step of the run around it.
#[must_use]
pub fn of_step(step: StepId) -> Span {
    let step = step.as_str();
    info_span!(
        target: TRACED, "step",
        step, outcome = Empty, "error.type" = Empty,
        otel.name = step, otel.status_code = Empty, otel.status_description = Empty,
    )
}

/// One call to the Engine, if it is made within a run: what the monitor asks all the time
/// is no part of anything.
#[must_use]
pub fn of_engine_call(call: &'static str, on: impl Display) -> Option<Span> {
    let around = Span::current();
    around.metadata().filter(|around| around.target() == TRACED)?;
    Some(info_span!(
        target: TRACED, "engine",
        docker.call = call, docker.on = %on, "error.type" = Empty,
        otel.name = call, otel.kind = "client",
        otel.status_code = Empty, otel.status_description = Empty,
    ))
}

/// What is done for a job besides a run of it.
#[must_use]
pub fn of_job(job: &Job) -> Span {
    info_span!(
        target: AROUND, parent: None, "job",
        team.id = %job.team, job.id = %job.id, action = job.action.kind().as_str(),
        attempt = job.attempt, trace.id = trace_id(job),
    )
}

/// What is done with a message that may be no job.
#[must_use]
pub fn of_message(team: Option<&TeamId>, job_id: Option<&str>) -> Span {
    let team = team.map(TeamId::as_str);
    info_span!(target: AROUND, parent: None, "message", team.id = team, job.id = job_id)
}

/// What is done for a team without a job.
#[must_use]
pub fn of_team(team: &TeamId) -> Span {
    info_span!(target: AROUND, parent: None, "team", team.id = %team)
}

/// Notes how the run ended that is under way.
pub fn run_ended(outcome: &Outcome) {
    let span = Span::current();
    span.record("outcome", outcome.as_str());
    if let Outcome::Failed(failure) = outcome {
        failed(&span, failure.code);
    }
}

/// Notes that what a span is about failed, and why.
pub fn failed(span: &Span, code: Code) {
    span.record("error.type", code.as_str());
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", code.as_str());
}

/// The producer's trace, by which its people find our lines too.
fn trace_id(job: &Job) -> Option<&str> {
    job.traceparent.as_deref()?.split('-').nth(1)
}
