//! What the sync service is told by its environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::remote::{Branch, RemoteUrl};
use crate::service::auth::Token;
use crate::service::proxy::Proxy;
use crate::service::{Environment, SettingError};

/// A day: more than anyone means by an interval.
const INTERVAL_SECONDS_MAX: u64 = 86_400;

/// The service's settings.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What a caller must know.
    pub token: Token,
    /// The team, for logs.
    pub team: String,
    /// The directory to keep in step.
    pub workspace: PathBuf,
    /// The pause between two cycles.
    pub interval: Duration,
    /// What the workspace is kept in step with.
    pub source: Source,
    /// How Git is run.
    pub git: GitSettings,
}

/// What the workspace is kept in step with.
#[derive(Debug, Clone)]
pub enum Source {
    /// Nothing: only the state is told.
    Nothing,
    /// A branch of a Git remote.
    Remote(Remote),
    /// A read-only directory.
    Mirror(PathBuf),
}

/// A branch of a Git remote.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where to fetch from.
    pub url: RemoteUrl,
    /// Which branch; without one, the branch that is checked out.
    pub branch: Option<Branch>,
}

/// How Git is run.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// Transports that Git may use, in the syntax of `GIT_ALLOW_PROTOCOL`.
    pub protocols: &'static str,
    /// The SSH key.
    pub key_file: Option<ShellPath>,
    /// The pinned host keys.
    pub known_hosts_file: Option<ShellPath>,
    /// The way out.
    pub proxy: Option<Proxy>,
    /// Where programs are found.
    pub path: OsString,
    /// The certificates to trust.
    pub ca_bundle: Option<PathBuf>,
}

impl SyncSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// Fails without a token, with two sources, and when a variable makes no sense.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let url = environment.text("COVIBES_GIT_REMOTE")?.map(RemoteUrl::parse).transpose()?;
        let branch = environment.text("COVIBES_GIT_REF")?.map(Branch::parse).transpose()?;
        let source = match (url, environment.path_if_set("COVIBES_MIRROR_SOURCE")) {
            (Some(_), Some(_)) => {
                return Err(SettingError::Invalid {
                    name: "COVIBES_MIRROR_SOURCE",
                    expected: "unset when COVIBES_GIT_REMOTE is set",
                });
            }
            (Some(url), None) => Source::Remote(Remote { url, branch }),
            (None, Some(dir)) => Source::Mirror(dir),
            (None, None) => Source::Nothing,
        };
        let interval = environment.number(
            "COVIBES_SYNC_INTERVAL_SECONDS",
            1..=INTERVAL_SECONDS_MAX,
            30,
            "1 to 86400 seconds",
        )?;
        Ok(Self {
            listen: environment.listen("COVIBES_LISTEN", "0.0.0.0:8080")?,
            token: Token::from_environment(environment)?,
            team: environment.text("COVIBES_TEAM")?.unwrap_or_default().to_owned(),
            workspace: environment.path("COVIBES_WORKSPACE", "/workspace"),
            interval: Duration::from_secs(interval),
            source,
            git: GitSettings::from_environment(environment)?,
        })
    }
}

impl GitSettings {
    fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let certificates = ["GIT_SSL_CAINFO", "SSL_CERT_FILE", "CURL_CA_BUNDLE"];
        Ok(Self {
            protocols: "https:ssh",
            key_file: ShellPath::from_environment(environment, "COVIBES_GIT_KEY_FILE")?,
            known_hosts_file: ShellPath::from_environment(environment, "COVIBES_KNOWN_HOSTS_FILE")?,
            proxy: Proxy::from_environment(environment)?,
            path: environment
                .path("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                .into_os_string(),
            ca_bundle: certificates.into_iter().find_map(|name| environment.path_if_set(name)),
        })
    }
}

/// An absolute path that means the same inside a shell's command line.
///
/// Git hands `GIT_SSH_COMMAND` to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellPath(String);

impl ShellPath {
    fn from_environment(
        environment: &Environment,
        name: &'static str,
    ) -> Result<Option<Self>, SettingError> {
        let expected = "an absolute path of letters, digits and /._-";
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        match environment.text(name)? {
            None => Ok(None),
            Some(path) if path.starts_with('/') && path.bytes().all(plain) => {
                Ok(Some(Self(path.to_owned())))
            }
            Some(_) => Err(SettingError::Invalid { name, expected }),
        }
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
