//! `covibes top`: what the teams of this host use now, read from their control
//! groups, so that it also answers when no worker runs.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::teams::{containers, engine};
use crate::adapters::host::LinuxHost;
use crate::adapters::system::SystemClock;
use crate::app::columns::{self, Cell, Columns, Watch};
use crate::app::configuration::Configuration;
use crate::app::page::format::bytes;
use crate::app::stdout::outln;
use crate::ports::clock::Clock as _;
use crate::ports::engine::Engine as _;
use crate::ports::host::{Host as _, Usage};

/// Between the two looks that a share of CPU time needs.
const BETWEEN: Duration = Duration::from_millis(500);

/// Shows what teams use.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// Look once, also on a terminal.
    #[arg(long)]
    once: bool,
    /// Print one JSON object per team, once.
    #[arg(long)]
    json: bool,
}

/// One team's use.
#[derive(Debug, Default)]
struct Line {
    team: String,
    instance: String,
    parts: usize,
    memory: u64,
    memory_max: Option<u64>,
    cpu_millis: u64,
    cpu_millis_max: Option<u64>,
    processes: u64,
    oom_kills: u64,
}

/// Runs it.
///
/// # Errors
/// Docker does not answer.
pub async fn run(configuration: Configuration, wish: Top) -> anyhow::Result<ExitCode> {
    let again = !wish.once && !wish.json && std::io::stdout().is_terminal();
    columns::watch(Watch::choose(again, wish.json), async || {
        let mut lines = look(&configuration).await?;
        lines.sort_by(|a, b| {
            (b.cpu_millis, b.memory, &a.team).cmp(&(a.cpu_millis, a.memory, &b.team))
        });
        if wish.json {
            lines.iter().for_each(|line| outln!("{}", as_json(line)));
        } else {
            print(&lines);
        }
        Ok(())
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn look(configuration: &Configuration) -> anyhow::Result<Vec<Line>> {
    let (engine, host) = (engine(configuration), LinuxHost::new(Vec::new()));
    let mut lines = Vec::new();
    let mut owners = Vec::new();
    let mut names = Vec::new();
    for ((team, instance), list) in containers(configuration).await? {
        let running: Vec<_> = list.into_iter().filter(|c| c.state == "running").collect();
        let parts = running.len();
        for container in running {
            owners.push(lines.len());
            names.push(container.name);
        }
        lines.push(Line { team, instance, parts, ..Line::default() });
    }
    let states = join_all(names.iter().map(|name| engine.inspect_container(name))).await;
    let pids: Vec<u32> = states
        .into_iter()
        .map(|state| state.ok().flatten().and_then(|state| state.pid).unwrap_or(0))
        .collect();
    let began = tokio::time::Instant::now();
    let first = host.usage(&pids).await;
    SystemClock.sleep(BETWEEN).await;
    let second = host.usage(&pids).await;
    let passed = began.elapsed();
    for (owner, (first, second)) in owners.into_iter().zip(first.into_iter().zip(second)) {
        // One that ended in between uses nothing.
        if let (Some(first), Some(second)) = (first, second) {
            add(&mut lines[owner], first, second, passed);
        }
    }
    Ok(lines)
}

fn add(line: &mut Line, first: Usage, second: Usage, passed: Duration) {
    let used = second.cpu.saturating_sub(first.cpu);
    let share = used.as_secs_f64() / passed.as_secs_f64().max(0.001);
    line.cpu_millis += (share * 1000.0).round() as u64;
    line.memory += second.memory_bytes;
    line.processes += second.processes.unwrap_or(0);
    line.oom_kills += second.oom_kills;
    let more = |sum: Option<u64>, one: Option<u64>| match (sum, one) {
        (sum, Some(one)) => Some(sum.unwrap_or(0) + one),
        (sum, None) => sum,
    };
    line.memory_max = more(line.memory_max, second.memory_bytes_max);
    line.cpu_millis_max = more(line.cpu_millis_max, second.cpu_millis_max);
}

fn print(lines: &[Line]) {
    // From the right, a narrow terminal leaves out what matters least.
    let head = ["TEAM", "CPU", "OF", "MEMORY", "OF", "OOM", "PARTS", "TASKS", "INSTANCE"];
    let mut columns = Columns::new(&head);
    let cpus = |millis: u64| format!("{:.2}", millis as f64 / 1000.0);
    for line in lines {
        columns.row(vec![
            Cell::text(&line.team),
            Cell::Number(cpus(line.cpu_millis)),
            Cell::number(line.cpu_millis_max.map(cpus)),
            Cell::Number(bytes(line.memory as f64)),
            Cell::number(line.memory_max.map(|most| bytes(most as f64))),
            Cell::number(Some(line.oom_kills)),
            Cell::number(Some(line.parts)),
            Cell::number(Some(line.processes)),
            Cell::Quiet(line.instance.clone()),
        ]);
    }
    if lines.is_empty() {
        outln!("no team runs on this host");
    } else {
        columns.print();
    }
}

fn as_json(line: &Line) -> serde_json::Value {
    json!({
        "team": line.team, "instance": line.instance, "parts": line.parts,
        "cpu_millis": line.cpu_millis, "cpu_millis_max": line.cpu_millis_max,
        "memory_bytes": line.memory, "memory_bytes_max": line.memory_max,
        "processes": line.processes, "oom_kills": line.oom_kills,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parts_use_is_added_up_for_their_team() {
        let usage = |cpu, memory_bytes_max| Usage {
            memory_bytes: 100,
            memory_bytes_max,
            cpu: Duration::from_millis(cpu),
            processes: Some(2),
            ..Usage::default()
        };
        let mut line = Line::default();
        let second = Duration::from_secs(1);
        add(&mut line, usage(0, Some(10)), usage(250, Some(10)), second);
        add(&mut line, usage(900, None), usage(1000, None), second);
        assert_eq!((line.cpu_millis, line.memory, line.processes), (350, 200, 4));
        assert_eq!((line.memory_max, line.cpu_millis_max), (Some(10), None));
    }
}
