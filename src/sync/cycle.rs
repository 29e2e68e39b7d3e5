//! One cycle: look, fetch, and move clean checkouts forward.
//!
//! Only one runs at a time, and no commit or push beside it. Local work always
//! wins: a changed file or a commit of its own leaves a checkout as it is, and the
//! report says why.
//!
//! Most cycles find nothing new. Such a one compares names and commits, here and at
//! the remote, and looks at no file: that costs more than all the rest, grows with
//! the workspace, and is done after it (`look`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio::time::Instant;

use super::board::{Conflict, Cycle, Outcome, Shown};
use super::git::{Git, GitError, Operation};
use super::leftovers::Leftovers;
use super::mending::{self, Mended};
use super::moves::{Mover, Way};
use super::notes::{Notes, WORKSPACE};
use super::remote::Branch;
use super::repository::{self, Changes, Checkout, Distance, Merged, Moved};
use super::settings::{Remote, Source};
use super::strategy::{self, Histories, Joined, Strategy, Wish};
use super::{Shared, locks, worktrees};
use crate::service::logs::Chain;
use crate::service::system::now;

/// Git's files that say that somebody is in the middle of something.
const UNDER_WAY: &[&str] = &[
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// What is remembered from one cycle to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where the remote's branches were seen last.
    pub(super) tracked: Option<BTreeMap<String, String>>,
    /// Branches whose history the remote has replaced, until nothing of the old
    /// one is in the way.
    pub(super) rewritten: BTreeSet<String>,
    /// What was found out about two commits, for each checkout.
    compared: BTreeMap<PathBuf, Compared>,
    leftovers: Leftovers,
}

/// How far two commits are apart, and which paths stand between them.
#[derive(Debug)]
struct Compared {
    head: String,
    commit: String,
    distance: Distance,
    paths: Vec<String>,
}

/// Runs one cycle.
pub(super) async fn run_cycle(shared: &Shared, memory: &mut Memory, wish: Option<&Wish>) -> Cycle {
    let began = Instant::now();
    let mut seen = Seen::default();
    let outcome = match look_and_move(shared, memory, wish, &mut seen).await {
        Ok(outcome) => outcome,
        Err(error) if is_busy(&error) => kept_out(shared, &error),
        Err(error) => {
            let text = public_text(shared, &error);
            if !shared.scope.is_stopping() {
                tracing::warn!(error = text, "the workspace could not be synced");
            }
            Outcome::Failed(text)
        }
    };
    Cycle {
        finished: Instant::now(),
        finished_at: now(),
        took: began.elapsed(),
        checkout: seen.checkout,
        changes: seen.changes,
        distance: seen.distance,
        fetched: seen.fetched,
        rewritten: memory.rewritten.iter().cloned().collect(),
        missing: seen.missing,
        worktrees: seen.worktrees,
        outcome,
    }
}

/// What is known even when a later part fails.
#[derive(Debug, Default)]
struct Seen {
    checkout: Option<Checkout>,
    /// Absent if no file was looked at, or some were moved since.
    changes: Option<Changes>,
    distance: Option<Distance>,
    fetched: bool,
    missing: Vec<String>,
    worktrees: Vec<Shown>,
}

impl Seen {
    /// Looks at every file.
    async fn look(&mut self, git: &Git<'_>) -> Result<(Checkout, Changes), GitError> {
        let (checkout, changes) = repository::status(git).await?;
        self.checkout = Some(checkout.clone());
        self.changes = Some(changes.clone());
        Ok((checkout, changes))
    }
}

async fn look_and_move(
    shared: &Shared,
    memory: &mut Memory,
    wish: Option<&Wish>,
    seen: &mut Seen,
) -> Result<Outcome, GitError> {
    let settings = &shared.settings;
    let opened = Git::open(&settings.git, &shared.scope, &settings.workspace).await?;
    let Some(git) = opened else { return Ok(Outcome::NoRepository) };
    let remote = match &settings.source {
        Source::Nothing | Source::Mirror(_) => {
            seen.look(&git).await?;
            seen.distance = seen.changes.as_ref().and_then(|changes| changes.upstream);
            return Ok(Outcome::LocalOnly);
        }
        Source::Remote(remote) => remote,
    };
    let mover = Mover { notes: Notes(&settings.state_dir), tree: WORKSPACE };
    // What was cut off needs no remote.
    let mended = match mending::mend(&mover, &git, &settings.scratch_dir).await {
        Ok(mended) => match mended.conflict() {
            Some(half) => Err(Outcome::Conflict(vec![half])),
            None => Ok(mended),
        },
        Err(error) if is_busy(&error) => Err(kept_out(shared, &error)),
        Err(error) => return Err(error),
    };
    let branch = match &remote.branch {
        Some(branch) => Some(branch.clone()),
        None => {
            let checkout = repository::refs(&git, &[]).await?.checkout;
            checkout.and_then(|checkout| Branch::parse(checkout.branch.as_deref()?).ok())
        }
    };
    let branches = branches(shared, branch.as_ref());
    let (tracked, missing) = fetch(shared, &git, remote, &branches, memory, seen).await?;
    seen.fetched = true;
    seen.missing = missing.iter().map(|branch| branch.as_str().to_owned()).collect();
    let outcome = match (&branch, &mended) {
        (_, Err(outcome)) => {
            seen.look(&git).await?;
            outcome.clone()
        }
        (None, Ok(_)) => Outcome::Skipped("no branch is checked out".to_owned()),
        (Some(branch), Ok(_)) if missing.contains(branch) => {
            Outcome::Skipped(format!("the remote has no branch {}", branch.as_str()))
        }
        (Some(branch), Ok(_)) => match tracked.get(branch.as_str()) {
            None => Outcome::Skipped(format!("the remote has no branch {}", branch.as_str())),
            Some(commit) => {
                let strategy = Wish::of(wish, None);
                let kept =
                    keep_workspace(shared, &git, memory, (branch, commit), strategy, seen).await;
                match kept {
                    // The worktrees are others'.
                    Err(error) if is_busy(&error) => kept_out(shared, &error),
                    kept => kept?,
                }
            }
        },
    };
    seen.worktrees = worktrees::keep(shared, &git, memory, &seen.missing, wish).await;
    Ok(match (outcome, mended) {
        (Outcome::UpToDate, Ok(Mended::Done { to, .. })) => Outcome::Mended(to),
        (outcome, _) => outcome,
    })
}

/// Every branch that is shown somewhere, once.
fn branches(shared: &Shared, own: Option<&Branch>) -> Vec<Branch> {
    let mut all: Vec<Branch> = own.into_iter().cloned().collect();
    for (_, branch) in &shared.settings.worktrees {
        if !all.contains(branch) {
            all.push(branch.clone());
        }
    }
    all
}

/// Fetches what is new, and notes which branches the remote has written anew; returns at which
/// commits branches are then, and those that the remote has not.
async fn fetch(
    shared: &Shared,
    git: &Git<'_>,
    remote: &Remote,
    branches: &[Branch],
    memory: &mut Memory,
    seen: &mut Seen,
) -> Result<(BTreeMap<String, String>, Vec<Branch>), GitError> {
    let git_dir = &git.place().common_dir;
    let unfinished = memory.leftovers.tidy(git_dir);
    let began = Instant::now();
    let (refs, heads) = tokio::join!(
        repository::refs(git, branches),
        repository::remote_heads(git, &remote.url, branches)
    );
    let refs = refs?;
    // What is checked out is known even if the remote is away.
    match refs.checkout {
        Some(checkout) => seen.checkout = Some(checkout),
        // Detached, or without a commit: a look says which.
        None => _ = seen.look(git).await?,
    }
    let mut after = refs.tracked;
    let before = memory.tracked.get_or_insert_with(|| after.clone()).clone();
    let asked = async {
        let heads = heads?;
        let (there, mut missing): (Vec<_>, Vec<_>) =
            branches.iter().cloned().partition(|branch| heads.contains_key(branch.as_str()));
        let is_new = |branch: &Branch| {
            let name = branch.as_str();
            after.get(name) != heads.get(name)
        };
        let new: Vec<Branch> = there.into_iter().filter(is_new).collect();
        if !new.is_empty() {
            missing.extend(repository::fetch(git, &remote.url, &new).await?);
            after = repository::refs(git, branches).await?.tracked;
        }
        Ok((after, missing))
    };
    let asked = asked.await;
    shared.metrics.fetched(asked.is_ok(), began.elapsed());
    if asked.is_err() {
        memory.leftovers.note_failure(git_dir, &unfinished);
    }
    let (after, missing) = asked?;
    for (branch, commit) in &after {
        let Some(old) = before.get(branch).filter(|old| *old != commit) else { continue };
        if !repository::is_ancestor(git, old, commit).await? {
            tracing::warn!(branch, old, commit, "the remote has replaced a branch's history");
            memory.rewritten.insert(branch.clone());
            shared.metrics.rewritten();
        }
    }
    memory.tracked = Some(after.clone());
    Ok((after, missing))
}

async fn keep_workspace(
    shared: &Shared,
    git: &Git<'_>,
    memory: &mut Memory,
    (branch, commit): (&Branch, &str),
    strategy: Option<Strategy>,
    seen: &mut Seen,
) -> Result<Outcome, GitError> {
    let checkout = seen.checkout.clone().unwrap_or_default();
    let Some(head) = checkout.head.clone() else {
        return Ok(Outcome::Skipped("nothing is checked out yet".to_owned()));
    };
    let (distance, paths) = compare(git, memory, &head, commit).await?;
    seen.distance = Some(distance);
    if checkout.branch.as_deref() != Some(branch.as_str()) {
        let other = checkout.branch.as_deref().unwrap_or("a detached commit");
        return Ok(Outcome::Skipped(format!("{other} is checked out, not {}", branch.as_str())));
    }
    if distance.ahead == 0 {
        memory.rewritten.remove(branch.as_str());
    }
    if distance.behind == 0 {
        return Ok(Outcome::UpToDate);
    }
    let (_, changes) = seen.look(git).await?;
    let rewritten = memory.rewritten.contains(branch.as_str());
    let parted = (distance.ahead > 0).then_some((distance, paths));
    let conflicts = in_the_way(parted, rewritten, &changes);
    let is_joined = distance.ahead > 0 && changes.changed == 0;
    let strategy = strategy.filter(|_| is_joined);
    if !conflicts.is_empty() && strategy.is_none() {
        return Ok(Outcome::Conflict(conflicts));
    }
    if let Some(what) = under_way(git) {
        return Ok(Outcome::Skipped(format!("somebody is in the middle of something ({what})")));
    }
    repository::measure(git, commit).await?;
    let mover = Mover { notes: Notes(&shared.settings.state_dir), tree: WORKSPACE };
    let outcome = match strategy {
        None => match mover.go(git, Way::Forward, commit).await? {
            Moved::Done => Outcome::FastForwarded,
            Moved::InTheWay(paths) => {
                return Ok(Outcome::Conflict(vec![Conflict::Untracked { paths }]));
            }
        },
        Some(strategy) => {
            let team = &shared.settings.team;
            let checked_out = Some(branch);
            let histories = Histories { branch, checked_out, head: &head, commit, team };
            match strategy::join(git, &mover, strategy, &histories).await? {
                Joined::Done { branch } => Outcome::Joined { strategy, branch },
                Joined::Conflicts(paths) => {
                    return Ok(Outcome::Conflict(vec![Conflict::Merge { paths }]));
                }
                Joined::InTheWay(paths) => {
                    return Ok(Outcome::Conflict(vec![Conflict::Untracked { paths }]));
                }
                Joined::Unfit(why) => return Ok(Outcome::Skipped(why.to_owned())),
            }
        }
    };
    let head = seen.look(git).await?.0.head.unwrap_or_default();
    let (distance, _) = compare(git, memory, &head, commit).await?;
    if distance.ahead == 0 {
        memory.rewritten.remove(branch.as_str());
    }
    seen.distance = Some(distance);
    tracing::info!(head, "the workspace was moved: {}", outcome.name());
    Ok(outcome)
}

/// How far two commits are apart, and what both sides changed if they parted;
/// asked of Git only when one of them is new.
pub(super) async fn compare(
    git: &Git<'_>,
    memory: &mut Memory,
    head: &str,
    commit: &str,
) -> Result<(Distance, Vec<String>), GitError> {
    if head == commit {
        return Ok((Distance { ahead: 0, behind: 0 }, Vec::new()));
    }
    if let Some(known) = memory.compared.get(&git.place().git_dir)
        && (known.head.as_str(), known.commit.as_str()) == (head, commit)
    {
        return Ok((known.distance, known.paths.clone()));
    }
    let distance = repository::distance(git, head, commit).await?;
    let paths = if distance.ahead > 0 && distance.behind > 0 {
        match repository::merge(git, head, commit).await {
            Ok(Merged::Conflicts(paths)) => paths,
            // Also for histories that share nothing: there is nothing to name.
            Ok(Merged::Clean(_)) | Err(GitError::Refused { .. }) => Vec::new(),
            Err(error) => return Err(error),
        }
    } else {
        Vec::new()
    };
    let (head, commit) = (head.to_owned(), commit.to_owned());
    let compared = Compared { head, commit, distance, paths: paths.clone() };
    memory.compared.insert(git.place().git_dir.clone(), compared);
    Ok((distance, paths))
}

/// The local work that is in the way of a move: commits, if the histories have parted, and
/// changed files.
pub(super) fn in_the_way(
    parted: Option<(Distance, Vec<String>)>,
    rewritten: bool,
    changes: &Changes,
) -> Vec<Conflict> {
    let diverged = parted.map(|(Distance { ahead, behind }, paths)| Conflict::Diverged {
        ahead,
        behind,
        paths,
        rewritten,
    });
    let dirty = (changes.changed > 0)
        .then(|| Conflict::Dirty { paths: changes.changed_paths.clone(), total: changes.changed });
    diverged.into_iter().chain(dirty).collect()
}

/// What somebody is in the middle of, if anything.
pub(super) fn under_way(git: &Git<'_>) -> Option<&'static str> {
    let exists = |name: &&&str| git.place().git_dir.join(name).symlink_metadata().is_ok();
    UNDER_WAY.iter().find(exists).copied()
}

/// Tells whether Git was kept out by another.
pub(super) fn is_busy(error: &GitError) -> bool {
    matches!(error, GitError::Held) || locks::in_the_way(error).is_some()
}

/// How a cycle ended that another kept out.
fn kept_out(shared: &Shared, error: &GitError) -> Outcome {
    match left_lock(shared, error) {
        Some(conflict) => Outcome::Conflict(vec![conflict]),
        None => {
            Outcome::Skipped(shared.redact(&format!(
                "another Git is at work, or left a lock behind: {}",
                Chain(error)
            )))
        }
    }
}

/// The lock that kept Git out, if nobody can be at work with it any more.
pub(super) fn left_lock(shared: &Shared, error: &GitError) -> Option<Conflict> {
    let lock = locks::in_the_way(error).filter(|lock| locks::is_left(lock))?;
    let short = lock.strip_prefix(&shared.settings.workspace).unwrap_or(&lock);
    Some(Conflict::Locked { path: short.to_string_lossy().into_owned() })
}

/// A text for whoever reads `/status`.
pub(super) fn public_text(shared: &Shared, error: &GitError) -> String {
    let text = match error {
        GitError::Refused { operation: Operation::Status | Operation::Config, message }
            if message.contains("dubious ownership") =>
        {
            "the workspace belongs to another user".to_owned()
        }
        GitError::Refused { .. }
        | GitError::Run { .. }
        | GitError::Timeout { .. }
        | GitError::Stalled { .. }
        | GitError::TooLarge { .. }
        | GitError::Held
        | GitError::Locked { .. }
        | GitError::Note { .. }
        | GitError::Stopping { .. } => Chain(error).to_string(),
    };
    shared.redact(&text)
}
