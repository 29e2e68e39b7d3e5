//! Node projects: from `package.json`, the table of frameworks and the project's own scripts to
//! a command that really starts the dev server on a known address.

use std::collections::BTreeMap;

use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Source, Template,
};

use super::frameworks::{Entry, PLAIN, TABLE};
use super::look::{Look, is_plain_word};
use super::manifest::Manifest;
use super::rules::{Reason, Subject, config_file};
use super::tree::{TreeError, join};
use super::{Candidate, package_manager, ports, runtime, script};

/// How strongly files speak for Node. Django (70) and a Flask or FastAPI app at the root (65)
/// stand above a bundler, which they use for their assets, and below nothing else.
const META_FRAMEWORK: u32 = 68;
const FRAMEWORK: u32 = 60;
const SERVER: u32 = 58;
const RUNNABLE: u32 = 30;
const TOOLING: u32 = 10;

/// Where the entry of a server lies if no script names it.
const ENTRY_DIRS: [&str; 2] = [".", "src"];
const ENTRY_STEMS: [&str; 4] = ["index", "server", "app", "main"];
const ENTRY_ENDINGS: [&str; 6] = ["js", "ts", "mjs", "cjs", "mts", "cts"];
const ENTRIES_MAX: usize = 8;

/// Scripts that run a project for development, whatever its framework.
const DEV_SCRIPTS: [&str; 6] = ["dev", "develop", "start:dev", "dev:server", "serve", "start"];

/// A way to start the dev server.
struct Launch {
    command: Template,
    file: String,
    why: String,
    /// The text in which a port may be named.
    script: String,
}

/// Offers a candidate for a directory with a `package.json`.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let Some(manifest) = Manifest::read(look, dir)? else { return Ok(None) };
    let entries = entries(look, dir, &manifest);
    let subject = Subject { look, dir, manifest: &manifest, entries: &entries };
    let matched = TABLE.iter().find_map(|entry| Some((entry, entry.rule.reason(&subject)?)));
    let (entry, reason) = match matched {
        Some((entry, reason)) => (entry, Some(reason)),
        None => (&PLAIN, None),
    };
    let mut findings = Findings::blank(dir);
    findings.language = Language::Node;
    findings.framework = entry.id;
    findings.source = if reason.is_some() { Source::Framework } else { Source::Language };
    findings.decide("language", "node", manifest.file.clone(), "a package.json");
    if let Some(Reason { file, why }) = reason {
        findings.decide("framework", entry.id.as_str(), file, why);
    }
    install(&mut findings, look, &manifest);
    run(&mut findings, &subject, entry);
    let node = runtime::node(look, dir, &manifest);
    findings.decide("runtime", node.runtime.version.clone(), node.file, node.why);
    findings.runtime = Some(node.runtime);
    let score = score(&findings, entry);
    Ok(Some(Candidate { findings, score }))
}

fn score(findings: &Findings, entry: &Entry) -> u32 {
    match entry.id {
        Framework::None if findings.dev.is_some() => RUNNABLE,
        Framework::None => TOOLING,
        _ if entry.own_server => SERVER,
        Framework::ViteReact
        | Framework::ViteVue
        | Framework::ViteSvelte
        | Framework::ViteSolid
        | Framework::VitePreact
        | Framework::ViteLit
        | Framework::ViteQwik
        | Framework::ViteVanilla
        | Framework::Parcel => FRAMEWORK,
        _ => META_FRAMEWORK,
    }
}

fn install(findings: &mut Findings, look: &Look<'_>, manifest: &Manifest) {
    let dir = findings.app_dir.clone();
    let choice = package_manager::decide(look, &dir, manifest);
    findings.package_manager = choice.manager;
    findings.decide("package_manager", choice.manager.as_str(), choice.file.clone(), choice.why);
    findings.install_dir = choice.install_dir;
    let nothing = manifest.dependencies.is_empty()
        && choice.lockfile.is_none()
        && findings.install_dir == dir
        && manifest.workspaces.is_none();
    if !nothing {
        let command = package_manager::install(choice.manager, choice.lockfile.is_some());
        let file = choice.lockfile.clone().unwrap_or_else(|| manifest.file.clone());
        let why = if choice.lockfile.is_some() { "exactly as locked" } else { "no lockfile" };
        findings.decide("install", command, file, why);
        findings.install = Some(command.to_owned());
    }
    findings.lockfile = choice.lockfile;
}

fn run(findings: &mut Findings, subject: &Subject<'_, '_>, entry: &Entry) {
    let Some(launch) = launch(subject, entry, findings.package_manager) else { return };
    let (port, file, why) = port(subject, entry, &launch);
    findings.health = match entry.id {
        Framework::None => Health::Tcp,
        _ => Health::Http { path: "/".to_owned() },
    };
    findings.port = Some(port);
    findings.env = environment(entry, &launch);
    findings.dev = Some(launch.command);
    findings.decide("port", port.to_string(), file, why);
    let command = findings.dev_command().unwrap_or_default();
    findings.decide("dev", command, launch.file, launch.why);
}

fn environment(entry: &Entry, launch: &Launch) -> BTreeMap<String, Template> {
    let own = own_file(entry, &launch.script).is_some();
    let env = if own && entry.env.is_empty() { PLAIN.env } else { entry.env };
    env.iter()
        .map(|(name, value)| ((*name).to_owned(), Template::Slots((*value).to_owned())))
        .collect()
}

/// Decides how the dev server is started: through the project's own script where that works,
/// because it carries what the project needs; else the tool itself.
fn launch(subject: &Subject<'_, '_>, entry: &Entry, manager: PackageManager) -> Option<Launch> {
    if entry.own_server {
        own_server(subject, entry, manager)
    } else {
        tool(subject, entry, manager)
    }
}

/// The dev server of a framework.
fn tool(subject: &Subject<'_, '_>, entry: &Entry, manager: PackageManager) -> Option<Launch> {
    let scripts = &subject.manifest.scripts;
    let usual = entry.scripts.iter().chain(&DEV_SCRIPTS).copied();
    let others = scripts.keys().map(String::as_str).filter(|name| name.starts_with("dev"));
    let direct = usual.chain(others).find_map(|name| {
        let (name, text) = scripts.get_key_value(name)?;
        script::takes_flags(text, entry.calls).then_some((name, text))
    });
    if let Some((name, text)) = direct {
        let flags: Vec<&str> = entry
            .flags
            .iter()
            .filter(|flag| {
                let pinned = flag.text.contains("{host}") && script::binds_loopback(text);
                pinned || !script::has_flag(text, flag.names)
            })
            .map(|flag| flag.text)
            .collect();
        return Some(by_script(subject, manager, name, &flags.join(" "), "runs its dev server"));
    }
    // A wrapper (`run-p`, `concurrently`, a server of its own) starts more than the tool, but
    // takes no flags: it is only good if the address can be given by environment.
    let wrapper = entry.scripts.iter().find_map(|name| {
        let (name, text) = scripts.get_key_value(*name)?;
        let named_start = name == "start" && !script::mentions(text, entry.calls);
        (!named_start && !is_recursive(text)).then_some((name, text))
    });
    if let Some((name, text)) = wrapper {
        if entry.flags.is_empty() || !entry.env.is_empty() || own_file(entry, text).is_some() {
            return Some(by_script(subject, manager, name, "", "its dev script"));
        }
        subject.look.warn(format!(
            "{}: script {name} hands no flags on to its dev server, so that is run alone",
            subject.manifest.file
        ));
    }
    let call = entry.calls.first()?;
    let flags = entry.flags.iter().map(|flag| format!(" {}", flag.text)).collect::<String>();
    Some(Launch {
        command: Template::Slots(package_manager::execute(manager, &format!("{call}{flags}"))),
        file: subject.manifest.file.clone(),
        why: "no script runs its dev server alone".into(),
        script: String::new(),
    })
}

/// A server that the project wrote itself; it is told its address by environment.
fn own_server(subject: &Subject<'_, '_>, entry: &Entry, manager: PackageManager) -> Option<Launch> {
    let scripts = &subject.manifest.scripts;
    let usual = entry.scripts.iter().chain(&DEV_SCRIPTS).find_map(|name| {
        let (name, text) = scripts.get_key_value(*name)?;
        (!is_recursive(text) && !is_compiler(text)).then_some((name, text))
    });
    match usual {
        Some((name, text)) if name == "start" && script::is_bare_node(text) => {
            let file = script::served_file(text).filter(|file| is_plain_word(file))?;
            Some(by_node(subject, &file, "script start, restarted on a change"))
        }
        Some((name, _)) => Some(by_script(subject, manager, name, "", "its dev script")),
        None => {
            let (file, _) = subject.entries.first()?;
            let file = file.strip_prefix(&join(subject.dir, "")).unwrap_or(file);
            let file = file.trim_start_matches('/');
            is_plain_word(file).then(|| by_node(subject, file, "no dev script; its entry file"))
        }
    }
}

fn by_script(
    subject: &Subject<'_, '_>,
    manager: PackageManager,
    name: &str,
    flags: &str,
    why: &str,
) -> Launch {
    Launch {
        command: Template::Slots(package_manager::run(manager, name, flags)),
        file: subject.manifest.file.clone(),
        why: format!("script {name}: {why}"),
        script: subject.manifest.scripts.get(name).cloned().unwrap_or_default(),
    }
}

fn by_node(subject: &Subject<'_, '_>, file: &str, why: &str) -> Launch {
    let typed = [".ts", ".mts", ".cts"].iter().any(|ending| file.ends_with(ending));
    let runner = if typed { "npx tsx watch" } else { "node --watch" };
    Launch {
        command: Template::Literal(format!("{runner} {file}")),
        file: join(subject.dir, file),
        why: why.to_owned(),
        script: format!("node {file}"),
    }
}

/// The file of a server that a script runs in place of the framework's dev server.
fn own_file(entry: &Entry, script: &str) -> Option<String> {
    if script::mentions(script, entry.calls) { None } else { script::served_file(script) }
}

/// Scripts of hosting tools that would run this detection, or themselves, again.
fn is_recursive(script: &str) -> bool {
    let tools = [&["netlify", "dev"], &["vercel", "dev"], &["covibes", "up"]];
    let commands = script::commands(script);
    commands.iter().any(|command| {
        tools.iter().any(|tool| command.windows(2).any(|words| words == tool.as_slice()))
    })
}

/// `tsc --watch` is no server.
fn is_compiler(script: &str) -> bool {
    let commands = script::commands(script);
    commands.iter().all(|command| command.first().is_some_and(|program| program == "tsc"))
}

/// The port, by the most explicit statement about it.
fn port(subject: &Subject<'_, '_>, entry: &Entry, launch: &Launch) -> (u16, String, String) {
    if let Some(port) = script::port(&launch.script, entry.calls) {
        return (port, subject.manifest.file.clone(), "named in the script".into());
    }
    let served = own_file(entry, &launch.script);
    if entry.own_server || served.is_some() {
        let named = served.and_then(|file| {
            let path = join(subject.dir, &file);
            Some((path.clone(), subject.look.hint(&path)?))
        });
        let found = named
            .iter()
            .chain(subject.entries)
            .find_map(|(file, text)| Some((ports::in_javascript(text)?, file.clone())));
        let fallback = || (3000, subject.manifest.file.clone(), "usual for a server".into());
        return found.map_or_else(fallback, |(port, file)| (port, file, "its code".into()));
    }
    let config = config_file(subject.look, subject.dir, entry.config)
        .map(|name| join(subject.dir, &name))
        .filter(|_| !entry.config.is_empty());
    let configured = config.and_then(|file| {
        let text = subject.look.hint(&file)?;
        let port = ports::in_config(&text, &["server", "devServer", "serve"])?;
        Some((port, file, "its configuration".to_owned()))
    });
    configured.unwrap_or_else(|| {
        let file = subject.manifest.file.clone();
        (entry.port, file, format!("default of {}", entry.id))
    })
}

/// Returns the files in which a server of the project's own may begin, with their text.
fn entries(look: &Look<'_>, dir: &str, manifest: &Manifest) -> Vec<(String, String)> {
    let scripts = DEV_SCRIPTS.iter().filter_map(|name| manifest.scripts.get(*name));
    let named = scripts
        .filter_map(|script| script::served_file(script))
        .chain(manifest.main.iter().map(|main| main.trim_start_matches("./").to_owned()));
    let usual = ENTRY_DIRS.iter().flat_map(|inner| {
        ENTRY_STEMS.iter().flat_map(move |stem| {
            ENTRY_ENDINGS.iter().map(move |ending| join(inner, &format!("{stem}.{ending}")))
        })
    });
    let mut files: Vec<String> = Vec::new();
    for file in named.chain(usual) {
        let inside = super::tree::names(&file).is_ok();
        if inside && !files.contains(&file) && has(look, dir, &file) {
            files.push(file);
        }
        if files.len() == ENTRIES_MAX {
            break;
        }
    }
    files
        .into_iter()
        .filter_map(|file| {
            let path = join(dir, &file);
            let text = look.hint(&path)?;
            Some((path, text))
        })
        .collect()
}

/// Looks a path up in remembered listings, one directory at a time.
fn has(look: &Look<'_>, dir: &str, file: &str) -> bool {
    match file.rsplit_once('/') {
        Some((inner, name)) => {
            let (first, _) = inner.split_once('/').unwrap_or((inner, ""));
            look.directories(dir).iter().any(|known| known == first)
                && look.has(&join(dir, inner), name)
        }
        None => look.has(dir, file),
    }
}
