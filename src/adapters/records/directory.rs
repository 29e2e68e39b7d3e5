//! A directory of files that one process holds, with replacement that a crash
//! cannot tear.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another worker works on the same state.
    #[error("{} is held by {holder}; stop it, or give this worker a state directory of its own", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who says to hold it: `process 123`.
        holder: String,
    },
    /// The directory cannot be made, read or written.
    #[error("cannot use the state directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

const LOCK_NAME: &str = ".lock";

/// Prefix of files that are not finished. No team id begins with a dot.
const UNFINISHED: &str = ".new-";

/// Bytes of a file at most: 256 jobs whose final events are as large as events
/// get and double in escaping, and as much again.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Files of one name that are kept aside; after that the last is overwritten,
/// so that a team which is damaged again and again does not fill the disk.
const ASIDE_MAX: u32 = 99_999;

/// What stands under a name.
#[derive(Debug)]
pub(super) enum Found {
    /// No such file.
    Nothing,
    /// A regular file's content.
    Bytes(Vec<u8>),
    /// Something else, and what.
    Foreign(&'static str),
}

/// The moments of a replacement, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Written,
    FileSynced,
    Renamed,
    DirectorySynced,
}

/// A directory held by this process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Open for as long as the directory is held.
    _lock: File,
    /// The directory itself, for syncing it.
    handle: File,
}

impl Directory {
    /// See [`super::FileRecords::open`].
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_NAME))
            .map_err(io)?;
        // Of the open file, not of the process: a second opener in this process is refused as
        // well, and the kernel lets go of it however the process ends.
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message; a holder that has not signed yet is still one.
                let _ = lock.take(200).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    signed => signed.to_owned(),
                };
                return Err(OpenError::Held { path: path.to_owned(), holder });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        lock.set_len(0).map_err(io)?;
        writeln!(lock, "process {}", std::process::id()).map_err(io)?;
        let handle = File::open(path).map_err(io)?;
        let directory = Self { path: path.to_owned(), _lock: lock, handle };
        directory.remove_unfinished().map_err(io)?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all files.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // Ours are ASCII; others are of no interest.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// What stands under `name`, read if it is a regular file.
    pub(super) fn read(&self, name: &str) -> io::Result<Found> {
        // Neither follows a link nor waits for the writer of a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.path.join(name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(Found::Foreign("a symbolic link"));
            }
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(Found::Foreign("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Ok(Found::Foreign("larger than any record"));
        }
        Ok(Found::Bytes(bytes))
    }

    /// Puts `bytes` under `name`; returns when they are on disk.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_with(name, bytes, |_| Ok(()))
    }

    /// [`Self::replace`], calling `at` at each moment; tests look on, or fail
    /// it there.
    pub(super) fn replace_with(
        &self,
        name: &str,
        bytes: &[u8],
        mut at: impl FnMut(Moment) -> io::Result<()>,
    ) -> io::Result<()> {
        let unfinished = self.path.join(format!("{UNFINISHED}{name}"));
        let result = (|| {
            // One writer per name (the caller's lock), so the name needs no number.
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(bytes)?;
            at(Moment::Written)?;
            // Before the rename: else the new name may hold an empty file after a power cut.
            file.sync_all()?;
            at(Moment::FileSynced)?;
            fs::rename(&unfinished, self.path.join(name))?;
            at(Moment::Renamed)?;
            // Else the rename itself may be lost.
            self.handle.sync_all()?;
            at(Moment::DirectorySynced)
        })();
        if result.is_err() {
            // A full disk must get its space back; the first error is the one to tell.
            let _ = fs::remove_file(&unfinished);
        }
        result
    }

    /// Removes a file; returns when that is on disk. None is fine.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => self.handle.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Renames a file to `<name>.bad-<n>` and returns the new name.
    pub(super) fn set_aside(&self, name: &str) -> io::Result<String> {
        let is_taken = |aside: &String| self.path.join(aside).symlink_metadata().is_ok();
        let aside = (1..=ASIDE_MAX)
            .map(|n| format!("{name}.bad-{n}"))
            .find(|aside| !is_taken(aside))
            .unwrap_or_else(|| format!("{name}.bad-{ASIDE_MAX}"));
        fs::rename(self.path.join(name), self.path.join(&aside))?;
        self.handle.sync_all()?;
        Ok(aside)
    }

    fn remove_unfinished(&self) -> io::Result<()> {
        for name in self.names()? {
            if name.starts_with(UNFINISHED) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MOMENTS: [Moment; 4] =
        [Moment::Written, Moment::FileSynced, Moment::Renamed, Moment::DirectorySynced];

    fn content(directory: &Directory) -> Option<String> {
        match directory.read("a.json").unwrap() {
            Found::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap()),
            Found::Nothing | Found::Foreign(_) => None,
        }
    }

    #[test]
    fn a_file_is_synced_before_it_gets_its_name_and_the_directory_after() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let mut moments = Vec::new();
        directory
            .replace_with("a.json", b"new", |moment| {
                let named = folder.path().join("a.json").exists();
                assert_eq!(named, matches!(moment, Moment::Renamed | Moment::DirectorySynced));
                moments.push(moment);
                Ok(())
            })
            .unwrap();
        assert_eq!(moments, MOMENTS);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content_or_the_new_one() {
        for failing in MOMENTS {
            let folder = tempfile::tempdir().unwrap();
            let directory = Directory::open(folder.path()).unwrap();
            directory.replace("a.json", b"old").unwrap();
            let result = directory.replace_with("a.json", b"new", |moment| {
                if moment == failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            });
            assert!(result.is_err());
            let renamed = matches!(failing, Moment::Renamed | Moment::DirectorySynced);
            let expected = if renamed { "new" } else { "old" };
            assert_eq!(content(&directory).as_deref(), Some(expected), "{failing:?}");
            let names = directory.names().unwrap();
            assert!(!names.iter().any(|name| name.starts_with(UNFINISHED)), "{failing:?}");
        }
    }

    #[test]
    fn what_an_interrupted_save_left_is_removed_and_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/teams");
        drop(Directory::open(&path).unwrap());
        fs::write(path.join(".new-a.json"), "half").unwrap();
        let directory = Directory::open(&path).unwrap();
        assert_eq!(directory.names().unwrap(), [LOCK_NAME]);
        directory.replace("a.json", b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("a.json")), 0o600);
    }
}
