//! What the sync service asks a repository, in its own words.

use super::git::{Git, GitError, Operation, Output};
use super::remote::{Branch, RemoteUrl};

/// A report names the first; the count tells the rest.
const PATHS_SHOWN_MAX: usize = 50;

/// Where a checkout stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checkout {
    /// The commit, if there is one yet.
    pub(super) head: Option<String>,
    /// The branch, unless detached.
    pub(super) branch: Option<String>,
    /// Tracked files that differ from the commit.
    pub(super) changed: usize,
    /// The first of them.
    pub(super) changed_paths: Vec<String>,
    /// Files that Git does not know.
    pub(super) untracked: usize,
}

/// How far two commits are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distance {
    pub(super) ahead: u64,
    pub(super) behind: u64,
}

/// Reads where the checkout stands; changes nothing.
pub(super) async fn status(git: &Git<'_>) -> Result<Checkout, GitError> {
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

fn parse_status(output: &Output) -> Checkout {
    let mut checkout = Checkout::default();
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
                Some(_) | None => {}
            },
            // The path follows 7 fields, or 9 of an unmerged entry.
            "1" | "u" => {
                checkout.changed += 1;
                let path = rest.splitn(if kind == "1" { 8 } else { 10 }, ' ').last();
                let room = checkout.changed_paths.len() < PATHS_SHOWN_MAX;
                checkout.changed_paths.extend(path.filter(|_| room).map(str::to_owned));
            }
            "?" => checkout.untracked += 1,
            _ => {}
        }
    }
    checkout
}

/// Fetches one branch into `refs/remotes/origin/`; returns its commit.
pub(super) async fn fetch(
    git: &Git<'_>,
    url: &RemoteUrl,
    branch: &Branch,
) -> Result<String, GitError> {
    let tracking = tracking(branch);
    let refspec = format!("+refs/heads/{}:{tracking}", branch.as_str());
    let arguments = [
        "fetch",
        "--quiet",
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
        &refspec,
    ];
    git.run(Operation::Fetch, arguments).await?;
    let arguments = ["rev-parse", "--verify", "--quiet", &tracking];
    Ok(git.run(Operation::Compare, arguments).await?.line())
}

fn tracking(branch: &Branch) -> String {
    format!("refs/remotes/origin/{}", branch.as_str())
}

/// Counts the commits between the checkout and another commit.
pub(super) async fn distance(git: &Git<'_>, commit: &str) -> Result<Distance, GitError> {
    let operation = Operation::Compare;
    let range = format!("HEAD...{commit}");
    let arguments = ["rev-list", "--left-right", "--count", &range];
    let line = git.run(operation, arguments).await?.line();
    let counts = line.split_once('\t').and_then(|(ahead, behind)| {
        Some(Distance { ahead: ahead.parse().ok()?, behind: behind.parse().ok()? })
    });
    counts.ok_or_else(|| GitError::Refused { operation, message: "no counts".to_owned() })
}

/// Moves a clean checkout forward to a commit that descends from it.
///
/// # Guarantees
/// Git itself refuses, and changes nothing, when a file would be overwritten.
pub(super) async fn fast_forward(git: &Git<'_>, commit: &str) -> Result<(), GitError> {
    let arguments =
        ["merge", "--ff-only", "--no-autostash", "--no-stat", "--quiet", "--no-verify-signatures"];
    git.run(Operation::FastForward, arguments.into_iter().chain([commit])).await.map(drop)
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
        let checkout = parse_status(&output);
        assert_eq!(
            (checkout.head.as_deref(), checkout.branch.as_deref()),
            (Some("1234"), Some("main"))
        );
        assert_eq!(checkout.changed_paths, ["a file", "both sides"]);
        assert_eq!((checkout.changed, checkout.untracked), (2, 1));
    }
}
