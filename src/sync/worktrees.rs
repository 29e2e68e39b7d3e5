//! Keeps the worktrees of previews in step, one for each branch that is not the
//! workspace's own.
//!
//! They are detached: a branch that is checked out twice is nobody's. A worktree
//! whose branch is gone stays as it is, because a preview shows it.

use std::collections::BTreeMap;
use std::path::Path;

use super::Shared;
use super::board::{Conflict, Shown, Standing};
use super::cycle::{Memory, compare, in_the_way, is_busy, left_lock, public_text, under_way};
use super::git::{Git, GitError, Operation};
use super::mending::{self, Mended};
use super::moves::{Mover, Way};
use super::notes::Notes;
use super::remote::Branch;
use super::repository::{self, Distance, Moved};
use super::strategy::{self, Histories, Joined, Strategy, Wish};

/// How one was brought in step, or why not.
struct Kept {
    standing: Standing,
    head: Option<String>,
    distance: Option<Distance>,
}

/// Brings each in step; what cannot be is told of that one only.
pub(super) async fn keep(
    shared: &Shared,
    git: &Git<'_>,
    memory: &mut Memory,
    missing: &[String],
    wish: Option<&Wish>,
) -> Vec<Shown> {
    if shared.settings.worktrees.is_empty() {
        return Vec::new();
    }
    let mut mended = BTreeMap::new();
    for (name, _) in &shared.settings.worktrees {
        let found = mend(shared, git, name).await;
        mended.extend(found.transpose().map(|found| (name.as_str(), found)));
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
        let wanted = memory.tracked.as_ref().and_then(|all| all.get(branch.as_str())).cloned();
        let is_gone = missing.iter().any(|gone| gone == branch.as_str());
        let stays = |standing| Kept { standing, head: head.clone(), distance: None };
        let tree = tree(name);
        let mover = Mover { notes: Notes(&shared.settings.state_dir), tree: &tree };
        let failed = |error: &GitError| {
            let text = public_text(shared, error);
            match left_lock(shared, error) {
                Some(conflict) => stays(Standing::Conflict(vec![conflict])),
                None if is_busy(error) => {
                    stays(Standing::Failed(format!("another Git is at work: {text}")))
                }
                None => {
                    tracing::warn!(worktree = name, error = text, "a worktree is not in step");
                    stays(Standing::Failed(text))
                }
            }
        };
        let half = match mended.get(name.as_str()) {
            Some(Err(error)) => Some(failed(error)),
            Some(Ok(mended)) => mended.conflict().map(|half| stays(Standing::Conflict(vec![half]))),
            None => None,
        };
        if let Some(Kept { standing, head, distance }) = half {
            let branch = branch.as_str().to_owned();
            all.push(Shown { name: name.clone(), branch, head, distance, standing });
            continue;
        }
        let mut kept = match (wanted.filter(|_| !is_gone), &head) {
            (None, Some(_)) => stays(Standing::BranchGone),
            (None, None) => stays(Standing::NoBranch),
            (Some(wanted), Some(head)) if wanted == *head => {
                memory.rewritten.remove(branch.as_str());
                let distance = Some(Distance { ahead: 0, behind: 0 });
                Kept { distance, ..stays(Standing::UpToDate) }
            }
            (Some(wanted), _) => {
                let team = &shared.settings.team;
                let strategy = Wish::of(wish, Some(name));
                let mover = &mover;
                let one = One { path: &path, branch, wanted: &wanted, team, strategy, mover };
                let kept = keep_one(git, memory, &one, head.as_deref()).await;
                kept.unwrap_or_else(|error| failed(&error))
            }
        };
        if let (Standing::UpToDate, Some(Ok(Mended::Done { to, .. }))) =
            (&kept.standing, mended.get(name.as_str()))
        {
            kept.standing = Standing::Mended(to.clone());
        }
        let Kept { standing, head, distance } = kept;
        let branch = branch.as_str().to_owned();
        all.push(Shown { name: name.clone(), branch, head, distance, standing });
    }
    all
}

/// A worktree's name among the notes.
fn tree(name: &str) -> String {
    format!("worktree-{name}")
}

/// Finishes the move that a worktree is in the middle of; nothing if it is in none.
async fn mend(shared: &Shared, git: &Git<'_>, name: &str) -> Result<Option<Mended>, GitError> {
    let (settings, tree) = (&shared.settings, tree(name));
    let mover = Mover { notes: Notes(&settings.state_dir), tree: &tree };
    if mover.notes.read(&tree).is_none() {
        return Ok(None);
    }
    let path = settings.worktrees_dir.join(name);
    let mut mended = mending::mend_made(&mover, git, &path, &settings.scratch_dir).await?;
    if mended == Mended::Nothing
        && let Some(worktree) = git.worktree(&path).await?
    {
        mended = mending::mend(&mover, &worktree, &settings.scratch_dir).await?;
    }
    Ok(Some(mended))
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

/// A worktree, and what it should show.
struct One<'a> {
    path: &'a Path,
    /// The remote's branch.
    branch: &'a Branch,
    /// Its commit.
    wanted: &'a str,
    team: &'a str,
    /// How its histories are joined, if somebody asks for that.
    strategy: Option<Strategy>,
    mover: &'a Mover<'a>,
}

async fn keep_one(
    git: &Git<'_>,
    memory: &mut Memory,
    one: &One<'_>,
    head: Option<&str>,
) -> Result<Kept, GitError> {
    let &One { path, branch, wanted, team, strategy, mover } = one;
    let none = Distance { ahead: 0, behind: 0 };
    let in_step = |standing| Kept { standing, head: Some(wanted.to_owned()), distance: Some(none) };
    if path.symlink_metadata().is_err() {
        repository::measure(git, wanted).await?;
        mover.make(git, path, wanted).await?;
        tracing::info!(worktree = %path.display(), "a worktree was made");
        return Ok(in_step(Standing::Created));
    }
    let opened = git.worktree(path).await?;
    let (Some(git), Some(head)) = (opened, head) else {
        let standing = Standing::Failed("the directory is no worktree of the workspace".to_owned());
        return Ok(Kept { standing, head: head.map(str::to_owned), distance: None });
    };
    // The remote has replaced the branch's history, and nothing here is local.
    let is_replaced = |git: &Git<'_>, distance: Distance, head: &str| {
        distance.ahead > 0 && repository::was_remote(git, branch.as_str(), head)
    };
    let (distance, _) = compare(&git, memory, head, wanted).await?;
    if distance.behind == 0 && !is_replaced(&git, distance, head) {
        let head = Some(head.to_owned());
        return Ok(Kept { standing: Standing::UpToDate, head, distance: Some(distance) });
    }
    // Somebody may have committed since the worktrees were listed.
    let (checkout, changes) = repository::status(&git).await?;
    let head = checkout.head.clone().unwrap_or_else(|| head.to_owned());
    let (distance, paths) = compare(&git, memory, &head, wanted).await?;
    let is_replaced = is_replaced(&git, distance, &head);
    let stays = |standing| Kept { standing, head: Some(head.clone()), distance: Some(distance) };
    let rewritten = memory.rewritten.contains(branch.as_str());
    let parted = (distance.ahead > 0 && !is_replaced).then_some((distance, paths));
    let conflicts = in_the_way(parted, rewritten, &changes);
    let is_joined = distance.ahead > 0 && !is_replaced && changes.changed == 0;
    let strategy = strategy.filter(|_| is_joined);
    if !conflicts.is_empty() && strategy.is_none() {
        return Ok(stays(Standing::Conflict(conflicts)));
    }
    if let Some(what) = under_way(&git) {
        let text = format!("somebody is in the middle of something ({what})");
        return Ok(stays(Standing::Failed(text)));
    }
    repository::measure(&git, wanted).await?;
    let Some(strategy) = strategy else {
        let way = if is_replaced { Way::Detached } else { Way::Forward };
        return Ok(match mover.go(&git, way, wanted).await? {
            Moved::Done => in_step(Standing::FastForwarded),
            Moved::InTheWay(paths) => {
                stays(Standing::Conflict(vec![Conflict::Untracked { paths }]))
            }
        });
    };
    // An agent may have made a branch of its own here: then that one moves.
    let own = checkout.branch.as_deref().and_then(|name| Branch::parse(name).ok());
    let histories =
        Histories { branch, checked_out: own.as_ref(), head: &head, commit: wanted, team };
    match strategy::join(&git, mover, strategy, &histories).await? {
        Joined::Done { branch } => {
            let head = repository::status(&git).await?.0.head.unwrap_or_default();
            let (distance, _) = compare(&git, memory, &head, wanted).await?;
            let standing = Standing::Joined { strategy, branch };
            Ok(Kept { standing, head: Some(head), distance: Some(distance) })
        }
        Joined::Conflicts(paths) => Ok(stays(Standing::Conflict(vec![Conflict::Merge { paths }]))),
        Joined::InTheWay(paths) => {
            Ok(stays(Standing::Conflict(vec![Conflict::Untracked { paths }])))
        }
        Joined::Unfit(why) => Ok(stays(Standing::Failed(why.to_owned()))),
    }
}
