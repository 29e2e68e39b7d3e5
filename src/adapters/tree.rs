//! The real workspace as a [`Tree`], read as if everything in it were hostile, because agents
//! write there.
//!
//! Every path is resolved by the kernel beneath the root, through no link and onto no other file
//! system (`openat2`; one component at a time where the kernel or an old seccomp profile lacks
//! it). A file is looked at before it is opened, so that no device is ever touched, and again
//! after, because it may have been swapped. Reads and listings are bounded. A call may still wait
//! for a slow disk: run it on a blocking thread, under a timeout.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::detect::tree::{
    DEPTH_MAX, ENTRIES_MAX, Entry, Kind, SKIPPED, Tree, TreeError, file_bytes_max, names,
};

/// Beneath the root, through no link, onto no other mount.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens nothing: only a handle to ask about. Never blocks and wakes no device.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens for reading without waiting for a writer and without taking a terminal.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The kernel asks to try again when a path was renamed while it was resolved.
const RESOLVE_TRIES: usize = 4;

/// A directory of the host, bounded as a workspace.
pub struct WorkspaceTree {
    root: OwnedFd,
    /// Entries listed so far, over all directories.
    listed: Cell<usize>,
    /// Whether `openat2` was refused, so that components are walked instead.
    by_component: Cell<bool>,
}

impl WorkspaceTree {
    /// Opens the root, a path that the host itself chose.
    ///
    /// # Errors
    /// The operating system's, if it is no directory or may not be opened.
    pub fn open(root: &Path) -> Result<Self, TreeError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())
            .map_err(|errno| io(&root.display().to_string(), errno))?;
        Ok(Self { root, listed: Cell::new(0), by_component: Cell::new(false) })
    }

    /// Opens a path beneath the root; none if it does not exist.
    fn resolve(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, TreeError> {
        let names = names(path)?;
        let opened = if self.by_component.get() {
            self.walk(&names, flags)
        } else {
            match self.beneath(&names, flags) {
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.by_component.set(true);
                    self.walk(&names, flags)
                }
                opened => opened,
            }
        };
        let path = || path.to_owned();
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(Errno::LOOP) => Err(TreeError::Symlink { path: path() }),
            Err(Errno::XDEV) => Err(TreeError::Mount { path: path() }),
            // A socket cannot be opened at all.
            Err(Errno::NXIO) => Err(TreeError::NotRegular { path: path() }),
            Err(errno) => Err(io(&path(), errno)),
        }
    }

    fn beneath(&self, names: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if names.is_empty() { ".".to_owned() } else { names.join("/") };
        let open = || rustix::fs::openat2(&self.root, &path, flags, Mode::empty(), RESOLVE);
        let mut opened = open();
        for _ in 1..RESOLVE_TRIES {
            if !matches!(opened, Err(Errno::AGAIN)) {
                break;
            }
            opened = open();
        }
        opened
    }

    /// What `openat2` does, one component at a time.
    fn walk(&self, names: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
        let device = rustix::fs::fstat(&self.root)?.st_dev;
        let Some((last, above)) = names.split_last() else {
            return rustix::fs::openat(&self.root, ".", flags, Mode::empty());
        };
        let mut place =
            rustix::fs::openat(&self.root, ".", LOOK | OFlags::DIRECTORY, Mode::empty())?;
        for name in above {
            let next = rustix::fs::openat(&place, *name, LOOK, Mode::empty())?;
            let stat = rustix::fs::fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if stat.st_dev == device => place = next,
                FileType::Directory => return Err(Errno::XDEV),
                FileType::Symlink => return Err(Errno::LOOP),
                _ => return Err(Errno::NOTDIR),
            }
        }
        let fd = rustix::fs::openat(&place, *last, flags, Mode::empty())?;
        if rustix::fs::fstat(&fd)?.st_dev == device { Ok(fd) } else { Err(Errno::XDEV) }
    }

    /// Opens a plain file for reading; none if it does not exist.
    fn file(&self, path: &str) -> Result<Option<(File, u64)>, TreeError> {
        match self.kind(path)? {
            None => return Ok(None),
            Some(Kind::File) => {}
            Some(Kind::Symlink) => return Err(TreeError::Symlink { path: path.to_owned() }),
            Some(Kind::Directory | Kind::Special) => {
                return Err(TreeError::NotRegular { path: path.to_owned() });
            }
        }
        let Some(fd) = self.resolve(path, READ)? else { return Ok(None) };
        // Swapped since the look: the handle that is read is the one that must be plain.
        let stat = rustix::fs::fstat(&fd).map_err(|errno| io(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(TreeError::NotRegular { path: path.to_owned() });
        }
        Ok(Some((File::from(fd), u64::try_from(stat.st_size).unwrap_or(u64::MAX))))
    }
}

impl Tree for WorkspaceTree {
    fn read(&self, path: &str) -> Result<Option<Bytes>, TreeError> {
        let bytes_max = file_bytes_max(path);
        let too_large = || TreeError::TooLarge { path: path.to_owned(), bytes_max };
        let Some((file, size)) = self.file(path)? else { return Ok(None) };
        if size > bytes_max as u64 {
            return Err(too_large());
        }
        // One byte more than allowed shows a file that grew since.
        let bytes = take(file, path, bytes_max + 1)?;
        if bytes.len() > bytes_max { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    fn head(&self, path: &str, bytes_max: usize) -> Result<Option<Bytes>, TreeError> {
        match self.file(path)? {
            Some((file, _)) => take(file, path, bytes_max).map(Some),
            None => Ok(None),
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, TreeError> {
        let too_many = || TreeError::TooMany { path: directory.to_owned() };
        let names = names(directory)?;
        if names.len() > DEPTH_MAX {
            return Err(too_many());
        }
        if names.iter().any(|name| SKIPPED.contains(name)) {
            return Ok(Vec::new());
        }
        match self.kind(directory)? {
            Some(Kind::Directory) => {}
            Some(Kind::Symlink) => return Err(TreeError::Symlink { path: directory.to_owned() }),
            None | Some(Kind::File | Kind::Special) => return Ok(Vec::new()),
        }
        let Some(fd) = self.resolve(directory, READ | OFlags::DIRECTORY)? else {
            return Ok(Vec::new());
        };
        let failed = |errno| io(directory, errno);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is none that detection looks for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." || SKIPPED.contains(&name) {
                continue;
            }
            self.listed.set(self.listed.get() + 1);
            if self.listed.get() > ENTRIES_MAX {
                return Err(too_many());
            }
            if let Some(kind) = entry_kind(&fd, name, entry.file_type()).map_err(failed)? {
                entries.push(Entry { name: name.to_owned(), kind });
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>, TreeError> {
        let Some(fd) = self.resolve(path, LOOK)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| io(path, errno))?;
        Ok(Some(kind_of(FileType::from_raw_mode(stat.st_mode))))
    }
}

/// Some file systems do not say in a listing what a name is; then it is asked for.
fn entry_kind(dir: impl AsFd, name: &str, listed: FileType) -> Result<Option<Kind>, Errno> {
    if listed != FileType::Unknown {
        return Ok(Some(kind_of(listed)));
    }
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind_of(FileType::from_raw_mode(stat.st_mode)))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    }
}

fn take(file: File, path: &str, bytes_max: usize) -> Result<Bytes, TreeError> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| TreeError::Io { path: path.to_owned(), source })?;
    Ok(bytes.into())
}

fn io(path: &str, errno: Errno) -> TreeError {
    TreeError::Io { path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests;
