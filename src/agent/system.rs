//! What the agent service asks the kernel.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

/// Returns the bytes that a directory's file system has left for this user.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let facts = statvfs(path)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Tells whether a directory can be read and written, without writing: a file
/// that came and went would wake every watcher of the team.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}
