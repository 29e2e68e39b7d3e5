//! Every language that is neither Node nor Python: one module each, one entry for each framework.
//!
//! A language's module reads its manifests into a [`Project`]; its table says how each framework
//! is recognised and run. Both are handed to [`offer`], which is the same for all of them, so
//! that adding a framework is adding an [`Entry`] and a test project.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Runtime, RuntimeName, Source, Template,
};

use super::Candidate;
use super::look::{Look, is_plain_word};
use super::ranges::{Partial, Range};
use super::tree::{TreeError, join};

use listeners::Shapes;
use rules::Rule;

mod clojure;
mod deno;
mod dotnet;
mod elixir;
mod go;
pub(crate) mod hints;
mod java;
pub(crate) mod listeners;
mod minor;
mod php;
mod ruby;
mod rules;
mod rust;
mod sites;
mod swift;
mod versions;
pub(crate) mod workspaces;

/// How strongly files speak for a language; `node` and `python` have the rest of the scale.
/// A framework that serves pages stands above a bundler, which it uses for its assets.
pub(crate) const FRAMEWORK: u32 = 72;
/// A program that can be run stands above a small server of another language, below a bundler.
pub(crate) const PROGRAM: u32 = 59;
/// A manifest that is often there for tools alone.
pub(crate) const DECLARED: u32 = 35;
/// Something that hardly says anything by itself.
pub(crate) const WEAK: u32 = 12;

/// More code than this is not read in search of an app and its port.
const CODE_MAX: usize = 24;

/// How one framework is recognised and run for development.
pub(crate) struct Entry {
    pub(crate) id: Framework,
    /// What must be true of the project.
    pub(crate) rule: Rule,
    /// Ways to run it; the first whose condition holds. Besides `{host}` and `{port}` a command
    /// may have slots that the language fills, such as `{main}`.
    pub(crate) dev: &'static [(Rule, &'static str)],
    /// The port if nothing names another.
    pub(crate) port: Option<u16>,
    /// The page that tells that it is ready; a connection if there is none.
    pub(crate) health: Option<&'static str>,
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) score: u32,
}

/// What most entries have in common.
const BASE: Entry = Entry {
    id: Framework::None,
    rule: Rule::Always,
    dev: &[],
    port: None,
    health: Some("/"),
    env: &[],
    score: FRAMEWORK,
};

/// A program of the project's own: it is asked for a connection and told its port.
const PROGRAM_ENTRY: Entry = Entry { health: None, env: PORT_ENV, score: PROGRAM, ..BASE };

/// What servers that choose their own port are told.
const PORT_ENV: &[(&str, &str)] = &[("PORT", "{port}")];

/// A value and the file that says so.
pub(crate) type Said<T> = (T, String);

/// What the files of one directory say in the terms of one language.
pub(crate) struct Project<'look, 'tree> {
    pub(crate) look: &'look Look<'tree>,
    pub(crate) dir: String,
    pub(crate) language: Language,
    pub(crate) manager: PackageManager,
    /// The file that declares the language.
    pub(crate) file: String,
    /// Exact names of what it depends on.
    pub(crate) dependencies: BTreeSet<String>,
    /// The files in which a server may begin, with their text; the most likely first.
    pub(crate) code: Vec<(String, String)>,
    /// How the language's code names a port.
    pub(crate) shapes: &'static Shapes,
    /// A port that configuration names, before any code.
    pub(crate) port: Option<Said<u16>>,
    /// The command that installs, where it runs, and the file that decides it.
    pub(crate) install: Option<Said<String>>,
    pub(crate) install_dir: String,
    pub(crate) lockfile: Option<String>,
    pub(crate) runtime: Option<Said<Runtime>>,
    /// What the language fills into commands.
    pub(crate) slots: BTreeMap<&'static str, String>,
    pub(crate) warnings: Vec<String>,
}

impl<'look, 'tree> Project<'look, 'tree> {
    fn new(
        look: &'look Look<'tree>,
        dir: &str,
        language: Language,
        manager: PackageManager,
        file: String,
    ) -> Self {
        Self {
            look,
            dir: dir.to_owned(),
            language,
            manager,
            file,
            dependencies: BTreeSet::new(),
            code: Vec::new(),
            shapes: &listeners::NONE,
            port: None,
            install: None,
            install_dir: dir.to_owned(),
            lockfile: None,
            runtime: None,
            slots: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Says whether the directory holds this file; `*` at the front stands for any name.
    pub(crate) fn has(&self, file: &str) -> bool {
        has(self.look, &self.dir, file)
    }

    pub(crate) fn depends(&self, name: &str) -> bool {
        match name.strip_suffix('*') {
            Some(start) => self
                .dependencies
                .range(start.to_owned()..)
                .next()
                .is_some_and(|dependency| dependency.starts_with(start)),
            None => self.dependencies.contains(name),
        }
    }

    /// Reads a file of the project that refines an answer, if it is there.
    pub(crate) fn read(&self, file: &str) -> Option<Said<String>> {
        read(self.look, &self.dir, file)
    }

    /// Adds code files that exist, up to the most that are read.
    fn add_code(&mut self, files: impl IntoIterator<Item = String>) {
        for file in files {
            if self.code.len() >= CODE_MAX {
                return;
            }
            let path = join(&self.dir, &file);
            if self.code.iter().any(|(known, _)| *known == path) || !self.has(&file) {
                continue;
            }
            if let Some(text) = self.look.hint(&path) {
                let text = listeners::without_comments(&text, self.shapes.comments);
                self.code.push((path, text));
            }
        }
    }

    /// Adds every file with this ending in a directory below the project.
    fn add_code_in(&mut self, inner: &str, ending: &str) {
        let names = self.look.files(&join(&self.dir, inner));
        let names = names.into_iter().filter(|name| name.ends_with(ending));
        let files: Vec<_> = names.map(|name| join(inner, &name)).collect();
        self.add_code(files);
    }

    /// Says what installs, in the project's directory.
    fn installs(&mut self, command: &str, file: &str) {
        self.install = Some((command.to_owned(), join(&self.dir, file)));
    }

    /// Takes a lockfile if it is there.
    fn locked_by(&mut self, file: &str) -> bool {
        let found = self.has(file);
        if found {
            self.lockfile = Some(join(&self.dir, file));
        }
        found
    }

    /// Fills a slot of commands, if the value can stand in one as it is.
    fn fill(&mut self, slot: &'static str, value: &str) {
        if is_plain_word(value) {
            self.slots.insert(slot, value.to_owned());
        }
    }
}

/// Says whether a directory holds this file, which may be a path or `*` and an ending.
fn has(look: &Look<'_>, dir: &str, file: &str) -> bool {
    if let Some(ending) = file.strip_prefix('*') {
        return look.files(dir).iter().any(|name| name.ends_with(ending));
    }
    match file.rsplit_once('/') {
        // One listing answers for every name that is not there.
        Some((inner, name)) => {
            let first = inner.split('/').next().unwrap_or_default();
            (first.starts_with('.') || look.directories(dir).iter().any(|known| known == first))
                && look.has(&join(dir, inner), name)
        }
        None => look.has(dir, file),
    }
}

fn read(look: &Look<'_>, dir: &str, file: &str) -> Option<Said<String>> {
    if !has(look, dir, file) {
        return None;
    }
    let path = join(dir, file);
    Some((look.hint(&path)?, path))
}

/// How a language is asked about a directory.
type Probe = fn(&Look<'_>, &str) -> Result<Option<Candidate>, TreeError>;

/// Asks every language about a directory.
///
/// # Errors
/// The tree's refusal of a manifest, because guessing around it would mislead.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Result<Vec<Candidate>, TreeError> {
    let languages: [Probe; 10] = [
        php::probe,
        ruby::probe,
        elixir::probe,
        dotnet::probe,
        java::probe,
        go::probe,
        rust::probe,
        deno::probe,
        clojure::probe,
        swift::probe,
    ];
    let mut candidates = Vec::new();
    for probe in languages {
        candidates.extend(probe(look, dir)?);
    }
    candidates.extend(minor::probe(look, dir));
    candidates.extend(sites::probe(look, dir));
    Ok(candidates)
}

/// Says what a project is by the first entry whose rule holds.
fn offer(project: Project<'_, '_>, table: &[Entry]) -> Option<Candidate> {
    let (entry, (file, why)) =
        table.iter().find_map(|entry| Some((entry, entry.rule.reason(&project)?)))?;
    let mut findings = Findings::blank(&project.dir);
    findings.language = project.language;
    findings.framework = entry.id;
    findings.package_manager = project.manager;
    findings.source =
        if entry.id == Framework::None { Source::Language } else { Source::Framework };
    findings.decide("language", project.language.as_str(), project.file.clone(), "its file");
    let manager = project.manager;
    if manager != PackageManager::None {
        findings.decide("package_manager", manager.as_str(), project.file.clone(), "its file");
    }
    if entry.id != Framework::None {
        findings.decide("framework", entry.id.as_str(), file.clone(), why.clone());
    }
    findings.install_dir.clone_from(&project.install_dir);
    findings.lockfile.clone_from(&project.lockfile);
    if let Some((command, file)) = &project.install {
        findings.install = Some(command.clone());
        findings.decide("install", command.clone(), file.clone(), "its tool");
    }
    if let Some((runtime, file)) = &project.runtime {
        findings.decide("runtime", runtime.version.clone(), file.clone(), "states its version");
        findings.runtime = Some(runtime.clone());
    }
    findings.warnings.extend(project.warnings.iter().cloned());
    let launch = entry.dev.iter().find_map(|(rule, command)| {
        let (_, _) = rule.reason(&project)?;
        filled(command, &project.slots)
    });
    let score = if launch.is_some() || entry.id != Framework::None { entry.score } else { WEAK };
    if let Some((port, file, why)) = port(&project, entry) {
        findings.port = Some(port);
        findings.decide("port", port.to_string(), file, why);
    }
    match launch {
        Some(command) => {
            findings.health = match entry.health {
                Some(path) => Health::Http { path: path.to_owned() },
                None => Health::Tcp,
            };
            findings.env = entry
                .env
                .iter()
                .filter(|(_, value)| findings.port.is_some() || !value.contains("{port}"))
                .map(|(name, value)| ((*name).to_owned(), Template::Slots((*value).to_owned())))
                .collect();
            findings.dev = Some(Template::Slots(command));
            let command = findings.dev_command().unwrap_or_default();
            let why = if entry.id == Framework::None { "runs its program" } else { "its server" };
            findings.decide("dev", command, file, why);
        }
        None => findings.warnings.push(format!(
            "nothing says how this {} project is run: set `preview.command` in .covibes.yml",
            project.language
        )),
    }
    Some(Candidate { findings, score })
}

/// The port: what configuration names, what the code listens on, what another tool was told, and
/// only then what is usual.
fn port(project: &Project<'_, '_>, entry: &Entry) -> Option<(u16, String, String)> {
    if let Some((port, file)) = &project.port {
        return Some((*port, file.clone(), "its configuration".into()));
    }
    if let Some((port, file)) = listeners::port(&project.code, project.shapes) {
        return Some((port, file, "its code".into()));
    }
    // Code that asks the environment and has no default is told by its own file of variables.
    let asks = project
        .code
        .iter()
        .any(|(_, text)| ["\"PORT\"", "'PORT'"].iter().any(|variable| text.contains(variable)));
    if asks && let Some((port, file)) = hints::environment(project.look, &project.dir) {
        return Some((port, file, "its environment file".into()));
    }
    // Code that reads a file of settings has its port there.
    let reads = project.code.iter().any(|(_, text)| {
        let lower = text.to_ascii_lowercase();
        lower.contains("config") || lower.contains("setting")
    });
    if reads && let Some((port, file)) = hints::settings(project.look, &project.dir) {
        return Some((port, file, "its settings".into()));
    }
    if let Some(port) = entry.port {
        let why = match entry.id {
            Framework::None => format!("usual for {}", project.language),
            id => format!("default of {id}"),
        };
        return Some((port, project.file.clone(), why));
    }
    let (port, file) = hints::port(project.look, &project.dir)?;
    Some((port, file, "another way to run it says so".into()))
}

/// Fills the slots of a language; none if one of them is unknown.
fn filled(command: &str, slots: &BTreeMap<&'static str, String>) -> Option<String> {
    let mut text = command.to_owned();
    for (slot, value) in slots {
        text = text.replace(&format!("{{{slot}}}"), value);
    }
    let open = text.replace("{host}", "").replace("{port}", "");
    (!open.contains('{')).then_some(text)
}

/// Makes a runtime of what a file states: a version, or a range of them.
fn runtime(name: RuntimeName, said: Option<Said<String>>) -> Option<Said<Runtime>> {
    let (text, file) = said?;
    let text = text.trim().trim_start_matches(['v', '=', ' ']).to_owned();
    let range = text.contains(['^', '~', '>', '<', '*', '|', ',']);
    let version = if range {
        // The lowest version of a range is one that it was written for.
        let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let end = digits.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        digits[..end.unwrap_or(digits.len())].trim_end_matches('.').to_owned()
    } else {
        text.clone()
    };
    let known = Partial::parse(&version).is_some() || (!range && is_plain_word(&version));
    if !known || version.is_empty() {
        return None;
    }
    let range = (range && Range::npm(&text).is_some()).then_some(text);
    Some((Runtime { name, version, range }, file))
}
