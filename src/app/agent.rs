//! `covibes agent`: gives the agents of this host tasks and follows them, asked at
//! their own addresses, so that it also works without a worker.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::adapters::agents::{HttpAgents, seen_task};
use crate::app::configuration::Configuration;
use crate::app::exit;
use crate::app::local::{LOCAL_INSTANCE, as_local};
use crate::app::stdout::{self, outln};
use crate::app::worker::teams::containers;
use crate::config::layout::Layout;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::Role;
use crate::ports::agents::{AgentDoor, SeenTask};
use crate::ports::engine::{ObservedContainer, label};

/// A cancelled task is over within five seconds.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// Between two looks at a task that is being ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Characters of a prompt or message in a list.
const TEXT_CHARS: usize = 60;

/// Gives agents tasks.
#[derive(Debug, clap::Subcommand)]
pub enum Agent {
    /// Ask for a task and follow it to its end; Ctrl-C leaves it running.
    Run(Run),
    /// List the tasks of a team's agents.
    Tasks {
        /// The team.
        team: String,
        /// One agent; all if absent.
        agent: Option<String>,
        /// Print JSON, one object per task.
        #[arg(long)]
        json: bool,
    },
    /// End a task.
    Cancel {
        /// The team.
        team: String,
        /// The agent.
        agent: String,
        /// The task; the running one if absent.
        task: Option<String>,
    },
}

/// A task.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The team.
    team: String,
    /// The agent.
    agent: String,
    /// What to do; `-` reads it from stdin.
    prompt: String,
    /// The model; the CLI's own choice if absent.
    #[arg(long)]
    model: Option<String>,
    /// A tool that needs no permission, such as `Bash(npm test)`; may be repeated.
    #[arg(long = "allow", value_name = "TOOL")]
    allowed_tools: Vec<String>,
    /// After how many turns the CLI gives up.
    #[arg(long, value_name = "N")]
    max_turns: Option<u32>,
    /// After how many seconds the task is ended.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Go on with the session of an earlier task.
    #[arg(long, value_name = "SESSION")]
    resume: Option<String>,
    /// Print the task's id and do not follow it.
    #[arg(long)]
    detach: bool,
    /// Print the CLI's own JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs a command.
///
/// # Errors
/// There is no such agent, or it does not answer.
pub async fn run(configuration: Configuration, command: Agent) -> anyhow::Result<ExitCode> {
    match command {
        Agent::Run(run) => run_task(&configuration, run).await,
        Agent::Tasks { team, agent, json } => {
            let doors = doors(&configuration, &team, agent.as_deref()).await?;
            for door in &doors {
                for (seen, body) in tasks_of(door).await? {
                    if json {
                        outln!("{}", json!({"agent": door.agent.as_str(), "task": body}));
                    } else {
                        print_task(&seen);
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Agent::Cancel { team, agent, task } => {
            let door = door(&configuration, &team, &agent).await?;
            cancel(&door, task).await
        }
    }
}

async fn run_task(configuration: &Configuration, run: Run) -> anyhow::Result<ExitCode> {
    let door = door(configuration, &run.team, &run.agent).await?;
    let prompt = if run.prompt == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the prompt")?;
        text
    } else {
        run.prompt
    };
    let mut body = json!({"prompt": prompt, "allowed_tools": run.allowed_tools});
    for (name, value) in [
        ("model", run.model.map(Value::from)),
        ("max_turns", run.max_turns.map(Value::from)),
        ("timeout", run.timeout.map(Value::from)),
        ("resume", run.resume.map(Value::from)),
    ] {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let added = HttpAgents.ask(&door, Method::POST, "/tasks", &[], Some(&body)).await?;
    let id = added["id"].as_str().context("the agent named no task")?;
    if run.detach {
        outln!("{id}");
        return Ok(ExitCode::SUCCESS);
    }
    match added["position"].as_u64() {
        Some(0) | None => eprintln!("task {id}"),
        Some(position) => eprintln!("task {id} waits behind {position} others"),
    }
    let mut events = HttpAgents.events(&door, &format!("/tasks/{id}/events")).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => {
                let (team, agent) = (&run.team, &run.agent);
                eprintln!("the task goes on; `covibes agent cancel {team} {agent} {id}` ends it");
                return Ok(ExitCode::from(130));
            }
        };
        let Some(event) = event else { bail!("the agent ended before the task did") };
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if event.name == "end" {
            return Ok(ended(&door, &data, run.json));
        }
        if run.json {
            outln!("{}", event.data);
        } else {
            show_line(&data);
        }
        if stdout::is_gone() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Says how a task ended.
fn ended(door: &AgentDoor, body: &Value, as_json: bool) -> ExitCode {
    if as_json {
        outln!("{}", json!({"type": "covibes.end", "task": body}));
    }
    let state = body["state"].as_str().unwrap_or("unknown");
    match body["error"]["message"].as_str() {
        Some(why) => eprintln!("{state}: {why}"),
        None => eprintln!("{state}"),
    }
    for line in body["stderr"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("  {}", plain(line));
    }
    let seen = seen_task(&door.agent, body);
    let good = seen.is_some_and(|seen| seen.task.state.as_str() == "succeeded");
    if good { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) }
}

/// Shows what the model says and does: text on stdout, tools on stderr.
fn show_line(line: &Value) {
    if line["type"] != "assistant" {
        return;
    }
    for block in line["message"]["content"].as_array().into_iter().flatten() {
        if let Some(text) = block["text"].as_str() {
            outln!("{}", plain(text));
        }
        if let Some(tool) = block["name"].as_str() {
            eprintln!("> {tool} {}", cut(&block["input"].to_string()));
        }
    }
}

/// Text without what would steer a terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn cut(text: &str) -> String {
    let line: String = plain(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// One line about a task.
pub fn print_task(seen: &SeenTask) {
    let task = &seen.task;
    let cost = task.cost_micro_usd.map_or_else(String::new, |cost| {
        format!(", ${}.{:04}", cost / 1_000_000, cost % 1_000_000 / 100)
    });
    let said = task.message.as_deref().or(task.error.as_deref()).unwrap_or(&task.prompt);
    let (id, agent, state) = (task.id, &task.agent, task.state.as_str());
    outln!("{id}  {agent:<20} {state:<11} {} turns{cost}  {}", task.turns, cut(said));
}

async fn cancel(door: &AgentDoor, task: Option<String>) -> anyhow::Result<ExitCode> {
    let id = match task {
        Some(task) => task.parse::<uuid::Uuid>().context("the task is not an id")?,
        None => {
            let tasks = tasks_of(door).await?;
            let running = tasks.iter().find(|(seen, _)| seen.task.state.as_str() == "running");
            running.context("no task runs; `covibes agent tasks` lists those that wait")?.0.task.id
        }
    };
    let path = format!("/tasks/{id}");
    let mut body = HttpAgents.ask(door, Method::DELETE, &path, &[], None).await?;
    let end = Instant::now() + CANCEL_MAX;
    while !seen_task(&door.agent, &body).is_some_and(|seen| seen.task.state.is_over()) {
        if Instant::now() >= end {
            bail!("the task is still being ended");
        }
        tokio::time::sleep(LOOK_EVERY).await;
        body = HttpAgents.ask(door, Method::GET, &path, &[], None).await?;
    }
    eprintln!("{}", body["state"].as_str().unwrap_or("over"));
    Ok(ExitCode::SUCCESS)
}

/// An agent's tasks, oldest first.
///
/// # Errors
/// It does not answer.
pub async fn tasks_of(door: &AgentDoor) -> anyhow::Result<Vec<(SeenTask, Value)>> {
    let list = HttpAgents.ask(door, Method::GET, "/tasks", &[], None).await;
    let list = list.with_context(|| format!("agent {}", door.agent))?;
    let tasks = list["tasks"].as_array().cloned().unwrap_or_default();
    Ok(tasks.into_iter().filter_map(|body| Some((seen_task(&door.agent, &body)?, body))).collect())
}

async fn door(configuration: &Configuration, team: &str, agent: &str) -> anyhow::Result<AgentDoor> {
    let mut doors = doors(configuration, team, Some(agent)).await?;
    doors.pop().context("there is no such agent")
}

/// Where a team's agents are asked.
async fn doors(
    configuration: &Configuration,
    team: &str,
    agent: Option<&str>,
) -> anyhow::Result<Vec<AgentDoor>> {
    let teams = containers(configuration).await?;
    let of_team = teams.iter().filter(|((name, _), _)| name == team);
    let all = of_team.flat_map(|(_, list)| list);
    let wanted = all.filter(|container| {
        let name = container.labels.get(label::NAME).map(String::as_str);
        is_running_agent(container) && (agent.is_none() || agent == name)
    });
    let doors = wanted.map(|container| door_of(configuration, container));
    let doors: Vec<_> = doors.collect::<anyhow::Result<_>>()?;
    if doors.is_empty() {
        let which = agent.map_or_else(|| "no agent".to_owned(), |name| format!("no agent {name}"));
        bail!("{which} of team {team} runs here; `covibes teams ls` lists the teams that do");
    }
    Ok(doors)
}

/// Whether a container is an agent's that can be asked.
#[must_use]
pub fn is_running_agent(container: &ObservedContainer) -> bool {
    let role = container.labels.get(label::ROLE).map(String::as_str);
    role == Some(Role::Agent.as_str()) && container.state == "running"
}

/// Where the agent in a container is asked.
///
/// # Errors
/// Its token cannot be read.
pub fn door_of(
    configuration: &Configuration,
    container: &ObservedContainer,
) -> anyhow::Result<AgentDoor> {
    let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
    let (team, agent) = (TeamId::parse(label(label::TEAM))?, PartName::parse(label(label::NAME))?);
    let local;
    let settings = if label(label::INSTANCE) == LOCAL_INSTANCE {
        local = as_local(configuration.clone())?;
        &local.settings
    } else {
        &configuration.settings
    };
    let path = Layout::token_dir(&Layout::new(settings, &team).agent(&agent)).join("token");
    let token = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read the agent's token {}; this needs root", path.display())
    })?;
    let address = *container.addresses.first().context("the agent has no address")?;
    let address = (address, SERVICE_PORT).into();
    Ok(AgentDoor { agent, address, token: token.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_model_does_not_steer_the_terminal_and_is_cut() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{7}"), "a[31mb\nc");
        assert_eq!(cut("a\n  b"), "a b");
        assert_eq!(cut(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
