//! What the agent service is told by its environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::reach::ApiAddress;
use crate::service::auth::Token;
use crate::service::proxy::Proxy;
use crate::service::{Environment, SettingError};

/// The CLI edits files without asking: nobody is there to be asked, and the
/// container is what holds it. Commands still need `allowed_tools`.
const PERMISSION_MODE: &str = "acceptEdits";

/// Where the CLI finds its API unless told otherwise.
const API_URL: &str = "https://api.anthropic.com";

/// The modes that the CLI knows.
const PERMISSION_MODES: &[&str] = &["default", "acceptEdits", "plan", "bypassPermissions"];

/// The service's settings.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What a caller must know.
    pub token: Token,
    /// The team, for logs.
    pub team: String,
    /// The agent's name, for logs.
    pub agent: String,
    /// One file per secret, named like its variable.
    pub secrets_dir: PathBuf,
    /// Where the CLI works.
    pub workspace: PathBuf,
    /// Where output is kept.
    pub temp_dir: PathBuf,
    /// The CLI: a path, or a name to be found in `PATH`.
    pub claude: PathBuf,
    /// What the CLI may do without asking.
    pub permission_mode: String,
    /// The way out.
    pub proxy: Option<Proxy>,
    /// Where the CLI's API is.
    pub api: ApiAddress,
    /// Where the kernel tells how much memory the container uses.
    pub cgroup_dir: PathBuf,
    /// The environment that the CLI inherits.
    pub environment: Environment,
}

impl AgentSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// Fails without a token, and when a variable makes no sense.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let permission_mode =
            environment.text("COVIBES_PERMISSION_MODE")?.unwrap_or(PERMISSION_MODE);
        if !PERMISSION_MODES.contains(&permission_mode) {
            return Err(SettingError::Invalid {
                name: "COVIBES_PERMISSION_MODE",
                expected: "default, acceptEdits, plan or bypassPermissions",
            });
        }
        let api = environment.text("ANTHROPIC_BASE_URL")?.unwrap_or(API_URL);
        let api = ApiAddress::parse(api).ok_or(SettingError::Invalid {
            name: "ANTHROPIC_BASE_URL",
            expected: "a URL such as https://api.example",
        })?;
        Ok(Self {
            listen: environment.listen("COVIBES_LISTEN", "0.0.0.0:8080")?,
            token: Token::from_environment(environment)?,
            team: environment.text("COVIBES_TEAM")?.unwrap_or_default().to_owned(),
            agent: environment.text("COVIBES_AGENT")?.unwrap_or_default().to_owned(),
            secrets_dir: environment.path("COVIBES_SECRETS_DIR", "/run/secrets/covibes"),
            workspace: environment.path("COVIBES_WORKSPACE", "/workspace"),
            temp_dir: environment.path("COVIBES_AGENT_DIR", "/tmp/agent"),
            claude: environment.path("COVIBES_CLAUDE", "claude"),
            permission_mode: permission_mode.to_owned(),
            proxy: Proxy::from_environment(environment)?,
            api,
            cgroup_dir: environment.path("COVIBES_CGROUP_DIR", "/sys/fs/cgroup"),
            environment: environment.clone(),
        })
    }

    /// Returns where the CLI keeps its sessions: on the volume, so that `resume`
    /// finds them after a restart.
    pub fn claude_dir(&self) -> PathBuf {
        self.temp_dir.join("claude")
    }

    /// Returns the directory of the tasks' output.
    pub fn output_dir(&self) -> PathBuf {
        self.temp_dir.join("tasks")
    }
}
