//! How the end of a job is written down.

use crate::domain::failure::Failure;
use crate::domain::job::Outcome;
use crate::domain::record::FailedEnd;
use crate::ports::messages::DeadLetter;

/// What a repeat of a failed job needs.
pub(super) fn failed_end(outcome: &Outcome) -> Option<FailedEnd> {
    let Outcome::Failed(failure) = outcome else { return None };
    Some(FailedEnd {
        message: failure.message.clone(),
        attempts: failure.attempt,
        step: failure.step,
    })
}

/// `succeeded`, `failed:<code>`, ...
pub(super) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("failed:{}", failure.code),
        other => other.as_str().to_owned(),
    }
}

/// A dead letter for a failed job.
pub(super) fn dead_letter(failure: &Failure) -> DeadLetter {
    DeadLetter {
        reason: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        attempts: failure.attempt,
        step: failure.step.map(|s| s.as_str().to_owned()),
    }
}
