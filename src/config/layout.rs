//! Where a team's files lie on the host.

use std::path::PathBuf;

use crate::domain::ids::{PartName, RunId, TeamId};
use crate::domain::settings::Settings;

/// The paths of one team, all below the instance's data directory.
#[derive(Debug, Clone)]
pub struct Layout<'a> {
    settings: &'a Settings,
    team: &'a TeamId,
}

impl<'a> Layout<'a> {
    /// Paths of `team`.
    #[must_use]
    pub fn new(settings: &'a Settings, team: &'a TeamId) -> Self {
        Self { settings, team }
    }

    /// The workspace, bound as a volume.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.settings.data_dir.join("workspaces").join(self.team.as_str())
    }

    /// A fresh directory that a clone fills before it becomes the workspace.
    #[must_use]
    pub fn clone_staging(&self, run: RunId) -> PathBuf {
        // A team id cannot begin with a dot.
        let name = format!(".clone-{}-{}", self.team, run.short());
        self.settings.data_dir.join("workspaces").join(name)
    }

    /// The parent of the team's worktrees, mounted at `/worktrees`.
    #[must_use]
    pub fn worktrees(&self) -> PathBuf {
        self.settings.data_dir.join("worktrees").join(self.team.as_str())
    }

    /// Everything writable that is not the workspace.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.settings.data_dir.join("cache").join(self.team.as_str())
    }

    /// The root-owned parent of a preview's writable places.
    #[must_use]
    pub fn preview(&self, preview: &PartName) -> PathBuf {
        // Agents and previews may share a name.
        self.cache().join(format!("preview-{preview}"))
    }

    /// Where a preview that runs on a copy of the workspace has it.
    #[must_use]
    pub fn mirror(&self, preview: &PartName) -> PathBuf {
        self.preview(preview).join("mirror")
    }

    /// The root-owned parent of an agent's writable places and files.
    #[must_use]
    pub fn agent(&self, agent: &PartName) -> PathBuf {
        self.cache().join(format!("agent-{agent}"))
    }

    /// The root-owned parent of the sync service's files.
    #[must_use]
    pub fn sync(&self) -> PathBuf {
        self.cache().join("sync")
    }

    /// Where the sync service notes what it is about to move.
    #[must_use]
    pub fn sync_state(&self) -> PathBuf {
        self.sync().join("state")
    }

    /// The directory with a service's token, mounted read-only.
    #[must_use]
    pub fn token_dir(parent: &std::path::Path) -> PathBuf {
        parent.join("token")
    }

    /// A run's build log.
    #[must_use]
    pub fn build_log(&self, preview: &PartName, run: RunId) -> PathBuf {
        let name = format!("build-{preview}-{}.log", run.short());
        self.settings.state_dir.join("logs").join(self.team.as_str()).join(name)
    }

    /// What is kept of a failed run.
    #[must_use]
    pub fn evidence(&self, run: RunId) -> PathBuf {
        let name = format!("{}.txt", run.0);
        self.settings.state_dir.join("evidence").join(self.team.as_str()).join(name)
    }

    /// The rendered compose file.
    #[must_use]
    pub fn compose(&self) -> PathBuf {
        self.settings.state_dir.join("compose").join(self.team.as_str()).join("compose.yaml")
    }
}
