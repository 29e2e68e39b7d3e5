//! Opens places in two trees without following a link.
//!
//! Agents and dev servers may swap any directory for a link at any moment, so
//! every step goes from an open directory to a name in it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, mkdirat, openat, statat, unlinkat,
};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Not blocking: opening a FIFO would wait for its writer.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directories are 755.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Opens the top of a tree; the operator chose it, so it may be a link.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory in a directory.
pub(super) fn open_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// Opens a file in a directory for reading.
pub(super) fn open_file(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(parent, name, FILE, Mode::empty())?)
}

/// Opens a directory that is there, or makes it; whatever else has its name goes.
pub(super) fn make_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(&parent, name, DIRECTORY_MODE) {
        Ok(()) => {}
        Err(error) if error == rustix::io::Errno::EXIST => {
            if kind_at(&parent, name)? != Some(FileType::Directory) {
                unlinkat(&parent, name, AtFlags::empty())?;
                mkdirat(&parent, name, DIRECTORY_MODE)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    open_directory(parent, name)
}

/// Looks at a name without following it; nothing if it is not there.
pub(super) fn stat_at(parent: impl AsFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error == rustix::io::Errno::NOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns what kind of thing has a name.
pub(super) fn kind_at(parent: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    Ok(stat_at(parent, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
}

/// Lists the names in a directory.
pub(super) fn list(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Opens the directory of a path, step by step; nothing if a step is no directory.
pub(super) fn open_parent(root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut dir = root.try_clone()?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = part else { return Ok(None) };
        dir = match open_directory(&dir, name) {
            Ok(dir) => dir,
            Err(error) if is_no_directory(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(Some(dir))
}

/// Not there, a file, or a link.
fn is_no_directory(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
