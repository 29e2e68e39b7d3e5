//! What is about to be moved, written down where it outlives the service and no
//! agent can write (ADR 0060).
//!
//! A note that is there while nobody holds its tree is a move that was cut off: the
//! hold is a lock of the kernel's, goes with its last holder, and the holders are the
//! service and every Git that it started meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::git::GitError;

/// The workspace's own note.
pub(super) const WORKSPACE: &str = "workspace";

/// How a tree is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Forward, to a commit that descends from it.
    Forward,
    /// With the branch of this name, to any commit.
    Branch(String),
    /// Without a branch, to any commit.
    Detached,
    /// Out of nothing.
    Made,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// What the service's own lock on the index says.
    pub(super) lock: String,
    pub(super) way: Way,
    /// The branch that is checked out, unless detached.
    pub(super) branch: Option<String>,
    /// The commit that the tree was at; none, if there was no tree.
    pub(super) from: Option<String>,
    pub(super) to: String,
}

/// The directory of notes, one for each tree that is being moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notes<'a>(pub(super) &'a Path);

impl<'a> Notes<'a> {
    /// Reads the note on a tree, without holding it; one that cannot be read is none.
    pub(super) fn read(self, tree: &str) -> Option<Note> {
        let path = self.path(tree);
        let text = std::fs::read_to_string(&path).ok()?;
        let note = serde_json::from_str(&text);
        if let Err(error) = &note {
            tracing::warn!(%error, path = %path.display(), "a note on a move cannot be read");
        }
        note.ok()
    }

    /// When the note on a tree was written.
    pub(super) fn written(self, tree: &str) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.path(tree)).ok()?.modified().ok()
    }

    /// Holds a tree, as whoever moves or mends it must.
    ///
    /// # Errors
    /// Another sync of the team holds it, or there is no directory for notes.
    pub(super) fn hold(self, tree: &'a str) -> Result<Hold<'a>, GitError> {
        let noted = |source| GitError::Note { source };
        match std::fs::create_dir(self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(noted(error));
            }
            Ok(()) | Err(_) => {}
        }
        let lock =
            File::options().create(true).append(true).open(self.0.join(format!("{tree}.lock")));
        let lock = lock.map_err(noted)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(GitError::Held),
            Err(error) => return Err(noted(error.into())),
        }
        // Whatever Git is started now holds it too, as long as it lives.
        fcntl_setfd(&lock, FdFlags::empty()).map_err(|error| noted(error.into()))?;
        Ok(Hold { notes: self, tree, lock })
    }

    fn path(self, tree: &str) -> PathBuf {
        self.0.join(format!("{tree}.json"))
    }
}

/// A tree while nobody else moves it.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    notes: Notes<'a>,
    tree: &'a str,
    lock: File,
}

impl Hold<'_> {
    /// Writes a note so that it survives the machine's end, too.
    pub(super) fn write(&self, note: &Note) -> Result<(), GitError> {
        let noted = |source| GitError::Note { source };
        let text = serde_json::to_vec(note).map_err(|error| noted(error.into()))?;
        let path = self.notes.path(self.tree);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(self.notes.0)?.sync_all()
        };
        write().map_err(noted)
    }

    /// Removes a note: nothing of its move is half.
    pub(super) fn remove(&self) -> Result<(), GitError> {
        match std::fs::remove_file(self.notes.path(self.tree)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(GitError::Note { source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Said aloud, because a look's Git may have it as well.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}
