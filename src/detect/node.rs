//! Node projects: from `package.json`, the table of frameworks and the project's own scripts to
//! a command that really starts the dev server on a known address.

use crate::domain::findings::{Findings, Framework, Health, Language, Source};

use super::frameworks::{self, Entry, Kind, PLAIN};
use super::look::Look;
use super::manifest::Manifest;
use super::rules::{Reason, Subject};
use super::tree::{TreeError, join};
use super::{Candidate, manifest, nx, package_manager, ports, runtime, workspaces};

use sources::Sources;

mod launch;
mod port;
pub(super) mod sources;

/// How strongly files speak for Node. Django (70) and a Flask or FastAPI app at the root (65)
/// stand above a bundler, which they use for their assets, and below nothing else.
const META_FRAMEWORK: u32 = 68;
const FRAMEWORK: u32 = 60;
const SERVER: u32 = 58;
const RUNNABLE: u32 = 30;
const BARE: u32 = 25;
const TOOLING: u32 = 10;

/// Offers a candidate for a directory with a `package.json`, or with a server that has none.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let (manifest, bare) = match Manifest::read(look, dir)? {
        Some(manifest) => (manifest, false),
        None => match nx::manifest(look, dir) {
            Some(manifest) => (manifest, false),
            None => match without_manifest(look, dir) {
                Some(manifest) => (manifest, true),
                None => return Ok(None),
            },
        },
    };
    let sources = Sources::new(look, dir, &manifest);
    let subject = Subject { look, dir, manifest: &manifest, sources: &sources };
    let (entry, reason) = match frameworks::find(&subject) {
        Some((entry, reason)) => (entry, Some(reason)),
        None => (&PLAIN, None),
    };
    let mut findings = Findings::blank(dir);
    findings.language = Language::Node;
    findings.framework = entry.id;
    findings.source = match entry.id {
        Framework::None => Source::Language,
        _ => Source::Framework,
    };
    let why = if bare { "code for Node" } else { "a package.json" };
    findings.decide("language", "node", manifest.file.clone(), why);
    if let (Some(Reason { file, why }), true) = (reason, entry.id != Framework::None) {
        findings.decide("framework", entry.id.as_str(), file, why);
    }
    install(&mut findings, look, &manifest, bare);
    run(&mut findings, &subject, entry);
    let node = runtime::node(look, dir, &manifest);
    findings.decide("runtime", node.runtime.version.clone(), node.file, node.why);
    findings.runtime = Some(node.runtime);
    let score = match score(&findings, entry) {
        RUNNABLE if bare => BARE,
        // Tools that the packages of a workspace share are no app of its root.
        score if score > RUNNABLE && shared(&subject, entry) => TOOLING,
        score => score,
    };
    Ok(Some(Candidate { findings, score }))
}

/// A server that needs no dependency lies there without a `package.json`.
fn without_manifest(look: &Look<'_>, dir: &str) -> Option<Manifest> {
    let names = ["server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs"];
    let typed = ["server.ts", "index.ts", "app.ts", "main.ts"];
    let name = names.into_iter().chain(typed).find(|name| {
        look.has(dir, name)
            && look.code(&join(dir, name)).is_some_and(|text| {
                // In a page's own script neither occurs.
                let loads = text.contains("require(")
                    || text.contains("from 'node:")
                    || text.contains("from \"node:")
                    || text.contains("Bun.serve(");
                ports::listens(&text) && loads
            })
    })?;
    Some(Manifest { file: join(dir, name), main: Some(name.to_owned()), ..Manifest::default() })
}

fn score(findings: &Findings, entry: &Entry) -> u32 {
    match (entry.kind, entry.id) {
        (_, Framework::None) if findings.dev.is_some() => RUNNABLE,
        (_, Framework::None) => TOOLING,
        (Kind::Server, _) => SERVER,
        (Kind::Bundler, _) => FRAMEWORK,
        (Kind::Meta | Kind::Tool, _) => META_FRAMEWORK,
    }
}

/// Says whether a workspace's root only holds a framework for its packages: it neither calls nor
/// configures it.
fn shared(subject: &Subject<'_, '_>, entry: &Entry) -> bool {
    let Some(workspace) = workspaces::members(subject.look, subject.dir) else { return false };
    if workspace.members.is_empty() {
        return false;
    }
    let called =
        subject.manifest.scripts.values().any(|text| super::script::calls_here(text, entry.calls));
    let pages = ["app", "pages", "src"].iter().any(|name| subject.look.holds(subject.dir, name));
    let configured = entry
        .config
        .iter()
        .any(|(stem, _)| super::rules::config_file(subject.look, subject.dir, stem).is_some());
    let page = subject.look.has(subject.dir, "index.html");
    let own_code = entry.kind == Kind::Server && !subject.sources.near().is_empty();
    !(called || configured || page || own_code || (pages && entry.kind == Kind::Meta))
}

fn install(findings: &mut Findings, look: &Look<'_>, manifest: &Manifest, bare: bool) {
    let dir = findings.app_dir.clone();
    let choice = package_manager::decide(look, &dir, manifest);
    findings.package_manager = choice.manager;
    findings.manager_version = choice.version;
    findings.decide("package_manager", choice.manager.as_str(), choice.file.clone(), choice.why);
    findings.install_dir = choice.install_dir;
    let nothing = manifest.dependencies.is_empty()
        && choice.lockfile.is_none()
        && findings.install_dir == dir
        && manifest.workspaces.is_none();
    if !nothing && !bare {
        let command = package_manager::install(choice.manager, choice.lockfile.is_some());
        let file = choice.lockfile.clone().unwrap_or_else(|| manifest.file.clone());
        let why = if choice.lockfile.is_some() { "exactly as locked" } else { "no lockfile" };
        findings.decide("install", command, file, why);
        findings.install = Some(command.to_owned());
    }
    findings.lockfile = choice.lockfile;
    if findings.install.is_some() {
        let members = workspaces::members(look, &findings.install_dir);
        let members = members.into_iter().flat_map(|workspace| workspace.members);
        findings.packages =
            members.filter(|member| look.first(member, &manifest::NAMES).is_some()).collect();
    }
}

fn run(findings: &mut Findings, subject: &Subject<'_, '_>, entry: &Entry) {
    let launch = launch::launch(subject, entry, findings.package_manager);
    if let Some(port) = port::port(subject, entry, launch.as_ref()) {
        findings.port = Some(port.number);
        findings.decide("port", port.number.to_string(), port.file, port.why);
    }
    findings.health = match entry.id {
        Framework::None => Health::Tcp,
        _ => Health::Http { path: "/".to_owned() },
    };
    let Some(launch) = launch else { return };
    findings.env = launch::environment(subject, entry, &launch);
    findings.dev = Some(launch.command);
    let command = findings.dev_command().unwrap_or_default();
    findings.decide("dev", command, launch.file, launch.why);
}
