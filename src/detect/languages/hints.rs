//! What other ways to run a project say about its port: `Procfile`, `Dockerfile`, `.env`.
//!
//! They are written for production more often than not, so they are asked last.

use crate::detect::look::Look;
use crate::detect::ports;
use crate::detect::script;

use super::{Said, listeners, read};

/// Files that give a process its environment, the one for development first.
const ENVIRONMENTS: [&str; 5] =
    [".env.development", ".env.local", ".env", ".env.example", ".env.sample"];

/// Returns the port that another way to run the project names.
pub(crate) fn port(look: &Look<'_>, dir: &str) -> Option<Said<u16>> {
    environment(look, dir).or_else(|| command(look, dir, &[])).or_else(|| exposed(look, dir))
}

/// Returns the `PORT` of the files that give a process its environment.
pub(crate) fn environment(look: &Look<'_>, dir: &str) -> Option<Said<u16>> {
    ENVIRONMENTS.iter().find_map(|file| variable(look, dir, file, &["PORT"]))
}

/// Returns the port that one of these variables has in an environment file.
pub(crate) fn variable(
    look: &Look<'_>,
    dir: &str,
    file: &str,
    names: &[&str],
) -> Option<Said<u16>> {
    let (text, path) = read(look, dir, file)?;
    let port = text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("export ");
        let (name, value) = line.split_once('=')?;
        names.contains(&name.trim()).then(|| listeners::number(value.trim()))?
    })?;
    Some((port, path))
}

/// Returns the port in a `Procfile` or a Dockerfile's command that has all of these words.
pub(crate) fn command(look: &Look<'_>, dir: &str, words: &[&str]) -> Option<Said<u16>> {
    ["Procfile.dev", "Procfile", "Dockerfile"].iter().find_map(|file| {
        let (text, path) = read(look, dir, file)?;
        let port = text.lines().find_map(|line| {
            let line = match *file {
                // The list form of a command reads as its words.
                "Dockerfile" => ["CMD", "ENTRYPOINT"]
                    .iter()
                    .find_map(|word| line.trim().strip_prefix(word))?
                    .replace(['[', ']', ',', '"'], " "),
                _ => line.split_once(':')?.1.to_owned(),
            };
            if !words.iter().all(|word| line.contains(word)) {
                return None;
            }
            script::port(&line, &[])
        })?;
        Some((port, path))
    })
}

/// Returns the port that a Dockerfile exposes, if it is only one.
fn exposed(look: &Look<'_>, dir: &str) -> Option<Said<u16>> {
    let (text, path) = read(look, dir, "Dockerfile")?;
    let mut ports = text.lines().filter_map(|line| {
        let line = line.trim().strip_prefix("EXPOSE ")?;
        let first = line.split_whitespace().next()?;
        first.split('/').next()?.parse::<u16>().ok().filter(|port| *port != 0)
    });
    let port = ports.next()?;
    ports.all(|other| other == port).then_some((port, path))
}

/// Files of settings that a program may read, those for development first.
const SETTINGS: [&str; 18] = [
    "config/development.toml",
    "config/default.toml",
    "config/local.toml",
    "config/config.toml",
    "config/development.yaml",
    "config/default.yaml",
    "config/local.yaml",
    "config/base.yaml",
    "config/config.yaml",
    "config/config.yml",
    "configs/config.yaml",
    "configuration/local.yaml",
    "configuration/base.yaml",
    "config.toml",
    "config.yaml",
    "config.yml",
    "settings.toml",
    "Settings.toml",
];

/// Headings in such files below which the server's port stands.
const SERVERS: &[&str] = &["server", "application", "app", "http", "http_server", "web", "api"];

/// Returns the port in a file of settings: its own key, or below a heading that means the server.
pub(crate) fn settings(look: &Look<'_>, dir: &str) -> Option<Said<u16>> {
    SETTINGS.iter().find_map(|file| {
        let (text, path) = read(look, dir, file)?;
        let own = text.lines().take_while(|line| !line.starts_with('[')).find_map(|line| {
            let (name, value) = line.split_once([':', '='])?;
            (name == "port" || name == "port ").then(|| listeners::number(value))?
        });
        // An address of every interface is one's own; any other may be a database's.
        let open = || {
            text.lines().find_map(|line| {
                let (_, address) = line.split_once("0.0.0.0:")?;
                listeners::number(address.trim_end_matches(['"', '\'', ',']))
            })
        };
        Some((own.or_else(|| ports::below_heading(&text, SERVERS)).or_else(open)?, path))
    })
}

/// Returns the port in `runserver [address:]port`, wherever it is called.
pub(crate) fn runserver(look: &Look<'_>, dir: &str) -> Option<Said<u16>> {
    ["Procfile.dev", "Makefile", "Dockerfile", "Procfile"].iter().find_map(|file| {
        let (text, path) = read(look, dir, file)?;
        let port = text.lines().find_map(|line| {
            let (_, rest) = line.split_once("runserver")?;
            let mut words = rest.split([' ', '"', '\'', ',', ']']).filter(|word| !word.is_empty());
            words.find_map(|word| listeners::number(word.rsplit(':').next()?))
        })?;
        Some((port, path))
    })
}

/// Returns the `port` in a table of a TOML file.
pub(crate) fn table_port(look: &Look<'_>, dir: &str, file: &str, table: &str) -> Option<Said<u16>> {
    let (text, path) = read(look, dir, file)?;
    let root: toml::Table = text.parse().ok()?;
    let port = root.get(table)?.get("port")?.as_integer()?;
    Some((port.try_into().ok()?, path))
}
