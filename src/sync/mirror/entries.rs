//! Brings one file, link or directory over, whole or not at all.
//!
//! A file is written under a temporary name in the mirror's own directory and
//! renamed into place, so that a dev server never reads half of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fstat, futimens, openat,
    readlinkat, renameat, symlinkat, unlinkat,
};

use super::manifest::Stamp;
use super::places::{make_directory, open_file, stat_at};
use crate::service::Scope;

/// The mirror's own directory at the top of the workspace.
pub(super) const OWN_DIRECTORY: &str = ".covibes-mirror";

/// The temporary name; only one entry is written at a time.
const TEMPORARY: &str = "incoming";

/// How much is copied between two looks at whether the service stops.
const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// Opens the mirror's own directory and hides it from Git.
pub(super) fn open_own(workspace: &OwnedFd) -> io::Result<OwnedFd> {
    let own = make_directory(workspace, OsStr::new(OWN_DIRECTORY))?;
    // A Git ignore file that ignores its own directory, as virtual environments have it.
    write_file(&own, ".gitignore", b"*\n")?;
    Ok(own)
}

/// Writes a small file whole.
pub(super) fn write_file(own: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_temporary(own)?;
    io::Write::write_all(&mut file, bytes)?;
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    Ok(renameat(own, TEMPORARY, own, name)?)
}

/// Reads the stamp of a regular file.
pub(super) fn stamp(stat: &Stat) -> Option<Stamp> {
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(Stamp {
        size: stat.st_size,
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec as i64,
        executable: stat.st_mode & 0o111 != 0,
    })
}

/// How a file could not be copied.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The source cannot be read, or is no regular file any more.
    Source(io::Error),
    /// The workspace cannot be written.
    Target(io::Error),
    /// The service is ending.
    Stopping,
}

/// Copies a file; returns the state of the source that was copied.
pub(super) fn copy_file(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &OsStr,
    own: &OwnedFd,
    scope: &Scope,
) -> Result<Stamp, CopyError> {
    let source = File::from(open_file(from, name).map_err(CopyError::Source)?);
    let stat = fstat(&source).map_err(|error| CopyError::Source(error.into()))?;
    let stamp = stamp(&stat)
        .ok_or_else(|| CopyError::Source(io::Error::other("it is no regular file any more")))?;
    let mut target = create_temporary(own).map_err(CopyError::Target)?;
    loop {
        if scope.is_stopping() {
            return Err(CopyError::Stopping);
        }
        // `io::copy` lets the kernel copy where it can; it does not say which side failed.
        let copied = io::copy(&mut (&source).take(CHUNK_BYTES), &mut target);
        match copied {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(CopyError::Target(error)),
        }
    }
    let mode = Mode::from_raw_mode(if stamp.executable { 0o755 } else { 0o644 });
    let modified = Timespec { tv_sec: stamp.seconds, tv_nsec: stamp.nanoseconds };
    let times = Timestamps { last_access: modified, last_modification: modified };
    let placed = fchmod(&target, mode)
        .and_then(|()| futimens(&target, &times))
        .and_then(|()| renameat(own, TEMPORARY, to, name));
    placed.map_err(|error| CopyError::Target(error.into()))?;
    Ok(stamp)
}

/// Makes a link with the same target; nobody follows it here.
pub(super) fn copy_link(
    target: &[u8],
    to: &OwnedFd,
    name: &OsStr,
    own: &OwnedFd,
) -> io::Result<()> {
    remove_temporary(own)?;
    symlinkat(target, own, TEMPORARY)?;
    Ok(renameat(own, TEMPORARY, to, name)?)
}

/// Reads where a link leads.
pub(super) fn read_link(parent: impl AsFd, name: &OsStr) -> io::Result<Vec<u8>> {
    Ok(readlinkat(parent, name, Vec::new())?.into_bytes())
}

/// Removes a file or link whose present state is known to be the copied one.
pub(super) fn remove_file(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(parent, name, AtFlags::empty())?)
}

/// Removes a directory if nothing is in it; tells whether it is gone.
pub(super) fn remove_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    use rustix::io::Errno;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Somebody's files, or a mount point.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a path's link leads out of the tree.
pub(super) fn leads_out(link: &Path, target: &Path) -> bool {
    use std::path::Component;
    let mut depth = link.components().count() as i64 - 1;
    for part in target.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn create_temporary(own: &OwnedFd) -> io::Result<File> {
    remove_temporary(own)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(openat(own, TEMPORARY, flags, Mode::from_raw_mode(0o600))?))
}

/// An earlier copy that was cut off leaves one.
fn remove_temporary(own: &OwnedFd) -> io::Result<()> {
    if stat_at(own, OsStr::new(TEMPORARY))?.is_some() {
        unlinkat(own, TEMPORARY, AtFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_known() {
        for (link, target, out) in [
            ("a", "b", false),
            ("a", "../b", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "x/../../b", false),
            ("a", "/etc/passwd", true),
            ("a", "b/../../d", true),
        ] {
            assert_eq!(leads_out(Path::new(link), Path::new(target)), out, "{link} -> {target}");
        }
    }
}
