//! One-shot tasks: a hardened container that does one thing and is gone.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Ports;
use crate::config::hash;
use crate::domain::failure::Failure;
use crate::domain::plan::ContainerPlan;

/// Lines of output that are kept for whoever asks.
const LINES_KEPT: usize = 2000;

/// How a one-shot task ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub exit_code: i64,
    /// Whether the kernel ended something in it for memory.
    pub oom_killed: bool,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// Runs a container to its end and removes it.
///
/// # Errors
/// Docker failed; how the task itself ended is in the answer.
///
/// # Cancellation
/// The container stays and is found by its role and team label: whoever acts
/// on the team next removes it first.
pub async fn run(
    ports: &Ports,
    plan: &ContainerPlan,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Ended, Failure> {
    let engine = &ports.engine;
    // A container of an earlier try has the same name only within one run.
    engine.remove_container(&plan.name).await?;
    engine.create_container(plan, &hash::container(plan)).await?;
    let lines = Mutex::new(VecDeque::new());
    let result = async {
        engine.start_container(&plan.name).await?;
        let keep = |line: &str| {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_KEPT {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
            drop(lines);
            on_line(line);
        };
        let exit_code = engine.wait_container(&plan.name, &keep).await?;
        let state = engine.inspect_container(&plan.name).await?;
        Ok::<_, Failure>((exit_code, state.is_some_and(|s| s.oom_killed)))
    }
    .await;
    engine.remove_container(&plan.name).await?;
    let (exit_code, oom_killed) = result?;
    let lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Ended { exit_code, oom_killed, lines: lines.into() })
}
