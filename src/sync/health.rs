//! The sync service's health: its tree, Git's view of it, and the last cycle.

use super::board::{Cycle, Look, Outcome, Standing};
use super::repository::Changes;
use super::{Shared, system};
use crate::service::health::{Check, Health, Status};
use crate::service::mirror::{MirrorFacts, MirrorState};

/// A cycle that is this many intervals old has got stuck; fetches may be slow.
const INTERVALS_MAX: u32 = 3;

/// And this many seconds more, for one slow fetch and one slow checkout.
const SLACK_SECONDS: f64 = 300.0;

/// Sums up; touches no network and starts no program.
pub(super) fn health(shared: &Shared) -> Health {
    let cycle = shared.board.cycle();
    let look = shared.board.look();
    let git = git(cycle.as_ref(), look.as_ref());
    let mut checks = vec![workspace(shared), git, sync(shared, cycle.as_ref())];
    checks.extend(cycle.as_ref().and_then(worktrees));
    checks.extend(shared.board.mirror().as_ref().map(mirror));
    Health::of("covibes-sync", checks)
}

fn workspace(shared: &Shared) -> Check {
    let dir = shared.settings.workspace.display();
    match system::check_writable(&shared.settings.workspace) {
        Ok(()) => Check::fresh("workspace", Status::Ok, format!("{dir} is writable")),
        Err(error) => Check::fresh("workspace", Status::Failed, format!("{dir}: {}", error.kind())),
    }
}

/// Git can read the workspace, or there is nothing to read.
fn git(cycle: Option<&Cycle>, look: Option<&Look>) -> Check {
    let Some(cycle) = cycle else { return pending("git") };
    if cycle.outcome == Outcome::NoRepository {
        return aged("git", cycle, Status::Ok, "no repository".to_owned());
    }
    let Some(checkout) = &cycle.checkout else {
        return aged("git", cycle, Status::Failed, "git status does not work".to_owned());
    };
    let branch = checkout.branch.as_deref().unwrap_or("detached");
    // The first look comes after the first cycle.
    let Some(look) = look else { return aged("git", cycle, Status::Ok, branch.to_owned()) };
    let (status, detail) = match &look.changes {
        Ok(Changes { changed, untracked, .. }) => {
            (Status::Ok, format!("{branch}, {changed} changed, {untracked} untracked"))
        }
        Err(reason) => (Status::Failed, format!("git status does not work: {reason}")),
    };
    Check { name: "git", status, age_seconds: look.finished.elapsed().as_secs_f64(), detail }
}

fn sync(shared: &Shared, cycle: Option<&Cycle>) -> Check {
    let Some(cycle) = cycle else { return pending("sync") };
    let late = shared.settings.interval.as_secs_f64() * f64::from(INTERVALS_MAX) + SLACK_SECONDS;
    let (status, detail) = match &cycle.outcome {
        Outcome::Conflict(_) => (Status::Degraded, "conflict".to_owned()),
        // A remote that is away makes the pauses longer; that is said already.
        Outcome::Failed(reason) => (Status::Degraded, format!("failed: {reason}")),
        outcome @ (Outcome::NoRepository
        | Outcome::LocalOnly
        | Outcome::UpToDate
        | Outcome::FastForwarded
        | Outcome::Joined { .. }
        | Outcome::Mended(_)
        | Outcome::Skipped(_)) => {
            let late = cycle.finished.elapsed().as_secs_f64() > late;
            let status = if late { Status::Degraded } else { Status::Ok };
            let fetched = shared.board.fetched().map(|at| at.elapsed().as_secs());
            let fetched = fetched.map_or_else(String::new, |age| format!(", fetched {age} s ago"));
            (status, format!("{}{fetched}", outcome.name()))
        }
    };
    aged("sync", cycle, status, detail)
}

/// Says which worktrees are not in step, if there are any at all.
fn worktrees(cycle: &Cycle) -> Option<Check> {
    if cycle.worktrees.is_empty() {
        return None;
    }
    let is_well = |standing: &Standing| {
        matches!(
            standing,
            Standing::UpToDate
                | Standing::FastForwarded
                | Standing::Created
                | Standing::Mended(_)
                | Standing::Joined { .. }
        )
    };
    let others = cycle.worktrees.iter().filter(|shown| !is_well(&shown.standing));
    let others: Vec<String> =
        others.map(|shown| format!("{} {}", shown.name, shown.standing.name())).collect();
    let (status, detail) = if others.is_empty() {
        (Status::Ok, format!("{} in step", cycle.worktrees.len()))
    } else {
        (Status::Degraded, others.join(", "))
    };
    Some(aged("worktrees", cycle, status, detail))
}

fn mirror(facts: &MirrorFacts) -> Check {
    let (status, detail) = match &facts.state {
        MirrorState::Starting => (Status::Degraded, "the first copy is not finished".to_owned()),
        MirrorState::Failed(reason) => (Status::Degraded, reason.clone()),
        MirrorState::InStep if facts.warnings_total > 0 => {
            // A link that leads out, or one private file, is no reason to alarm a team.
            (Status::Ok, format!("in step, {} warnings in /status", facts.warnings_total))
        }
        MirrorState::InStep => (Status::Ok, format!("in step, {} entries", facts.entries)),
    };
    Check::fresh("mirror", status, detail)
}

fn pending(name: &'static str) -> Check {
    Check::fresh(name, Status::Degraded, "not looked at yet")
}

fn aged(name: &'static str, cycle: &Cycle, status: Status, detail: String) -> Check {
    Check { name, status, age_seconds: cycle.finished.elapsed().as_secs_f64(), detail }
}
