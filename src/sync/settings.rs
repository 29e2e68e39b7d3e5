//! What the sync service is told by its environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::remote::{Branch, RemoteUrl};
use crate::service::auth::Token;
use crate::service::proxy::Proxy;
use crate::service::system::fresh_id;
use crate::service::{Environment, SettingError};

/// A day: more than anyone means by an interval.
const INTERVAL_SECONDS_MAX: u64 = 86_400;

/// Less than a step of a start may be without a sign of life, so that a clone that
/// stalls ends with Git's own words (`pipeline::steps::workspace` has the same).
const STALL: Duration = Duration::from_secs(45);

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
    /// The parent of the worktrees.
    pub worktrees_dir: PathBuf,
    /// Worktrees to keep in step, each with the branch that it shows.
    pub worktrees: Vec<(String, Branch)>,
    /// Whether the workspace is a person's own, of which only the state is told.
    pub report_only: bool,
    /// Where files of a moment may lie.
    pub scratch_dir: PathBuf,
    /// What outlives the service, and no agent can write.
    pub state_dir: PathBuf,
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
    /// A file with a token for HTTPS, `token` or `user:token`.
    pub token_file: Option<ShellPath>,
    /// The pinned host keys.
    pub known_hosts_file: Option<ShellPath>,
    /// The way out.
    pub proxy: Option<Proxy>,
    /// Where programs are found.
    pub path: OsString,
    /// The certificates to trust.
    pub ca_bundle: Option<PathBuf>,
    /// A server that sends nothing for so long has stalled.
    pub stall: Duration,
}

impl SyncSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// Fails without a token, with two sources, and when a variable makes no sense.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        Self::with_token(environment, Token::from_environment(environment)?)
    }

    /// Reads the settings of a single cycle, which nobody can ask for anything.
    ///
    /// # Errors
    /// As above, but for the token.
    pub fn once(environment: &Environment) -> Result<Self, SettingError> {
        Self::with_token(environment, Token::parse(&fresh_id().to_string())?)
    }

    fn with_token(environment: &Environment, token: Token) -> Result<Self, SettingError> {
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
            token,
            team: environment.text("COVIBES_TEAM")?.unwrap_or_default().to_owned(),
            workspace: environment.path("COVIBES_WORKSPACE", "/workspace"),
            worktrees_dir: environment.path("COVIBES_WORKTREES_DIR", "/worktrees"),
            worktrees: worktrees(environment.text("COVIBES_WORKTREES")?.unwrap_or_default())?,
            report_only: environment.text("COVIBES_REPORT_ONLY")?.is_some(),
            scratch_dir: environment.path("COVIBES_SCRATCH_DIR", "/tmp"),
            state_dir: environment.path("COVIBES_STATE_DIR", "/state"),
            interval: Duration::from_secs(interval),
            source,
            git: GitSettings::from_environment(environment)?,
        })
    }
}

/// Reads `name=branch` words; a branch has no space in its name.
fn worktrees(text: &str) -> Result<Vec<(String, Branch)>, SettingError> {
    let expected = "words of the form name=branch";
    let invalid = || SettingError::Invalid { name: "COVIBES_WORKTREES", expected };
    let one = |word: &str| {
        let (name, branch) = word.split_once('=').ok_or_else(invalid)?;
        if !is_part_name(name) {
            return Err(invalid());
        }
        Ok((name.to_owned(), Branch::parse(branch)?))
    };
    text.split_whitespace().map(one).collect()
}

/// Tells whether a word may name an agent or a preview.
pub(super) fn is_part_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= 20
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl GitSettings {
    fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let certificates = ["GIT_SSL_CAINFO", "SSL_CERT_FILE", "CURL_CA_BUNDLE"];
        Ok(Self {
            protocols: "https:ssh",
            key_file: ShellPath::from_environment(environment, "COVIBES_GIT_KEY_FILE")?,
            token_file: ShellPath::from_environment(environment, "COVIBES_GIT_TOKEN_FILE")?,
            known_hosts_file: ShellPath::from_environment(environment, "COVIBES_KNOWN_HOSTS_FILE")?,
            proxy: Proxy::from_environment(environment)?,
            path: environment
                .path("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                .into_os_string(),
            ca_bundle: certificates.into_iter().find_map(|name| environment.path_if_set(name)),
            stall: STALL,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worktrees_are_names_with_branches() {
        let read = |text: &str| {
            let list = worktrees(text).ok()?;
            Some(list.into_iter().map(|(name, b)| format!("{name} {}", b.as_str())).collect())
        };
        let two = vec!["staging staging".to_owned(), "next feature/a=b".to_owned()];
        assert_eq!(read("staging=staging next=feature/a=b"), Some(two));
        assert_eq!(read(""), Some(Vec::new()));
        for bad in ["staging", "../x=main", "a=-x", "A=main", "=main", "a="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
