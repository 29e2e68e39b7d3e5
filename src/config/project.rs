//! The project file, `.covibes.yml`: what a project says about itself, from an untrusted repository.
//!
//! It may choose what is run and narrow its limits; it can never widen rights, because there is no
//! key for mounts, privileges, networks or images, and unknown keys are refused. It is parsed once,
//! under a tight budget, straight into types. Everything here is pure; the file is read through a
//! `Tree`, as [`PROJECT_FILE`]. The JSON Schema is made from the same types.

use std::collections::BTreeMap;

pub use crate::domain::findings::PROJECT_FILE;
use crate::domain::findings::{Health, RuntimeName};

mod apply;
mod error;
mod read;
mod shape;

pub use apply::apply;
pub use error::{Place, ProjectError};
pub use read::parse;
pub use shape::schema;

/// A project file that holds to every rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectFile {
    /// What is said about previews; empty if nothing is.
    pub previews: Vec<ProjectPreview>,
    /// What is said about agents.
    pub agents: Vec<ProjectAgent>,
    /// Limits, each at most what the host allows: the config step takes the lower one.
    pub limits: ProjectLimits,
}

impl ProjectFile {
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
    /// How the dev server sees the workspace.
    pub mode: PreviewMode,
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

#[cfg(test)]
mod tests;
