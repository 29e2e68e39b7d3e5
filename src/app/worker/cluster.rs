//! `covibes host ls`, `evict` and `move`: the hosts on one broker.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::adapters::known_hosts::FileKnownHosts;
use crate::adapters::rabbitmq::cluster::Answer;
use crate::adapters::system::SystemClock;
use crate::app::configuration::Configuration;
use crate::app::exit;
use crate::app::stdout::outln;
use crate::app::submit::client;
use crate::domain::control::{Heartbeat, Room};
use crate::domain::ids::{HostId, TeamId};
use crate::ports::clock::Clock as _;
use crate::ports::ctl::KnownHosts as _;

/// How long `evict` waits for its answer: a mailbox of a thousand jobs takes
/// seconds, and a broker up to half a minute to notice that a host is gone.
const EVICT_WAIT: Duration = Duration::from_secs(120);

/// How long `move` waits: a dispatcher that has just begun waits for the other
/// hosts first, and then the two hosts have 45 s each.
const MOVE_WAIT: Duration = Duration::from_secs(120);

const GIB: f64 = (1_u64 << 30) as f64;

/// Prints the hosts that speak, and those of this host's own list that do not.
///
/// # Errors
/// The broker cannot be asked.
pub async fn list(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    let heard = client(&configuration)?.hosts().await?;
    // Only a worker's own user may read it; without it, silent hosts are missing.
    let known = FileKnownHosts::new(&configuration.settings.state_dir);
    let silent: Vec<_> = known
        .load()
        .await
        .unwrap_or_default()
        .into_iter()
        .filter(|host| !heard.iter().any(|heartbeat| heartbeat.host == *host))
        .collect();
    if as_json {
        for heartbeat in &heard {
            outln!("{}", line_of_json(heartbeat));
        }
        for host in &silent {
            outln!("{}", json!({"host": host.as_str(), "state": "silent"}));
        }
        return Ok(ExitCode::SUCCESS);
    }
    outln!(
        "{:<24} {:<10} {:>6} {:>10} {:>6} {:>5}  ROLE",
        "HOST",
        "STATE",
        "TEAMS",
        "MEMORY",
        "CPU",
        "JOBS"
    );
    for heartbeat in &heard {
        outln!("{}", line(heartbeat));
    }
    for host in &silent {
        outln!("{:<24} {:<10}", host.as_str(), "silent");
    }
    Ok(ExitCode::SUCCESS)
}

fn state(heartbeat: &Heartbeat) -> &'static str {
    match (heartbeat.draining, heartbeat.room) {
        (true, _) => "draining",
        (false, None) => "no docker",
        (false, Some(room)) if room.disk_is_low => "disk low",
        (false, Some(_)) => "up",
    }
}

fn line(heartbeat: &Heartbeat) -> String {
    let role = if heartbeat.dispatches { "dispatcher" } else { "" };
    let (host, state) = (heartbeat.host.as_str(), state(heartbeat));
    let Some(Room { teams, memory_bytes, cpu_millis, jobs, .. }) = heartbeat.room else {
        return format!(
            "{host:<24} {state:<10} {:>6} {:>10} {:>6} {:>5}  {role}",
            "?", "?", "?", "?"
        );
    };
    let memory = format!("{:.1} GiB", memory_bytes as f64 / GIB);
    let cpu = format!("{:.1}", cpu_millis as f64 / 1000.0);
    format!("{host:<24} {state:<10} {teams:>6} {memory:>10} {cpu:>6} {jobs:>5}  {role}")
}

fn line_of_json(heartbeat: &Heartbeat) -> serde_json::Value {
    let room = heartbeat.room.map(|room| {
        json!({"teams": room.teams, "memory_bytes": room.memory_bytes,
            "cpu_millis": room.cpu_millis, "disk_is_low": room.disk_is_low,
            "jobs": room.jobs, "waiting": room.waiting})
    });
    json!({"host": heartbeat.host.as_str(), "state": state(heartbeat),
        "dispatches": heartbeat.dispatches, "room": room})
}

/// Evicts a host, after asking whoever sits at the terminal.
///
/// # Errors
/// The broker cannot be asked.
pub async fn evict(
    configuration: Configuration,
    host: &HostId,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    if !yes && !confirms(host)? {
        eprintln!("covibes: nothing was done");
        return Ok(ExitCode::from(exit::FAILED));
    }
    let nonce = SystemClock.new_id();
    Ok(report(client(&configuration)?.evict(host, nonce, EVICT_WAIT).await?))
}

/// Moves a stopped team to another host.
///
/// # Errors
/// The broker cannot be asked.
pub async fn move_team(
    configuration: Configuration,
    team: &TeamId,
    to: &HostId,
) -> anyhow::Result<ExitCode> {
    let nonce = SystemClock.new_id();
    Ok(report(client(&configuration)?.move_team(team, to, nonce, MOVE_WAIT).await?))
}

fn report(answer: Option<Answer>) -> ExitCode {
    match answer {
        Some(answer) if answer.done => {
            eprintln!("{}", answer.message);
            ExitCode::SUCCESS
        }
        Some(answer) => {
            eprintln!("covibes: {}", answer.message);
            ExitCode::from(exit::FAILED)
        }
        None => {
            eprintln!(
                "covibes: no dispatcher has answered yet. The order stands and is carried out by \
                 the next one; `covibes host ls` shows whether there is one"
            );
            ExitCode::from(exit::FAILED)
        }
    }
}

fn confirms(host: &HostId) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("evicting {host} needs somebody to confirm it, or --yes");
    }
    eprint!(
        "Teams of {host} begin anew elsewhere; what only its workspaces hold stays there, and its \
         containers are removed should it return. Type its name to go on: "
    );
    std::io::stderr().flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    Ok(typed.trim() == host.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_on_one_line() {
        let room = Room {
            teams: 7,
            memory_bytes: 3 << 29,
            cpu_millis: -250,
            disk_is_low: false,
            jobs: 2,
            waiting: 9,
        };
        let host = HostId::parse("h1").unwrap();
        let heartbeat = Heartbeat { host, dispatches: true, draining: false, room: Some(room) };
        let shown = line(&heartbeat);
        let words: Vec<_> = shown.split_whitespace().collect();
        assert_eq!(words, ["h1", "up", "7", "1.5", "GiB", "-0.2", "2", "dispatcher"]);
        assert_eq!(state(&Heartbeat { room: None, ..heartbeat.clone() }), "no docker");
        assert_eq!(state(&Heartbeat { draining: true, ..heartbeat }), "draining");
    }
}
