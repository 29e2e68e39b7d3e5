//! The project file, `.covibes.yml`: what a project says about itself, from an untrusted repository.
//!
//! It may choose what is run and narrow its limits; it can never widen rights, because there is no
//! key for mounts, privileges, networks or images, and unknown keys are refused. It is parsed once,
//! under a tight budget, straight into types. Everything here is pure; the file is read through a
//! `Tree`, as [`PROJECT_FILE`]. The JSON Schema is made from the same types.

use std::collections::BTreeMap;

pub use crate::domain::findings::PROJECT_FILE;
use crate::domain::findings::{Health, RuntimeName};
use crate::domain::limits;
use crate::domain::spec::LimitsWish;

mod apply;
mod error;
mod read;
mod reference;
mod shape;
mod write;

pub use apply::apply;
pub use error::{Place, ProjectError};
pub use read::parse;
pub use reference::reference;
pub use shape::schema;
pub use write::write;

/// A project file that holds to every rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectFile {
    /// What is said about previews; empty if nothing is.
    pub previews: Vec<ProjectPreview>,
    /// What is said about agents.
    pub agents: Vec<ProjectAgent>,
    /// Limits, each at most what the host allows: the config step takes the lower one.
    pub limits: ProjectLimits,
    /// Where each limit stands, as `limits.preview.memory`.
    pub places: BTreeMap<&'static str, Place>,
}

impl ProjectFile {
    /// Returns what is said about the agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&ProjectAgent> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// Returns what of the file has no effect on this host, for its author.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let roles = [
            (self.limits.agent, limits::AGENT, "limits.agent.memory", "limits.agent.cpu"),
            (self.limits.preview, limits::PREVIEW, "limits.preview.memory", "limits.preview.cpu"),
        ];
        let mut found = Vec::new();
        let place = |key: &str| self.places.get(key).map_or(String::new(), |at| format!(":{at}"));
        for (wish, given, memory, cpu) in roles {
            if let Some(bytes) = wish.memory_bytes.filter(|bytes| *bytes > given.memory_bytes) {
                found.push(format!(
                    "{PROJECT_FILE}{}: {memory} asks for {} MB; limits can only be lowered here, \
                     so it stays {} MB",
                    place(memory),
                    bytes >> 20,
                    given.memory_bytes >> 20
                ));
            }
            if let Some(millis) = wish.cpu_millis.filter(|millis| *millis > given.cpu_millis) {
                found.push(format!(
                    "{PROJECT_FILE}{}: {cpu} asks for {} CPUs; limits can only be lowered here, \
                     so it stays {}",
                    place(cpu),
                    f64::from(millis) / 1000.0,
                    f64::from(given.cpu_millis) / 1000.0
                ));
            }
        }
        found
    }

    /// Returns what is said about the preview of this name.
    ///
    /// A preview without a name speaks for every one that has none of its own.
    #[must_use]
    pub fn preview(&self, name: &str) -> Option<&ProjectPreview> {
        let named = self.previews.iter().find(|preview| preview.name.as_deref() == Some(name));
        named.or_else(|| self.previews.iter().find(|preview| preview.name.is_none()))
    }
}

/// What a project says about one preview. Whatever is absent is detected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectPreview {
    /// The preview that this speaks for; none is every preview.
    pub name: Option<String>,
    /// The app's directory, relative to the workspace.
    pub app: Option<String>,
    /// The install command; empty for none.
    pub install: Option<String>,
    /// The dev server's command.
    pub command: Option<String>,
    /// The dev server's port.
    pub port: Option<u16>,
    /// How readiness is asked.
    pub health: Option<Health>,
    /// Environment of the dev server.
    pub env: BTreeMap<String, String>,
    /// The runtime and version.
    pub runtime: Option<ProjectRuntime>,
    /// Directories and files below the app that the dev server must be able to write.
    pub writable: Vec<String>,
    /// How the dev server sees the workspace; absent, its framework decides.
    pub mode: Option<PreviewMode>,
    /// Where each key stands.
    pub places: BTreeMap<&'static str, Place>,
}

/// A runtime as a project file names it: `22`, or `python@3.12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRuntime {
    /// Which runtime; none is the detected one.
    pub name: Option<RuntimeName>,
    /// Its version, one to three numbers.
    pub version: String,
}

/// How a preview sees the workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreviewMode {
    /// The workspace itself, read-only.
    #[default]
    Direct,
    /// A writable copy that follows the workspace.
    Mirror,
}

/// What a project says about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectAgent {
    /// The agent that this speaks for.
    pub name: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
}

/// Limits by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectLimits {
    /// Of each agent.
    pub agent: RoleLimits,
    /// Of each preview.
    pub preview: RoleLimits,
}

/// Limits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleLimits {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, in thousandths of one CPU.
    pub cpu_millis: Option<u32>,
}

impl RoleLimits {
    /// As the wish that the plan lowers limits by.
    #[must_use]
    pub fn wish(self) -> LimitsWish {
        LimitsWish { memory_bytes: self.memory_bytes, cpu_millis: self.cpu_millis }
    }
}

#[cfg(test)]
mod tests;
