//! `covibes teams`: what runs on this host, asked of Docker itself, so that it
//! also answers when no worker runs.

mod logs;
mod told;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use serde_json::json;

use crate::adapters::docker::DockerEngine;
use crate::adapters::probe::HttpProbe;
use crate::app::agent;
use crate::app::columns::{self, Cell, Columns, Watch};
use crate::app::configuration::Configuration;
use crate::app::local::LOCAL_INSTANCE;
use crate::app::page::format::text;
use crate::app::stdout::outln;
use crate::app::sync;
use crate::domain::event::{PreviewFact, TeamState};
use crate::domain::ids::{InstanceName, PartName, TeamId};
use crate::domain::plan::Role;
use crate::observe::Metrics;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::preview_board::{self, PreviewLook};
use crate::ports::agents::SeenTask;
use crate::ports::engine::{Engine, Filter, ObservedContainer, label};

/// Looks at teams.
#[derive(Debug, clap::Subcommand)]
pub enum Teams {
    /// List the teams of this host.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Look again every two seconds, until interrupted.
        #[arg(short, long)]
        watch: bool,
    },
    /// Show one team's containers, links, agents' tasks and workspace.
    Show {
        /// The team.
        team: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Look again every two seconds, until interrupted.
        #[arg(short, long)]
        watch: bool,
    },
    /// Print the last lines of a team's parts, and of the installs of its previews.
    Logs(logs::Request),
}

/// A page that takes longer is being compiled.
const PAGE_TIME_MAX: Duration = Duration::from_secs(3);

/// An engine for looking only.
#[must_use]
pub fn engine(configuration: &Configuration) -> DockerEngine {
    DockerEngine::new(&configuration.file.docker.socket, None, Arc::new(Metrics::new()))
}

/// Containers of the worker's instance and of `up`, by instance and team.
///
/// # Errors
/// Docker does not answer.
pub async fn containers(
    configuration: &Configuration,
) -> anyhow::Result<BTreeMap<(String, String), Vec<ObservedContainer>>> {
    let engine = engine(configuration);
    let mut teams: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let instances = [configuration.settings.instance.clone(), InstanceName::parse(LOCAL_INSTANCE)?];
    for instance in instances {
        let observed = engine
            .list(&Filter { instance, team: None })
            .await
            .context("cannot list containers; is the Docker daemon running?")?;
        for container in observed.containers {
            let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
            let key = (label(label::TEAM), label(label::INSTANCE));
            let list: &mut Vec<ObservedContainer> = teams.entry(key).or_default();
            if !is_side_name(&container.name) && !list.contains(&container) {
                list.push(container);
            }
        }
    }
    Ok(teams)
}

fn link(configuration: &Configuration, container: &ObservedContainer) -> Option<String> {
    let team = TeamId::parse(container.labels.get(label::TEAM)?).ok()?;
    let preview = PartName::parse(container.labels.get(label::NAME)?).ok()?;
    let port = container.host_ports.first()?;
    Some(configuration.settings.preview_link(&preview, &team, *port))
}

/// What a preview does now: its install says so by being there, and it itself
/// to whoever asks.
async fn look(container: &ObservedContainer) -> Option<PreviewLook> {
    let role = container.labels.get(label::ROLE).and_then(|role| Role::parse(role))?;
    match role {
        _ if container.state != "running" => None,
        Role::Oneshot if container.labels.contains_key(label::NAME) => {
            Some(PreviewLook::of(PreviewFact::Installing, None))
        }
        Role::Preview => {
            let address = container.addresses.first()?;
            preview_board::look(&HttpProbe, *address, PAGE_TIME_MAX).await
        }
        Role::Agent | Role::Sync | Role::Oneshot | Role::Egress => None,
    }
}

/// The tasks of a container that is an agent's. One that does not answer is no
/// reason not to show the rest.
async fn tasks(
    configuration: &Configuration,
    container: &ObservedContainer,
) -> Option<Vec<(SeenTask, serde_json::Value)>> {
    if !agent::is_running_agent(container) {
        return None;
    }
    let asked = async { agent::tasks_of(&agent::door_of(configuration, container)?).await };
    asked.await.map_err(|error| eprintln!("{}: {error:#}", container.name)).ok()
}

/// How the workspace stands, of a container that is the sync service's.
async fn sync_status(
    configuration: &Configuration,
    container: &ObservedContainer,
) -> Option<serde_json::Value> {
    if !sync::is_running_sync(container) {
        return None;
    }
    let asked = sync::status_of(configuration, container).await;
    asked.map_err(|error| eprintln!("{}: {error:#}", container.name)).ok()
}

/// Runs a command.
///
/// # Errors
/// Docker does not answer, or there is no such team.
pub async fn run(configuration: Configuration, command: Teams) -> anyhow::Result<ExitCode> {
    match command {
        Teams::Ls { json, watch } => {
            let how = Watch::choose(watch, json);
            columns::watch(how, async || list(&configuration, json).await).await?;
        }
        Teams::Show { team, json, watch } => {
            let how = Watch::choose(watch, json);
            columns::watch(how, async || show(&configuration, &team, json).await).await?;
        }
        Teams::Logs(request) => {
            let teams = containers(&configuration).await?;
            logs::run(&configuration, teams, request).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(configuration: &Configuration, json: bool) -> anyhow::Result<()> {
    let mut columns = Columns::new(&["TEAM", "INSTANCE", "STATE", "RUNNING", "LINKS"]);
    let mut teams = containers(configuration).await?;
    let told = told::states(configuration).await?;
    for key in told.keys() {
        // Stopped, or failed and taken back: there is nothing of it in Docker.
        teams.entry(key.clone()).or_default();
    }
    if teams.is_empty() && !json {
        outln!("no team on this host");
        return Ok(());
    }
    for (key, list) in &teams {
        let (team, instance) = key;
        let running = list.iter().filter(|c| c.state == "running").count();
        let links: Vec<_> = list.iter().filter_map(|c| link(configuration, c)).collect();
        let state = state(told.get(key).copied(), running, list.len());
        if json {
            let line = json!({"team": team, "instance": instance, "state": state.as_str(),
                "running": running, "containers": list.len(), "links": links});
            outln!("{line}");
            continue;
        }
        columns.row(vec![
            Cell::text(team),
            Cell::Quiet(instance.clone()),
            Cell::State(state.as_str().to_owned()),
            Cell::Number(format!("{running}/{}", list.len())),
            Cell::Whole(text(&links.join(" "))),
        ]);
    }
    if !json {
        columns.print();
    }
    Ok(())
}

/// How a team is: what its worker says, unless Docker has less than a worker could know
/// of that is gone.
fn state(told: Option<TeamState>, running: usize, all: usize) -> TeamState {
    match told {
        Some(TeamState::Running) if running < all || running == 0 => TeamState::Degraded,
        Some(told) => told,
        None if running == 0 => TeamState::Stopped,
        None if running < all => TeamState::Degraded,
        None => TeamState::Running,
    }
}

async fn show(configuration: &Configuration, team: &str, json: bool) -> anyhow::Result<()> {
    let teams = containers(configuration).await?;
    let own: Vec<_> = teams.iter().filter(|((name, _), _)| name == team).collect();
    let told = told::states(configuration).await?;
    let mut states = told.iter().filter(|((name, _), _)| name == team);
    if own.is_empty()
        && let Some((_, state)) = states.next()
    {
        eprintln!("{team} is {}; it has no containers", state.as_str());
        return Ok(());
    }
    if own.is_empty() {
        bail!("no team {team} runs here; `covibes teams ls` lists those that do");
    }
    let mut columns = Columns::new(&["ROLE", "STATE", "CONTAINER", "LINK"]);
    let (mut troubles, mut all_tasks, mut all_synced) = (Vec::new(), Vec::new(), Vec::new());
    for ((_, instance), list) in own {
        let looks = join_all(list.iter().map(look)).await;
        for (container, look) in list.iter().zip(looks) {
            let role = container.labels.get(label::ROLE).cloned().unwrap_or_default();
            let link = link(configuration, container);
            let tasks = tasks(configuration, container).await;
            let synced = sync_status(configuration, container).await;
            if json {
                let mut line = json!({"container": container.name.as_str(), "role": role,
                    "instance": instance, "state": container.state, "link": link,
                    "preview": look.as_ref().map(|look| look.fact.as_str()),
                    "error": look.as_ref().and_then(|look| look.error.as_deref())});
                if let Some(tasks) = tasks {
                    line["tasks"] = tasks.into_iter().map(|(_, body)| body).collect();
                }
                if let Some(synced) = synced {
                    line["sync"] = synced;
                }
                outln!("{line}");
                continue;
            }
            let state = look.as_ref().map_or(container.state.as_str(), |look| look.fact.as_str());
            columns.row(vec![
                Cell::text(&role),
                Cell::State(state.to_owned()),
                Cell::Whole(container.name.as_str().to_owned()),
                Cell::Whole(text(&link.unwrap_or_default())),
            ]);
            let error = look.and_then(|look| look.error);
            troubles.extend(error.map(|error| (container.name.clone(), error)));
            all_tasks.extend(tasks.unwrap_or_default());
            all_synced.extend(synced);
        }
    }
    if !json {
        columns.print();
        for (name, error) in troubles {
            outln!("{name}: {}", logs::shown(&error, false));
        }
        all_tasks.iter().for_each(|(seen, _)| agent::print_task(seen));
        all_synced.iter().for_each(sync::print_status);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_is_as_its_worker_says_unless_docker_has_less() {
        use TeamState::{Degraded, Failed, Running, Starting, Stopped};
        assert_eq!(state(Some(Running), 3, 3), Running);
        assert_eq!(state(Some(Running), 2, 3), Degraded);
        assert_eq!(state(Some(Running), 0, 0), Degraded, "removed by hand, and nobody watches");
        assert_eq!(state(Some(Degraded), 3, 3), Degraded, "a preview fails, and runs");
        assert_eq!(state(Some(Starting), 1, 3), Starting);
        assert_eq!(state(Some(Failed), 0, 0), Failed);
        assert_eq!(
            [state(None, 0, 2), state(None, 1, 2), state(None, 2, 2)],
            [Stopped, Degraded, Running]
        );
    }
}
