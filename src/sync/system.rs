//! What the sync service asks the kernel.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

/// Tells whether a directory can be read and written, without writing: a file
/// that came and went would wake every watcher of the team.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}
