//! The JSON of the sync service's API.

use serde::Serialize;

use super::board::{Board, Conflict, Cycle, Outcome};
use super::settings::{Source, SyncSettings};
use crate::service::mirror::{MirrorFacts, MirrorState};
use crate::service::watch::WatchMode;

/// The body of `GET /status`, and of the answer to `POST /sync`.
#[derive(Debug, Serialize)]
pub(super) struct StatusBody {
    repository: Option<bool>,
    remote: bool,
    branch: Option<String>,
    head: Option<String>,
    dirty: bool,
    changed_files: usize,
    untracked_files: usize,
    ahead: Option<u64>,
    behind: Option<u64>,
    outcome: &'static str,
    detail: Option<String>,
    conflicts: Vec<ConflictBody>,
    last_sync: Option<LastSyncBody>,
    mirror: Option<MirrorBody>,
}

#[derive(Debug, Serialize)]
struct LastSyncBody {
    at: String,
    age_seconds: f64,
    duration_seconds: f64,
}

#[derive(Debug, Serialize)]
struct ConflictBody {
    kind: &'static str,
    paths: Vec<String>,
    detail: String,
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
        let checkout = cycle.as_ref().and_then(|cycle| cycle.checkout.clone());
        let known = checkout.clone().unwrap_or_default();
        let distance = cycle.as_ref().and_then(|cycle| cycle.distance);
        let repository = match cycle.as_ref().map(|cycle| &cycle.outcome) {
            None => None,
            Some(Outcome::NoRepository) => Some(false),
            Some(Outcome::Failed(_)) => checkout.is_some().then_some(true),
            Some(
                Outcome::LocalOnly
                | Outcome::UpToDate
                | Outcome::FastForwarded
                | Outcome::Conflict(_)
                | Outcome::Skipped(_),
            ) => Some(true),
        };
        let (detail, conflicts) = match cycle.as_ref().map(|cycle| &cycle.outcome) {
            Some(Outcome::Failed(text) | Outcome::Skipped(text)) => (Some(text.clone()), vec![]),
            Some(Outcome::Conflict(all)) => (None, all.iter().map(ConflictBody::of).collect()),
            Some(
                Outcome::NoRepository
                | Outcome::LocalOnly
                | Outcome::UpToDate
                | Outcome::FastForwarded,
            )
            | None => (None, vec![]),
        };
        Self {
            repository,
            remote: matches!(settings.source, Source::Remote(_)),
            branch: known.branch,
            head: known.head,
            dirty: known.changed > 0,
            changed_files: known.changed,
            untracked_files: known.untracked,
            ahead: distance.map(|distance| distance.ahead),
            behind: distance.map(|distance| distance.behind),
            outcome: cycle.as_ref().map_or("pending", |cycle| cycle.outcome.name()),
            detail,
            conflicts,
            last_sync: cycle.as_ref().map(LastSyncBody::of),
            mirror: board.mirror().map(MirrorBody::of),
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
            Conflict::Diverged { ahead, behind } => {
                let detail = format!("{ahead} local and {behind} remote commits");
                ("diverged", Vec::new(), detail)
            }
            Conflict::Untracked { paths } => {
                ("untracked", paths.clone(), "new files of the remote exist here".to_owned())
            }
        };
        Self { kind, paths, detail }
    }
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
