//! What the detect step found out about a project, and why.
//!
//! Findings are facts about one app of a workspace: which language and framework it is, how its
//! dependencies are installed, how it is run for development, and which file decided each value.
//! The words here are the stable vocabulary of `covibes detect --json`; the JSON itself is made in
//! `wire::findings`. Commands and environment values are kept as templates, because a project file
//! may still change the port they carry.

use std::collections::BTreeMap;

mod vocabulary;

pub use vocabulary::{Framework, Language, PackageManager, RuntimeName, Source};

/// The file at the root of a workspace in which a project says how it is run.
pub const PROJECT_FILE: &str = ".covibes.yml";

/// The address a dev server must bind: loopback would be unreachable from outside the container.
pub const HOST: &str = "0.0.0.0";

/// Everything that is known about how to run one app of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The main language of the app.
    pub language: Language,
    /// The framework whose dev server is run.
    pub framework: Framework,
    /// The tool that installs dependencies.
    pub package_manager: PackageManager,
    /// Its version, as digits and dots, if the project says one.
    pub manager_version: Option<String>,
    /// The port of the dev server, if anything can be known about it.
    pub port: Option<u16>,
    /// The app's directory below the workspace, `.` for the root; `dev` runs here.
    pub app_dir: String,
    /// Whether the workspace holds several packages or apps.
    pub monorepo: bool,
    /// The runtime the app asks for; none for a static site.
    pub runtime: Option<Runtime>,
    /// The command that installs dependencies, if there are any to install.
    pub install: Option<String>,
    /// Where `install` runs: the workspace root of a monorepo, else the app's directory.
    pub install_dir: String,
    /// Directories of the workspace's packages below it, each of which may get modules of its own
    /// when `install` runs for all of them.
    pub packages: Vec<String>,
    /// The file that fixes the installed versions (a lockfile; `requirements.txt` for pip).
    ///
    /// None beside a present `install` means that the build step would not be repeatable.
    pub lockfile: Option<String>,
    /// The command of the dev server; none if nothing runnable was found.
    pub dev: Option<Template>,
    /// How readiness is asked.
    pub health: Health,
    /// Environment that the dev server needs.
    pub env: BTreeMap<String, Template>,
    /// The image that the repository builds for itself, if it does.
    pub own_image: Option<OwnImage>,
    /// Every app of the workspace, the chosen one first.
    pub apps: Vec<App>,
    /// What kind of statement decided.
    pub source: Source,
    /// Which file decided each value.
    pub evidence: Vec<Evidence>,
    /// What a person should know: files that were set aside, choices that were close.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Knows nothing about the app in `app_dir`: the base for a project file that says it all.
    #[must_use]
    pub fn blank(app_dir: &str) -> Self {
        Self {
            language: Language::None,
            framework: Framework::None,
            package_manager: PackageManager::None,
            manager_version: None,
            port: None,
            app_dir: app_dir.to_owned(),
            monorepo: false,
            runtime: None,
            install: None,
            install_dir: app_dir.to_owned(),
            packages: Vec::new(),
            lockfile: None,
            dev: None,
            health: Health::Tcp,
            env: BTreeMap::new(),
            own_image: None,
            apps: Vec::new(),
            source: Source::Language,
            evidence: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Returns the dev command with host and port filled in.
    #[must_use]
    pub fn dev_command(&self) -> Option<String> {
        self.dev.as_ref().map(|dev| dev.render(self.port))
    }

    /// Returns the environment with host and port filled in, without what no port is known for.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let known = self.env.iter().filter(|(_, value)| self.port.is_some() || !value.names_port());
        known.map(|(name, value)| (name.clone(), value.render(self.port))).collect()
    }

    /// Returns the file that decided a field.
    #[must_use]
    pub fn decided_by(&self, field: &str) -> Option<&str> {
        let evidence = self.evidence.iter().find(|evidence| evidence.field == field);
        evidence.map(|evidence| evidence.file.as_str())
    }

    /// Records that `file` decided `field`, replacing what decided it before.
    pub fn decide(
        &mut self,
        field: &'static str,
        value: impl Into<String>,
        file: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.evidence.retain(|evidence| evidence.field != field);
        self.evidence.push(Evidence {
            field,
            value: value.into(),
            file: file.into(),
            line: None,
            why: why.into(),
        });
    }

    /// Says in which line of its file the decision on `field` stands.
    pub fn decided_in_line(&mut self, field: &str, line: Option<u64>) {
        if let Some(evidence) = self.evidence.iter_mut().find(|evidence| evidence.field == field) {
            evidence.line = line;
        }
    }
}

/// A runtime and the version of it to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which runtime.
    pub name: RuntimeName,
    /// The version to run: as exact as the project says, a release line where it leaves room.
    pub version: String,
    /// The range that the version was chosen from, if the project gave one.
    pub range: Option<String>,
}

/// How the health step asks whether the dev server is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// A GET of this path; any status below 500 means alive.
    Http {
        /// The path, beginning with `/`.
        path: String,
    },
    /// A connection to the port.
    Tcp,
}

/// An image that a repository builds for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnImage {
    /// The Dockerfile, below the workspace.
    pub file: String,
    /// The directory that it is built from, below the workspace.
    pub dir: String,
    /// The stage for development; the last one if none is.
    pub stage: Option<String>,
}

/// One app of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its directory below the workspace, `.` for the root.
    pub dir: String,
    /// Its framework.
    pub framework: Framework,
    /// Its dev server's port.
    pub port: Option<u16>,
}

/// Which file decided a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The decided field, named as in the JSON.
    pub field: &'static str,
    /// The value it got.
    pub value: String,
    /// The deciding file, below the workspace.
    pub file: String,
    /// The line in it, where that is known.
    pub line: Option<u64>,
    /// The rule that applied.
    pub why: String,
}

/// Text of a command or a variable, in which detection leaves room for host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// Text from a person: braces in it mean themselves.
    Literal(String),
    /// Text of our own with `{host}` and `{port}`.
    Slots(String),
}

impl Template {
    /// Says whether the text has room for a port.
    fn names_port(&self) -> bool {
        matches!(self, Self::Slots(text) if text.contains("{port}"))
    }

    /// Fills in host and port; without a port the slot stays visible, as nothing would be true.
    #[must_use]
    pub fn render(&self, port: Option<u16>) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Slots(text) => {
                let text = text.replace("{host}", HOST);
                match port {
                    Some(port) => text.replace("{port}", &port.to_string()),
                    None => text,
                }
            }
        }
    }
}
