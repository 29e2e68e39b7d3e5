//! `covibes teams logs`: what a team's parts printed, and the installs of its
//! previews, from Docker and from the files that builds leave.
//!
//! What a container prints is not trusted: on a terminal its colours are kept,
//! and nothing else that a terminal would obey.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use ipnet::Ipv4Net;

use super::{containers, engine};
use crate::adapters::docker::DockerEngine;
use crate::adapters::system::SystemClock;
use crate::app::configuration::Configuration;
use crate::app::local::as_local;
use crate::app::stdout::{self, outln};
use crate::app::worker::tunnels::PROXY;
use crate::domain::ids::TeamId;
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::pipeline::tunnels::Tunnel;
use crate::ports::clock::Clock as _;
use crate::ports::engine::{Engine as _, ObservedContainer, label};

/// A part that ended may be replaced by another of its name.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far back the proxy's log, which is all teams', is looked through.
const PROXY_LINES_MAX: usize = 20_000;

/// What to print.
#[derive(Debug, clap::Args)]
pub struct Request {
    /// The team.
    team: String,
    /// Only this part: `sync`, an agent's or preview's name, or `egress` for what the
    /// proxy let through and what not.
    part: Option<String>,
    /// Go on with what comes, until interrupted or the team is stopped.
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each part.
    #[arg(long, default_value_t = 100)]
    lines: usize,
}

/// Containers by team and instance.
type ByTeam = BTreeMap<(String, String), Vec<ObservedContainer>>;

/// Prints, and follows if asked to.
///
/// # Errors
/// Docker does not answer, or there is no such team or part.
pub(super) async fn run(
    configuration: &Configuration,
    teams: ByTeam,
    request: Request,
) -> anyhow::Result<()> {
    if request.part.as_deref() == Some("egress") {
        return egress(configuration, &teams, &request).await;
    }
    let own = of_team(&teams, &request);
    let builds = build_logs(configuration, &request)?;
    if own.is_empty() && builds.is_empty() {
        match &request.part {
            Some(part) => bail!("team {} has no part {part} that runs here", request.team),
            None => {
                bail!("no team {} runs here; `covibes teams ls` lists those that do", request.team)
            }
        }
    }
    let printer = Printer {
        is_named: request.part.is_none(),
        is_coloured: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    for (preview, path) in builds {
        // An install that runs prints by itself.
        let runs = own.iter().any(|c| is_install(c) && name(c) == preview);
        let Some(text) = (!runs).then(|| std::fs::read_to_string(&path).ok()).flatten() else {
            continue;
        };
        let all: Vec<&str> = text.lines().collect();
        for line in &all[all.len().saturating_sub(request.lines)..] {
            printer.line(&format!("install {preview}"), line);
        }
    }
    let engine = engine(configuration);
    if !request.follow {
        for container in own {
            for line in engine.log_tail(&container.name, request.lines).await? {
                printer.line(&title(container), &line);
            }
        }
        return Ok(());
    }
    follow(configuration, &engine, &printer, &request).await
}

/// Follows every part, also those that come later, until the team is gone.
async fn follow(
    configuration: &Configuration,
    engine: &DockerEngine,
    printer: &Printer,
    request: &Request,
) -> anyhow::Result<()> {
    let mut lines = request.lines;
    loop {
        let teams = containers(configuration).await?;
        let own = of_team(&teams, request);
        let running: Vec<_> = own.into_iter().filter(|c| c.state == "running").collect();
        let follow_one = async |container: &ObservedContainer| {
            let title = title(container);
            let on_line = |line: &str| printer.line(&title, line);
            // It may end, or be replaced, at any moment.
            let _ = engine.follow_log(&container.name, lines, &on_line).await;
        };
        if !running.is_empty() {
            join_all(running.into_iter().map(follow_one)).await;
        } else if !teams.keys().any(|(team, _)| *team == request.team) {
            return Ok(());
        }
        // What was printed already is not printed again; a new part says little
        // before it is noticed.
        lines = 0;
        if stdout::is_gone() {
            return Ok(());
        }
        SystemClock.sleep(LOOK_AGAIN).await;
    }
}

fn of_team<'a>(teams: &'a ByTeam, request: &Request) -> Vec<&'a ObservedContainer> {
    let own = teams.iter().filter(|((team, _), _)| *team == request.team);
    let all = own.flat_map(|(_, list)| list);
    let wanted = |container: &&ObservedContainer| {
        request.part.as_deref().is_none_or(|part| {
            let is = |key| container.labels.get(key).map(String::as_str) == Some(part);
            is(label::NAME) || is(label::ROLE)
        })
    };
    all.filter(wanted).collect()
}

/// What the proxy of the host says of one team, which it knows by its networks.
async fn egress(
    configuration: &Configuration,
    teams: &ByTeam,
    request: &Request,
) -> anyhow::Result<()> {
    let engine = engine(configuration);
    let of_team = teams.iter().filter(|((team, _), _)| *team == request.team);
    let addresses: Vec<_> =
        of_team.flat_map(|(_, list)| list).flat_map(|c| c.addresses.clone()).collect();
    let all = engine.all_networks().await.context("Docker does not list its networks")?;
    let networks: Vec<(Ipv4Net, i64)> = all
        .iter()
        .flat_map(|network| network.subnets.iter().map(|subnet| (*subnet, network.created_unix_ms)))
        .filter(|(subnet, _)| addresses.iter().any(|address| subnet.contains(address)))
        .collect();
    if networks.is_empty() {
        bail!("no team {} runs here; `covibes teams ls` lists those that do", request.team);
    }
    let proxy = ContainerName::from_engine(PROXY).context("the proxy's name")?;
    let lines = engine.log_tail(&proxy, PROXY_LINES_MAX).await;
    let lines = lines.context("the egress proxy does not run; `covibes host prepare` starts it")?;
    let own = lines
        .iter()
        .filter(|line| Tunnel::read(line).is_some_and(|tunnel| tunnel.is_from(&networks)));
    let own: Vec<&String> = own.collect();
    for line in &own[own.len().saturating_sub(request.lines)..] {
        outln!("{}", shown(line, false));
    }
    Ok(())
}

fn name(container: &ObservedContainer) -> &str {
    container.labels.get(label::NAME).map_or("", String::as_str)
}

fn is_install(container: &ObservedContainer) -> bool {
    container.labels.get(label::ROLE).map(String::as_str) == Some(Role::Oneshot.as_str())
}

/// `agent agent-1`, `preview main`, `install main`, `sync`.
fn title(container: &ObservedContainer) -> String {
    let role = container.labels.get(label::ROLE).map_or("", String::as_str);
    let role = if is_install(container) { "install" } else { role };
    format!("{role} {}", name(container)).trim_end().to_owned()
}

/// The newest log of an install of each preview that was asked for.
fn build_logs(
    configuration: &Configuration,
    request: &Request,
) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let local = as_local(configuration.clone())?;
    let mut newest: BTreeMap<String, (std::time::SystemTime, PathBuf)> = BTreeMap::new();
    for state in [&configuration.settings.state_dir, &local.settings.state_dir] {
        // A team id holds no way to another directory.
        let Ok(team) = TeamId::parse(&request.team) else { break };
        let directory = state.join("logs").join(team.as_str());
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let Some(preview) = file.to_str().and_then(preview_of) else { continue };
            let is_wanted = request.part.as_deref().is_none_or(|part| part == preview);
            let Ok(modified) = entry.metadata().and_then(|found| found.modified()) else {
                continue;
            };
            let newer = newest.get(preview).is_none_or(|(other, _)| *other < modified);
            if is_wanted && newer {
                newest.insert(preview.to_owned(), (modified, entry.path()));
            }
        }
    }
    Ok(newest.into_iter().map(|(preview, (_, path))| (preview, path)).collect())
}

/// The preview of `build-<preview>-<run>.log`.
fn preview_of(file: &str) -> Option<&str> {
    file.strip_prefix("build-")?.strip_suffix(".log")?.rsplit_once('-').map(|(name, _)| name)
}

/// Prints lines of one part, or of several with its name before each.
struct Printer {
    is_named: bool,
    is_coloured: bool,
}

impl Printer {
    fn line(&self, title: &str, line: &str) {
        let line = shown(line, self.is_coloured);
        if self.is_named {
            outln!("{title:<20} | {line}");
        } else {
            outln!("{line}");
        }
    }
}

/// A line as it may be printed: without what a terminal would obey, but for
/// colours if they are wanted.
pub(super) fn shown(line: &str, is_coloured: bool) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    let mut has_colour = false;
    while let Some(letter) = rest.chars().next() {
        let length = match rest.strip_prefix("\u{1b}[") {
            // A control sequence: parameters, and a letter that says what for.
            Some(sequence) => {
                let is_end = |c: char| ('@'..='~').contains(&c);
                let Some(end) = sequence.find(is_end) else { break };
                let (parameters, length) = (&sequence[..end], 2 + end + 1);
                let is_colour = sequence[end..].starts_with('m')
                    && parameters.chars().all(|c| c.is_ascii_digit() || c == ';' || c == ':');
                if is_colour && is_coloured {
                    has_colour = true;
                    text.push_str(&rest[..length]);
                }
                length
            }
            // A title, a link, the clipboard: up to a bell or a string's end.
            None if rest.starts_with("\u{1b}]") => {
                let ends =
                    [rest.find('\u{7}').map(|at| at + 1), rest.find("\u{1b}\\").map(|at| at + 2)];
                match ends.into_iter().flatten().min() {
                    Some(length) => length,
                    None => break,
                }
            }
            None => {
                if !letter.is_control() || letter == '\t' {
                    text.push(letter);
                }
                letter.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    if has_colour {
        text.push_str("\u{1b}[0m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_kept_on_a_terminal_and_nothing_else_that_it_obeys() {
        let check = |line: &str, coloured: &str, plain: &str| {
            assert_eq!(shown(line, true), coloured, "{line:?}");
            assert_eq!(shown(line, false), plain, "{line:?}");
        };
        check("\u{1b}[32m➜\u{1b}[39m ready", "\u{1b}[32m➜\u{1b}[39m ready\u{1b}[0m", "➜ ready");
        check("\u{1b}[2J\u{1b}[Hcleared", "cleared", "cleared");
        check("a\u{1b}]0;title\u{7}b\u{1b}]52;c;aGk=\u{1b}\\c", "abc", "abc");
        check("cut \u{1b}[3", "cut ", "cut ");
        check("a\rb\u{8}\tc", "ab\tc", "ab\tc");
    }

    #[test]
    fn a_build_log_is_known_by_its_preview() {
        assert_eq!(preview_of("build-main-0123abcd.log"), Some("main"));
        assert_eq!(preview_of("build-two-words-0123abcd.log"), Some("two-words"));
        assert_eq!(preview_of("other.log"), None);
    }
}
