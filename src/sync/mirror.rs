//! Keeps the workspace in step with a read-only directory, one way.
//!
//! The source is never written. In the workspace the mirror deletes only what it
//! copied itself and what nobody has changed since; everything else that exists
//! there (mount points of previews, build output, an agent's files) stays.

mod entries;
mod manifest;
mod pass;
mod places;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::{Done, Shared};
use crate::service::logs::Chain;
use crate::service::system::now;
use crate::service::watch::{Changes, Watch, WatchMode, WatchOptions, next_changes};
use pass::{Pass, PassError, PassReport};

/// Dependencies are installed for the container, not copied from the host.
pub(super) const SKIPPED: &[&str] = &["node_modules"];

/// A whole look corrects whatever watching missed.
const LOOK_PAUSE: Duration = Duration::from_secs(300);

/// A source that could not be read is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// What is lost by a crash within this time is copied again, or stays as foreign.
const SAVE_PAUSE: Duration = Duration::from_secs(10);

/// `/status` names the first warnings, and counts the rest.
const WARNINGS_SHOWN_MAX: usize = 100;

/// How the mirror stands.
#[derive(Debug, Clone)]
pub(super) struct MirrorFacts {
    pub(super) source: PathBuf,
    pub(super) state: MirrorState,
    pub(super) mode: WatchMode,
    pub(super) entries: usize,
    pub(super) copied: u64,
    pub(super) deleted: u64,
    pub(super) last_pass_at: Option<Timestamp>,
    pub(super) warnings_total: usize,
    pub(super) warnings: Vec<(PathBuf, String)>,
}

/// Whether the workspace follows its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MirrorState {
    /// The first copy goes on.
    Starting,
    /// All that could be copied is.
    InStep,
    /// The last pass could not be finished.
    Failed(String),
}

/// What is to be done next.
enum Next {
    Everything,
    Paths(Arc<Changes>),
    Save,
    Stop,
}

/// Follows the source until the service stops.
pub(super) async fn keep_in_step(
    shared: Arc<Shared>,
    source: PathBuf,
    mut orders: mpsc::Receiver<Done>,
) {
    let facts = MirrorFacts {
        source: source.clone(),
        state: MirrorState::Starting,
        mode: WatchMode::Inotify,
        entries: 0,
        copied: 0,
        deleted: 0,
        last_pass_at: None,
        warnings_total: 0,
        warnings: Vec::new(),
    };
    shared.board.mirrored(facts.clone());
    // Watching begins before the first look, so that nothing slips between.
    let options = WatchOptions { root: source.clone(), ignored: SKIPPED, force_polling: false };
    let watch = Watch::start(&shared.scope, options).await;
    let mut batches = watch.subscribe();
    let pass = Pass::new(source, shared.settings.workspace.clone(), shared.scope.clone());
    let mut mirror = Mirror { shared, watch, facts, pass: Some(pass) };
    let mut waiting: Vec<Done> = Vec::new();
    let mut next = Next::Everything;
    loop {
        match next {
            Next::Everything => {
                mirror.run(None).await;
                for done in waiting.drain(..) {
                    // The caller may have gone.
                    let _ = done.send(());
                }
            }
            Next::Paths(changes) => mirror.run(Some(changes)).await,
            Next::Save => mirror.save().await,
            Next::Stop => break,
        }
        next = mirror.wait(&mut batches, &mut orders, &mut waiting).await;
    }
    mirror.save().await;
}

struct Mirror {
    shared: Arc<Shared>,
    watch: Watch,
    facts: MirrorFacts,
    pass: Option<Pass>,
}

impl Mirror {
    async fn wait(
        &self,
        batches: &mut broadcast::Receiver<Arc<Changes>>,
        orders: &mut mpsc::Receiver<Done>,
        waiting: &mut Vec<Done>,
    ) -> Next {
        let failed = matches!(self.facts.state, MirrorState::Failed(_));
        let unsaved = self.pass.as_ref().is_some_and(Pass::is_unsaved);
        let (pause, after) = match (failed, unsaved) {
            (true, _) => (RETRY_PAUSE, Next::Everything),
            (false, true) => (SAVE_PAUSE, Next::Save),
            (false, false) => (LOOK_PAUSE, Next::Everything),
        };
        tokio::select! {
            biased;
            () = self.shared.scope.stopping() => Next::Stop,
            done = orders.recv() => {
                waiting.extend(done);
                Next::Everything
            }
            changes = next_changes(batches) => match changes {
                Some(changes) if changes.rescan => Next::Everything,
                Some(changes) => Next::Paths(changes),
                None => Next::Stop,
            },
            () = tokio::time::sleep(pause) => after,
        }
    }

    /// Runs a pass over everything, or over some paths, and tells how it went.
    async fn run(&mut self, changes: Option<Arc<Changes>>) {
        let Some(mut pass) = self.pass.take() else { return };
        let whole = changes.is_none();
        let ran = move || {
            let ran = match changes {
                None => pass.everything(),
                Some(changes) => pass.paths(&changes.paths),
            };
            (pass, ran)
        };
        let Some((pass, ran)) = self.shared.scope.block(ran).await else {
            self.facts.state = MirrorState::Failed("the mirror has a bug; see its log".to_owned());
            self.shared.board.mirrored(self.facts.clone());
            return;
        };
        self.facts.mode = self.watch.mode().borrow().clone();
        self.facts.entries = pass.entries();
        self.pass = Some(pass);
        match ran {
            Ok(report) => self.note(report, whole),
            Err(PassError::Stopping) => return,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the mirror could not finish its pass");
                self.facts.state = MirrorState::Failed(Chain(&error).to_string());
            }
        }
        self.shared.metrics.entries.set(self.facts.entries as i64);
        self.shared.metrics.warnings.set(self.facts.warnings_total as i64);
        self.shared.board.mirrored(self.facts.clone());
    }

    fn note(&mut self, report: PassReport, whole: bool) {
        let PassReport { copied, deleted, warnings } = report;
        self.shared.metrics.copied.inc_by(copied);
        self.shared.metrics.deleted.inc_by(deleted);
        self.facts.copied += copied;
        self.facts.deleted += deleted;
        self.facts.last_pass_at = Some(now());
        if whole {
            // Only a whole look knows which warnings still hold.
            self.facts.state = MirrorState::InStep;
            self.facts.warnings_total = 0;
            self.facts.warnings.clear();
        }
        for (path, reason) in warnings {
            let known = self.facts.warnings.iter().any(|(other, _)| *other == path);
            if known {
                continue;
            }
            self.facts.warnings_total += 1;
            if self.facts.warnings.len() < WARNINGS_SHOWN_MAX {
                self.facts.warnings.push((path, reason));
            }
        }
        if copied + deleted > 0 {
            tracing::info!(copied, deleted, whole, "the workspace follows its source");
        }
    }

    async fn save(&mut self) {
        let Some(mut pass) = self.pass.take() else { return };
        let saved = move || {
            let saved = pass.save();
            (pass, saved)
        };
        let Some((pass, saved)) = self.shared.scope.block(saved).await else { return };
        self.pass = Some(pass);
        if let Err(error) = saved {
            tracing::warn!(error = %Chain(&error), "the mirror's manifest could not be saved");
        }
    }
}
