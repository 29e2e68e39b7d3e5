//! The port of a Node app, by the most explicit statement about it: a flag in the script, the
//! tool's configuration, an environment file, the project's code, the table.

use crate::domain::findings::Framework;

use super::super::frameworks::{self, Entry, Kind, PLAIN};
use super::super::rules::{Subject, config_file};
use super::super::tree::join;
use super::super::{ports, script};
use super::launch::{Launch, own_file};
use super::sources::imports;

/// Environment files that a developer's server reads, the strongest first.
const DOTENV: [&str; 4] = [".env.development.local", ".env.local", ".env.development", ".env"];
/// What a developer is told to copy to `.env`.
const DOTENV_EXAMPLES: [&str; 4] = [".env.example", ".env.sample", ".env.template", ".env.dist"];

/// Files of settings that a server may read, with the keys around its port.
const SETTINGS: [&str; 5] = [
    "config/default.json",
    "config/development.json",
    "config/config.json",
    "config.json",
    "config/default.json5",
];
const SETTINGS_BLOCKS: &[&str] = &["server", "app", "http", "web", "api"];

/// Packages whose server has a port of its own if the code names none.
const OWN_DEFAULTS: [(&str, u16); 6] = [
    ("sails", 1337),
    ("@apollo/server", 4000),
    ("apollo-server", 4000),
    ("graphql-yoga", 4000),
    ("@feathersjs/express", 3030),
    ("@feathersjs/koa", 3030),
];

/// A port and the evidence for it.
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) file: String,
    pub(crate) why: String,
}

pub(crate) fn port(
    subject: &Subject<'_, '_>,
    entry: &Entry,
    launch: Option<&Launch>,
) -> Option<Port> {
    let manifest = &subject.manifest.file;
    let script = launch.map_or("", |launch| launch.script.as_str());
    let script = subject.manifest.with_settings(script);
    let say = |number, file: &str, why: &str| {
        Some(Port { number, file: file.to_owned(), why: why.to_owned() })
    };
    if let Some(number) = script::port(&script, entry.calls) {
        return say(number, manifest, "named in the script");
    }
    if let Some(number) = subject.manifest.nx.as_ref().and_then(|nx| nx.port) {
        return say(number, manifest, "option of its target");
    }
    let served = own_file(subject, entry, &script);
    let tool = if served.is_none() { frameworks::tool(&script) } else { None };
    if let (Kind::Server, Some(tool)) = (entry.kind, tool) {
        // The project's own code, behind a server that is not: `wrangler dev`.
        let (number, file) =
            configured(subject, tool, &script).unwrap_or_else(|| (tool.port, manifest.clone()));
        return say(number, &file, "of the server in its script");
    }
    if entry.kind == Kind::Server || served.is_some() {
        return by_code(subject, entry, served.as_deref());
    }
    if let Some((number, file)) = configured(subject, entry, &script) {
        return say(number, &file, "its configuration");
    }
    // It stands in front of the framework's own compiler.
    if script::mentions(&script, &["wrangler pages dev"]) {
        return say(8788, manifest, "default of wrangler pages");
    }
    let reads_environment = entry.env.iter().any(|(name, _)| *name == "PORT");
    // Next reads the file only when its port is already open.
    if reads_environment
        && entry.id != Framework::Nextjs
        && entry.id != Framework::Blitz
        && let Some((number, file)) = environment(subject, &DOTENV)
    {
        return say(number, &file, "its environment file");
    }
    let older = entry.older.filter(|(package, major, _)| {
        subject.manifest.asks_for(package).is_some_and(|(asked, _)| asked < *major)
    });
    match older {
        Some((package, major, number)) => {
            say(number, manifest, &format!("default with {package} before {major}"))
        }
        None if entry.kind == Kind::Tool => say(entry.port, manifest, "default of its dev server"),
        None => say(entry.port, manifest, &format!("default of {}", entry.id)),
    }
}

/// The port that the project's own server opens.
fn by_code(subject: &Subject<'_, '_>, entry: &Entry, served: Option<&str>) -> Option<Port> {
    let named = served.and_then(|file| Some((file.to_owned(), subject.look.code(file)?)));
    let near = subject.sources.near();
    let asks = named.iter().chain(near).any(|(_, text)| ports::asks_environment(text));
    if asks && let Some((number, file)) = environment(subject, &DOTENV) {
        return Some(Port { number, file, why: "its environment file".into() });
    }
    let code = named
        .iter()
        .chain(near)
        .find_map(|(file, text)| Some((ports::in_javascript(text)?, file.clone(), "its code")));
    let found = code
        .or_else(|| {
            let (number, file) = environment(subject, &DOTENV_EXAMPLES).filter(|_| asks)?;
            Some((number, file, "its example of an environment file"))
        })
        .or_else(|| {
            let listening = near.iter().any(|(_, text)| ports::listens(text));
            let mut settings = near.iter().filter(|(file, _)| file.contains("config"));
            let found = settings.find_map(|(file, text)| {
                Some((ports::in_settings(text)?, file.clone(), "its settings"))
            });
            found.filter(|_| listening)
        })
        .or_else(|| {
            let far = subject.sources.far().iter().filter(|(_, text)| ports::listens(text));
            far.into_iter().find_map(|(file, text)| {
                Some((ports::in_javascript(text)?, file.clone(), "its code"))
            })
        });
    let found = found.or_else(|| {
        let (number, file) =
            settings(subject).filter(|_| near.iter().any(|(_, text)| ports::listens(text)))?;
        Some((number, file, "its settings"))
    });
    let found = found.or_else(|| {
        near.iter().find_map(|(file, text)| {
            let (_, number) = OWN_DEFAULTS.iter().find(|(name, _)| imports(text, name))?;
            Some((*number, file.clone(), "default of what it imports"))
        })
    });
    if let Some((number, file, why)) = found {
        return Some(Port { number, file, why: why.to_owned() });
    }
    let mut all = named.iter().chain(near);
    let file = all.find(|(_, text)| ports::listens(text) || ports::asks_environment(text));
    let file = match (file, entry.id) {
        (Some((file, _)), _) => file.clone(),
        // Nothing says that it is a server at all.
        (None, Framework::None) => return None,
        (None, _) => subject.manifest.file.clone(),
    };
    Some(Port { number: PLAIN.port, file, why: "usual for a server".into() })
}

/// The port in files of settings.
fn settings(subject: &Subject<'_, '_>) -> Option<(u16, String)> {
    SETTINGS.iter().find_map(|name| {
        let (place, name) = name.rsplit_once('/').unwrap_or((".", name));
        if place != "." && !subject.look.holds(subject.dir, place) {
            return None;
        }
        let place = join(subject.dir, place);
        let file = subject.look.has(&place, name).then(|| join(&place, name))?;
        let text = subject.look.hint(&file)?;
        let number =
            ports::in_config(&text, SETTINGS_BLOCKS).or_else(|| ports::in_settings(&text))?;
        Some((number, file))
    })
}

/// The port in the tool's configuration: the file that the script names, or the usual ones.
fn configured(subject: &Subject<'_, '_>, entry: &Entry, script: &str) -> Option<(u16, String)> {
    let named = script::config_flag(script)
        .into_iter()
        .flat_map(|name| entry.config.first().map(|(_, blocks)| (name, *blocks)));
    let usual = entry.config.iter().map(|(stem, blocks)| ((*stem).to_owned(), *blocks));
    named.chain(usual).find_map(|(stem, blocks)| {
        let stem = stem.trim_start_matches("./");
        super::super::tree::names(stem).ok()?;
        let (place, stem) = stem.rsplit_once('/').unwrap_or((".", stem));
        let place = join(subject.dir, place);
        let file = join(&place, &config_file(subject.look, &place, stem)?);
        let text = subject.look.hint(&file)?;
        if file.ends_with(".toml") || file.ends_with(".yml") {
            return Some((ports::below_heading(&text, blocks)?, file));
        }
        if let Some(number) = ports::in_config(&text, blocks) {
            return Some((number, file));
        }
        let variable = ports::variable_in_config(&text, blocks)?;
        DOTENV.iter().find_map(|name| {
            let file = join(subject.dir, name);
            let text = subject.look.has(subject.dir, name).then(|| subject.look.hint(&file))??;
            Some((ports::dotenv(&text, &variable)?, file))
        })
    })
}

fn environment(subject: &Subject<'_, '_>, names: &[&str]) -> Option<(u16, String)> {
    names.iter().find_map(|name| {
        if !subject.look.has(subject.dir, name) {
            return None;
        }
        let file = join(subject.dir, name);
        Some((ports::in_dotenv(&subject.look.hint(&file)?)?, file))
    })
}
