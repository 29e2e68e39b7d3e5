//! What a project says in files of other tools about how it is run for development.
//!
//! In order: `devcontainer.json`, a compose service that is built from the app and publishes a
//! port, a Dockerfile with a stage for development, `Procfile.dev`; then, as hints only, any
//! other Dockerfile. Each file offers a [`Statement`]; the first that says something about a
//! field decides it, above the framework table and below the project file. A statement is about
//! development or it is none: a published nginx says nothing about Vite. What each field takes
//! and what it leaves is argued in `docs/adr/0030`. Every file here is a hint: one that cannot be
//! read is set aside with a warning. Nothing is ever run that needs another image, Docker or
//! more rights.

use std::collections::BTreeMap;

use crate::domain::findings::{
    App, Findings, Framework, Language, Runtime, RuntimeName, Source, Template,
};

use super::look::Look;
use super::manifest::Manifest;
use super::tree::parent;
use command::Command;
use server::Kind;

mod command;
mod compose;
mod devcontainer;
mod dockerfile;
mod jsonc;
pub mod own_image;
mod ports;
mod procfile;
mod server;

/// What one file says.
#[derive(Debug)]
struct Statement {
    source: Source,
    /// The file that says it, unless a part below names another.
    file: String,
    /// Ports on which the app may listen, the most telling first, each with the reason.
    ports: Vec<(u16, String)>,
    /// The file that names the ports, if it is another.
    ports_file: Option<String>,
    command: Option<Said>,
    env: BTreeMap<String, String>,
    runtime: Option<Said>,
    /// A hint only counts where detection had to guess, and decides no more than that.
    is_hint: bool,
}

/// A text, and who says it.
#[derive(Debug)]
struct Said {
    text: String,
    file: String,
    why: String,
}

impl Statement {
    fn new(source: Source, file: &str) -> Self {
        Self {
            source,
            file: file.to_owned(),
            ports: Vec::new(),
            ports_file: None,
            command: None,
            env: BTreeMap::new(),
            runtime: None,
            is_hint: false,
        }
    }
}

/// What is known about the app while the files are read.
struct Context<'a> {
    look: &'a Look<'a>,
    findings: &'a Findings,
    scripts: BTreeMap<String, String>,
}

impl<'a> Context<'a> {
    fn new(look: &'a Look<'a>, findings: &'a Findings) -> Self {
        let scripts = match findings.language {
            Language::Node | Language::None => Manifest::read_hint(look, &findings.app_dir),
            _ => None,
        };
        Self { look, findings, scripts: scripts.map(|found| found.scripts).unwrap_or_default() }
    }

    /// The app's directory and those above it, nearest first.
    fn upward(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.findings.app_dir.as_str()), |place| parent(place))
    }

    /// Whether a file of this directory can speak about the app: its own, or one above if there
    /// is no other app that it could mean.
    fn speaks_for(&self, dir: &str) -> bool {
        dir == self.findings.app_dir || self.findings.apps.len() <= 1
    }

    /// Whether a port may be the app's own: not one of a web server before it, and not one of the
    /// bundler beside it. What a command names is taken as it is.
    fn may_be_own(&self, port: u16) -> bool {
        let bundled =
            self.findings.language == Language::Node || !matches!(port, 5173 | 5174 | 3035 | 3036);
        let direct = self.serves_itself() || !matches!(port, 80 | 443 | 8443);
        ports::may_be_app(port) && bundled && direct
    }

    /// Whether the same server runs in development and in production, so that an image's port is
    /// the dev server's too.
    fn serves_itself(&self) -> bool {
        use Framework as F;
        match self.findings.framework {
            F::Express | F::Fastify | F::Koa | F::Hono | F::Elysia | F::H3 | F::Connect => true,
            F::Nestjs | F::Gin | F::Echo | F::Fiber | F::Axum | F::ActixWeb | F::Rocket => true,
            F::SpringBoot | F::Sparkjava | F::Vapor | F::Ring | F::Luminus | F::Plug => true,
            F::None => self.findings.language != Language::Static,
            _ => false,
        }
    }
}

/// Reads every explicit input and lets it decide what it says.
pub(crate) fn apply(look: &Look<'_>, findings: &mut Findings) {
    let context = Context::new(look, findings);
    let mut statements: Vec<Statement> = [
        devcontainer::read(&context),
        compose::read(&context),
        dockerfile::read(&context),
        procfile::read(&context),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Stable: hints come last, each kind in its order.
    statements.sort_by_key(|statement| statement.is_hint);
    let own_image = own_image::find(&context);
    let (scripts, serves_itself) = (context.scripts.clone(), context.serves_itself());
    let mut merge = Merge { findings, scripts, serves_itself, port: false, dev: false, env: false };
    let mut source = None;
    for statement in &statements {
        let decides = [merge.command(statement), merge.port(statement)];
        if decides.contains(&true) && !statement.is_hint {
            source = source.or(Some(statement.source));
        }
        merge.runtime(statement);
        merge.env(statement);
    }
    findings.own_image = own_image;
    // Where nothing else is known, the hint is all there is.
    let only = statements.iter().find(|_| findings.language == Language::None);
    if let Some(source) = source.or_else(|| only.map(|statement| statement.source)) {
        findings.source = source;
    }
    let (dir, port) = (findings.app_dir.clone(), findings.port);
    if let Some(app) = findings.apps.iter_mut().find(|app| app.dir == dir) {
        app.port = port;
    }
}

/// The findings while statements are laid over them, the most explicit first.
struct Merge<'a> {
    findings: &'a mut Findings,
    scripts: BTreeMap<String, String>,
    serves_itself: bool,
    /// Which fields are decided.
    port: bool,
    dev: bool,
    env: bool,
}

impl Merge<'_> {
    /// Lets a statement decide the command; says whether it did.
    fn command(&mut self, by: &Statement) -> bool {
        let Some(said) = by.command.as_ref().filter(|_| !self.dev && !by.is_hint) else {
            return false;
        };
        let Some(command) = Command::parse(&said.text) else { return false };
        if command.is_like(self.findings, &self.scripts) {
            // The detected one does the same with the address filled in.
            self.dev = true;
            return true;
        }
        let kind = command.kind(&self.scripts);
        if kind == Kind::Production || (kind == Kind::Unclear && self.findings.dev.is_some()) {
            return false;
        }
        self.dev = true;
        self.findings.dev = Some(Template::Literal(said.text.clone()));
        self.findings.decide("dev", said.text.clone(), said.file.clone(), said.why.clone());
        if let Some(port) = command.port() {
            // It is the one that runs, so it is right about its port.
            self.set_port(port, said.file.clone(), format!("named by what {}", said.why));
        }
        true
    }

    /// Lets a statement decide the port; says whether it did.
    fn port(&mut self, by: &Statement) -> bool {
        if by.ports.is_empty() || self.port {
            return false;
        }
        let file = by.ports_file.clone().unwrap_or_else(|| by.file.clone());
        let app_dir = self.findings.app_dir.clone();
        let others: Vec<u16> = self
            .findings
            .apps
            .iter()
            .filter(|app| app.dir != app_dir)
            .filter_map(|app| app.port)
            .collect();
        // Of several ports the app's own is the one it was found to use; another app's is not.
        let own = by.ports.iter().find(|(port, _)| self.findings.port == Some(*port));
        let free = by.ports.iter().find(|(port, _)| !others.contains(port));
        let Some((port, why)) = own.or(free).cloned() else { return false };
        let is_own = own.is_some();
        let guessed = is_guess(self.findings);
        if by.is_hint {
            let fits = guessed && (self.serves_itself || self.findings.port.is_none());
            if !fits || (matches!(port, 80 | 443) && self.findings.port.is_some()) {
                return false;
            }
        }
        // A server that reads PORT goes where it is sent, whatever its code falls back to.
        let sent = by.env.get("PORT").is_some_and(|value| value.parse() == Ok(port))
            && self.findings.env.contains_key("PORT");
        if !is_own && !guessed && !sent {
            let decided = self.findings.decided_by("port").unwrap_or_default().to_owned();
            self.findings.warnings.push(format!(
                "{file} names port {port}, but {decided} decides which one the dev server uses; \
                 if that is wrong, set `preview.port` in .covibes.yml"
            ));
            return false;
        }
        self.set_port(port, file, why);
        true
    }

    fn set_port(&mut self, port: u16, file: String, why: String) {
        self.port = true;
        self.findings.port = Some(port);
        self.findings.decide("port", port.to_string(), file, why);
        let told = self.findings.dev_command();
        let evidence = self.findings.evidence.iter_mut().find(|evidence| evidence.field == "dev");
        if let (Some(told), Some(evidence)) = (told, evidence) {
            evidence.value = told;
        }
    }

    /// Takes a version where nobody pinned one.
    fn runtime(&mut self, by: &Statement) {
        let Some(said) = &by.runtime else { return };
        let evidence = self.findings.evidence.iter().find(|evidence| evidence.field == "runtime");
        if evidence.is_some_and(|evidence| !evidence.why.contains("default")) {
            return;
        }
        let Some((name, version)) = said.text.split_once('@') else { return };
        let name = RuntimeName::parse(name);
        if let Some(runtime) = &self.findings.runtime
            && Some(runtime.name) == name
        {
            let runtime = Runtime { version: version.to_owned(), range: None, ..runtime.clone() };
            self.findings.runtime = Some(runtime);
            self.findings.decide("runtime", version, said.file.clone(), said.why.clone());
        }
    }

    /// Adds variables that nobody above has set.
    fn env(&mut self, by: &Statement) {
        let mut taken = Vec::new();
        for (name, value) in by.env.iter().filter(|_| !by.is_hint) {
            // The address is told by the platform, and so is that it is for development.
            let ours = matches!(name.as_str(), "PORT" | "HOST" | "NODE_ENV");
            if !ours && !self.findings.env.contains_key(name) {
                self.findings.env.insert(name.clone(), Template::Literal(value.clone()));
                taken.push(name.as_str());
            }
        }
        if !taken.is_empty() && !self.env {
            self.env = true;
            self.findings.decide("env", taken.join(", "), by.file.clone(), "literal variables");
        }
    }
}

/// Whether detection only guessed the port.
fn is_guess(findings: &Findings) -> bool {
    let evidence = findings.evidence.iter().find(|evidence| evidence.field == "port");
    findings.port.is_none()
        || evidence.is_none_or(|evidence| {
            let why = evidence.why.to_ascii_lowercase();
            why.contains("default") || why.contains("usual")
        })
}

/// Findings about a root of which only its container files say anything; none if they do not.
pub(crate) fn alone(look: &Look<'_>) -> Option<Findings> {
    let mut findings = Findings::blank(".");
    if let Some((language, file)) = dockerfile::language(look, ".") {
        findings.language = language;
        findings.decide("language", language.as_str(), file, "the image that it is built from");
    }
    findings.apps.push(App { dir: ".".into(), framework: Framework::None, port: None });
    apply(look, &mut findings);
    let says = findings.port.is_some() || findings.dev.is_some();
    says.then_some(findings)
}

#[cfg(test)]
mod tests;
