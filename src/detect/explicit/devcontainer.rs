//! `devcontainer.json`: which ports an editor forwards.
//!
//! Its image, features and commands are made for another container, often with Docker and sudo,
//! so nothing of them is obeyed; a version in an image or feature is a hint about the runtime.

use serde_json::Value;

use crate::domain::environment;
use crate::domain::findings::Source;

use crate::detect::tree::join;

use super::command::Command;
use super::{Context, Said, Statement, jsonc, ports};

const FILES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// What the nearest one says.
pub(super) fn read(context: &Context<'_>) -> Option<Statement> {
    let file = context
        .upward()
        .flat_map(|dir| FILES.iter().map(move |name| join(dir, name)))
        .find(|file| has(context, file))?;
    let text = context.look.hint(&file)?;
    let value = match jsonc::parse(&text) {
        Ok(value) => value,
        Err(error) => {
            context.look.warn(format!(
                "{file} is not valid JSON (line {}, column {}); it was set aside",
                error.line(),
                error.column()
            ));
            return None;
        }
    };
    let mut statement = Statement::new(Source::Devcontainer, &file);
    statement.ports = forwarded(&value);
    statement.ports.retain(|(port, _)| context.may_be_own(*port));
    statement.env = variables(&value["containerEnv"]);
    statement.runtime = runtime(&value).map(|(text, why)| Said { text, file: file.clone(), why });
    for name in ["onCreateCommand", "updateContentCommand", "postCreateCommand"] {
        if let Some(command) = unusual(&value[name]) {
            context.look.warn(format!(
                "{file}: {name} is not run: {command}; set `preview.install` in .covibes.yml if \
                 the app needs it"
            ));
        }
    }
    Some(statement)
}

/// Listed one directory at a time, so that a link is noticed.
fn has(context: &Context<'_>, file: &str) -> bool {
    match file.rsplit_once('/') {
        Some((dir, name)) if context.look.kind(dir).ok().flatten().is_some() => {
            context.look.has(dir, name)
        }
        Some(_) => false,
        None => context.look.has(".", file),
    }
}

/// Ports, those first that the editor opens as a page.
fn forwarded(value: &Value) -> Vec<(u16, String)> {
    let attributes = &value["portsAttributes"];
    let mut found: Vec<(u8, u16, &str)> = Vec::new();
    let mut add = |port: &Value, why: &'static str, rank: u8| {
        let Some(port) = local(port) else { return };
        let about = &attributes[port.to_string()];
        let label = about["label"].as_str().unwrap_or_default();
        let opens = about["onAutoForward"].as_str().unwrap_or_default();
        let another = opens == "ignore" || ports::names_other(label);
        if another || !ports::may_be_app(port) || found.iter().any(|(_, known, _)| *known == port) {
            return;
        }
        let rank = if opens.starts_with("open") { 0 } else { rank };
        found.push((rank, port, why));
    };
    for port in list(&value["forwardPorts"]) {
        add(port, "forwardPorts", 1);
    }
    for port in list(&value["appPort"]) {
        add(port, "appPort", 2);
    }
    for name in attributes.as_object().into_iter().flatten().map(|(name, _)| name) {
        add(&Value::String(name.clone()), "portsAttributes", 3);
    }
    found.sort_by_key(|(rank, ..)| *rank);
    found.into_iter().map(|(_, port, why)| (port, why.to_owned())).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    let many = value.as_array().into_iter().flatten();
    let one = (!value.is_array() && !value.is_null()).then_some(value);
    many.chain(one)
}

/// The port inside the container; `db:5432` is another container's.
fn local(value: &Value) -> Option<u16> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|port| port.try_into().ok()),
        Value::String(text) => match text.rsplit_once(':') {
            Some((host, port)) => {
                let own = host == "localhost" || host.bytes().all(|byte| byte.is_ascii_digit());
                ports::number(port).filter(|_| own)
            }
            None => ports::number(text),
        },
        _ => None,
    }
}

fn variables(value: &Value) -> std::collections::BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        // `${localEnv:X}` is only known on the author's machine.
        .filter(|(name, value)| !value.contains("${") && environment::check(name, value).is_ok())
        .collect()
}

/// `node@22`, by the feature or the image of the editor's own.
fn runtime(value: &Value) -> Option<(String, String)> {
    let features = value["features"].as_object().into_iter().flatten();
    let feature = features.filter_map(|(name, options)| {
        let name = name.rsplit('/').next()?.split(':').next()?;
        let version = options["version"].as_str().or_else(|| options.as_str())?;
        matches!(name, "node" | "python").then(|| (name, version))
    });
    let mut found = feature.map(|(name, version)| (name.to_owned(), version.to_owned()));
    let (text, why) = match found.next() {
        Some(found) => (found, "feature"),
        None => (image(value["image"].as_str()?)?, "image"),
    };
    let (name, version) = text;
    super::dockerfile::is_version(&version).then(|| (format!("{name}@{version}"), why.to_owned()))
}

/// `…/javascript-node:1-22-bookworm` is Node 22.
fn image(image: &str) -> Option<(String, String)> {
    let (name, tag) = image.rsplit('/').next()?.split_once(':')?;
    let name = match name {
        "javascript-node" | "typescript-node" => "node",
        "python" => "python",
        _ => return None,
    };
    let mut parts = tag.split('-').filter(|part| super::dockerfile::is_version(part));
    // The first number of two is the image's own version.
    let first = parts.next()?;
    Some((name.to_owned(), parts.next().unwrap_or(first).to_owned()))
}

/// A command of set-up that is more than an install, which has a step of its own here.
fn unusual(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Value::Object(several) => several.keys().cloned().collect::<Vec<_>>().join(", "),
        _ => return None,
    };
    // Nothing is left of a command that only installs.
    let only_installs = !value.is_object() && Command::parse(&text).is_none() && is_simple(&text);
    let short: String = text.chars().filter(|letter| !letter.is_control()).take(80).collect();
    (!only_installs && !short.trim().is_empty()).then_some(short)
}

fn is_simple(text: &str) -> bool {
    !text.contains(['|', '<', '>', '(', '`', '"', '\''])
}
