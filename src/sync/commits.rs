//! Commits of what agents changed, and pushes of those commits.
//!
//! Agents share one tree. So a commit is made in an index of its own and put on a
//! branch of the agent's: neither `HEAD` nor anyone's index or files move, and
//! the answer lists what was taken.

use super::Shared;
use super::git::{Call, Git, GitError, Operation, Scratch};
use super::remote::{Branch, RemoteUrl};
use super::settings::{Source, is_part_name};
use super::strategy::Commit;
use crate::service::logs::Chain;

const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Paths of one commit.
const PATHS_MAX: usize = 10_000;

/// What somebody wants committed.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) agent: String,
    pub(super) message: String,
    /// Files and directories; everything if there are none.
    pub(super) paths: Vec<String>,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) path: String,
    pub(super) change: &'static str,
}

/// A commit, or none when nothing was changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Committed {
    pub(super) branch: String,
    pub(super) commit: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) taken: Vec<Taken>,
    /// What was changed and cannot be committed: repositories in the repository.
    pub(super) left: Vec<String>,
}

/// A push that was made.
#[derive(Debug, Clone)]
pub(super) struct Pushed {
    pub(super) branch: String,
    pub(super) commit: String,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// The workspace is not for this.
    #[error("{0}")]
    Unfit(String),
    /// Git said no.
    #[error("{0}")]
    Failed(String),
}

impl Request {
    /// Refuses what Git could take for more than it is.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let bad = |message: &str| Err(Refusal::Bad(message.to_owned()));
        if !is_part_name(&self.agent) {
            return bad("`agent` is the name of an agent");
        }
        let message = self.message.trim();
        if message.is_empty() || message.len() > MESSAGE_BYTES_MAX || message.contains('\0') {
            return bad("`message` must hold 1 to 16,384 bytes");
        }
        if self.paths.len() > PATHS_MAX || !self.paths.iter().all(|path| is_inside(path)) {
            return bad("`paths` are at most 10,000 paths inside the workspace");
        }
        Ok(())
    }

    fn wants(&self, path: &str) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|wanted| {
                let wanted = wanted.trim_end_matches('/');
                path == wanted
                    || path.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 4096
        && !path.contains('\0')
        && path.trim_end_matches('/').split('/').all(|part| {
            !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git")
        })
}

fn branch_of(shared: &Shared, agent: &str) -> Result<Branch, Refusal> {
    Branch::parse(&format!("covibes/{}/{agent}", shared.settings.team))
        .map_err(|_| Refusal::Bad("the team has no name that a branch could have".to_owned()))
}

fn failed(shared: &Shared) -> impl Fn(GitError) -> Refusal {
    |error| Refusal::Failed(shared.redact(&Chain(&error).to_string()))
}

async fn open(shared: &Shared) -> Result<Git<'_>, Refusal> {
    let settings = &shared.settings;
    if settings.report_only {
        let message = "the workspace is a person's own directory; nothing is committed there";
        return Err(Refusal::Unfit(message.to_owned()));
    }
    let opened = Git::open(&settings.git, &shared.scope, &settings.workspace).await;
    opened
        .map_err(failed(shared))?
        .ok_or_else(|| Refusal::Unfit("the workspace is no Git repository".to_owned()))
}

/// Commits what is changed to the agent's branch.
pub(super) async fn commit(shared: &Shared, request: &Request) -> Result<Committed, Refusal> {
    request.check()?;
    let branch = branch_of(shared, &request.agent)?;
    let git = open(shared).await?;
    put_on(shared, &git, request, &branch).await
}

async fn put_on(
    shared: &Shared,
    git: &Git<'_>,
    request: &Request,
    branch: &Branch,
) -> Result<Committed, Refusal> {
    let failed = failed(shared);
    let reference = format!("refs/heads/{}", branch.as_str());
    let where_out = "--format=%(objectname) %(HEAD)%(worktreepath)";
    let found = git.run(Operation::Compare, ["for-each-ref", where_out, &reference]).await;
    let found = found.map_err(&failed)?.line();
    let (tip, checked_out) = found.split_once(' ').unwrap_or((&found, ""));
    if !checked_out.trim().is_empty() {
        let message = format!("{} is checked out, and no checkout is moved", branch.as_str());
        return Err(Refusal::Unfit(message));
    }
    let base = match tip {
        "" => git.run(Operation::Compare, ["rev-parse", "--verify", "--quiet", "HEAD"]).await,
        tip => Ok(super::git::Output { bytes: tip.as_bytes().to_vec(), truncated: false }),
    };
    let base = base.map_err(|_| Refusal::Unfit("nothing is committed yet".to_owned()))?.line();
    let (mut wanted, left) = changed(git, request).await.map_err(&failed)?;
    if !tip.is_empty() {
        // What an earlier commit took, and was put back since.
        for path in taken_before(git, tip).await.map_err(&failed)? {
            if request.wants(&path) && !wanted.contains(&path) {
                wanted.push(path);
            }
        }
    }
    let mut committed = Committed {
        branch: branch.as_str().to_owned(),
        commit: None,
        parent: Some(base.clone()),
        taken: Vec::new(),
        left,
    };
    if wanted.is_empty() {
        return Ok(committed);
    }
    let scratch = Scratch::new(&shared.settings.scratch_dir);
    let index = Some(&scratch);
    let call = Call { index, ..Call::new(["read-tree", &base]) };
    git.call(Operation::Commit, call).await.map_err(&failed)?;
    let mut input = wanted.join("\0").into_bytes();
    input.push(0);
    let arguments = ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"];
    let call = Call { index, input: &input, ..Call::new(arguments) };
    git.call(Operation::Commit, call).await.map_err(&failed)?;
    let call = Call { index, ..Call::new(["write-tree"]) };
    let tree = git.call(Operation::Commit, call).await.map_err(&failed)?.line();
    committed.taken = difference(git, &base, &tree).await.map_err(&failed)?;
    if committed.taken.is_empty() {
        return Ok(committed);
    }
    let message = format!("{}\n", request.message.trim());
    let new = Commit { tree: &tree, parents: &[&base], message: message.as_bytes() };
    let email = format!("{}@{}.covibes.invalid", request.agent, shared.settings.team);
    let author = (request.agent.clone(), email, None);
    let commit = new.write(git, Some(author)).await.map_err(&failed)?;
    // Only if nobody was quicker.
    let old = if tip.is_empty() { "0".repeat(commit.len()) } else { tip.to_owned() };
    let arguments = ["update-ref", &reference, &commit, &old];
    git.run(Operation::Commit, arguments).await.map_err(&failed)?;
    committed.commit = Some(commit);
    Ok(committed)
}

/// What differs from `HEAD` and is wanted, and what of it cannot be taken.
async fn changed(git: &Git<'_>, request: &Request) -> Result<(Vec<String>, Vec<String>), GitError> {
    let operation = Operation::Status;
    let arguments = [
        "status",
        "--porcelain=v1",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=all",
        "--no-renames",
    ];
    let output = git.run(operation, arguments).await?;
    if output.truncated {
        let message = "too many files are changed; name paths".to_owned();
        return Err(GitError::Refused { operation, message });
    }
    let (mut wanted, mut left) = (Vec::new(), Vec::new());
    for entry in output.bytes.split(|byte| *byte == 0).filter(|entry| entry.len() > 3) {
        match std::str::from_utf8(&entry[3..]) {
            Ok(path) if !request.wants(path) => {}
            Ok(path) if !path.ends_with('/') => wanted.push(path.to_owned()),
            Ok(path) => left.push(path.to_owned()),
            Err(_) => left.push(String::from_utf8_lossy(&entry[3..]).into_owned()),
        }
    }
    Ok((wanted, left))
}

/// The files that the branch changed since it left the checkout's history.
async fn taken_before(git: &Git<'_>, tip: &str) -> Result<Vec<String>, GitError> {
    let ended = git.try_call(Operation::Compare, Call::new(["merge-base", "HEAD", tip])).await?;
    if ended.code != Some(0) {
        return Ok(Vec::new());
    }
    let taken = difference(git, &ended.output.line(), tip).await?;
    Ok(taken.into_iter().map(|taken| taken.path).collect())
}

async fn difference(git: &Git<'_>, base: &str, tree: &str) -> Result<Vec<Taken>, GitError> {
    let arguments = [
        "diff-tree",
        "-r",
        "-z",
        "--name-status",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        base,
        tree,
    ];
    let output = git.run(Operation::Compare, arguments).await?;
    let text = String::from_utf8_lossy(&output.bytes).into_owned();
    let mut words = text.split('\0');
    let mut taken = Vec::new();
    while let (Some(kind), Some(path)) = (words.next(), words.next()) {
        let change = match kind {
            "A" => "added",
            "D" => "deleted",
            _ => "modified",
        };
        taken.push(Taken { path: path.to_owned(), change });
    }
    Ok(taken)
}

/// Pushes the agent's branch, never by force.
pub(super) async fn push(shared: &Shared, agent: &str) -> Result<Pushed, Refusal> {
    if !is_part_name(agent) {
        return Err(Refusal::Bad("`agent` is the name of an agent".to_owned()));
    }
    let branch = branch_of(shared, agent)?;
    let Source::Remote(remote) = &shared.settings.source else {
        return Err(Refusal::Unfit("the workspace has no remote".to_owned()));
    };
    let git = open(shared).await?;
    let reference = format!("refs/heads/{}", branch.as_str());
    let commit = git.run(Operation::Compare, ["rev-parse", "--verify", "--quiet", &reference]);
    let commit = commit
        .await
        .map_err(|_| Refusal::Unfit(format!("there is no branch {}", branch.as_str())))?
        .line();
    send(&git, &remote.url, &commit, &reference).await.map_err(failed(shared))?;
    Ok(Pushed { branch: branch.as_str().to_owned(), commit })
}

async fn send(
    git: &Git<'_>,
    url: &RemoteUrl,
    commit: &str,
    reference: &str,
) -> Result<(), GitError> {
    let refspec = format!("{commit}:{reference}");
    let arguments = [
        "push",
        // Signs of life, not for people.
        "--progress",
        "--no-verify",
        "--no-signed",
        "--no-follow-tags",
        "--recurse-submodules=no",
        "--receive-pack=git-receive-pack",
        "--",
        url.as_str(),
        &refspec,
    ];
    let call = Call { remote: Some(url), ..Call::new(arguments) };
    git.call(Operation::Push, call).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(paths: &[&str]) -> Request {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Request { agent: "one".to_owned(), message: "m".to_owned(), paths }
    }

    #[test]
    fn a_path_takes_itself_and_what_is_below() {
        let wanted = request(&["src/", "a b"]);
        for (path, is_wanted) in
            [("src/x", true), ("src", true), ("srcs/x", false), ("a b", true), ("a", false)]
        {
            assert_eq!(wanted.wants(path), is_wanted, "{path}");
        }
        assert!(request(&[]).wants("anything"));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for bad in ["", "/etc", "../x", "a/../b", ".git/config", "a/.GIT/x", "a//b", "a\0b", "./a"]
        {
            assert!(matches!(request(&[bad]).check(), Err(Refusal::Bad(_))), "{bad:?}");
        }
        assert_eq!(request(&["src", "a/b/", ":(top)x", "-x"]).check(), Ok(()));
        let mut unnamed = request(&[]);
        unnamed.agent = "../x".to_owned();
        assert!(unnamed.check().is_err());
        let mut silent = request(&[]);
        silent.message = " \n".to_owned();
        assert!(silent.check().is_err());
    }
}
