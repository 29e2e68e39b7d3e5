//! The JSON of the sync service's API.

use serde::{Deserialize, Serialize};

use super::board::{Board, Conflict, Cycle, Outcome, Shown, Standing};
use super::commits::{Committed, Pushed, Taken};
use super::settings::{Source, SyncSettings};
use crate::service::mirror::{MirrorFacts, MirrorState};
use crate::service::watch::WatchMode;

/// The body of `POST /sync`, which may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SyncRequestBody {
    /// `rebase`, `merge` or `branch`, when both sides have commits.
    pub(super) strategy: Option<String>,
    /// The preview whose worktree is meant; without one, the workspace.
    pub(super) worktree: Option<String>,
}

/// The body of `POST /commit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitRequestBody {
    /// Whose commit it is.
    pub(super) agent: String,
    /// What it says.
    pub(super) message: String,
    /// Files and directories; everything that is changed if there are none.
    #[serde(default)]
    pub(super) paths: Vec<String>,
}

/// The body of `POST /push`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushRequestBody {
    /// Whose branch it is.
    pub(super) agent: String,
}

/// The answer to `POST /commit`.
#[derive(Debug, Serialize)]
pub(super) struct CommittedBody {
    branch: String,
    commit: Option<String>,
    parent: Option<String>,
    taken: Vec<TakenBody>,
    left: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TakenBody {
    path: String,
    change: &'static str,
}

impl From<Committed> for CommittedBody {
    fn from(committed: Committed) -> Self {
        let Committed { branch, commit, parent, taken, left } = committed;
        let shown = |Taken { path, change }| TakenBody { path, change };
        Self { branch, commit, parent, taken: taken.into_iter().map(shown).collect(), left }
    }
}

/// The answer to `POST /push`.
#[derive(Debug, Serialize)]
pub(super) struct PushedBody {
    branch: String,
    commit: String,
}

impl From<Pushed> for PushedBody {
    fn from(pushed: Pushed) -> Self {
        Self { branch: pushed.branch, commit: pushed.commit }
    }
}

/// The body of `GET /status`, and of the answer to `POST /sync`.
#[derive(Debug, Serialize)]
pub(super) struct StatusBody {
    repository: Option<bool>,
    remote: bool,
    branch: Option<String>,
    head: Option<String>,
    /// This and the next two are absent until the files were looked at after the
    /// last cycle.
    dirty: Option<bool>,
    changed_files: Option<usize>,
    untracked_files: Option<usize>,
    ahead: Option<u64>,
    behind: Option<u64>,
    outcome: &'static str,
    detail: Option<String>,
    /// Where local commits went, if they went to a branch.
    local_branch: Option<String>,
    conflicts: Vec<ConflictBody>,
    worktrees: Vec<WorktreeBody>,
    /// Branches whose history the remote has replaced.
    rewritten_branches: Vec<String>,
    /// Branches that the remote has no more.
    missing_branches: Vec<String>,
    last_sync: Option<LastSyncBody>,
    last_fetch_age_seconds: Option<f64>,
    last_error: Option<LastErrorBody>,
    mirror: Option<MirrorBody>,
}

#[derive(Debug, Serialize)]
struct LastSyncBody {
    at: String,
    age_seconds: f64,
    duration_seconds: f64,
}

#[derive(Debug, Serialize)]
struct LastErrorBody {
    at: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct ConflictBody {
    kind: &'static str,
    paths: Vec<String>,
    detail: String,
}

#[derive(Debug, Serialize)]
struct WorktreeBody {
    name: String,
    branch: String,
    head: Option<String>,
    state: &'static str,
    ahead: Option<u64>,
    behind: Option<u64>,
    detail: Option<String>,
    /// Where local commits went, if they went to a branch.
    local_branch: Option<String>,
    conflicts: Vec<ConflictBody>,
}

#[derive(Debug, Serialize)]
struct MirrorBody {
    state: &'static str,
    detail: Option<String>,
    source: String,
    mode: &'static str,
    mode_reason: Option<String>,
    entries: usize,
    copied_total: u64,
    deleted_total: u64,
    last_pass_at: Option<String>,
    warnings_total: usize,
    warnings: Vec<WarningBody>,
}

#[derive(Debug, Serialize)]
struct WarningBody {
    path: String,
    reason: String,
}

impl StatusBody {
    /// Shows what is known.
    pub(super) fn of(settings: &SyncSettings, board: &Board) -> Self {
        let cycle = board.cycle();
        let cycle = cycle.as_ref();
        let checkout = cycle.and_then(|cycle| cycle.checkout.clone());
        let known = checkout.clone().unwrap_or_default();
        let look = board.fresh_look();
        let changes = look.as_ref().and_then(|look| look.changes.as_ref().ok());
        let distance = cycle.and_then(|cycle| cycle.distance);
        let repository = match cycle.map(|cycle| &cycle.outcome) {
            None => None,
            Some(Outcome::NoRepository) => Some(false),
            Some(Outcome::Failed(_)) => checkout.is_some().then_some(true),
            Some(
                Outcome::LocalOnly
                | Outcome::UpToDate
                | Outcome::FastForwarded
                | Outcome::Joined { .. }
                | Outcome::Mended(_)
                | Outcome::Conflict(_)
                | Outcome::Skipped(_),
            ) => Some(true),
        };
        let (mut detail, mut local_branch, mut conflicts) = (None, None, Vec::new());
        match cycle.map(|cycle| &cycle.outcome) {
            Some(Outcome::Failed(text) | Outcome::Skipped(text)) => detail = Some(text.clone()),
            Some(Outcome::Mended(to)) => detail = Some(mended(to)),
            Some(Outcome::Joined { branch, .. }) => local_branch = branch.clone(),
            Some(Outcome::Conflict(all)) => {
                conflicts = all.iter().map(ConflictBody::of).collect();
            }
            Some(
                Outcome::NoRepository
                | Outcome::LocalOnly
                | Outcome::UpToDate
                | Outcome::FastForwarded,
            )
            | None => {}
        }
        let worktrees = cycle.map(|cycle| cycle.worktrees.as_slice()).unwrap_or_default();
        let last_error = board.last_error();
        Self {
            repository,
            remote: matches!(settings.source, Source::Remote(_)),
            branch: known.branch,
            head: known.head,
            dirty: changes.map(|changes| changes.changed > 0),
            changed_files: changes.map(|changes| changes.changed),
            untracked_files: changes.map(|changes| changes.untracked),
            ahead: distance.map(|distance| distance.ahead),
            behind: distance.map(|distance| distance.behind),
            outcome: cycle.map_or("pending", |cycle| cycle.outcome.name()),
            detail,
            local_branch,
            conflicts,
            worktrees: worktrees.iter().map(WorktreeBody::of).collect(),
            rewritten_branches: cycle.map(|cycle| cycle.rewritten.clone()).unwrap_or_default(),
            missing_branches: cycle.map(|cycle| cycle.missing.clone()).unwrap_or_default(),
            last_sync: cycle.map(LastSyncBody::of),
            last_fetch_age_seconds: board.fetched().map(|at| at.elapsed().as_secs_f64()),
            last_error: last_error
                .map(|(at, message)| LastErrorBody { at: at.to_string(), message }),
            mirror: board.mirror().map(MirrorBody::of),
        }
    }
}

impl WorktreeBody {
    fn of(shown: &Shown) -> Self {
        let (mut detail, mut local_branch, mut conflicts) = (None, None, Vec::new());
        match &shown.standing {
            Standing::Failed(text) => detail = Some(text.clone()),
            Standing::Mended(to) => detail = Some(mended(to)),
            Standing::Conflict(all) => conflicts = all.iter().map(ConflictBody::of).collect(),
            Standing::Joined { branch, .. } => local_branch = branch.clone(),
            Standing::UpToDate
            | Standing::FastForwarded
            | Standing::Created
            | Standing::BranchGone
            | Standing::NoBranch => {}
        }
        Self {
            name: shown.name.clone(),
            branch: shown.branch.clone(),
            head: shown.head.clone(),
            state: shown.standing.name(),
            ahead: shown.distance.map(|distance| distance.ahead),
            behind: shown.distance.map(|distance| distance.behind),
            detail,
            local_branch,
            conflicts,
        }
    }
}

impl LastSyncBody {
    fn of(cycle: &Cycle) -> Self {
        Self {
            at: cycle.finished_at.to_string(),
            age_seconds: cycle.finished.elapsed().as_secs_f64(),
            duration_seconds: cycle.took.as_secs_f64(),
        }
    }
}

impl ConflictBody {
    fn of(conflict: &Conflict) -> Self {
        let (kind, paths, detail) = match conflict {
            Conflict::Dirty { paths, total } => {
                ("dirty", paths.clone(), format!("{total} changed files are not committed"))
            }
            Conflict::Diverged { ahead, behind, paths, rewritten: false } => {
                let detail = format!("{ahead} local and {behind} remote commits");
                ("diverged", paths.clone(), detail)
            }
            Conflict::Diverged { ahead, behind, paths, rewritten: true } => {
                let detail = format!(
                    "the remote has replaced its history: {ahead} commits only here and \
                     {behind} only there"
                );
                ("rewritten", paths.clone(), detail)
            }
            Conflict::Merge { paths } => {
                ("merge", paths.clone(), "both sides changed these; nothing was touched".to_owned())
            }
            Conflict::Untracked { paths } => {
                ("untracked", paths.clone(), "new files of the remote exist here".to_owned())
            }
            Conflict::HalfMoved { paths, total } => {
                let detail = format!(
                    "a move was cut off in its middle, and {total} of the files that it moves \
                     were changed since: keep a copy of what you need of them, then put each back with \
                     `git checkout -- FILE`, or remove it if Git does not know it; the move goes on \
                     by itself then"
                );
                ("half_moved", paths.clone(), detail)
            }
            Conflict::Locked { path } => {
                let detail = "a lock of Git's has lain there for minutes, and it is not known to be \
                              this service's: if no Git of an agent or a person is at work, remove it";
                ("locked", vec![path.clone()], detail.to_owned())
            }
        };
        Self { kind, paths, detail }
    }
}

/// What was mended, for people.
fn mended(to: &str) -> String {
    let short = to.get(..12).unwrap_or(to);
    format!("a move to {short} was cut off in its middle; it is finished")
}

impl MirrorBody {
    fn of(facts: MirrorFacts) -> Self {
        let (state, detail) = match facts.state {
            MirrorState::Starting => ("starting", None),
            MirrorState::InStep => ("in_step", None),
            MirrorState::Failed(reason) => ("failed", Some(reason)),
        };
        let (mode, mode_reason) = match facts.mode {
            WatchMode::Inotify => ("inotify", None),
            WatchMode::Polling { reason } => ("polling", Some(reason)),
        };
        let warnings = facts.warnings.into_iter().map(|(path, reason)| WarningBody {
            path: path.to_string_lossy().into_owned(),
            reason,
        });
        Self {
            state,
            detail,
            source: facts.source.to_string_lossy().into_owned(),
            mode,
            mode_reason,
            entries: facts.entries,
            copied_total: facts.copied,
            deleted_total: facts.deleted,
            last_pass_at: facts.last_pass_at.map(|at| at.to_string()),
            warnings_total: facts.warnings_total,
            warnings: warnings.collect(),
        }
    }
}
