//! `covibes sync`: has a team's sync service sync, commit and push, asked at its
//! own address, so that it also works without a worker.

use std::process::ExitCode;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::adapters::syncs::HttpSyncs;
use crate::app::agent::plain;
use crate::app::configuration::Configuration;
use crate::app::exit;
use crate::app::local::{LOCAL_INSTANCE, as_local};
use crate::app::stdout::outln;
use crate::app::worker::teams::containers;
use crate::config::layout::Layout;
use crate::domain::ids::TeamId;
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::Role;
use crate::ports::engine::{ObservedContainer, label};
use crate::ports::syncs::SyncDoor;

/// What is to be done with a team's workspace.
#[derive(Debug, clap::Args)]
pub struct Sync {
    /// The team.
    team: String,
    /// When both sides have commits: put the local ones on top (rebase), join
    /// both (merge), or move them to a branch of their own (branch).
    #[arg(long, value_parser = ["rebase", "merge", "branch"])]
    strategy: Option<String>,
    /// Join the worktree of this preview instead of the workspace.
    #[arg(long, value_name = "PREVIEW", requires = "strategy")]
    worktree: Option<String>,
    /// Commit what is changed to this agent's branch instead; nobody's files move.
    #[arg(long, value_name = "AGENT", requires = "message", conflicts_with = "strategy")]
    commit: Option<String>,
    /// What the commit says.
    #[arg(long, short)]
    message: Option<String>,
    /// Commit only this file or directory; may be repeated.
    #[arg(long = "path", value_name = "PATH", requires = "commit")]
    paths: Vec<String>,
    /// Push this agent's branch, after the commit if there is one.
    #[arg(long, value_name = "AGENT", conflicts_with = "strategy")]
    push: Option<String>,
    /// Print the service's JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command: 1 if something is in the way.
///
/// # Errors
/// There is no such team, or its service does not answer or refuses.
pub async fn run(configuration: Configuration, sync: Sync) -> anyhow::Result<ExitCode> {
    let door = door(&configuration, &sync.team).await?;
    let post =
        async |path: &str, body: Value| HttpSyncs.ask(&door, Method::POST, path, Some(&body)).await;
    if let Some(agent) = &sync.commit {
        let body = json!({"agent": agent, "message": sync.message, "paths": sync.paths});
        let committed = post("/commit", body).await?;
        if sync.json {
            outln!("{committed}");
        } else {
            print_commit(&committed);
        }
    }
    if let Some(agent) = &sync.push {
        let pushed = post("/push", json!({"agent": agent})).await?;
        if sync.json {
            outln!("{pushed}");
        } else {
            outln!("pushed {} at {}", word(&pushed["branch"]), short(&pushed["commit"]));
        }
    }
    if sync.commit.is_some() || sync.push.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let wish = json!({"strategy": sync.strategy, "worktree": sync.worktree});
    let mut status = post("/sync", wish).await?;
    if status["changed_files"].is_null() {
        // A sync need not look at the files; this waits for the look after it.
        let looked = HttpSyncs.ask(&door, Method::GET, "/status", None).await?;
        for count in ["dirty", "changed_files", "untracked_files"] {
            status[count] = looked[count].clone();
        }
    }
    if sync.json {
        outln!("{status}");
    } else {
        print_status(&status);
    }
    let is_well = |state: &Value| !matches!(state.as_str(), Some("conflict" | "failed"));
    let mut worktrees = status["worktrees"].as_array().into_iter().flatten();
    let is_well =
        is_well(&status["outcome"]) && worktrees.all(|worktree| is_well(&worktree["state"]));
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn print_commit(committed: &Value) {
    match committed["commit"].as_str() {
        Some(_) => outln!("{} at {}", word(&committed["branch"]), short(&committed["commit"])),
        None => outln!("nothing is changed"),
    }
    for taken in committed["taken"].as_array().into_iter().flatten() {
        outln!("  {:<8} {}", word(&taken["change"]), word(&taken["path"]));
    }
    for left in committed["left"].as_array().into_iter().flatten() {
        eprintln!("  not taken: {}", word(left));
    }
}

/// Prints how a workspace stands, one line each for it and what is in its way.
pub fn print_status(status: &Value) {
    if status["outcome"] == "no_repository" {
        outln!("  no Git repository: there is nothing to keep in step");
        return;
    }
    let branch = status["branch"].as_str().map_or_else(|| "detached".to_owned(), plain);
    let line = format!("{} {branch} {}", word(&status["outcome"]), short(&status["head"]));
    let counts = [
        ("ahead", "ahead"),
        ("behind", "behind"),
        ("changed_files", "changed"),
        ("untracked_files", "untracked"),
    ];
    outln!("  {line}{}", counted(status, &counts));
    if let Some(detail) = status["detail"].as_str() {
        outln!("  {}", plain(detail));
    }
    if let Some(branch) = status["local_branch"].as_str() {
        outln!("  your commits are on {}", plain(branch));
    }
    print_conflicts(&status["conflicts"], "");
    for worktree in status["worktrees"].as_array().into_iter().flatten() {
        let (name, branch) = (word(&worktree["name"]), word(&worktree["branch"]));
        let (state, head) = (word(&worktree["state"]), short(&worktree["head"]));
        let counts = counted(worktree, &[("ahead", "ahead"), ("behind", "behind")]);
        outln!("  worktree {name}: {state} {branch} {head}{counts}");
        if let Some(detail) = worktree["detail"].as_str() {
            outln!("    {}", plain(detail));
        }
        if let Some(branch) = worktree["local_branch"].as_str() {
            outln!("    its commits are on {}", plain(branch));
        }
        print_conflicts(&worktree["conflicts"], "  ");
    }
    for (list, what) in [
        ("rewritten_branches", "the remote has replaced the history of"),
        ("missing_branches", "the remote no longer has"),
    ] {
        for branch in status[list].as_array().into_iter().flatten() {
            outln!("  {what} {}", word(branch));
        }
    }
}

/// Those of some counts that are not zero.
fn counted(of: &Value, counts: &[(&str, &str)]) -> String {
    let one = |(name, what): &(&str, &str)| {
        let count = of[*name].as_u64().filter(|count| *count > 0)?;
        Some(format!(", {count} {what}"))
    };
    counts.iter().filter_map(one).collect()
}

fn print_conflicts(conflicts: &Value, indent: &str) {
    for conflict in conflicts.as_array().into_iter().flatten() {
        outln!("  {indent}{}: {}", word(&conflict["kind"]), word(&conflict["detail"]));
        for path in conflict["paths"].as_array().into_iter().flatten() {
            outln!("  {indent}  {}", word(path));
        }
    }
}

/// Text of a repository does not steer the terminal.
fn word(value: &Value) -> String {
    plain(value.as_str().unwrap_or_default()).replace('\n', " ")
}

fn short(value: &Value) -> String {
    word(value).chars().take(12).collect()
}

/// How a team's workspace stands, asked of the service in a container.
///
/// # Errors
/// It does not answer.
pub async fn status_of(
    configuration: &Configuration,
    container: &ObservedContainer,
) -> anyhow::Result<Value> {
    let door = door_of(configuration, container)?;
    Ok(HttpSyncs.ask(&door, Method::GET, "/status", None).await?)
}

/// Whether a container is a sync service that can be asked.
#[must_use]
pub fn is_running_sync(container: &ObservedContainer) -> bool {
    let role = container.labels.get(label::ROLE).map(String::as_str);
    role == Some(Role::Sync.as_str()) && container.state == "running"
}

async fn door(configuration: &Configuration, team: &str) -> anyhow::Result<SyncDoor> {
    let teams = containers(configuration).await?;
    let of_team = teams.iter().filter(|((name, _), _)| name == team);
    let found = of_team.flat_map(|(_, list)| list).find(|container| is_running_sync(container));
    match found {
        Some(container) => door_of(configuration, container),
        None => bail!("team {team} does not run here; `covibes teams ls` lists those that do"),
    }
}

fn door_of(
    configuration: &Configuration,
    container: &ObservedContainer,
) -> anyhow::Result<SyncDoor> {
    let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
    let team = TeamId::parse(label(label::TEAM))?;
    let local;
    let settings = if label(label::INSTANCE) == LOCAL_INSTANCE {
        local = as_local(configuration.clone())?;
        &local.settings
    } else {
        &configuration.settings
    };
    let path = Layout::token_dir(&Layout::new(settings, &team).sync()).join("token");
    let token = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read the sync service's token {}; this needs root", path.display())
    })?;
    let address = *container.addresses.first().context("the sync service has no address")?;
    Ok(SyncDoor { address: (address, SERVICE_PORT).into(), token: token.trim().to_owned() })
}
