//! Keeps a directory in step with another, one way: the workspace with root's
//! project (sync), or a preview's writable copy with the workspace.
//!
//! The source is never written. In the copy the mirror deletes only what it
//! copied itself; everything else that exists there (mount points of previews,
//! build output, an agent's files) stays.

mod entries;
mod manifest;
mod pass;
mod places;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::Scope;
use super::logs::Chain;
use super::system::now;
use super::watch::{Changes, Watch, WatchMode, WatchOptions, next_changes};
use pass::{Pass, PassError, PassReport};

/// A whole look corrects whatever watching missed.
const LOOK_PAUSE: Duration = Duration::from_secs(300);

/// A source that could not be read is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// What is lost by a crash within this time is copied again, or stays as foreign.
const SAVE_PAUSE: Duration = Duration::from_secs(10);

/// How often a pass that goes on tells how far it is: a start waits for the first copy only
/// as long as it sees that there is one.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// Whoever asks is told the first warnings, and how many more there are.
const WARNINGS_SHOWN_MAX: usize = 100;

/// Answered when a whole look that began after the order is done.
pub type Done = oneshot::Sender<()>;

/// What is kept in step with what.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// Read only.
    pub source: PathBuf,
    /// The copy.
    pub target: PathBuf,
    /// Where the mirror keeps its own files, on the file system of the copy;
    /// none for a directory at the top of the copy, hidden from Git.
    pub own: Option<PathBuf>,
    /// Names that are not copied, with everything below them.
    pub skipped: &'static [&'static str],
    /// What becomes of a copy that somebody changed.
    pub changed_copies: ChangedCopies,
    /// Whether nobody reads the copy before the first whole pass has ended.
    pub quiet_start: bool,
    /// Changes within this time are one batch.
    pub coalesce: Duration,
    /// Polls for changes even where inotify would do.
    pub force_polling: bool,
}

/// What becomes of an entry of the copy that somebody else wrote, when the
/// source has another one in its place, or none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedCopies {
    /// It may be the only place of somebody's work: a directory is never
    /// emptied for it, and a changed file outlives its source.
    Kept,
    /// The source decides over every path that it has or had.
    Replaced,
}

/// How the mirror stands.
#[derive(Debug, Clone)]
pub struct MirrorFacts {
    /// What is copied.
    pub source: PathBuf,
    /// Whether the copy follows it.
    pub state: MirrorState,
    /// How changes are noticed.
    pub mode: WatchMode,
    /// How many entries are kept in step.
    pub entries: usize,
    /// Entries copied since the start.
    pub copied: u64,
    /// Entries deleted since the start.
    pub deleted: u64,
    /// When the last pass ended.
    pub last_pass_at: Option<Timestamp>,
    /// Entries that could not be kept so.
    pub warnings_total: usize,
    /// The first of them, with the reason.
    pub warnings: Vec<(PathBuf, String)>,
}

/// Whether the copy follows its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorState {
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

/// Follows the source until the service stops, and tells how it stands after
/// each pass.
pub async fn keep_in_step(
    scope: Scope,
    options: MirrorOptions,
    mut orders: mpsc::Receiver<Done>,
    tell: impl Fn(&MirrorFacts) + Send + Sync,
) {
    let facts = MirrorFacts {
        source: options.source.clone(),
        state: MirrorState::Starting,
        mode: WatchMode::Inotify,
        entries: 0,
        copied: 0,
        deleted: 0,
        last_pass_at: None,
        warnings_total: 0,
        warnings: Vec::new(),
    };
    tell(&facts);
    // Watching begins before the first look, so that nothing slips between.
    let watched = WatchOptions {
        root: options.source.clone(),
        ignored: options.skipped,
        coalesce: options.coalesce,
        force_polling: options.force_polling,
    };
    let watch = Watch::start(&scope, watched).await;
    let mut batches = watch.subscribe();
    let pass = Pass::new(options, scope.clone());
    let mut mirror = Mirror { scope, watch, facts, pass: Some(pass), tell };
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

struct Mirror<T> {
    scope: Scope,
    watch: Watch,
    facts: MirrorFacts,
    pass: Option<Pass>,
    tell: T,
}

impl<T: Fn(&MirrorFacts) + Send + Sync> Mirror<T> {
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
            () = self.scope.stopping() => Next::Stop,
            Some(done) = orders.recv() => {
                waiting.push(done);
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
        let (before, progress) = (self.facts.copied, pass.progress());
        let ran = move || {
            let ran = match changes {
                None => pass.everything(),
                Some(changes) => pass.paths(&changes.paths),
            };
            (pass, ran)
        };
        let scope = self.scope.clone();
        let mut blocked = pin!(scope.block(ran));
        let ran = loop {
            tokio::select! {
                ran = &mut blocked => break ran,
                () = tokio::time::sleep(TELL_PAUSE) => {
                    self.facts.copied = before + progress.load(Ordering::Relaxed);
                    (self.tell)(&self.facts);
                }
            }
        };
        self.facts.copied = before + progress.load(Ordering::Relaxed);
        let Some((pass, ran)) = ran else {
            self.facts.state = MirrorState::Failed("the mirror has a bug; see its log".to_owned());
            (self.tell)(&self.facts);
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
        (self.tell)(&self.facts);
    }

    fn note(&mut self, report: PassReport, whole: bool) {
        let PassReport { copied, deleted, warnings } = report;
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
            tracing::info!(copied, deleted, whole, "the copy follows its source");
        }
    }

    async fn save(&mut self) {
        let Some(mut pass) = self.pass.take() else { return };
        let saved = move || {
            let saved = pass.save();
            (pass, saved)
        };
        let Some((pass, saved)) = self.scope.block(saved).await else { return };
        self.pass = Some(pass);
        if let Err(error) = saved {
            tracing::warn!(error = %Chain(&error), "the mirror's manifest could not be saved");
        }
    }
}
