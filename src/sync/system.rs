//! What the sync service asks the kernel.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, Mode, OFlags, access, openat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The file in a worktree that says where its parts are is one short line.
const GIT_LINK_BYTES_MAX: u64 = 4096;

/// Some thousands of entries.
const REFLOG_BYTES_MAX: u64 = 1024 * 1024;

/// Tells whether a directory can be read and written, without writing: a file
/// that came and went would wake every watcher of the team.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Reads where a worktree says that its parts are, if it is one.
pub(super) fn read_git_link(path: &Path) -> Option<PathBuf> {
    let text = read_small(path, GIT_LINK_BYTES_MAX)?;
    let path = PathBuf::from(text.strip_prefix("gitdir: ")?.trim_end_matches('\n'));
    let plain = |part: std::path::Component<'_>| {
        matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
    };
    (path.is_absolute() && path.components().all(plain)).then_some(path)
}

/// Tells whether a reference's log says that it was once at a commit: before an
/// entry or after it. Git itself shows only what came after.
pub(super) fn reflog_names(path: &Path, commit: &str) -> bool {
    let text = read_small(path, REFLOG_BYTES_MAX).unwrap_or_default();
    text.lines().any(|line| line.split(' ').take(2).any(|word| word == commit))
}

/// Reads a file that an agent may have put anything in the place of.
fn read_small(path: &Path, bytes_max: u64) -> Option<String> {
    // Neither a link nor a pipe, which would never end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Keeps every program from here on from writing a larger file than this: what a
/// remote sends is one file.
pub(super) fn limit_file_size(bytes: u64) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let current = Some(maximum.map_or(bytes, |maximum| maximum.min(bytes)));
    Ok(setrlimit(Resource::Fsize, Rlimit { current, maximum })?)
}
