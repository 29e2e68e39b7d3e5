//! From the bytes of a project file to a [`ProjectFile`], refusing whatever is not plainly fine.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::MergeKeyPolicy;
use serde_saphyr::{Error, Location, Spanned};

use crate::domain::environment::{self, EnvironmentError};
use crate::domain::findings::{Health, RuntimeName};

use super::error::{Place, ProjectError};
use super::shape::{Agent, File, Mode, Preview, Previews};
use super::{
    PreviewMode, ProjectAgent, ProjectFile, ProjectLimits, ProjectPreview, ProjectRuntime,
    RoleLimits,
};

/// The budget of `reference/security.md` 2.7.
const BYTES_MAX: usize = 64 * 1024;
const DEPTH_MAX: usize = 16;
const NODES_MAX: usize = 2_000;

/// Longest command and path.
const COMMAND_BYTES_MAX: usize = 4096;
const PATH_BYTES_MAX: usize = 255;

/// Most previews, agents and writable places; the host's own limits are lower still.
const PREVIEWS_MAX: usize = 16;
const WRITABLE_MAX: usize = 32;

/// How much of an author's text, or of the parser's, is repeated in a message.
const ECHO_CHARS_MAX: usize = 160;

const START: Place = Place { line: 1, column: 1 };

/// Reads a project file.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(bytes: &[u8]) -> Result<ProjectFile, ProjectError> {
    if bytes.len() > BYTES_MAX {
        return Err(ProjectError::Limits { place: START, limit: "the file is over 64 KiB" });
    }
    let invalid = |message: &str| Err(invalid(START, message));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return invalid("the file is not UTF-8 text");
    };
    if text.starts_with('\u{feff}') {
        return invalid("the file begins with a byte order mark; save it without");
    }
    let budget = serde_saphyr::budget! {
        max_reader_input_bytes: Some(BYTES_MAX),
        max_anchors: 0,
        max_aliases: 0,
        max_merge_keys: 0,
        max_depth: DEPTH_MAX,
        max_nodes: NODES_MAX,
        max_documents: 1,
        flow_nesting_limit: DEPTH_MAX,
        max_inclusion_depth: 0,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
        reject_unsupported_tags: true,
        strict_booleans: true,
    };
    // The budget of the whole file first: a bomb is called one wherever it stands.
    serde_saphyr::from_str_with_options::<IgnoredAny>(text, options.clone())
        .map_err(|error| refusal(&error))?;
    let file = serde_saphyr::from_str_with_options::<Option<File>>(text, options)
        .map_err(|error| refusal(&error))?;
    checked(file.unwrap_or_default())
}

/// Says what the parser refused in this crate's own words and codes.
fn refusal(error: &Error) -> ProjectError {
    let error = error.without_snippet();
    let place = error.location().map_or(START, place_of);
    match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Anchors { .. }
            | BudgetBreach::Aliases { .. }
            | BudgetBreach::MergeKeys { .. }
            | BudgetBreach::AliasAnchorRatio { .. } => ProjectError::AliasesNotAllowed { place },
            BudgetBreach::Depth { .. } => limits(place, "nested deeper than 16 levels"),
            BudgetBreach::Nodes { .. } => limits(place, "more than 2,000 values"),
            BudgetBreach::Documents { .. } => limits(place, "more than one document"),
            _ => limits(place, "larger than is read"),
        },
        Error::MultipleDocuments { .. } => limits(place, "more than one document"),
        Error::MergeKeyNotAllowed { .. }
        | Error::UnknownAnchor { .. }
        | Error::AliasError { .. } => ProjectError::AliasesNotAllowed { place },
        Error::SerdeUnknownField { field, expected, .. } => ProjectError::UnknownKey {
            place,
            key: echo(field),
            suggestion: nearest(field, expected).map(str::to_owned),
        },
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let words: Vec<String> = expected.iter().map(|word| format!("`{word}`")).collect();
            let meant = nearest(variant, expected);
            let meant = meant.map(|word| format!(", did you mean `{word}`?")).unwrap_or_default();
            let known = words.join(" or ");
            invalid(place, &format!("`{}` is not {known}{meant}", echo(variant)))
        }
        other => invalid(place, &other.to_string()),
    }
}

fn limits(place: Place, limit: &'static str) -> ProjectError {
    ProjectError::Limits { place, limit }
}

fn invalid(place: Place, message: &str) -> ProjectError {
    ProjectError::Invalid { place, message: echo(message) }
}

fn echo(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(ECHO_CHARS_MAX).collect()
}

fn place_of(location: Location) -> Place {
    Place { line: location.line().max(1), column: location.column().max(1) }
}

fn place<T>(value: &Spanned<T>) -> Place {
    place_of(value.referenced)
}

fn checked(file: File) -> Result<ProjectFile, ProjectError> {
    let previews = match file.preview.map(|previews| (place(&previews), previews.value)) {
        None => Vec::new(),
        Some((_, Previews::One(one))) => vec![preview(*one)?],
        Some((place, Previews::Many(many))) => several(many, place)?,
        Some((place, Previews::Neither)) => {
            return Err(invalid(place, "`preview` is its settings, or a list of them"));
        }
    };
    let mut agents: Vec<ProjectAgent> = Vec::new();
    for Agent { name, env } in file.agents.unwrap_or_default() {
        let place = place(&name);
        let name = self::name(name)?;
        if agents.iter().any(|agent| agent.name == name) {
            return Err(invalid(place, "two agents have this name"));
        }
        if agents.len() == PREVIEWS_MAX {
            return Err(limits(place, "more than 16 agents"));
        }
        agents.push(ProjectAgent { name, env: env.map_or(Ok(BTreeMap::new()), variables)? });
    }
    let limits = file.limits.unwrap_or_default();
    let mut places = BTreeMap::new();
    for (role, memory, cpu) in [
        (&limits.agent, "limits.agent.memory", "limits.agent.cpu"),
        (&limits.preview, "limits.preview.memory", "limits.preview.cpu"),
    ] {
        let Some(role) = role else { continue };
        places.extend(role.memory.as_ref().map(|said| (memory, place(said))));
        places.extend(role.cpu.as_ref().map(|said| (cpu, place(said))));
    }
    let limits = ProjectLimits { agent: role(limits.agent)?, preview: role(limits.preview)? };
    Ok(ProjectFile { previews, agents, limits, places })
}

fn several(many: Vec<Preview>, list: Place) -> Result<Vec<ProjectPreview>, ProjectError> {
    let mut previews: Vec<ProjectPreview> = Vec::new();
    for one in many {
        let place = one.name.as_ref().map_or(list, place);
        let preview = preview(one)?;
        if preview.name.is_none() {
            return Err(invalid(place, "each preview of a list needs a `name`"));
        }
        if previews.iter().any(|other| other.name == preview.name) {
            return Err(invalid(place, "two previews have this name"));
        }
        if previews.len() == PREVIEWS_MAX {
            return Err(limits(place, "more than 16 previews"));
        }
        previews.push(preview);
    }
    Ok(previews)
}

/// Where each key of a preview stands.
fn places(preview: &Preview) -> BTreeMap<&'static str, Place> {
    let env = preview.env.as_ref().and_then(|env| env.values().next());
    let places = [
        ("app_dir", preview.app.as_ref().map(place)),
        ("install", preview.install.as_ref().map(place)),
        ("dev", preview.command.as_ref().map(place)),
        ("port", preview.port.as_ref().map(place)),
        ("health", preview.health.as_ref().map(place)),
        ("env", env.map(place)),
        ("runtime", preview.runtime.as_ref().map(place)),
        ("writable", preview.writable.as_ref().and_then(|all| all.first()).map(place)),
        ("mode", preview.mode.as_ref().map(place)),
    ];
    places.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
}

fn preview(preview: Preview) -> Result<ProjectPreview, ProjectError> {
    let places = places(&preview);
    let writable = preview.writable.unwrap_or_default();
    if let Some(beyond) = writable.get(WRITABLE_MAX) {
        return Err(limits(place(beyond), "more than 32 writable places"));
    }
    let whole = writable.iter().find(|path| path.value.split('/').all(|part| part == "."));
    if let Some(whole) = whole {
        return Err(invalid(place(whole), "to write everywhere, set `mode: mirror`"));
    }
    if let Some(port) = preview.port.as_ref().filter(|port| port.value == 0) {
        return Err(invalid(place(port), "a port is a number from 1 to 65535"));
    }
    if let Some(empty) = preview.command.as_ref().filter(|command| command.value.trim().is_empty())
    {
        return Err(invalid(place(empty), "`command` is empty"));
    }
    Ok(ProjectPreview {
        name: preview.name.map(name).transpose()?,
        app: preview.app.map(path).transpose()?,
        install: preview.install.map(command).transpose()?,
        command: preview.command.map(command).transpose()?,
        port: preview.port.map(|port| port.value),
        health: preview.health.map(health).transpose()?,
        env: preview.env.map_or(Ok(BTreeMap::new()), variables)?,
        runtime: preview.runtime.map(runtime).transpose()?,
        writable: writable.into_iter().map(path).collect::<Result<_, _>>()?,
        mode: preview.mode.map(|mode| match mode.value {
            Mode::Direct => PreviewMode::Direct,
            Mode::Mirror => PreviewMode::Mirror,
        }),
        places,
    })
}

fn name(name: Spanned<String>) -> Result<String, ProjectError> {
    let text = &name.value;
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = (1..=20).contains(&text.len())
        && text.bytes().all(|byte| letter(byte) || byte == b'-')
        && text.bytes().next().is_some_and(letter)
        && text.bytes().last().is_some_and(letter);
    if fits {
        return Ok(name.value);
    }
    Err(invalid(place(&name), "a name is up to 20 lower-case letters, digits and inner `-`"))
}

/// A path inside the workspace: relative, never climbing, in plain letters.
fn path(path: Spanned<String>) -> Result<String, ProjectError> {
    let text = &path.value;
    let wrong = text.is_empty()
        || text.len() > PATH_BYTES_MAX
        || text.starts_with('/')
        || text.contains('\\')
        || text.chars().any(char::is_control)
        || text.split('/').any(|part| part == "..");
    if wrong {
        return Err(invalid(place(&path), "a path is relative and stays inside the project"));
    }
    let parts: Vec<&str> =
        text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn command(command: Spanned<String>) -> Result<String, ProjectError> {
    let text = command.value.trim();
    if text.len() > COMMAND_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(place(&command), "a command is one line of at most 4096 bytes"));
    }
    Ok(text.to_owned())
}

fn health(health: Spanned<String>) -> Result<Health, ProjectError> {
    let text = &health.value;
    if text == "tcp" {
        return Ok(Health::Tcp);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte);
    let fits = text.starts_with('/') && text.len() <= 256 && text.bytes().all(plain);
    if fits {
        return Ok(Health::Http { path: health.value });
    }
    Err(ProjectError::InvalidHealthPath { place: place(&health) })
}

fn variables(
    variables: BTreeMap<String, Spanned<String>>,
) -> Result<BTreeMap<String, String>, ProjectError> {
    variables
        .into_iter()
        .map(|(name, value)| match environment::check(&name, &value.value) {
            Ok(()) => Ok((name, value.value)),
            Err(EnvironmentError::DeniedName) => {
                Err(ProjectError::DeniedName { place: place(&value), name: echo(&name) })
            }
            Err(error) => Err(invalid(place(&value), &error.to_string())),
        })
        .collect()
}

fn runtime(runtime: Spanned<String>) -> Result<ProjectRuntime, ProjectError> {
    let wrong = || invalid(place(&runtime), "a runtime is a version such as `22` or `python@3.12`");
    let (name, version) = match runtime.value.split_once('@') {
        Some((name, version)) => (Some(RuntimeName::parse(name).ok_or_else(wrong)?), version),
        None => (None, runtime.value.as_str()),
    };
    let parts: Vec<&str> = version.split('.').collect();
    let number = |part: &&str| {
        (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if parts.len() > 3 || !parts.iter().all(number) {
        return Err(wrong());
    }
    Ok(ProjectRuntime { name, version: version.to_owned() })
}

fn role(limits: Option<super::shape::RoleLimits>) -> Result<RoleLimits, ProjectError> {
    let limits = limits.unwrap_or_default();
    Ok(RoleLimits {
        memory_bytes: limits.memory.map(memory).transpose()?,
        cpu_millis: limits.cpu.map(cpu).transpose()?,
    })
}

fn memory(memory: Spanned<String>) -> Result<u64, ProjectError> {
    let wrong = || invalid(place(&memory), "memory is an amount such as `512MB` or `1GB`");
    let text = memory.value.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[end..].trim_start() {
        "" | "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let amount: u64 = text[..end].parse().map_err(|_| wrong())?;
    amount.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

fn cpu(cpu: Spanned<f64>) -> Result<u32, ProjectError> {
    if !(0.01..=64.0).contains(&cpu.value) {
        return Err(invalid(place(&cpu), "cpu is a number of processors from 0.01 to 64"));
    }
    // In range above, so the cast keeps every digit that matters.
    Ok((cpu.value * 1000.0).round() as u32)
}

/// Returns the known key that a mistyped one is nearest to, if it is near at all.
fn nearest<'key>(typed: &str, known: &[&'key str]) -> Option<&'key str> {
    let typed: Vec<char> = typed.chars().take(32).collect();
    let ranked = known.iter().map(|key| (distance(&typed, &key.chars().collect::<Vec<_>>()), *key));
    ranked.min().filter(|(distance, _)| *distance <= 2).map(|(_, key)| key)
}

/// How many letters must be changed, added or taken away.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, letter) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (index, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[index + 1];
            row[index + 1] = changed.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
