//! Runs Git so that neither a remote nor the repository's own configuration can
//! make it run anything else.
//!
//! The agents of a team may write `.git/config` and `.gitattributes`. So the
//! environment is made from nothing, every setting that names a program is
//! overridden, filters (which cannot be switched off as a whole) are listed and
//! emptied one by one, and each call has a deadline, a cap on its output and a
//! process group that ends as a whole. See `security.md` 2.5 for the sources.

mod configured;
mod hardened;
mod words;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::remote::RemoteUrl;
use super::settings::GitSettings;
use super::system;
use crate::service::Scope;
use crate::service::process::{Group, Ladder};
use configured::Configured;
use hardened::Extra;

/// On SIGTERM Git takes its lock files away.
const END: &Ladder = &[(Signal::TERM, Duration::from_secs(1))];

/// The status of a tree with some 50,000 changed files.
const STDOUT_BYTES_MAX: usize = 4 * 1024 * 1024;
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// Over HTTP Git itself notices a server that stalls, and says so in its own words;
/// what it does not notice, as over SSH, is ended after this many times as long.
const QUIET_STALLS: u32 = 2;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Config,
    Status,
    Fetch,
    Compare,
    Count,
    FastForward,
    Merge,
    Move,
    Worktree,
    Commit,
    Push,
}

impl Operation {
    /// Returns the word for it, in texts and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Status => "status",
            Self::Fetch => "fetch",
            Self::Compare => "compare",
            Self::Count => "count",
            Self::FastForward => "fast_forward",
            Self::Merge => "merge",
            Self::Move => "move",
            Self::Worktree => "worktree",
            Self::Commit => "commit",
            Self::Push => "push",
        }
    }

    /// For what hangs, not for what is slow: a gigabyte takes three minutes at
    /// 50 Mbit/s, and 50,000 files take minutes at a tenth of a CPU. A move that is
    /// ended in its middle leaves half of it behind.
    fn bound(self) -> Duration {
        Duration::from_secs(match self {
            Self::Config => 30,
            Self::Compare | Self::Status | Self::Count | Self::Merge => 120,
            Self::FastForward | Self::Move | Self::Worktree | Self::Commit => 900,
            Self::Fetch | Self::Push => 1800,
        })
    }

    /// Whether a server is waited for.
    fn is_remote(self) -> bool {
        matches!(self, Self::Fetch | Self::Push)
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
    /// The server sends nothing any more, and was not waited for any longer.
    #[error("git {} was ended: the server sent nothing for {} s", operation.name(), quiet.as_secs())]
    Stalled { operation: Operation, quiet: Duration },
    /// It said no.
    #[error("git {} failed: {message}", operation.name())]
    Refused { operation: Operation, message: String },
    /// What the server sends is more than there is room for.
    #[error("git {} failed: {what}: {message}", operation.name())]
    TooLarge { operation: Operation, what: String, message: String },
    /// The service is ending.
    #[error("git {} was ended with the service", operation.name())]
    Stopping { operation: Operation },
    /// Another sync of the team is moving something.
    #[error("another sync of this team is at work")]
    Held,
    /// Somebody has the index locked.
    #[error("there is a lock: {}", lock.display())]
    Locked { lock: PathBuf },
    /// Nothing is moved that is not noted first.
    #[error("a move cannot be noted in the service's own directory")]
    Note { source: io::Error },
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

/// How a call ended, good or bad.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) output: Output,
    pub(super) message: String,
}

/// Where a checkout has its parts.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) work_tree: PathBuf,
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
}

/// An index of a call's own, gone with it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a name that nobody else has.
    pub(super) fn new(directory: &Path) -> Self {
        let name = format!("covibes-index-{}", crate::service::system::fresh_id());
        Self(directory.join(name))
    }

    /// Takes a path for one.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for suffix in ["", ".lock"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// One call with all that may belong to it.
#[derive(Debug, Default)]
pub(super) struct Call<'a> {
    pub(super) arguments: Vec<OsString>,
    pub(super) variables: &'a [(&'a str, OsString)],
    pub(super) index: Option<&'a Scratch>,
    pub(super) input: &'a [u8],
    /// The remote that it speaks with.
    pub(super) remote: Option<&'a RemoteUrl>,
}

impl<'a> Call<'a> {
    /// A call with these arguments.
    pub(super) fn new<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Self { arguments, ..Self::default() }
    }
}

/// Git on one checkout.
#[derive(Debug)]
pub(super) struct Git<'a> {
    settings: &'a GitSettings,
    scope: &'a Scope,
    place: Place,
    configured: Configured,
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
        let git_dir = workspace.join(".git");
        if !is_directory(&git_dir).await {
            return Ok(None);
        }
        let common_dir = git_dir.clone();
        let place = Place { work_tree: workspace.to_owned(), git_dir, common_dir };
        Self::at(settings, scope, place).await.map(Some)
    }

    /// Opens a worktree of this repository, or returns nothing when it is none.
    ///
    /// An agent may write the file that says where its parts are, so only parts
    /// of this repository are taken.
    pub(super) async fn worktree(&self, directory: &Path) -> Result<Option<Self>, GitError> {
        let admin = self.place.common_dir.join("worktrees");
        let Some(git_dir) = system::read_git_link(&directory.join(".git")) else {
            return Ok(None);
        };
        let is_ours = git_dir.parent() == Some(&admin) && git_dir.file_name().is_some();
        if !is_ours || !is_directory(&git_dir).await {
            return Ok(None);
        }
        let common_dir = self.place.common_dir.clone();
        let place = Place { work_tree: directory.to_owned(), git_dir, common_dir };
        Self::at(self.settings, self.scope, place).await.map(Some)
    }

    async fn at(
        settings: &'a GitSettings,
        scope: &'a Scope,
        place: Place,
    ) -> Result<Self, GitError> {
        let mut git = Self { settings, scope, place, configured: Configured::default() };
        let arguments = ["config", "--null", "--get-regexp", configured::PATTERN];
        git.configured = match git.run(Operation::Config, arguments).await {
            Ok(output) => Configured::read(&output)?,
            // This is how `git config` says that there are none.
            Err(GitError::Refused { message, .. }) if message.is_empty() => Configured::default(),
            Err(error) => return Err(error),
        };
        Ok(git)
    }

    /// Where its parts are.
    pub(super) fn place(&self) -> &Place {
        &self.place
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
        self.call(operation, Call::new(arguments)).await
    }

    /// Makes a call that has to end well.
    ///
    /// # Cancellation
    /// Kills the process group.
    pub(super) async fn call(
        &self,
        operation: Operation,
        call: Call<'_>,
    ) -> Result<Output, GitError> {
        let ended = self.try_call(operation, call).await?;
        if ended.code == Some(0) {
            return Ok(ended.output);
        }
        Err(words::refused(operation, ended.message))
    }

    /// Makes a call whose status says something.
    ///
    /// # Cancellation
    /// Kills the process group.
    pub(super) async fn try_call(
        &self,
        operation: Operation,
        call: Call<'_>,
    ) -> Result<Ended, GitError> {
        let failed = |source| GitError::Run { operation, source };
        let mut group = self.spawn(operation, &call)?;
        let (Some(stdout), Some(stderr)) = (group.stdout(), group.stderr()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let stdin = group.stdin();
        let heard = words::Heard::default();
        let finished = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // Git may end before it has read all; its status tells.
                    let _ = stdin.write_all(call.input).await;
                }
            };
            let read = async {
                match operation.is_remote() {
                    true => words::read(stderr, &heard).await,
                    false => Ok(read_capped(stderr, STDERR_BYTES_MAX).await?.0),
                }
            };
            let (stdout, stderr, ()) =
                tokio::join!(read_capped(stdout, STDOUT_BYTES_MAX), read, write);
            io::Result::Ok((stdout?, stderr?, group.wait().await?))
        };
        let quiet = self.settings.stall * QUIET_STALLS;
        let is_watched = operation.is_remote() && call.remote.is_some_and(|url| !url.is_http());
        let ended = tokio::select! {
            finished = finished => Ok(finished),
            () = tokio::time::sleep(operation.bound()) => Err(GitError::Timeout { operation }),
            () = heard.nothing_for(quiet), if is_watched => {
                Err(GitError::Stalled { operation, quiet })
            }
            () = self.scope.stopping() => Err(GitError::Stopping { operation }),
        };
        match ended {
            Ok(finished) => {
                let ((bytes, truncated), stderr, status) = finished.map_err(failed)?;
                let message = String::from_utf8_lossy(&stderr).trim().to_owned();
                let output = Output { bytes, truncated };
                Ok(Ended { code: status.code(), output, message })
            }
            Err(error) => {
                group.end(END).await.map_err(failed)?;
                Err(error)
            }
        }
    }

    /// Reads what Git prints, up to each NUL, until `enough` has had enough.
    pub(super) async fn scan(
        &self,
        operation: Operation,
        call: Call<'_>,
        mut enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), GitError> {
        let mut entry = Vec::new();
        let mut is_enough = false;
        self.pour(operation, call, |chunk| {
            for byte in chunk {
                match byte {
                    0 => {
                        is_enough = is_enough || enough(&entry);
                        entry.clear();
                    }
                    _ => entry.push(*byte),
                }
            }
            is_enough
        })
        .await
    }

    /// Reads what Git prints, piece by piece, until `enough` has had enough.
    pub(super) async fn pour(
        &self,
        operation: Operation,
        call: Call<'_>,
        mut enough: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), GitError> {
        let failed = |source| GitError::Run { operation, source };
        let mut group = self.spawn(operation, &call)?;
        let (Some(mut stdout), Some(stderr)) = (group.stdout(), group.stderr()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let poured = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let length = stdout.read(&mut buffer).await?;
                if length == 0 {
                    return io::Result::Ok(true);
                }
                if enough(&buffer[..length]) {
                    return Ok(false);
                }
            }
        };
        let ended = tokio::select! {
            poured = poured => poured.map_err(failed),
            () = tokio::time::sleep(operation.bound()) => Err(GitError::Timeout { operation }),
            () = self.scope.stopping() => Err(GitError::Stopping { operation }),
        };
        match ended {
            Ok(true) => {
                let (stderr, _) = read_capped(stderr, STDERR_BYTES_MAX).await.map_err(failed)?;
                if group.wait().await.map_err(failed)?.success() {
                    return Ok(());
                }
                let message = String::from_utf8_lossy(&stderr).trim().to_owned();
                Err(GitError::Refused { operation, message })
            }
            Ok(false) => group.end(END).await.map(drop).map_err(failed),
            Err(error) => {
                group.end(END).await.map_err(failed)?;
                Err(error)
            }
        }
    }

    fn spawn(&self, operation: Operation, call: &Call<'_>) -> Result<Group, GitError> {
        if let Some(url) = call.remote {
            self.configured.check(url)?;
        }
        let takes_in = operation == Operation::Fetch;
        let extra = Extra { remote: call.remote, variables: call.variables, takes_in };
        let mut command =
            hardened::command(self.settings, &self.place, &self.configured, call.index, &extra);
        let stdin = if call.input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.args(&call.arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Group::spawn(&mut command).map_err(|source| GitError::Run { operation, source })
    }
}

async fn is_directory(path: &Path) -> bool {
    tokio::fs::symlink_metadata(path).await.is_ok_and(|metadata| metadata.is_dir())
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
