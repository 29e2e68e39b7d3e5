//! Undo: takes back what a run began.
//!
//! It takes the ids of the run and its job and finds things by label, never by
//! what a step returned: a job whose worker died has made things in earlier
//! runs too. "Already gone" is done. It has a budget of its own, and if it
//! fails the team stays visibly `failed`.

use std::time::Duration;

use super::Ports;
use super::converge::is_side_name;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, RunId, TeamId};
use crate::domain::names::ContainerName;
use crate::ports::engine::{Filter, Observed, label};

/// How long undo may take: a stop of ten seconds each, four at a time, for the
/// largest team, and some room.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What is left after an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// No container of the team.
    Nothing,
    /// What was there before the run, or what of it worked.
    Something,
}

/// Takes back the containers that `run` and earlier runs of `job` made, except those in `keep`, brings
/// back those they replaced, and removes networks and volumes that only they
/// made.
///
/// # Errors
/// Docker failed, or time ran out; what is left is found again by label.
pub async fn undo(
    ports: &Ports,
    team: &TeamId,
    (run, job): (RunId, JobId),
    keep: &[ContainerName],
) -> Result<Left, Failure> {
    tokio::time::timeout(TIME_MAX, undo_all(ports, team, (run, job), keep)).await.unwrap_or_else(
        |_| Err(Failure::new(Code::DockerUnreachable, "undo took longer than two minutes")),
    )
}

async fn undo_all(
    ports: &Ports,
    team: &TeamId,
    (run, job): (RunId, JobId),
    keep: &[ContainerName],
) -> Result<Left, Failure> {
    let engine = &ports.engine;
    let filter = Filter { instance: ports.settings.instance.clone(), team: Some(team.clone()) };
    let observed = engine.list(&filter).await?;
    let (run_text, job_text) = (run.to_string(), job.to_string());
    let mine = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(label::RUN) == Some(&run_text) || labels.get(label::JOB) == Some(&job_text)
    };
    for container in &observed.containers {
        if mine(&container.labels)
            && !is_side_name(&container.name)
            && !keep.contains(&container.name)
        {
            engine.remove_container(&container.name).await?;
        }
    }
    restore_or_drop_side_names(ports, &engine.list(&filter).await?).await?;
    let left = engine.list(&filter).await?;
    if !left.containers.is_empty() {
        return Ok(Left::Something);
    }
    for network in left.networks.iter().filter(|n| mine(&n.labels)) {
        engine.remove_network(&network.name).await?;
    }
    for volume in left.volumes.iter().filter(|v| mine(&v.labels)) {
        engine.remove_volume(&volume.name).await?;
    }
    Ok(Left::Nothing)
}

/// Brings back a container that was set aside and has no successor; drops one
/// that has.
///
/// # Errors
/// Docker failed.
pub async fn restore_or_drop_side_names(ports: &Ports, observed: &Observed) -> Result<(), Failure> {
    for aside in observed.containers.iter().filter(|c| is_side_name(&c.name)) {
        let Some(name) =
            aside.name.as_str().split(".old-").next().and_then(ContainerName::from_engine)
        else {
            continue;
        };
        if observed.containers.iter().any(|c| c.name == name) {
            ports.engine.remove_container(&aside.name).await?;
        } else {
            ports.engine.rename_container(&aside.name, &name).await?;
            ports.engine.start_container(&name).await?;
        }
    }
    Ok(())
}
