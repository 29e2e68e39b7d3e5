//! Moves of a tree, each with a note before it and none after it (ADR 0060).
//!
//! Git moves the files with a copy of the index while the service itself holds the
//! index's lock; what a kill leaves is therefore told apart from what others do.

use std::path::Path;

use super::git::{Call, Git, GitError, Operation, Scratch};
use super::locks::IndexLock;
use super::notes::{Note, Notes};
use super::remote::Branch;
use super::repository::{self, Moved};
use crate::service::system::fresh_id;

pub(super) use super::notes::Way;

/// Moves one tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mover<'a> {
    pub(super) notes: Notes<'a>,
    /// The tree's name among the notes.
    pub(super) tree: &'a str,
}

impl Mover<'_> {
    /// Moves a checkout to a commit.
    ///
    /// # Guarantees
    /// As the function of [`repository`] for this way. The note stays unless Git has
    /// done it all, or has refused and touched nothing.
    pub(super) async fn go(&self, git: &Git<'_>, way: Way, to: &str) -> Result<Moved, GitError> {
        let hold = self.notes.hold(self.tree)?;
        let (head, branch) = checked_out(git).await?;
        let note = Note { lock: word(), way, branch, from: Some(head), to: to.to_owned() };
        let lock = {
            // Before the note: a move that cannot begin leaves none.
            let lock = git.place().git_dir.join("index.lock");
            if lock.symlink_metadata().is_ok() {
                return Err(GitError::Locked { lock });
            }
            hold.write(&note)?;
            IndexLock::take(git.place(), &note)
        };
        let lock = match lock {
            Ok(lock) => lock,
            Err(error) => {
                hold.remove()?;
                return Err(error);
            }
        };
        let moved = carry_out(git, &note, lock).await?;
        hold.remove()?;
        Ok(moved)
    }

    /// Makes a worktree that is not there.
    pub(super) async fn make(
        &self,
        git: &Git<'_>,
        path: &Path,
        commit: &str,
    ) -> Result<Moved, GitError> {
        let hold = self.notes.hold(self.tree)?;
        let (way, to) = (Way::Made, commit.to_owned());
        let note = Note { lock: word(), way, branch: None, from: None, to };
        hold.write(&note)?;
        let moved = make_noted(git, path, &note).await?;
        hold.remove()?;
        Ok(moved)
    }
}

/// Makes the worktree of a note.
pub(super) async fn make_noted(git: &Git<'_>, path: &Path, note: &Note) -> Result<Moved, GitError> {
    let text = path.to_string_lossy();
    // By force, because a worktree of this name may have been here before, and twice
    // because it may have been cut off while it was made. The files come afterwards.
    let arguments = ["worktree", "add", "--quiet", "--force", "--force", "--detach"];
    let arguments = arguments.into_iter().chain(["--no-checkout", &text, &note.to]);
    git.run(Operation::Worktree, arguments).await?;
    let operation = Operation::Worktree;
    let none = || "the directory is no worktree of the workspace".to_owned();
    let made = git.worktree(path).await?;
    let made = made.ok_or_else(|| GitError::Refused { operation, message: none() })?;
    let lock = IndexLock::take(made.place(), note)?;
    carry_out(&made, note, lock).await
}

/// Moves the files, and then everything else.
pub(super) async fn carry_out(
    git: &Git<'_>,
    note: &Note,
    lock: IndexLock,
) -> Result<Moved, GitError> {
    let (to, index) = (note.to.as_str(), lock.scratch());
    let moved = match &note.way {
        Way::Forward => repository::fast_forward(git, to, index).await?,
        Way::Branch(name) => match Branch::parse(name) {
            Ok(branch) => repository::move_branch(git, &branch, to, index).await?,
            Err(error) => {
                let (operation, message) = (Operation::Move, error.to_string());
                return Err(GitError::Refused { operation, message });
            }
        },
        Way::Detached => repository::move_detached(git, to, index).await?,
        Way::Made => make_files(git, to, index).await?,
    };
    if moved == Moved::Done {
        lock.install()?;
    }
    Ok(moved)
}

/// Writes the files that are not there; overwrites none.
async fn make_files(git: &Git<'_>, to: &str, index: &Scratch) -> Result<Moved, GitError> {
    let index = Some(index);
    let call = |words: &[&str]| Call { index, ..Call::new(words) };
    git.call(Operation::Move, call(&["read-tree", to])).await?;
    // What was written before it was cut off; its status says that some are not.
    git.try_call(Operation::Move, call(&["update-index", "-q", "--refresh"])).await?;
    git.call(Operation::Move, call(&["checkout-index", "--quiet", "--all", "--index"])).await?;
    Ok(Moved::Done)
}

/// What a checkout is at, and its branch.
pub(super) async fn checked_out(git: &Git<'_>) -> Result<(String, Option<String>), GitError> {
    let operation = Operation::Compare;
    let head = git.run(operation, ["rev-parse", "--verify", "HEAD^{commit}"]).await?.line();
    // It says so by its status when there is none.
    let call = Call::new(["symbolic-ref", "--quiet", "--short", "HEAD"]);
    let branch = git.try_call(operation, call).await?;
    Ok((head, (branch.code == Some(0)).then(|| branch.output.line())))
}

fn word() -> String {
    format!("covibes-sync {}", fresh_id())
}
