//! Keeps the worktrees of previews in step, one for each branch that is not the
//! workspace's own.
//!
//! They are detached: a branch that is checked out twice is nobody's. A worktree
//! whose branch is gone stays as it is, because a preview shows it.

use std::collections::BTreeMap;
use std::path::Path;

use super::Shared;
use super::board::{Conflict, Shown, Standing};
use super::cycle::{is_busy, public_text, under_way};
use super::git::{Git, GitError, Operation};
use super::repository::{self, Moved};

/// Brings each in step; what cannot be is told of that one only.
pub(super) async fn keep(
    shared: &Shared,
    git: &Git<'_>,
    tracked: &BTreeMap<String, String>,
    missing: &[String],
) -> Vec<Shown> {
    if shared.settings.worktrees.is_empty() {
        return Vec::new();
    }
    let heads = match heads(git).await {
        Ok(heads) => heads,
        Err(error) => {
            tracing::warn!(error = public_text(shared, &error), "worktrees cannot be listed");
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for (name, branch) in &shared.settings.worktrees {
        let path = shared.settings.worktrees_dir.join(name);
        let head = heads.get(&*path.to_string_lossy()).cloned();
        let wanted = tracked.get(branch.as_str()).map(String::as_str);
        let is_gone = missing.iter().any(|gone| gone == branch.as_str());
        let standing = match (wanted.filter(|_| !is_gone), &head) {
            (None, Some(_)) => Standing::BranchGone,
            (None, None) => Standing::NoBranch,
            (Some(wanted), Some(head)) if wanted == head => Standing::UpToDate,
            (Some(wanted), _) => {
                let kept = keep_one(git, &path, branch.as_str(), wanted).await;
                kept.unwrap_or_else(|error| {
                    let text = public_text(shared, &error);
                    if is_busy(&error) {
                        Standing::Failed(format!("another Git is at work: {text}"))
                    } else {
                        tracing::warn!(worktree = name, error = text, "a worktree is not in step");
                        Standing::Failed(text)
                    }
                })
            }
        };
        let head = match &standing {
            Standing::Created | Standing::FastForwarded => wanted.map(str::to_owned),
            _ => head,
        };
        all.push(Shown { name: name.clone(), branch: branch.as_str().to_owned(), head, standing });
    }
    all
}

/// Reads at which commit each worktree of the repository is.
async fn heads(git: &Git<'_>) -> Result<BTreeMap<String, String>, GitError> {
    let output = git.run(Operation::Compare, ["worktree", "list", "--porcelain", "-z"]).await?;
    let text = String::from_utf8_lossy(&output.bytes).into_owned();
    let mut heads = BTreeMap::new();
    let mut path = None;
    for line in text.split('\0') {
        match line.split_once(' ') {
            Some(("worktree", place)) => path = Some(place.to_owned()),
            Some(("HEAD", commit)) => {
                heads.extend(path.take().map(|path| (path, commit.to_owned())));
            }
            Some(_) | None => {}
        }
    }
    Ok(heads)
}

async fn keep_one(
    git: &Git<'_>,
    path: &Path,
    branch: &str,
    wanted: &str,
) -> Result<Standing, GitError> {
    if path.symlink_metadata().is_err() {
        repository::measure(git, wanted).await?;
        let text = path.to_string_lossy();
        // By force, because a worktree of this name may have been here before.
        let arguments = ["worktree", "add", "--quiet", "--force", "--detach", &*text, wanted];
        git.run(Operation::Worktree, arguments).await?;
        tracing::info!(worktree = %path.display(), "a worktree was made");
        return Ok(Standing::Created);
    }
    let Some(git) = git.worktree(path).await? else {
        return Ok(Standing::Failed("the directory is no worktree of the workspace".to_owned()));
    };
    let distance = repository::distance(&git, wanted).await?;
    if distance.behind == 0 && distance.ahead == 0 {
        return Ok(Standing::UpToDate);
    }
    let (checkout, changes) = repository::status(&git).await?;
    let head = checkout.head.clone().unwrap_or_default();
    // The remote has replaced the branch's history, and nothing here is local.
    let is_replaced = distance.ahead > 0 && repository::was_remote(&git, branch, &head);
    let mut conflicts = Vec::new();
    if distance.ahead > 0 && !is_replaced {
        let repository::Distance { ahead, behind } = distance;
        let paths = Vec::new();
        conflicts.push(Conflict::Diverged { ahead, behind, paths, rewritten: false });
    }
    if changes.changed > 0 {
        let paths = changes.changed_paths.clone();
        conflicts.push(Conflict::Dirty { paths, total: changes.changed });
    }
    if !conflicts.is_empty() {
        return Ok(Standing::Conflict(conflicts));
    }
    if let Some(what) = under_way(&git) {
        return Ok(Standing::Failed(format!("somebody is in the middle of something ({what})")));
    }
    repository::measure(&git, wanted).await?;
    let moved = if is_replaced {
        repository::move_detached(&git, wanted).await?
    } else {
        repository::fast_forward(&git, wanted).await?
    };
    Ok(match moved {
        Moved::Done => Standing::FastForwarded,
        Moved::InTheWay(paths) => Standing::Conflict(vec![Conflict::Untracked { paths }]),
    })
}
