//! One cycle: look, fetch, and move a clean checkout forward.
//!
//! Only one runs at a time. Local work always wins: a changed file or a commit of
//! its own leaves the checkout as it is, and the report says why.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::board::{Conflict, Cycle, Outcome};
use super::git::{Git, GitError, Operation};
use super::remote::Branch;
use super::repository::{self, Checkout, Distance};
use super::settings::{Remote, Source};
use super::{Done, Shared};
use crate::service::logs::Chain;
use crate::service::system::now;

/// A remote that is away for long is asked this often.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The pause doubles this many times at most, which is beyond any `PAUSE_MAX`.
const DOUBLINGS_MAX: u32 = 16;

/// What Git says when a new file is in the way of one it does not know.
const WOULD_OVERWRITE: &str = "would be overwritten by merge";

/// Runs cycles at the interval, and at once when asked.
pub(super) async fn run_cycles(shared: Arc<Shared>, mut orders: mpsc::Receiver<Done>) {
    let mut failures = 0;
    let mut waiting: Vec<Done> = Vec::new();
    loop {
        let cycle = run_cycle(&shared).await;
        if shared.scope.is_stopping() {
            return;
        }
        failures = match cycle.outcome {
            Outcome::Failed(_) => DOUBLINGS_MAX.min(failures + 1),
            Outcome::NoRepository
            | Outcome::LocalOnly
            | Outcome::UpToDate
            | Outcome::FastForwarded
            | Outcome::Conflict(_)
            | Outcome::Skipped(_) => 0,
        };
        shared.metrics.cycled(&cycle);
        shared.board.cycled(cycle);
        for done in waiting.drain(..) {
            // The caller may have gone.
            let _ = done.send(());
        }
        let interval = shared.settings.interval;
        let pause = (interval * 2_u32.pow(failures)).min(PAUSE_MAX.max(interval));
        tokio::select! {
            () = shared.scope.stopping() => return,
            () = tokio::time::sleep(pause) => {}
            done = orders.recv() => {
                waiting.extend(done);
            }
        }
        // Whoever asked before the cycle begins is answered by it.
        while let Ok(done) = orders.try_recv() {
            waiting.push(done);
        }
    }
}

async fn run_cycle(shared: &Shared) -> Cycle {
    let began = Instant::now();
    let mut seen = Seen::default();
    let outcome = match look_and_move(shared, &mut seen).await {
        Ok(outcome) => outcome,
        Err(error) => {
            if !shared.scope.is_stopping() {
                tracing::warn!(error = %Chain(&error), "the workspace could not be synced");
            }
            Outcome::Failed(public_text(&error))
        }
    };
    Cycle {
        finished: Instant::now(),
        finished_at: now(),
        took: began.elapsed(),
        checkout: seen.checkout,
        distance: seen.distance,
        outcome,
    }
}

/// What is known even when a later part fails.
#[derive(Debug, Default)]
struct Seen {
    checkout: Option<Checkout>,
    distance: Option<Distance>,
}

async fn look_and_move(shared: &Shared, seen: &mut Seen) -> Result<Outcome, GitError> {
    let settings = &shared.settings;
    let opened = Git::open(&settings.git, &shared.scope, &settings.workspace).await?;
    let Some(git) = opened else { return Ok(Outcome::NoRepository) };
    let checkout = seen.checkout.insert(repository::status(&git).await?).clone();
    let remote = match &settings.source {
        Source::Nothing | Source::Mirror(_) => return Ok(Outcome::LocalOnly),
        Source::Remote(remote) => remote,
    };
    let Some(branch) = wanted_branch(remote, &checkout) else {
        return Ok(Outcome::Skipped("no branch is checked out".to_owned()));
    };
    let commit = repository::fetch(&git, &remote.url, &branch).await?;
    if checkout.head.is_none() {
        return Ok(Outcome::Skipped("nothing is checked out yet".to_owned()));
    }
    let distance = *seen.distance.insert(repository::distance(&git, &commit).await?);
    if checkout.branch.as_deref() != Some(branch.as_str()) {
        let other = checkout.branch.as_deref().unwrap_or("a detached commit");
        return Ok(Outcome::Skipped(format!("{other} is checked out, not {}", branch.as_str())));
    }
    if distance.behind == 0 {
        return Ok(Outcome::UpToDate);
    }
    let mut conflicts = Vec::new();
    if distance.ahead > 0 {
        let Distance { ahead, behind } = distance;
        conflicts.push(Conflict::Diverged { ahead, behind });
    }
    // Looked at again: the fetch took its time, and agents are at work.
    let checkout = seen.checkout.insert(repository::status(&git).await?).clone();
    if checkout.changed > 0 {
        let paths = checkout.changed_paths.clone();
        conflicts.push(Conflict::Dirty { paths, total: checkout.changed });
    }
    if !conflicts.is_empty() {
        return Ok(Outcome::Conflict(conflicts));
    }
    match repository::fast_forward(&git, &commit).await {
        Ok(()) => {}
        Err(GitError::Refused { operation: _, message }) if message.contains(WOULD_OVERWRITE) => {
            let paths = message.lines().filter_map(|line| line.strip_prefix('\t'));
            let paths = paths.map(str::to_owned).collect();
            return Ok(Outcome::Conflict(vec![Conflict::Untracked { paths }]));
        }
        Err(error) => return Err(error),
    }
    seen.checkout = Some(repository::status(&git).await?);
    seen.distance = Some(repository::distance(&git, &commit).await?);
    tracing::info!(commit, "the workspace was moved forward");
    Ok(Outcome::FastForwarded)
}

fn wanted_branch(remote: &Remote, checkout: &Checkout) -> Option<Branch> {
    remote
        .branch
        .clone()
        .or_else(|| checkout.branch.as_deref().and_then(|name| Branch::parse(name).ok()))
}

/// A text for whoever reads `/status`; Git's own words hold no credential,
/// because addresses with credentials are refused.
fn public_text(error: &GitError) -> String {
    let text = match error {
        GitError::Refused { operation: Operation::Status, message }
            if message.contains("dubious ownership") =>
        {
            "the workspace belongs to another user".to_owned()
        }
        GitError::Refused { .. }
        | GitError::Run { .. }
        | GitError::Timeout { .. }
        | GitError::Stopping { .. } => Chain(error).to_string(),
    };
    text.chars().take(1000).collect()
}
