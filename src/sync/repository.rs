//! What the sync service asks a repository, in its own words.

use std::collections::BTreeMap;

use super::git::{Call, Git, GitError, Operation, Output, Scratch};
use super::remote::{Branch, RemoteUrl};
use super::system;

/// A report names the first; the count tells the rest.
pub(super) const PATHS_SHOWN_MAX: usize = 50;

/// What Git says when a branch is not there.
const NO_SUCH_REF: &str = "couldn't find remote ref refs/heads/";

/// What Git says when a file is in the way of one that comes.
const WOULD_OVERWRITE: [&str; 4] = [
    "would be overwritten by merge",
    "would be overwritten by checkout",
    "would be removed by merge",
    "would be removed by checkout",
];

/// Files of a tree that is checked out; more is a bomb, not a project.
const FILES_MAX: u64 = 100_000;

/// Bytes of a tree that is checked out: what a workspace may hold.
const BYTES_MAX: u64 = 10 << 30;

/// What is checked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checkout {
    /// The commit, if there is one yet.
    pub(super) head: Option<String>,
    /// The branch, unless detached.
    pub(super) branch: Option<String>,
}

/// How the files of a checkout differ from its commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// How far it is from what its own configuration calls its upstream.
    pub(super) upstream: Option<Distance>,
    /// Tracked files that differ from the commit.
    pub(super) changed: usize,
    /// The first of them.
    pub(super) changed_paths: Vec<String>,
    /// Files that Git does not know.
    pub(super) untracked: usize,
}

/// What names say which commits, without a look at any file.
#[derive(Debug, Default)]
pub(super) struct Refs {
    /// The branch that is checked out, with its commit; nothing if detached or without one.
    pub(super) checkout: Option<Checkout>,
    /// Where the remote's branches were seen last, of those that were asked for.
    pub(super) tracked: BTreeMap<String, String>,
}

/// How far two commits are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distance {
    pub(super) ahead: u64,
    pub(super) behind: u64,
}

/// How a move went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Done,
    /// These files are in the way, and nothing was touched.
    InTheWay(Vec<String>),
}

/// What merging two commits would give.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// The tree of the merge.
    Clean(String),
    /// Both sides changed these.
    Conflicts(Vec<String>),
}

/// Looks at every file of the checkout; changes nothing.
pub(super) async fn status(git: &Git<'_>) -> Result<(Checkout, Changes), GitError> {
    let arguments = [
        "status",
        "--porcelain=v2",
        "--branch",
        "-z",
        "--untracked-files=normal",
        "--ignore-submodules=all",
        "--no-renames",
    ];
    git.run(Operation::Status, arguments).await.map(|output| parse_status(&output))
}

fn parse_status(output: &Output) -> (Checkout, Changes) {
    let (mut checkout, mut changes) = (Checkout::default(), Changes::default());
    let text = String::from_utf8_lossy(&output.bytes);
    for entry in text.split('\0') {
        let (kind, rest) = entry.split_once(' ').unwrap_or((entry, ""));
        match kind {
            "#" => match rest.split_once(' ') {
                Some(("branch.oid", oid)) if oid != "(initial)" => {
                    checkout.head = Some(oid.to_owned());
                }
                Some(("branch.head", name)) if name != "(detached)" => {
                    checkout.branch = Some(name.to_owned());
                }
                Some(("branch.ab", counts)) => {
                    let number = |word: &str| word.get(1..)?.parse().ok();
                    changes.upstream = counts.split_once(' ').and_then(|(ahead, behind)| {
                        Some(Distance { ahead: number(ahead)?, behind: number(behind)? })
                    });
                }
                Some(_) | None => {}
            },
            // The path follows 7 fields, or 9 of an unmerged entry.
            "1" | "u" => {
                changes.changed += 1;
                let path = rest.splitn(if kind == "1" { 8 } else { 10 }, ' ').last();
                let room = changes.changed_paths.len() < PATHS_SHOWN_MAX;
                changes.changed_paths.extend(path.filter(|_| room).map(str::to_owned));
            }
            "?" => changes.untracked += 1,
            _ => {}
        }
    }
    (checkout, changes)
}

/// Fetches branches into `refs/remotes/origin/`; returns those that are not there.
pub(super) async fn fetch(
    git: &Git<'_>,
    url: &RemoteUrl,
    branches: &[Branch],
) -> Result<Vec<Branch>, GitError> {
    let mut wanted: Vec<&Branch> = branches.iter().collect();
    let mut missing = Vec::new();
    while !wanted.is_empty() {
        let refspecs = wanted
            .iter()
            .map(|branch| format!("+refs/heads/{}:{}", branch.as_str(), tracking(branch)));
        let arguments = [
            "fetch",
            // Signs of life, not for people.
            "--progress",
            "--no-tags",
            "--no-prune",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            // The repository may name another program for a remote of this address.
            "--upload-pack=git-upload-pack",
            "--refmap=",
            "--",
            url.as_str(),
        ];
        let arguments = arguments.into_iter().map(str::to_owned).chain(refspecs);
        let call = Call { remote: Some(url), ..Call::new(arguments) };
        match git.call(Operation::Fetch, call).await {
            Ok(_) => break,
            Err(GitError::Refused { operation, message }) => {
                let gone = message.split_once(NO_SUCH_REF).and_then(|(_, rest)| {
                    let name = rest.lines().next()?.trim_end();
                    wanted.iter().position(|branch| branch.as_str() == name)
                });
                match gone {
                    // Git names one at a time, and fetches nothing then.
                    Some(at) => missing.push(wanted.remove(at).clone()),
                    None => return Err(GitError::Refused { operation, message }),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

fn tracking(branch: &Branch) -> String {
    format!("refs/remotes/origin/{}", branch.as_str())
}

/// Reads what is checked out, and at which commits branches of the remote were last seen.
pub(super) async fn refs(git: &Git<'_>, branches: &[Branch]) -> Result<Refs, GitError> {
    let words = ["for-each-ref", "--format=%(HEAD) %(objectname) %(refname)", "refs/heads/"];
    let arguments = words.map(str::to_owned).into_iter().chain(branches.iter().map(tracking));
    let output = git.run(Operation::Compare, arguments).await?;
    let mut refs = Refs::default();
    for line in String::from_utf8_lossy(&output.bytes).lines() {
        let is_checked_out = line.starts_with('*');
        let words = line.trim_start_matches(['*', ' ']).split_once(' ');
        let Some((commit, name)) = words else { continue };
        if let Some(name) = name.strip_prefix("refs/heads/") {
            if is_checked_out {
                let (head, branch) = (Some(commit.to_owned()), Some(name.to_owned()));
                refs.checkout = Some(Checkout { head, branch });
            }
        } else if let Some(name) = name.strip_prefix("refs/remotes/origin/")
            && branches.iter().any(|branch| branch.as_str() == name)
        {
            refs.tracked.insert(name.to_owned(), commit.to_owned());
        }
    }
    Ok(refs)
}

/// Asks the remote at which commits its branches are; one that is not there has none.
///
/// Half as dear as a fetch that finds nothing new: neither side looks at history.
pub(super) async fn remote_heads(
    git: &Git<'_>,
    url: &RemoteUrl,
    branches: &[Branch],
) -> Result<BTreeMap<String, String>, GitError> {
    if branches.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The repository may name another program for a remote of this address.
    let words = ["ls-remote", "--quiet", "--upload-pack=git-upload-pack", "--", url.as_str()];
    let names = branches.iter().map(|branch| format!("refs/heads/{}", branch.as_str()));
    let arguments = words.map(str::to_owned).into_iter().chain(names);
    let call = Call { remote: Some(url), ..Call::new(arguments) };
    let output = git.call(Operation::Fetch, call).await?;
    let text = String::from_utf8_lossy(&output.bytes).into_owned();
    let heads = text.lines().filter_map(|line| {
        let (commit, name) = line.split_once('\t')?;
        // Names are matched by their ends.
        let name = name.strip_prefix("refs/heads/")?;
        let is_wanted = branches.iter().any(|branch| branch.as_str() == name);
        is_wanted.then(|| (name.to_owned(), commit.to_owned()))
    });
    Ok(heads.collect())
}

/// Tells whether a commit is part of another's history, as far as that is here.
pub(super) async fn is_ancestor(
    git: &Git<'_>,
    ancestor: &str,
    commit: &str,
) -> Result<bool, GitError> {
    let call = Call::new(["merge-base", "--is-ancestor", ancestor, commit]);
    git.try_call(Operation::Compare, call).await.map(|ended| ended.code == Some(0))
}

/// Counts the commits between one commit and another.
pub(super) async fn distance(
    git: &Git<'_>,
    head: &str,
    commit: &str,
) -> Result<Distance, GitError> {
    let operation = Operation::Compare;
    let range = format!("{head}...{commit}");
    let arguments = ["rev-list", "--left-right", "--count", &range, "--"];
    let line = git.run(operation, arguments).await?.line();
    let counts = line.split_once('\t').and_then(|(ahead, behind)| {
        Some(Distance { ahead: ahead.parse().ok()?, behind: behind.parse().ok()? })
    });
    counts.ok_or_else(|| GitError::Refused { operation, message: "no counts".to_owned() })
}

/// Refuses a commit whose files are too many or too large to be checked out.
pub(super) async fn measure(git: &Git<'_>, commit: &str) -> Result<(), GitError> {
    measure_within(git, commit, FILES_MAX, BYTES_MAX).await
}

/// The same, for tests that cannot have so many.
pub(super) async fn measure_within(
    git: &Git<'_>,
    commit: &str,
    files_max: u64,
    bytes_max: u64,
) -> Result<(), GitError> {
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--"];
    git.scan(Operation::Count, Call::new(arguments), |entry| {
        files += 1;
        // `mode type object    size<tab>path`
        let head = entry.split(|byte| *byte == b'\t').next().unwrap_or_default();
        let size = head.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        bytes += std::str::from_utf8(size).ok().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
        files > files_max || bytes > bytes_max
    })
    .await?;
    let message = if files > files_max {
        format!("the remote's commit holds more than {files_max} files")
    } else if bytes > bytes_max {
        format!("the remote's commit holds more than {} MB", bytes_max >> 20)
    } else {
        return Ok(());
    };
    Err(GitError::Refused { operation: Operation::Count, message })
}

/// Moves a clean checkout forward to a commit that descends from it.
///
/// # Guarantees
/// Git itself refuses, and changes nothing, when a file would be overwritten:
/// one that differs, one that it does not know, and one that it ignores.
pub(super) async fn fast_forward(
    git: &Git<'_>,
    commit: &str,
    index: &Scratch,
) -> Result<Moved, GitError> {
    let arguments = [
        "merge",
        "--ff-only",
        "--no-overwrite-ignore",
        "--no-autostash",
        "--no-stat",
        "--quiet",
        "--no-verify-signatures",
        commit,
    ];
    let call = Call { index: Some(index), ..Call::new(arguments) };
    moved(git.call(Operation::FastForward, call).await)
}

/// Moves a branch that is checked out, and the checkout with it, to any commit.
///
/// # Guarantees
/// As [`fast_forward`]; and the commit that it was at keeps a name.
pub(super) async fn move_branch(
    git: &Git<'_>,
    branch: &Branch,
    commit: &str,
    index: &Scratch,
) -> Result<Moved, GitError> {
    let arguments = [
        "checkout",
        "--quiet",
        "--no-overwrite-ignore",
        "--no-recurse-submodules",
        "--no-track",
        "-B",
        branch.as_str(),
        commit,
        "--",
    ];
    let call = Call { index: Some(index), ..Call::new(arguments) };
    let result = moved(git.call(Operation::Move, call).await)?;
    if result == Moved::Done {
        // Somebody may have committed a moment ago: whatever it was, it is kept.
        let before = git.run(Operation::Compare, ["rev-parse", "--verify", "HEAD@{1}"]).await?;
        keep(git, &before.line()).await?;
    }
    Ok(result)
}

/// Moves a detached checkout to any commit.
///
/// # Guarantees
/// As [`move_branch`].
pub(super) async fn move_detached(
    git: &Git<'_>,
    commit: &str,
    index: &Scratch,
) -> Result<Moved, GitError> {
    let before = git.run(Operation::Compare, ["rev-parse", "--verify", "HEAD"]).await?.line();
    keep(git, &before).await?;
    let arguments = [
        "checkout",
        "--quiet",
        "--no-overwrite-ignore",
        "--no-recurse-submodules",
        "--detach",
        commit,
        "--",
    ];
    let call = Call { index: Some(index), ..Call::new(arguments) };
    moved(git.call(Operation::Move, call).await)
}

/// Tells whether a branch of the remote was seen at this commit before, so that
/// nothing in it is local.
pub(super) fn was_remote(git: &Git<'_>, branch: &str, commit: &str) -> bool {
    let log = git.place().common_dir.join("logs/refs/remotes/origin").join(branch);
    system::reflog_names(&log, commit)
}

/// Gives a commit a name under which nothing collects it.
pub(super) async fn keep(git: &Git<'_>, commit: &str) -> Result<(), GitError> {
    let name = format!("refs/covibes/kept/{commit}");
    git.run(Operation::Move, ["update-ref", &name, commit]).await.map(drop)
}

fn moved(result: Result<Output, GitError>) -> Result<Moved, GitError> {
    match result {
        Ok(_) => Ok(Moved::Done),
        Err(GitError::Refused { message, .. })
            if WOULD_OVERWRITE.iter().any(|words| message.contains(words)) =>
        {
            let paths = message.lines().filter_map(|line| line.strip_prefix('\t'));
            Ok(Moved::InTheWay(paths.take(PATHS_SHOWN_MAX).map(str::to_owned).collect()))
        }
        Err(error) => Err(error),
    }
}

/// Merges two commits without touching any file.
pub(super) async fn merge(git: &Git<'_>, ours: &str, theirs: &str) -> Result<Merged, GitError> {
    let operation = Operation::Merge;
    let arguments =
        ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs];
    let ended = git.try_call(operation, Call::new(arguments)).await?;
    let text = String::from_utf8_lossy(&ended.output.bytes).into_owned();
    let mut words = text.split('\0').filter(|word| !word.is_empty());
    match (ended.code, words.next()) {
        (Some(0), Some(tree)) => Ok(Merged::Clean(tree.to_owned())),
        (Some(1), Some(_)) => {
            let mut paths: Vec<String> = words.map(str::to_owned).collect();
            paths.dedup();
            paths.truncate(PATHS_SHOWN_MAX);
            Ok(Merged::Conflicts(paths))
        }
        _ => Err(GitError::Refused { operation, message: ended.message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_spaces_and_conflicts() {
        let text = "# branch.oid 1234\0# branch.head main\0# branch.ab +1 -2\0\
            1 .M N... 100644 100644 100644 aa bb a file\0\
            u UU N... 100644 100644 100644 100644 aa bb cc both sides\0\
            ? new file\0";
        let output = Output { bytes: text.as_bytes().to_vec(), truncated: false };
        let (checkout, changes) = parse_status(&output);
        assert_eq!(
            (checkout.head.as_deref(), checkout.branch.as_deref()),
            (Some("1234"), Some("main"))
        );
        assert_eq!(changes.upstream, Some(Distance { ahead: 1, behind: 2 }));
        assert_eq!(changes.changed_paths, ["a file", "both sides"]);
        assert_eq!((changes.changed, changes.untracked), (2, 1));
    }
}
