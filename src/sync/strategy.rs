//! Three ways out when both sides have commits, each on request only.
//!
//! Everything is computed beside the files: a merge in Git's object store, a
//! rebase as a chain of such merges. The files move once, at the end, to a commit
//! that is finished, and only if none of them is in the way. So nobody who works
//! in the tree ever sees a half of it, and a conflict touches nothing.

use super::git::{Call, Git, GitError, Operation};
use super::moves::{Mover, Way};
use super::remote::Branch;
use super::repository::{self, Merged, Moved};

/// Rebasing takes four calls for each commit.
const REBASED_MAX: usize = 200;

/// How two histories become one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The local commits go on top of the remote's.
    Rebase,
    /// A commit joins both.
    Merge,
    /// The local commits go to a branch of their own, the checkout to the remote's.
    Branch,
}

impl Strategy {
    /// Reads the word that callers use.
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Rebase, Self::Merge, Self::Branch].into_iter().find(|one| one.name() == word)
    }

    /// The word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rebase => "rebase",
            Self::Merge => "merge",
            Self::Branch => "branch",
        }
    }

    /// The word for what was done.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Rebase => "rebased",
            Self::Merge => "merged",
            Self::Branch => "branched",
        }
    }
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) strategy: Strategy,
    /// Which preview's worktree; without a name, the workspace.
    pub(super) worktree: Option<String>,
}

impl Wish {
    /// The strategy for the workspace, or for the worktree of this name.
    pub(super) fn of(wish: Option<&Self>, worktree: Option<&str>) -> Option<Strategy> {
        let meant = wish.filter(|wish| wish.worktree.as_deref() == worktree);
        meant.map(|wish| wish.strategy)
    }
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The checkout is where it should be; what went to a branch, if anything did.
    Done { branch: Option<String> },
    /// Both sides changed these, and nothing was touched.
    Conflicts(Vec<String>),
    /// These files are in the way, and nothing was touched.
    InTheWay(Vec<String>),
    /// This history is not for this strategy.
    Unfit(&'static str),
}

/// What is to be joined.
#[derive(Debug)]
pub(super) struct Histories<'a> {
    /// The remote's branch.
    pub(super) branch: &'a Branch,
    /// The branch that is checked out, and is moved; none, if the checkout is detached.
    pub(super) checked_out: Option<&'a Branch>,
    /// The commit that is checked out.
    pub(super) head: &'a str,
    /// The remote's.
    pub(super) commit: &'a str,
    /// The team, whose name is in the names of branches.
    pub(super) team: &'a str,
}

/// Joins the two histories.
///
/// # Guarantees
/// Every commit that was there keeps a name.
pub(super) async fn join(
    git: &Git<'_>,
    mover: &Mover<'_>,
    strategy: Strategy,
    histories: &Histories<'_>,
) -> Result<Joined, GitError> {
    repository::keep(git, histories.head).await?;
    match strategy {
        Strategy::Merge => merge(git, mover, histories).await,
        Strategy::Rebase => rebase(git, mover, histories).await,
        Strategy::Branch => branch(git, mover, histories).await,
    }
}

/// Moves the checkout, with its branch if it has one.
async fn move_to(
    git: &Git<'_>,
    mover: &Mover<'_>,
    histories: &Histories<'_>,
    commit: &str,
) -> Result<Moved, GitError> {
    let way = match histories.checked_out {
        Some(branch) => Way::Branch(branch.as_str().to_owned()),
        None => Way::Detached,
    };
    mover.go(git, way, commit).await
}

fn ended(moved: Moved, branch: Option<String>) -> Joined {
    match moved {
        Moved::Done => Joined::Done { branch },
        Moved::InTheWay(paths) => Joined::InTheWay(paths),
    }
}

async fn merge(
    git: &Git<'_>,
    mover: &Mover<'_>,
    histories: &Histories<'_>,
) -> Result<Joined, GitError> {
    let &Histories { branch, head, commit, .. } = histories;
    let tree = match repository::merge(git, head, commit).await? {
        Merged::Clean(tree) => tree,
        Merged::Conflicts(paths) => return Ok(Joined::Conflicts(paths)),
    };
    let message = format!("Merge branch '{}' of the remote", branch.as_str());
    let new = Commit { tree: &tree, parents: &[head, commit], message: message.as_bytes() };
    let merged = new.write(git, None).await?;
    Ok(ended(mover.go(git, Way::Forward, &merged).await?, None))
}

async fn branch(
    git: &Git<'_>,
    mover: &Mover<'_>,
    histories: &Histories<'_>,
) -> Result<Joined, GitError> {
    let &Histories { head, commit, team, .. } = histories;
    let short = head.get(..12).unwrap_or(head);
    // The name holds the commit, so a branch of this name is this branch.
    let name = format!("covibes/{team}/local-{short}");
    git.run(Operation::Move, ["update-ref", &format!("refs/heads/{name}"), head]).await?;
    Ok(ended(move_to(git, mover, histories, commit).await?, Some(name)))
}

async fn rebase(
    git: &Git<'_>,
    mover: &Mover<'_>,
    histories: &Histories<'_>,
) -> Result<Joined, GitError> {
    let &Histories { head, commit, .. } = histories;
    let range = format!("{commit}..{head}");
    let arguments = ["rev-list", "--reverse", "--topo-order", "--parents", &range, "--"];
    let list = git.run(Operation::Compare, arguments).await?;
    let text = String::from_utf8_lossy(&list.bytes).into_owned();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    if lines.iter().any(|line| line.len() != 2) {
        return Ok(Joined::Unfit("there are merges among the local commits; use merge"));
    }
    if lines.len() > REBASED_MAX {
        return Ok(Joined::Unfit("there are more than 200 local commits; use merge"));
    }
    let mut onto = commit.to_owned();
    for line in &lines {
        let (old, parent) = (line[0], line[1]);
        let onto_tree = tree_of(git, &onto).await?;
        // What a merge takes for the base of both is the old commit's parent.
        let stand_in = Commit { tree: &onto_tree, parents: &[parent], message: b"base\n" };
        let stand_in = stand_in.write(git, None).await?;
        let tree = match repository::merge(git, &stand_in, old).await? {
            Merged::Clean(tree) => tree,
            Merged::Conflicts(paths) => return Ok(Joined::Conflicts(paths)),
        };
        if tree == onto_tree {
            // The remote has it already.
            continue;
        }
        let raw = git.run(Operation::Compare, ["cat-file", "commit", old]).await?;
        let (author, message) = author_and_message(&raw.bytes);
        let new = Commit { tree: &tree, parents: &[&onto], message };
        onto = new.write(git, author).await?;
    }
    Ok(ended(move_to(git, mover, histories, &onto).await?, None))
}

async fn tree_of(git: &Git<'_>, commit: &str) -> Result<String, GitError> {
    let name = format!("{commit}^{{tree}}");
    Ok(git.run(Operation::Compare, ["rev-parse", "--verify", &name]).await?.line())
}

/// A commit that is to be written.
pub(super) struct Commit<'a> {
    pub(super) tree: &'a str,
    pub(super) parents: &'a [&'a str],
    pub(super) message: &'a [u8],
}

/// Who wrote a change: name, address, and seconds with the zone.
pub(super) type Author = (String, String, Option<String>);

impl Commit<'_> {
    /// Writes it, on no branch; returns its name.
    pub(super) async fn write(
        &self,
        git: &Git<'_>,
        author: Option<Author>,
    ) -> Result<String, GitError> {
        let mut arguments = vec!["commit-tree"];
        for parent in self.parents {
            arguments.extend(["-p", parent]);
        }
        arguments.extend(["-F", "-", self.tree]);
        let mut variables = Vec::new();
        if let Some((name, email, date)) = author {
            variables.push(("GIT_AUTHOR_NAME", name.into()));
            variables.push(("GIT_AUTHOR_EMAIL", email.into()));
            variables.extend(date.map(|date| ("GIT_AUTHOR_DATE", date.into())));
        }
        let call = Call { variables: &variables, input: self.message, ..Call::new(arguments) };
        Ok(git.call(Operation::Commit, call).await?.line())
    }
}

/// Takes author and message out of a commit as it is stored.
fn author_and_message(raw: &[u8]) -> (Option<Author>, &[u8]) {
    let end = raw.windows(2).position(|two| two == b"\n\n").unwrap_or(raw.len());
    let head = String::from_utf8_lossy(&raw[..end]);
    let author = head.lines().find_map(|line| {
        let (name, rest) = line.strip_prefix("author ")?.split_once(" <")?;
        let (email, date) = rest.rsplit_once("> ")?;
        Some((name.to_owned(), email.to_owned(), Some(format!("@{date}"))))
    });
    (author, raw.get(end + 2..).filter(|message| !message.is_empty()).unwrap_or(b"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_commit_gives_author_and_message() {
        let raw = b"tree 1\nparent 2\nauthor A B <a@example.com> 1700000000 +0100\n\
            committer C <c@example.com> 1 +0000\n\nfirst\n\nsecond\n";
        let (author, message) = author_and_message(raw);
        let expected =
            ("A B".to_owned(), "a@example.com".to_owned(), Some("@1700000000 +0100".to_owned()));
        assert_eq!(author, Some(expected));
        assert_eq!(message, b"first\n\nsecond\n");
    }
}
