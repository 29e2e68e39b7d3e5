//! The six steps of a start.

use std::time::Duration;

/// One of the six steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepId {
    /// Spec to workspace: directory, clone, worktrees.
    Workspace,
    /// Workspace to findings.
    Detect,
    /// Spec and findings to plan.
    Config,
    /// Plan to images and installed dependencies.
    Build,
    /// Images to containers.
    Start,
    /// Containers to a running team.
    Health,
}

impl StepId {
    /// Every step, in the order in which they run.
    pub const ALL: [Self; 6] =
        [Self::Workspace, Self::Detect, Self::Config, Self::Build, Self::Start, Self::Health];

    /// The step's name in events, metrics and on terminals.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Detect => "detect",
            Self::Config => "config",
            Self::Build => "build",
            Self::Start => "start",
            Self::Health => "health",
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == raw)
    }

    /// How long the step may take in all. The sum stays under the job
    /// deadline of 20 minutes (DESIGN 3.7), so a step names itself before the
    /// job as a whole gives up.
    #[must_use]
    pub fn time_max(self) -> Duration {
        Duration::from_secs(match self {
            Self::Workspace => 240,
            Self::Detect | Self::Config => 30,
            // A cold host builds the runtime image and installs.
            Self::Build => 600,
            Self::Start => 90,
            // A first page may be compiled for three minutes on half a CPU.
            Self::Health => 210,
        })
    }

    /// How long the step may show no sign of life.
    #[must_use]
    pub fn idle_max(self) -> Duration {
        Duration::from_secs(match self {
            Self::Workspace => 60,
            Self::Detect | Self::Config => 30,
            // npm prints nothing while it downloads a large tree.
            Self::Build => 180,
            Self::Start => 60,
            // A dev server that compiles for a minute is ordinary.
            Self::Health => 150,
        })
    }
}
