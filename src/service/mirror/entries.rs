//! Brings one file, link or directory over, whole or not at all.
//!
//! A file is written under a temporary name in the mirror's own directory and
//! renamed into place, so that a dev server never reads half of it. Before the
//! first whole pass nobody reads, and a rename for each of 20,000 files would be
//! an eighth of the time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fstat, futimens, openat,
    readlinkat, renameat, symlinkat, unlinkat,
};

use super::ChangedCopies;
use super::manifest::{Entry, Stamp};
use super::places::{list, make_directory, open_directory, open_file, open_root, stat_at};
use crate::service::Scope;

/// The mirror's own directory at the top of the copy, unless it has another place.
pub(super) const OWN_DIRECTORY: &str = ".covibes-mirror";

/// The temporary name; only one entry is written at a time.
const TEMPORARY: &str = "incoming";

/// How much is copied between two looks at whether the service stops.
const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// A smaller file is read and written at once; the kernel copies a larger one.
pub(super) const SMALL_BYTES: usize = 128 * 1024;

/// Opens the mirror's own directory; one at the top of the copy is hidden from Git.
pub(super) fn open_own(copy: &OwnedFd, elsewhere: Option<&Path>) -> io::Result<OwnedFd> {
    if let Some(path) = elsewhere {
        std::fs::create_dir_all(path)?;
        return open_root(path);
    }
    let own = make_directory(copy, OsStr::new(OWN_DIRECTORY))?;
    // A Git ignore file that ignores its own directory, as virtual environments have it.
    write_file(&own, ".gitignore", b"*\n")?;
    Ok(own)
}

/// Writes a small file whole.
pub(super) fn write_file(own: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_temporary(own)?;
    file.write_all(bytes)?;
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

/// How files get their names, and what for a moment holds what is in them.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pub(super) own: &'a OwnedFd,
    /// Whether nobody reads the copy yet.
    pub(super) quiet: bool,
    /// [`SMALL_BYTES`] long.
    pub(super) buffer: Vec<u8>,
    pub(super) scope: &'a Scope,
}

/// Copies a file; returns the state of the source that was copied.
pub(super) fn copy_file(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &OsStr,
    writing: &mut Writing<'_>,
) -> Result<Stamp, CopyError> {
    let source = File::from(open_file(from, name).map_err(CopyError::Source)?);
    let stat = fstat(&source).map_err(|error| CopyError::Source(error.into()))?;
    let stamp = stamp(&stat)
        .ok_or_else(|| CopyError::Source(io::Error::other("it is no regular file any more")))?;
    let placed = if writing.quiet { create_new(to, name).ok() } else { None };
    let is_placed = placed.is_some();
    let target = match placed {
        Some(target) => target,
        None => create_temporary(writing.own).map_err(CopyError::Target)?,
    };
    let filled = fill(&source, &target, stamp.size, writing);
    if let (Err(_), true) = (&filled, is_placed) {
        // Half a file must not be taken for a whole one by whoever reads next.
        let _ = unlinkat(to, name, AtFlags::empty());
    }
    filled?;
    let mode = Mode::from_raw_mode(if stamp.executable { 0o755 } else { 0o644 });
    let modified = Timespec { tv_sec: stamp.seconds, tv_nsec: stamp.nanoseconds };
    let times = Timestamps { last_access: modified, last_modification: modified };
    let mut placed = fchmod(&target, mode).and_then(|()| futimens(&target, &times));
    if !is_placed {
        placed = placed.and_then(|()| renameat(writing.own, TEMPORARY, to, name));
    }
    placed.map_err(|error| CopyError::Target(error.into()))?;
    Ok(stamp)
}

fn fill(
    mut source: &File,
    mut target: &File,
    size: i64,
    writing: &mut Writing<'_>,
) -> Result<(), CopyError> {
    loop {
        if writing.scope.is_stopping() {
            return Err(CopyError::Stopping);
        }
        if usize::try_from(size).is_ok_and(|size| size < SMALL_BYTES) {
            let length = source.read(&mut writing.buffer).map_err(CopyError::Source)?;
            target.write_all(&writing.buffer[..length]).map_err(CopyError::Target)?;
            // A regular file gives less than there is room for only at its end.
            if length < writing.buffer.len() {
                return Ok(());
            }
            continue;
        }
        // The kernel does not say which side failed.
        match io::copy(&mut source.take(CHUNK_BYTES), &mut target) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(CopyError::Target(error)),
        }
    }
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
fn remove_file(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
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

/// Removes a directory with what is in it, through no link. What `spared` names,
/// and what is mounted there, stays.
pub(super) fn remove_tree(
    parent: &OwnedFd,
    name: &OsStr,
    spared: &dyn Fn(&OsStr) -> bool,
    depth_max: usize,
) -> io::Result<()> {
    use rustix::io::Errno;
    let dir = open_directory(parent, name)?;
    for entry in list(&dir)?.iter().filter(|entry| !spared(entry)) {
        match unlinkat(&dir, entry, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if depth_max > 0 => {
                remove_tree(&dir, entry, spared, depth_max - 1)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    remove_directory(parent, name).map(drop)
}

/// Deletes an entry that is still as it was copied, or may go in any case; tells
/// whether it is gone.
pub(super) fn delete_if_ours(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &Entry,
    changed: ChangedCopies,
) -> io::Result<bool> {
    let Some(stat) = stat_at(parent, name)? else { return Ok(true) };
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    match entry {
        Entry::File(_) | Entry::Link(_) if changed == ChangedCopies::Replaced && !is_directory => {
            remove_file(parent, name).map(|()| true)
        }
        Entry::Directory => remove_directory(parent, name),
        Entry::File(copied) if stamp(&stat).as_ref() == Some(copied) => {
            remove_file(parent, name).map(|()| true)
        }
        Entry::Link(target) if read_link(parent, name).is_ok_and(|there| there == *target) => {
            remove_file(parent, name).map(|()| true)
        }
        Entry::File(_) | Entry::Link(_) => Ok(false),
    }
}

/// No other file will fit either.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
    create_new(own, OsStr::new(TEMPORARY))
}

fn create_new(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?))
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
