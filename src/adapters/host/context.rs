//! A tenant's directory as a build context: every step goes from an open directory to a name in
//! it, so that no link, whenever it is put there, leads the worker elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};

use super::io_failure;
use crate::domain::failure::Failure;

/// More than a repository's sources, less than what fills a worker's memory.
const BYTES_MAX: u64 = 64 << 20;
const ENTRIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 64;

/// What is no source, and large.
const SKIPPED: [&str; 4] = [".git", "node_modules", ".venv", "__pycache__"];

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Not blocking: opening a FIFO would wait for its writer.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why there is no context.
enum Stop {
    TooMuch,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// Packs a directory; nothing, if it holds too much.
pub(super) fn pack(root: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let mut packing = Packing { tar: tar::Builder::new(Vec::new()), bytes: 0, entries: 0 };
    let packed = openat(CWD, root, DIRECTORY, Mode::empty())
        .map_err(Stop::from)
        .and_then(|root| packing.directory(&root, Path::new(""), 0))
        .and_then(|()| Ok(packing.tar.into_inner()?));
    match packed {
        Ok(tar) => Ok(Some(tar)),
        Err(Stop::TooMuch) => Ok(None),
        Err(Stop::Io(error)) => Err(io_failure("reading the build context")(error)),
    }
}

struct Packing {
    tar: tar::Builder<Vec<u8>>,
    bytes: u64,
    entries: usize,
}

impl Packing {
    fn directory(&mut self, dir: &OwnedFd, below: &Path, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::TooMuch);
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            let is_own = name == b"." || name == b"..";
            if !is_own && !SKIPPED.iter().any(|skipped| skipped.as_bytes() == name) {
                names.push(OsString::from_vec(name));
            }
            if names.len() + self.entries > ENTRIES_MAX {
                return Err(Stop::TooMuch);
            }
        }
        names.sort();
        for name in names {
            self.entries += 1;
            let path = below.join(&name);
            // Whatever is swapped meanwhile is what is opened, or is an error; never followed.
            let Ok(stat) = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.append(&path, tar::EntryType::Directory, 0o755, &[])?;
                    let inner = openat(dir, &name, DIRECTORY, Mode::empty())?;
                    self.directory(&inner, &path, depth + 1)?;
                }
                FileType::RegularFile => {
                    let file = File::from(openat(dir, &name, FILE, Mode::empty())?);
                    let mode = if stat.st_mode & 0o100 != 0 { 0o755 } else { 0o644 };
                    let mut content = Vec::new();
                    file.take(BYTES_MAX - self.bytes + 1).read_to_end(&mut content)?;
                    self.bytes += content.len() as u64;
                    if self.bytes > BYTES_MAX {
                        return Err(Stop::TooMuch);
                    }
                    self.append(&path, tar::EntryType::Regular, mode, &content)?;
                }
                FileType::Symlink => {
                    let target = readlinkat(dir, &name, Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                    self.tar.append_link(&mut header, &path, &target)?;
                }
                // Pipes, sockets and devices are no sources.
                _ => {}
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        path: &Path,
        kind: tar::EntryType,
        mode: u32,
        content: &[u8],
    ) -> Result<(), Stop> {
        let mut header = header(kind, mode, content.len() as u64);
        Ok(self.tar.append_data(&mut header, path, content)?)
    }
}

/// Without times and owners: the same sources are the same bytes.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let packed = pack(root).unwrap().unwrap();
        let mut tar = tar::Archive::new(packed.as_slice());
        let entries = tar.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap();
            let link = link.map(|link| format!(" -> {}", link.display())).unwrap_or_default();
            format!("{}{link}", entry.path().unwrap().display())
        });
        entries.collect()
    }

    #[test]
    fn links_are_packed_as_links_and_nothing_else_is_waited_for() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::fs::write(root.path().join("b.go"), "b").unwrap();
        std::fs::create_dir_all(root.path().join("a/.git")).unwrap();
        std::fs::write(root.path().join("a/x\ny"), "two lines").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        rustix::fs::mknodat(CWD, root.path().join("pipe"), FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let link = format!("out -> {}", outside.path().display());
        assert_eq!(names(root.path()), ["a", "a/x\ny", "b.go", &link]);
        let before = pack(root.path()).unwrap();
        std::fs::write(root.path().join("b.go"), "b").unwrap();
        assert_eq!(pack(root.path()).unwrap(), before, "times do not count");
        std::fs::write(root.path().join("b.go"), "c").unwrap();
        assert_ne!(pack(root.path()).unwrap(), before);
    }

    #[test]
    fn more_than_a_context_may_hold_is_none() {
        let root = tempfile::tempdir().unwrap();
        let file = File::create(root.path().join("sparse")).unwrap();
        file.set_len(8 << 40).unwrap();
        assert!(pack(root.path()).unwrap().is_none());
        std::fs::remove_file(root.path().join("sparse")).unwrap();
        for number in 0..=ENTRIES_MAX {
            File::create(root.path().join(number.to_string())).unwrap();
        }
        assert!(pack(root.path()).unwrap().is_none());
    }
}
