//! Locks of Git's: the service's own on an index, and what others left behind.
//!
//! Git locks an index with a file that says nothing of whose it is. The service's
//! says it: it is written whole before it has the lock's name, with a word that is
//! in the note on the move. So it is told apart from an agent's, whoever died.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::git::{GitError, Operation, Place, Scratch};
use super::notes::Note;
use crate::service::system::now;

/// Git holds the lock of a name for a moment, and waits a tenth of a second for one.
const MOMENT: Duration = Duration::from_secs(10);

/// A Git that is at work holds the lock of an index for less.
const AT_WORK: Duration = Duration::from_secs(120);

/// Names that a move writes, or takes away when it is done.
const NAMES_TAKEN: [&str; 6] =
    ["HEAD", "ORIG_HEAD", "AUTO_MERGE", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];

/// The lock of a name holds what the name will be.
const LOCK_BYTES_MAX: u64 = 512;

/// The lock of an index, with a copy of the index that is the service's alone.
#[derive(Debug)]
pub(super) struct IndexLock {
    index: PathBuf,
    lock: PathBuf,
    scratch: Scratch,
}

impl IndexLock {
    /// Locks an index, or takes over the lock that a note says is the service's own.
    ///
    /// # Errors
    /// Somebody else has it locked.
    pub(super) fn take(place: &Place, note: &Note) -> Result<Self, GitError> {
        let operation = Operation::Move;
        let failed = |source| GitError::Run { operation, source };
        let index = place.git_dir.join("index");
        let lock = place.git_dir.join("index.lock");
        let new = place.git_dir.join("covibes-index.new");
        absent(&new).map_err(failed)?;
        // Through no link that an agent may have put there.
        let made = std::fs::File::options().write(true).create_new(true).open(&new);
        made.and_then(|mut file| file.write_all(note.lock.as_bytes())).map_err(failed)?;
        let linked = std::fs::hard_link(&new, &lock);
        absent(&new).map_err(failed)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_own(&lock, note) {
                    return Err(GitError::Locked { lock });
                }
            }
            linked => linked.map_err(failed)?,
        }
        let taken = Self { scratch: Scratch::at(place.git_dir.join("covibes-index")), index, lock };
        absent(taken.scratch.path()).map_err(failed)?;
        absent(&place.git_dir.join("covibes-index.lock")).map_err(failed)?;
        match second_name(&taken.index, taken.scratch.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// The index that a move works with.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Puts the index of a move in the place of the old one.
    pub(super) fn install(&self) -> Result<(), GitError> {
        match std::fs::rename(self.scratch.path(), &self.index) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(GitError::Run { operation: Operation::Move, source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for IndexLock {
    fn drop(&mut self) {
        let _ = absent(&self.lock);
    }
}

/// Gives an index a second name: Git replaces an index, and writes into none.
fn second_name(index: &Path, name: &Path) -> io::Result<()> {
    match std::fs::hard_link(index, name) {
        // The kernel lets nobody link to another user's file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let modified = index.symlink_metadata()?.modified()?;
            std::fs::copy(index, name)?;
            // Git takes a file that is as old as the index for one that may have changed.
            std::fs::File::options().write(true).open(name)?.set_modified(modified)
        }
        linked => linked,
    }
}

/// Removes the lock that a note says is the service's own, and what lay beside it.
pub(super) fn release(place: &Place, note: &Note) {
    let lock = place.git_dir.join("index.lock");
    if is_own(&lock, note) {
        for name in ["covibes-index", "covibes-index.lock", "covibes-index.new"] {
            let _ = absent(&place.git_dir.join(name));
        }
        let _ = absent(&lock);
    }
}

/// Whether a lock is the service's own.
fn is_own(lock: &Path, note: &Note) -> bool {
    read(lock).is_some_and(|text| text == note.lock)
}

/// Removes the locks of names that a cut-off move left: those that it takes, that say
/// nothing else than it would, that came after its note, and that are older than any
/// Git holds one.
pub(super) fn tidy_names(
    place: &Place,
    note: &Note,
    written: Option<std::time::SystemTime>,
) -> Result<(), GitError> {
    let mut locks: Vec<PathBuf> =
        NAMES_TAKEN.map(|name| place.git_dir.join(format!("{name}.lock"))).into();
    let packed = place.common_dir.join("packed-refs.lock");
    locks.push(packed.clone());
    if let Some(branch) = &note.branch {
        locks.push(place.common_dir.join("refs/heads").join(format!("{branch}.lock")));
    }
    for commit in note.from.iter().chain([&note.to]) {
        locks.push(place.common_dir.join(format!("refs/covibes/kept/{commit}.lock")));
    }
    for lock in locks {
        let Ok(metadata) = lock.symlink_metadata() else { continue };
        let text = read(&lock).unwrap_or_else(|| "?".to_owned());
        let text = text.trim_end();
        let branch = note.branch.as_deref().unwrap_or_default();
        let is_ours = text.is_empty()
            || text == note.to
            || Some(text) == note.from.as_deref()
            || text.strip_prefix("ref: refs/heads/") == Some(branch);
        let since = metadata.modified().ok();
        let is_after = since >= written;
        // All names at once are written for longer than one.
        let age = if lock == packed { AT_WORK } else { MOMENT };
        if !(is_ours && is_after && metadata.is_file() && is_older(&lock, age)) {
            return Err(GitError::Locked { lock });
        }
        let removed = absent(&lock);
        tracing::info!(lock = %lock.display(), ?removed, "the lock of a move that was cut off goes");
    }
    Ok(())
}

/// The lock that kept Git out, if one did.
pub(super) fn in_the_way(error: &GitError) -> Option<PathBuf> {
    match error {
        GitError::Locked { lock } => Some(lock.clone()),
        GitError::Refused { operation, message }
            if !matches!(operation, Operation::Fetch | Operation::Push) =>
        {
            let (before, _) = message.split_once(".lock': File exists")?;
            let (_, path) = before.rsplit_once('\'')?;
            Some(PathBuf::from(format!("{path}.lock")))
        }
        GitError::Refused { .. }
        | GitError::Run { .. }
        | GitError::Timeout { .. }
        | GitError::Stalled { .. }
        | GitError::TooLarge { .. }
        | GitError::Held
        | GitError::Note { .. }
        | GitError::Stopping { .. } => None,
    }
}

/// Whether a lock is older than a Git that is at work would let it become.
pub(super) fn is_left(lock: &Path) -> bool {
    is_older(lock, AT_WORK)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = path.symlink_metadata().and_then(|metadata| metadata.modified()).ok();
    let modified = modified.and_then(|time| jiff::Timestamp::try_from(time).ok());
    modified.is_some_and(|time| now().duration_since(time).unsigned_abs() >= age && time < now())
}

fn read(path: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    let mut text = String::new();
    file.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn absent(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
