//! Compose files: the service that is built from the app and publishes a port.
//!
//! Only a service that runs the app for development decides anything: its target is a stage for
//! development, the source is mounted, its command is a dev server, or its file is for
//! development by name. A published nginx, or `NODE_ENV: production`, says nothing. The number
//! that counts is the container's: that is where the server listens.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::domain::environment;
use crate::domain::findings::Source;

use crate::detect::look::Look;
use crate::detect::tree::{Kind as Entry, join, names};

use super::command::Command;
use super::dockerfile::{self, Stage};
use super::server::Kind;
use super::{Context, Said, Statement, ports};

/// Files that are for development by name, before those that Compose reads by itself.
const FOR_DEVELOPMENT: [&str; 10] = [
    "compose.dev.yaml",
    "compose.dev.yml",
    "compose-dev.yaml",
    "compose-dev.yml",
    "docker-compose.dev.yml",
    "docker-compose.dev.yaml",
    "docker-compose-dev.yml",
    "docker-compose.development.yml",
    "docker-compose.local.yml",
    "local.yml",
];
const PLAIN: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// More services than this are no app's.
const SERVICES_MAX: usize = 64;

/// A service with the file that each of its keys stands in.
struct Service {
    name: String,
    keys: BTreeMap<String, (Value, String)>,
}

impl Service {
    fn get(&self, key: &str) -> &Value {
        self.keys.get(key).map_or(&Value::Null, |(value, _)| value)
    }

    fn file(&self, key: &str) -> Option<String> {
        self.keys.get(key).map(|(_, file)| file.clone())
    }
}

/// What the nearest compose file with a fitting service says.
pub(super) fn read(context: &Context<'_>) -> Option<Statement> {
    context.upward().find_map(|dir| {
        let listed = FOR_DEVELOPMENT.iter().map(|name| (name, true));
        let listed = listed.chain(PLAIN.iter().map(|name| (name, false)));
        let mut found = listed.filter(|(name, _)| context.look.has(dir, name));
        found.find_map(|(name, by_name)| of_file(context, dir, name, by_name))
    })
}

fn of_file(context: &Context<'_>, dir: &str, name: &str, by_name: bool) -> Option<Statement> {
    let file = join(dir, name);
    let mut services = services(context.look, &file)?;
    if let Some(over) = override_of(context.look, dir, name) {
        merge(&mut services, self::services(context.look, &over).unwrap_or_default());
    }
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    let mut fitting: Vec<(u8, Statement)> = services
        .iter()
        .take(SERVICES_MAX)
        .filter_map(|service| statement(context, dir, &file, service, &names, by_name))
        .collect();
    // Stable: of equally fitting services the first in the file speaks.
    fitting.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    fitting.into_iter().next().map(|(_, statement)| statement)
}

/// The file that Compose lays over this one by itself.
fn override_of(look: &Look<'_>, dir: &str, name: &str) -> Option<String> {
    if !PLAIN.contains(&name) {
        return None;
    }
    let (stem, _) = name.rsplit_once('.')?;
    let over = [format!("{stem}.override.yml"), format!("{stem}.override.yaml")];
    over.into_iter().find(|over| look.has(dir, over)).map(|over| join(dir, &over))
}

fn services(look: &Look<'_>, file: &str) -> Option<Vec<Service>> {
    let text = look.hint(file)?;
    let budget = serde_saphyr::budget! {
        max_depth: 32,
        max_nodes: 20_000,
        max_documents: 1,
        max_inclusion_depth: 0,
        max_merge_keys: 1_000,
    };
    // Anchors are usual here, so they are resolved; a bomb of them runs out of events.
    let limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: 50_000,
        max_replay_stack_depth: 8,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        alias_limits: limits,
        with_snippet: false,
        strict_booleans: true,
    };
    let value = match serde_saphyr::from_str_with_options::<Value>(&text, options) {
        Ok(value) => value,
        Err(error) => {
            let place = error.location().map(|place| format!(" (line {})", place.line()));
            let place = place.unwrap_or_default();
            look.warn(format!("{file} is not valid YAML{place}; it was set aside"));
            return None;
        }
    };
    let services = value["services"].as_object()?;
    let found = services.iter().filter_map(|(name, service)| {
        let keys = service.as_object()?.iter();
        let keys = keys.map(|(key, value)| (key.clone(), (value.clone(), file.to_owned())));
        Some(Service { name: name.clone(), keys: keys.collect() })
    });
    Some(found.collect())
}

/// Lays one file over another: what it says of a key counts, but variables add up.
fn merge(base: &mut Vec<Service>, over: Vec<Service>) {
    for service in over {
        let Some(below) = base.iter_mut().find(|below| below.name == service.name) else {
            base.push(service);
            continue;
        };
        for (key, (value, file)) in service.keys {
            let value = match (key.as_str(), below.keys.get(&key)) {
                ("environment", Some((before, _))) => {
                    let mut all = variables(before);
                    all.extend(variables(&value));
                    let all = all.into_iter().map(|(name, value)| (name, value.into()));
                    Value::Object(all.collect::<Map<_, _>>())
                }
                ("build", Some((Value::Object(before), _))) if value.is_object() => {
                    let mut all = before.clone();
                    all.extend(value.as_object().cloned().unwrap_or_default());
                    Value::Object(all)
                }
                _ => value,
            };
            below.keys.insert(key, (value, file));
        }
    }
}

/// What a service says, and how well it fits the app.
fn statement(
    context: &Context<'_>,
    dir: &str,
    file: &str,
    service: &Service,
    others: &[String],
    by_name: bool,
) -> Option<(u8, Statement)> {
    let published = published(service.get("ports"));
    if published.is_empty() {
        return None;
    }
    let app = &context.findings.app_dir;
    let mounted = mounts(service.get("volumes"), dir).into_iter().find(|(source, _)| {
        let inside = *app == *source || is_below(source, app) || is_below(app, source);
        inside && matches!(context.look.kind(source), Ok(Some(Entry::Directory)))
    });
    let build = Build::read(service.get("build"), dir);
    let rank = fit(context, &build, mounted.as_ref().map(|(source, _)| source), service)?;
    let stage = build.as_ref().and_then(|build| build.stage(context.look));
    if stage.as_ref().is_some_and(Stage::serves_files) {
        return None;
    }

    let own = command(service.get("command"));
    let effective = own.clone().or_else(|| stage.as_ref().and_then(Stage::command));
    let kind = effective.as_ref().map_or(Kind::Unclear, |command| command.kind(&context.scripts));
    let env = variables(service.get("environment"));
    let is = |name: &str, value: &str| env.get(name).is_some_and(|found| found == value);
    let target = build.as_ref().and_then(|build| build.target.clone()).unwrap_or_default();
    let production = kind == Kind::Production
        || is("NODE_ENV", "production")
        || ["prod", "production", "release", "runner", "final"].contains(&target.as_str());
    let debug = ["FLASK_DEBUG", "DJANGO_DEBUG", "DEBUG", "FLASK_ENV", "NODE_ENV", "RAILS_ENV"];
    let for_development = by_name
        || mounted.is_some()
        || kind == Kind::Dev
        || stage.as_ref().is_some_and(Stage::is_for_development)
        || service.get("develop").get("watch").is_some()
        || debug.iter().any(|name| {
            matches!(
                env.get(*name).map(String::as_str),
                Some("1" | "true" | "True" | "development")
            )
        });
    // The same server runs in both, so that its port is a hint at least.
    if production && !context.serves_itself() {
        return None;
    }
    let mut statement = Statement::new(Source::Compose, file);
    statement.is_hint = !for_development || production;
    let why = format!("service {} publishes it", service.name);
    let told = effective.as_ref().and_then(Command::port);
    let set = ports::set_by(|name| env.get(name).map(String::as_str));
    let mut candidates: Vec<u16> = published
        .into_iter()
        .filter(|port| context.may_be_own(*port) || told == Some(*port))
        .collect();
    // Of several, the one that the server is told comes first.
    candidates.sort_by_key(|port| (told != Some(*port), set != Some(*port)));
    statement.ports = candidates.into_iter().map(|port| (port, why.clone())).collect();
    statement.ports_file = service.file("ports");
    statement.env = env
        .into_iter()
        .filter(|(name, value)| !value.contains('$') && environment::check(name, value).is_ok())
        // Another service is not there: a database's address would only break what has a default.
        .filter(|(_, value)| !names_service(value, others))
        .collect();
    let here = where_it_runs(service, mounted, &build).is_none_or(|place| place == *app);
    let language = context.findings.language;
    let fitting = effective.filter(|command| here && command.fits(context.look, app, language));
    statement.command = fitting.map(|command| Said {
        text: command.text(),
        file: match own {
            Some(_) => service.file("command").unwrap_or_else(|| file.to_owned()),
            None => build.as_ref().map_or_else(|| file.to_owned(), Build::path),
        },
        why: format!("service {} runs it", service.name),
    });
    let image = service.get("image").as_str().and_then(dockerfile::runtime_of);
    let from_image = image.filter(|_| build.is_none()).map(|text| (text, service.file("image")));
    let from_stage = || Some((stage?.runtime()?, build.as_ref().map(Build::path)));
    statement.runtime = from_image.or_else(from_stage).map(|(text, said)| Said {
        text,
        file: said.unwrap_or_else(|| file.to_owned()),
        why: "its image".into(),
    });
    Some((rank, statement))
}

/// Whether a value leads to another service of the file.
fn names_service(value: &str, others: &[String]) -> bool {
    let mut words =
        value.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
    words.any(|word| others.iter().any(|name| name == word))
}

/// Which directory the command runs in, if that can be told.
fn where_it_runs(
    service: &Service,
    mounted: Option<(String, String)>,
    build: &Option<Build>,
) -> Option<String> {
    let Some((source, target)) = mounted else {
        return build.as_ref().map(|build| build.context.clone());
    };
    match service.get("working_dir").as_str() {
        Some(place) if place.trim_end_matches('/') == target => Some(source),
        Some(place) => {
            let below = place.strip_prefix(&target)?.trim_matches('/');
            Some(join(&source, below))
        }
        // The image's own, which is where people mount the source.
        None => Some(source),
    }
}

/// How well a service fits the app; none if it is another's.
fn fit(
    context: &Context<'_>,
    build: &Option<Build>,
    mounted: Option<&String>,
    service: &Service,
) -> Option<u8> {
    let app = &context.findings.app_dir;
    let by_mount = mounted.is_some_and(|source| source == app);
    let Some(build) = build else {
        // A plain runtime image with the source in it.
        let command = command(service.get("command"));
        let image = service.get("image").as_str().unwrap_or_default();
        let runs = dockerfile::runtime_of(image).is_some() || is_runtime(image);
        return (by_mount && command.is_some() && runs).then_some(1);
    };
    let own_file = build.file_directory();
    if build.context == *app || own_file == *app {
        return Some(3);
    }
    let last = app.rsplit('/').next().unwrap_or_default();
    if by_mount || (is_below(&build.context, app) && service.name == last) {
        return Some(2);
    }
    // Built from the whole of a repository with one app, or from a directory of its Docker files.
    let alone = context.findings.apps.len() <= 1 && is_below(&build.context, app);
    let of_docker = mounted.is_some() && is_below(app, &build.context);
    (alone || of_docker).then_some(1)
}

fn is_runtime(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    let name = name.split([':', '@']).next().unwrap_or_default();
    ["node", "python", "ruby", "php", "golang", "rust", "bun", "deno"].contains(&name)
}

/// Whether `inner` lies in `outer` and is not it.
fn is_below(outer: &str, inner: &str) -> bool {
    outer != inner
        && (outer == "." || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/')))
}

/// What a service is built from.
struct Build {
    context: String,
    dockerfile: String,
    target: Option<String>,
}

impl Build {
    fn read(value: &Value, dir: &str) -> Option<Self> {
        let (context, dockerfile, target) = match value {
            Value::String(context) => (context.as_str(), None, None),
            Value::Object(build) => (
                build.get("context").and_then(Value::as_str).unwrap_or("."),
                build.get("dockerfile").and_then(Value::as_str),
                build.get("target").and_then(Value::as_str),
            ),
            _ => return None,
        };
        Some(Self {
            context: inside(dir, context)?,
            dockerfile: dockerfile.unwrap_or("Dockerfile").to_owned(),
            target: target.map(str::to_ascii_lowercase),
        })
    }

    fn path(&self) -> String {
        inside(&self.context, &self.dockerfile).unwrap_or_else(|| self.dockerfile.clone())
    }

    fn file_directory(&self) -> String {
        self.path().rsplit_once('/').map_or(".".to_owned(), |(dir, _)| dir.to_owned())
    }

    fn stage(&self, look: &Look<'_>) -> Option<Stage> {
        let path = self.path();
        if !dockerfile::has(look, &path) {
            return None;
        }
        let mut stages = dockerfile::stages(&look.hint(&path)?);
        match &self.target {
            Some(target) => stages.into_iter().find(|stage| stage.name.as_ref() == Some(target)),
            None => stages.pop(),
        }
    }
}

/// A path relative to a directory, if it stays in the workspace.
fn inside(dir: &str, path: &str) -> Option<String> {
    if path.contains("://") || path.starts_with(['/', '~', '$']) || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = names(dir).ok()?;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Directories of the workspace that are mounted, and where.
fn mounts(value: &Value, dir: &str) -> Vec<(String, String)> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .filter_map(|entry| {
            let (source, target) = match entry {
                Value::String(text) => {
                    let mut parts = text.split(':');
                    (parts.next()?.to_owned(), parts.next()?.to_owned())
                }
                entry => {
                    let text = |key: &str| entry.get(key)?.as_str().map(str::to_owned);
                    (text("source")?, text("target")?)
                }
            };
            // A name without a dot or slash is a volume of Docker's.
            let local = source.starts_with('.') || source.contains('/');
            let target = target.trim_end_matches('/').to_owned();
            local.then(|| inside(dir, &source)).flatten().map(|source| (source, target))
        })
        .collect()
}

/// The container's side of every published port.
fn published(value: &Value) -> Vec<u16> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .filter_map(|entry| match entry {
            Value::Number(number) => number.as_u64().and_then(|port| port.try_into().ok()),
            Value::String(text) => {
                // The host's side may be anybody's choice; only the container's must be known.
                let text = dockerfile::expanded(text, &BTreeMap::new());
                let port = text.strip_suffix("/tcp").unwrap_or(&text);
                let port = port.rsplit(':').next()?;
                ports::number(port.split('-').next()?)
            }
            entry => match entry.get("target")? {
                Value::Number(number) => number.as_u64().and_then(|port| port.try_into().ok()),
                Value::String(text) => ports::number(&with_defaults(text)?),
                _ => None,
            },
        })
        .filter(|port| *port != 0)
        .collect()
}

/// Fills in the defaults of variables; none if a variable has none.
fn with_defaults(text: &str) -> Option<String> {
    if !text.contains('$') {
        return Some(text.to_owned());
    }
    let known = BTreeMap::new();
    let plain = text.replace("$$", "\u{1}");
    let mut rest = plain.as_str();
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        let inner = rest.strip_prefix('{')?;
        inner[..inner.find('}')?].split_once('-')?;
    }
    Some(dockerfile::expanded(&plain, &known).replace('\u{1}', "$"))
}

fn variables(value: &Value) -> BTreeMap<String, String> {
    let scalar = |value: &Value| match value {
        Value::String(text) => with_defaults(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::Object(pairs) => {
            pairs.iter().filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect()
        }
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| {
                let (name, value) = entry.as_str()?.split_once('=')?;
                Some((name.to_owned(), with_defaults(value)?))
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn command(value: &Value) -> Option<Command> {
    match value {
        Value::String(text) => Command::parse(&with_defaults(text)?),
        Value::Array(words) => {
            let words: Option<Vec<String>> =
                words.iter().map(|word| with_defaults(word.as_str()?)).collect();
            Command::of_words(&words?)
        }
        _ => None,
    }
}
