//! Dockerfiles: a stage for development says how the app is run; any other one is a hint.
//!
//! Only the few instructions that say something are read, line by line: `FROM`, `ARG`, `ENV`,
//! `EXPOSE`, `CMD`, `ENTRYPOINT`. Nothing is ever built from it here.

use std::collections::BTreeMap;

use crate::domain::findings::{Language, Source};

use crate::detect::look::Look;
use crate::detect::tree::join;

use super::command::Command;
use super::server::Kind;
use super::{Context, Said, Statement, ports};

/// Files that are for development as a whole.
pub(super) const FOR_DEVELOPMENT: [&str; 8] = [
    "Dockerfile.dev",
    "dev.Dockerfile",
    "Dockerfile.development",
    "Dockerfile-dev",
    "Dockerfile.local",
    "docker/Dockerfile.dev",
    "docker/dev.Dockerfile",
    ".docker/Dockerfile.dev",
];

/// More stages and instructions than a person writes.
const STAGES_MAX: usize = 64;
const LINES_MAX: usize = 4096;

/// One stage, with what it takes from the one it is built on.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    /// Its name in lower case, if it has one.
    pub(super) name: Option<String>,
    /// The image at the bottom.
    pub(super) image: String,
    variables: BTreeMap<String, String>,
    exposed: Vec<u16>,
    command: Option<Vec<String>>,
    /// Whether it has a command of its own and not only its parent's.
    own_command: bool,
    /// What stands before the command, unless it only starts it.
    entrypoint: Vec<String>,
}

impl Stage {
    /// The command with the entrypoint before it, as Docker runs them.
    pub(super) fn command(&self) -> Option<Command> {
        let command = self.command.as_deref().unwrap_or_default();
        match (self.entrypoint.as_slice(), command) {
            ([], [shell, flag, text]) if shell == "/bin/sh" && flag == "-c" => Command::parse(text),
            // The shell form of an entrypoint takes no arguments.
            ([shell, flag, text], _) if shell == "/bin/sh" && flag == "-c" => Command::parse(text),
            (entrypoint, command) => Command::of_words(&[entrypoint, command].concat()),
        }
    }

    /// Whether its variables say that it is for production.
    fn is_for_production(&self) -> bool {
        let names = ["NODE_ENV", "RAILS_ENV", "RACK_ENV", "APP_ENV", "MIX_ENV", "FLASK_ENV"];
        names.iter().any(|name| {
            matches!(self.variables.get(*name).map(String::as_str), Some("production" | "prod"))
        })
    }

    /// Ports on which the app may listen: told, set or exposed.
    pub(super) fn ports(&self) -> Vec<(u16, &'static str)> {
        let told = self
            .command()
            .and_then(|command| command.port())
            .map(|port| (port, "named in its CMD"));
        let set = ports::set_by(|name| self.variables.get(name).map(String::as_str));
        let exposed = self.exposed.iter().map(|port| (*port, "EXPOSE"));
        let mut found: Vec<(u16, &'static str)> = Vec::new();
        for (port, why) in told.into_iter().chain(set.map(|port| (port, "ENV PORT"))).chain(exposed)
        {
            if ports::may_be_app(port) && !found.iter().any(|(known, _)| *known == port) {
                found.push((port, why));
            }
        }
        found
    }

    /// `node@22`, if it is built on a runtime's own image in a version.
    pub(super) fn runtime(&self) -> Option<String> {
        runtime_of(&self.image)
    }

    /// Whether a web server for finished pages is at the bottom.
    pub(super) fn serves_files(&self) -> bool {
        let name = self.image.rsplit('/').next().unwrap_or_default();
        let name = name.split([':', '@']).next().unwrap_or_default();
        ["nginx", "nginx-unprivileged", "httpd", "caddy", "static-web-server", "traefik", "haproxy"]
            .contains(&name)
    }

    /// Whether its name says that it is for development.
    pub(super) fn is_for_development(&self) -> bool {
        self.name.as_deref().is_some_and(is_dev_stage)
    }
}

/// `node:22-alpine` is `node@22`.
pub(super) fn runtime_of(image: &str) -> Option<String> {
    let (name, tag) = image.rsplit('/').next()?.split_once(':')?;
    let version = tag.split(['-', '@']).next()?;
    (matches!(name, "node" | "python") && is_version(version)).then(|| format!("{name}@{version}"))
}

pub(super) fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 3
        && parts.iter().all(|part| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// `dev` and `app-development`, but not `development-dependencies`.
fn is_dev_stage(name: &str) -> bool {
    let parts: Vec<&str> = name.split(['-', '_', '.']).collect();
    let is_dev =
        |part: &&str| matches!(*part, "dev" | "develop" | "development" | "devel" | "local");
    let another = ["deps", "dependencies", "env", "envs", "build", "builder", "base", "tools"];
    parts.iter().any(is_dev) && !parts.iter().any(|part| another.contains(part))
}

/// Reads all stages of a Dockerfile.
pub(super) fn stages(text: &str) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut globals: BTreeMap<String, String> = BTreeMap::new();
    for line in instructions(text) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let rest = rest.trim();
        let word = word.to_ascii_uppercase();
        if word == "FROM" {
            if stages.len() == STAGES_MAX {
                break;
            }
            stages.push(from(rest, &stages, &globals));
            continue;
        }
        let Some(stage) = stages.last_mut() else {
            if word == "ARG"
                && let Some((name, value)) = rest.split_once('=')
            {
                let value = expanded(value.trim_matches(['"', '\'']), &globals);
                globals.insert(name.trim().to_owned(), value);
            }
            continue;
        };
        match word.as_str() {
            "ARG" | "ENV" => {
                // All of one instruction see what was set before it.
                let before = stage.variables.clone();
                for (name, value) in pairs(rest) {
                    let value = match value {
                        Some(value) => expanded(&value, &before),
                        // `ARG NAME` alone takes the value from before the first stage.
                        None => globals.get(&name).cloned().unwrap_or_default(),
                    };
                    stage.variables.insert(name, value);
                }
            }
            "EXPOSE" => {
                let text = expanded(rest, &stage.variables);
                let tcp = text.split_whitespace().filter(|port| !port.ends_with("/udp"));
                stage
                    .exposed
                    .extend(tcp.filter_map(|port| ports::number(port.trim_end_matches("/tcp"))));
            }
            "CMD" => {
                stage.command = Some(words(rest));
                stage.own_command = true;
            }
            "ENTRYPOINT" => {
                let entry = words(rest);
                let starts_it = entry.first().is_none_or(|first| {
                    let name = first.rsplit('/').next().unwrap_or_default();
                    ["tini", "dumb-init", "docker-entrypoint.sh"].contains(&name)
                });
                stage.own_command |= !starts_it;
                stage.entrypoint = if starts_it { Vec::new() } else { entry };
            }
            _ => {}
        }
    }
    stages
}

fn from(rest: &str, stages: &[Stage], globals: &BTreeMap<String, String>) -> Stage {
    let words: Vec<&str> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
    let image = expanded(words.first().copied().unwrap_or_default(), globals);
    let name = match words.as_slice() {
        [_, word, name, ..] if word.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    let parent = image.to_ascii_lowercase();
    let parent = stages.iter().find(|stage| stage.name.as_deref() == Some(&parent));
    match parent {
        Some(parent) => Stage { name, own_command: false, ..parent.clone() },
        None => Stage { name, image, ..Stage::default() },
    }
}

/// Instructions with their continuation lines joined, without comments.
pub(super) fn instructions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = String::new();
    for line in text.lines().take(LINES_MAX) {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                open.push_str(part);
                open.push(' ');
            }
            None => {
                open.push_str(line);
                found.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.is_empty() {
        found.push(open);
    }
    found
}

/// The exec form, or a line for the shell.
fn words(rest: &str) -> Vec<String> {
    serde_json::from_str::<Vec<String>>(rest)
        .unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()])
}

/// `A=1 B="two"`, or the old `A 1`.
fn pairs(rest: &str) -> Vec<(String, Option<String>)> {
    let first = rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let value = rest[first.len()..].trim();
        return vec![(first.to_owned(), (!value.is_empty()).then(|| value.to_owned()))];
    }
    crate::detect::script::commands(rest)
        .into_iter()
        .flatten()
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), Some(value.to_owned())))
        })
        .collect()
}

/// Fills in `$X`, `${X}` and `${X:-default}`; what is unknown becomes empty, as Docker has it.
pub(super) fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').unwrap_or(inner.len());
            let (name, default) = match inner[..end].split_once('-') {
                Some((name, default)) => (name.trim_end_matches(':'), default),
                None => (&inner[..end], ""),
            };
            let value = variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
            out.push_str(value.unwrap_or(default));
            rest = inner.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest
                .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .unwrap_or(rest.len());
            out.push_str(variables.get(&rest[..end]).map(String::as_str).unwrap_or_default());
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// What the app's Dockerfile says: for development if one is, else as a hint.
pub(super) fn read(context: &Context<'_>) -> Option<Statement> {
    let places: Vec<&str> = context.upward().filter(|dir| context.speaks_for(dir)).collect();
    let whole = places.iter().find_map(|dir| {
        let file = FOR_DEVELOPMENT
            .iter()
            .map(|name| join(dir, name))
            .find(|file| has(context.look, file))?;
        let stages = stages(&context.look.hint(&file)?);
        let stage =
            stages.iter().rev().find(|stage| stage.is_for_development()).or(stages.last())?;
        (!stage.serves_files()).then(|| statement(context, dir, &file, stage))
    });
    if whole.is_some() {
        return whole;
    }
    let (dir, file) = places.iter().find_map(|dir| {
        let name = context.look.first(dir, &["Dockerfile", "dockerfile", "Containerfile"])?;
        Some((*dir, join(dir, name)))
    })?;
    let stages = stages(&context.look.hint(&file)?);
    let is_dev = |stage: &&Stage| {
        !stage.is_for_production()
            && stage.command().is_some_and(|command| command.kind(&context.scripts) == Kind::Dev)
    };
    let named = stages.iter().rev().find(|stage| stage.is_for_development());
    let named = named.filter(|stage| {
        let command = stage.command();
        command.is_none_or(|command| command.kind(&context.scripts) != Kind::Production)
    });
    // A stage of any name that runs a dev server is one for development.
    let stage =
        named.or_else(|| stages.iter().rev().find(|stage| stage.own_command).filter(is_dev));
    let stage = stage.or_else(|| stages.iter().find(|stage| stage.own_command && is_dev(stage)));
    if let Some(stage) = stage {
        return Some(statement(context, dir, &file, stage));
    }
    let last = stages.last()?;
    let mut hint = Statement::new(Source::Dockerfile, &file);
    hint.is_hint = true;
    if !last.serves_files() {
        hint.ports = ports_of(context, last, "");
    }
    let runtime = last.runtime().or_else(|| stages.iter().find_map(Stage::runtime));
    hint.runtime = runtime.map(|text| Said { text, file, why: "its image".into() });
    Some(hint)
}

fn statement(context: &Context<'_>, dir: &str, file: &str, stage: &Stage) -> Statement {
    let mut statement = Statement::new(Source::Dockerfile, file);
    let of = match &stage.name {
        Some(name) => format!(" of stage {name}"),
        None => String::new(),
    };
    statement.ports = ports_of(context, stage, &of);
    let here = dir == context.findings.app_dir;
    let fit = stage
        .command()
        .filter(|command| here && command.fits(context.look, dir, context.findings.language));
    statement.command = fit.map(|command| Said {
        text: command.text(),
        file: file.to_owned(),
        why: format!("CMD{of}"),
    });
    let runtime = stage.runtime();
    statement.runtime =
        runtime.map(|text| Said { text, file: file.to_owned(), why: "its image".into() });
    statement
}

/// The ports of a stage that may be the app's, each with its reason.
fn ports_of(context: &Context<'_>, stage: &Stage, of: &str) -> Vec<(u16, String)> {
    let told = stage.command().and_then(|command| command.port());
    let own = stage
        .ports()
        .into_iter()
        .filter(|(port, _)| told == Some(*port) || context.may_be_own(*port));
    own.map(|(port, why)| (port, format!("{why}{of}"))).collect()
}

/// Looks a path up one directory at a time, so that most need no call of their own.
pub(super) fn has(look: &Look<'_>, file: &str) -> bool {
    match file.rsplit_once('/') {
        Some((dir, name)) if look.kind(dir).ok().flatten().is_some() => look.has(dir, name),
        Some(_) => false,
        None => look.has(".", file),
    }
}

/// The language of the image that a directory's Dockerfile is built from.
pub(super) fn language(look: &Look<'_>, dir: &str) -> Option<(Language, String)> {
    let file = join(dir, look.first(dir, &["Dockerfile", "dockerfile"])?);
    let stages = stages(&look.hint(&file)?);
    let language = stages.iter().find_map(|stage| {
        let name = stage.image.rsplit('/').next()?.split([':', '@']).next()?;
        Some(match name {
            "node" => Language::Node,
            "python" => Language::Python,
            "golang" => Language::Go,
            "ruby" => Language::Ruby,
            "rust" => Language::Rust,
            "php" => Language::Php,
            "elixir" => Language::Elixir,
            "swift" => Language::Swift,
            "maven" | "gradle" | "openjdk" | "eclipse-temurin" => Language::Java,
            _ => return None,
        })
    })?;
    Some((language, file))
}
