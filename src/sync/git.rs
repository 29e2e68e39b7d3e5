//! Runs Git so that neither a remote nor the repository's own configuration can
//! make it run anything else.
//!
//! The agents of a team may write `.git/config` and `.gitattributes`. So the
//! environment is made from nothing, every setting that names a program is
//! overridden, filters (which cannot be switched off as a whole) are listed and
//! emptied one by one, and each call has a deadline, a cap on its output and a
//! process group that ends as a whole. See `security.md` 2.5 for the sources.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::settings::GitSettings;
use crate::service::Scope;
use crate::service::process::{Group, Ladder};

/// On SIGTERM Git takes its lock files away.
const END: &Ladder = &[(Signal::TERM, Duration::from_secs(1))];

/// The status of a tree with some 50,000 changed files.
const STDOUT_BYTES_MAX: usize = 4 * 1024 * 1024;
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// Somebody who configures more filters than this wants something else.
const FILTERS_MAX: usize = 64;

/// Settings that win over the repository's. None may run or load anything.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.alternateRefsCommand", "true"),
    ("core.protectNTFS", "true"),
    ("core.protectHFS", "true"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    ("transfer.bundleURI", "false"),
    ("transfer.credentialsInUrl", "die"),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("status.submoduleSummary", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("safe.bareRepository", "explicit"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("merge.verifySignatures", "false"),
    ("merge.autoStash", "false"),
    ("log.showSignature", "false"),
];

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Config,
    Status,
    Fetch,
    Compare,
    FastForward,
}

impl Operation {
    /// Returns the word for it, in texts and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Status => "status",
            Self::Fetch => "fetch",
            Self::Compare => "compare",
            Self::FastForward => "fast_forward",
        }
    }

    /// The network may be slow; the disk may be slow at a tenth of a CPU.
    fn bound(self) -> Duration {
        match self {
            Self::Config | Self::Compare => Duration::from_secs(30),
            Self::Status => Duration::from_secs(60),
            Self::Fetch | Self::FastForward => Duration::from_secs(120),
        }
    }
}

/// Git did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// The program cannot be started, or its output not be read.
    #[error("cannot run git {}", operation.name())]
    Run { operation: Operation, source: io::Error },
    /// It took too long and was ended.
    #[error("git {} took longer than {} s", operation.name(), operation.bound().as_secs())]
    Timeout { operation: Operation },
    /// It said no.
    #[error("git {} failed: {message}", operation.name())]
    Refused { operation: Operation, message: String },
    /// The service is ending.
    #[error("git {} was ended with the service", operation.name())]
    Stopping { operation: Operation },
}

/// What Git wrote to stdout.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
}

impl Output {
    /// Returns the output as one trimmed line.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim().to_owned()
    }
}

/// Git on one workspace.
#[derive(Debug)]
pub(super) struct Git<'a> {
    settings: &'a GitSettings,
    scope: &'a Scope,
    workspace: PathBuf,
    filters: Vec<String>,
}

impl<'a> Git<'a> {
    /// Opens a workspace, or returns nothing when it is no repository.
    ///
    /// A `.git` that is a link or a file could lead anywhere, and is none.
    pub(super) async fn open(
        settings: &'a GitSettings,
        scope: &'a Scope,
        workspace: &Path,
    ) -> Result<Option<Self>, GitError> {
        let metadata = tokio::fs::symlink_metadata(workspace.join(".git")).await;
        if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(None);
        }
        let mut git =
            Self { settings, scope, workspace: workspace.to_owned(), filters: Vec::new() };
        git.filters = git.configured_filters().await?;
        Ok(Some(git))
    }

    /// Runs Git with these arguments.
    ///
    /// # Cancellation
    /// Kills the process group.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        operation: Operation,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output, GitError> {
        let failed = |source| GitError::Run { operation, source };
        let mut command = self.command();
        command.args(arguments);
        let mut group = Group::spawn(&mut command).map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (group.stdout(), group.stderr()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let finished = async {
            let (stdout, stderr) = tokio::join!(
                read_capped(stdout, STDOUT_BYTES_MAX),
                read_capped(stderr, STDERR_BYTES_MAX)
            );
            io::Result::Ok((stdout?, stderr?, group.wait().await?))
        };
        let ended = tokio::select! {
            finished = finished => Ok(finished),
            () = tokio::time::sleep(operation.bound()) => Err(GitError::Timeout { operation }),
            () = self.scope.stopping() => Err(GitError::Stopping { operation }),
        };
        match ended {
            Ok(finished) => {
                let (stdout, stderr, status) = finished.map_err(failed)?;
                judge(operation, status, stdout, &stderr)
            }
            Err(error) => {
                group.end(END).await.map_err(failed)?;
                Err(error)
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.workspace)
            .env_clear()
            .env("PATH", &self.settings.path)
            .envs([
                ("HOME", "/nonexistent"),
                ("LC_ALL", "C"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_ATTR_NOSYSTEM", "1"),
                ("GIT_ALLOW_PROTOCOL", self.settings.protocols),
                ("GIT_TERMINAL_PROMPT", "0"),
                ("GIT_ASKPASS", "/bin/false"),
                ("SSH_ASKPASS", "/bin/false"),
                ("GIT_EDITOR", "/bin/false"),
                ("GIT_PAGER", "cat"),
                ("GIT_LFS_SKIP_SMUDGE", "1"),
                // A promisor remote would be fetched from in the middle of a status.
                ("GIT_NO_LAZY_FETCH", "1"),
                // Agents run Git at the same time: reading must not take their locks.
                ("GIT_OPTIONAL_LOCKS", "0"),
                ("GIT_SSH_VARIANT", "ssh"),
                // For the reflog; nothing is committed.
                ("GIT_COMMITTER_NAME", "covibes-sync"),
                ("GIT_COMMITTER_EMAIL", "sync@covibes.invalid"),
            ])
            .env("GIT_SSH_COMMAND", ssh_command(self.settings))
            // Named here so that `core.worktree` cannot name another.
            .env("GIT_DIR", self.workspace.join(".git"))
            .env("GIT_WORK_TREE", &self.workspace)
            .envs(self.overrides())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(proxy) = &self.settings.proxy {
            command.env("HTTPS_PROXY", &proxy.url).env("https_proxy", &proxy.url);
        }
        if let Some(bundle) = &self.settings.ca_bundle {
            command.env("GIT_SSL_CAINFO", bundle);
        }
        command
    }

    /// Settings as variables: unlike with `-c`, a filter's name may hold any byte.
    fn overrides(&self) -> Vec<(OsString, OsString)> {
        let proxy = self.settings.proxy.as_ref().map_or("", |proxy| proxy.url.as_str());
        let mut pairs: Vec<(String, &str)> =
            SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        pairs.push(("http.proxy".to_owned(), proxy));
        for filter in &self.filters {
            for (part, value) in
                [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")]
            {
                pairs.push((format!("filter.{filter}.{part}"), value));
            }
        }
        let mut variables = vec![("GIT_CONFIG_COUNT".into(), pairs.len().to_string().into())];
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{index}").into(), key.into()));
            variables.push((format!("GIT_CONFIG_VALUE_{index}").into(), value.into()));
        }
        variables
    }

    /// Lists the filters that the repository's configuration names.
    async fn configured_filters(&self) -> Result<Vec<String>, GitError> {
        let operation = Operation::Config;
        let arguments = ["config", "--null", "--name-only", "--get-regexp", r"^filter\."];
        let output = match self.run(operation, arguments).await {
            Ok(output) => output,
            // This is how `git config` says that there are none.
            Err(GitError::Refused { message, .. }) if message.is_empty() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names: BTreeSet<String> = String::from_utf8_lossy(&output.bytes)
            .split('\0')
            .filter_map(|key| key.strip_prefix("filter.")?.rsplit_once('.'))
            .map(|(name, _)| name.to_owned())
            .collect();
        if names.len() > FILTERS_MAX || output.truncated {
            let message = "the repository configures too many filters".to_owned();
            return Err(GitError::Refused { operation, message });
        }
        Ok(names.into_iter().collect())
    }
}

/// Git gives this line to a shell; every part of it is of plain characters.
fn ssh_command(settings: &GitSettings) -> String {
    let known_hosts = settings.known_hosts_file.as_ref().map_or("/dev/null", |path| path.as_str());
    let key = settings.key_file.as_ref().map_or("/dev/null", |path| path.as_str());
    let proxy = settings.proxy.as_ref().map_or_else(String::new, |proxy| {
        format!(" -o'ProxyCommand=nc -X connect -x {}:{} %h %p'", proxy.host, proxy.port)
    });
    format!(
        "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
         -oUserKnownHostsFile={known_hosts} -oGlobalKnownHostsFile=/dev/null \
         -oIdentitiesOnly=yes -oIdentityFile={key} -oForwardAgent=no \
         -oPermitLocalCommand=no -oConnectTimeout=10{proxy}"
    )
}

fn judge(
    operation: Operation,
    status: ExitStatus,
    (bytes, truncated): (Vec<u8>, bool),
    (stderr, _): &(Vec<u8>, bool),
) -> Result<Output, GitError> {
    if status.success() {
        return Ok(Output { bytes, truncated });
    }
    let message = String::from_utf8_lossy(stderr).trim().to_owned();
    Err(GitError::Refused { operation, message })
}

/// Reads to the end, keeps the beginning.
async fn read_capped(
    mut reader: impl AsyncRead + Unpin,
    bytes_max: usize,
) -> io::Result<(Vec<u8>, bool)> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut truncated = false;
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok((kept, truncated));
        }
        let room = length.min(bytes_max - kept.len());
        kept.extend_from_slice(&buffer[..room]);
        truncated |= room < length;
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::SyncSettings;
    use super::*;
    use crate::service::Environment;

    #[test]
    fn ssh_goes_through_the_proxy_with_pinned_keys() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "0123456789abcdef").unwrap();
        let settings = SyncSettings::from_environment(&Environment::from_pairs([
            ("COVIBES_TOKEN_FILE", token.as_os_str()),
            ("COVIBES_GIT_KEY_FILE", OsStr::new("/run/secrets/key")),
            ("COVIBES_KNOWN_HOSTS_FILE", OsStr::new("/etc/hosts.pinned")),
            ("HTTPS_PROXY", OsStr::new("http://172.21.0.1:3128")),
        ]))
        .unwrap();
        assert_eq!(
            ssh_command(&settings.git),
            "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
             -oUserKnownHostsFile=/etc/hosts.pinned -oGlobalKnownHostsFile=/dev/null \
             -oIdentitiesOnly=yes -oIdentityFile=/run/secrets/key -oForwardAgent=no \
             -oPermitLocalCommand=no -oConnectTimeout=10 \
             -o'ProxyCommand=nc -X connect -x 172.21.0.1:3128 %h %p'"
        );
    }
}
