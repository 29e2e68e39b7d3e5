//! Tells what changed under a directory: by inotify, or by polling when the
//! kernel refuses more watches.
//!
//! `notify`'s own recursion would also watch `node_modules`, whose thousands of
//! directories count against one budget per uid for all teams of a host, so the
//! directories are chosen here. Changes are collected for a short while and told
//! once. A batch may ask for a rescan: then the reader must look for itself.

mod inotify;
mod kernel;
mod polling;

pub use kernel::kernel_cannot;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Scope;

/// Long enough for one save of an editor or one checkout to be one batch.
pub const COALESCE: Duration = Duration::from_millis(200);

/// A prompt watch tells the first change after a quiet while this soon: a save is
/// a handful of events, and one that came after would be a batch of its own.
const PROMPT: Duration = Duration::from_millis(8);

/// More changes than this are told as a rescan.
const PATHS_MAX: usize = 4096;

/// A slow reader misses batches beyond these, and is told to rescan.
const BATCHES_MAX: usize = 64;

/// Said when the kernel gives no more watches.
const WATCHES_USED_UP: &str =
    "the host's inotify watches are used up (fs.inotify.max_user_watches)";

/// Said when the kernel gives no more instances.
const INSTANCES_USED_UP: &str =
    "the host's inotify instances are used up (fs.inotify.max_user_instances)";

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// The directory.
    pub root: PathBuf,
    /// Names that are ignored with everything below them.
    pub ignored: &'static [&'static str],
    /// Changes within this time are one batch.
    pub coalesce: Duration,
    /// Polls even where inotify would do.
    pub force_polling: bool,
}

impl WatchOptions {
    /// Tells the path below the root, unless it is ignored or outside.
    fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let ignored = relative.components().any(|component| match component {
            Component::Normal(name) => self.ignores(name),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => true,
        });
        (!ignored).then_some(relative)
    }

    fn ignores(&self, name: &std::ffi::OsStr) -> bool {
        self.ignored.iter().any(|ignored| name == *ignored)
    }
}

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMode {
    /// By the kernel, at once.
    Inotify,
    /// By looking again and again.
    Polling {
        /// Why not by the kernel.
        reason: String,
    },
}

/// Changes of a short while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed, new and removed paths below the root.
    pub paths: BTreeSet<PathBuf>,
    /// More changed than the paths say.
    pub rescan: bool,
}

impl Changes {
    fn add(&mut self, path: &Path) {
        if self.paths.len() < PATHS_MAX {
            self.paths.insert(path.to_owned());
        } else {
            self.rescan = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.rescan
    }
}

/// A running watch; it ends when dropped.
#[derive(Debug)]
pub struct Watch {
    batches: broadcast::Sender<Arc<Changes>>,
    mode: watch::Receiver<WatchMode>,
    _end: DropGuard,
}

impl Watch {
    /// Begins to watch; when it returns, every later change is noticed.
    pub async fn start(scope: &Scope, options: WatchOptions) -> Self {
        let first = options.coalesce;
        Self::begin(scope, options, first).await
    }

    /// Like [`Watch::start`], but the first change after a quiet while is told at
    /// once, and what follows it is collected.
    pub async fn start_prompt(scope: &Scope, options: WatchOptions) -> Self {
        Self::begin(scope, options, PROMPT).await
    }

    async fn begin(scope: &Scope, mut options: WatchOptions, first: Duration) -> Self {
        let (batches, _) = broadcast::channel(BATCHES_MAX);
        // Names in events begin with the path that was watched.
        if let Ok(real) = tokio::fs::canonicalize(&options.root).await {
            options.root = real;
        }
        let root = options.root.clone();
        let begun = if options.force_polling {
            Err("polling was asked for".to_owned())
        } else if let Some(reason) = scope.block(move || kernel_cannot(&root)).await.flatten() {
            Err(reason)
        } else {
            inotify::Tree::plant(scope, options.clone()).await
        };
        let stop = scope.child_token();
        let (mode_sender, mode) = watch::channel(mode_of(&begun));
        let baseline = match &begun {
            Ok(_) => None,
            Err(_) => Some(polling::Snapshot::take(scope, &options).await),
        };
        let work = Work {
            scope: scope.clone(),
            stop: stop.clone(),
            options,
            first,
            batches: batches.clone(),
            mode: mode_sender,
        };
        scope.spawn(work.run(begun.ok(), baseline));
        Self { batches, mode, _end: stop.drop_guard() }
    }

    /// Returns the changes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.batches.subscribe()
    }

    /// Returns how changes are noticed, and when that changes.
    pub fn mode(&self) -> watch::Receiver<WatchMode> {
        self.mode.clone()
    }
}

/// Takes the next batch; a reader that fell behind is told to rescan.
///
/// # Cancellation
/// Safe. Returns nothing when the watch has ended.
pub async fn next_changes(batches: &mut broadcast::Receiver<Arc<Changes>>) -> Option<Arc<Changes>> {
    match batches.recv().await {
        Ok(changes) => Some(changes),
        Err(broadcast::error::RecvError::Lagged(_)) => {
            Some(Arc::new(Changes { paths: BTreeSet::new(), rescan: true }))
        }
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

fn mode_of(begun: &Result<inotify::Tree, String>) -> WatchMode {
    match begun {
        Ok(_) => WatchMode::Inotify,
        Err(reason) => WatchMode::Polling { reason: reason.clone() },
    }
}

/// The task behind a [`Watch`].
struct Work {
    scope: Scope,
    stop: CancellationToken,
    options: WatchOptions,
    /// How long the first change after a quiet while is held.
    first: Duration,
    batches: broadcast::Sender<Arc<Changes>>,
    mode: watch::Sender<WatchMode>,
}

impl Work {
    async fn run(self, tree: Option<inotify::Tree>, baseline: Option<polling::Snapshot>) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch(tree, baseline) => {}
        }
    }

    async fn watch(self, tree: Option<inotify::Tree>, baseline: Option<polling::Snapshot>) {
        if let Some(mut tree) = tree {
            let mut told: Option<Instant> = None;
            let reason = loop {
                tree.changed().await;
                let pause = match told {
                    Some(told) if self.first < self.options.coalesce => {
                        self.options.coalesce.saturating_sub(told.elapsed()).max(self.first)
                    }
                    _ => self.first,
                };
                tokio::time::sleep(pause).await;
                match tree.collect(&self.scope).await {
                    Ok((next, changes)) => {
                        tree = next;
                        // The last events of a batch wake this once more: a look that
                        // finds nothing must not hold up the next change.
                        if !changes.is_empty() {
                            told = Some(Instant::now());
                        }
                        self.tell(changes);
                    }
                    Err(reason) => break reason,
                }
            };
            tracing::warn!(root = %self.options.root.display(), %reason, "polling for changes");
            self.mode.send_replace(WatchMode::Polling { reason });
        }
        let mut snapshot = match baseline {
            Some(snapshot) => snapshot,
            None => {
                let snapshot = polling::Snapshot::take(&self.scope, &self.options).await;
                // What changed between the last inotify batch and now is unknown.
                self.tell(Changes { paths: BTreeSet::new(), rescan: true });
                snapshot
            }
        };
        loop {
            tokio::time::sleep(snapshot.pause()).await;
            let next = polling::Snapshot::take(&self.scope, &self.options).await;
            self.tell(snapshot.changes_to(&next));
            snapshot = next;
        }
    }

    fn tell(&self, changes: Changes) {
        if !changes.is_empty() {
            // An error means that nobody listens now.
            let _ = self.batches.send(Arc::new(changes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seen(batches: &mut broadcast::Receiver<Arc<Changes>>, wanted: &str) {
        let mut all = Changes::default();
        let found = async {
            while !all.paths.contains(Path::new(wanted)) && !all.rescan {
                let changes = next_changes(batches).await.unwrap();
                all.paths.extend(changes.paths.iter().cloned());
                all.rescan |= changes.rescan;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert!(found.is_ok(), "{wanted} not seen");
        assert!(!all.paths.iter().any(|path| path.starts_with("node_modules")), "{all:?}");
    }

    async fn check(force_polling: bool) {
        let scope = Scope::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::create_dir_all(path.join("node_modules/a")).unwrap();
        std::fs::create_dir_all(path.join("src/deep")).unwrap();
        std::fs::write(path.join("gone"), "1").unwrap();
        let options = WatchOptions {
            root: path.to_owned(),
            ignored: &["node_modules"],
            coalesce: COALESCE,
            force_polling,
        };
        let watch = Watch::start(&scope, options).await;
        assert_eq!(*watch.mode().borrow() == WatchMode::Inotify, !force_polling);
        let mut batches = watch.subscribe();

        std::fs::write(path.join("node_modules/a/b"), "1").unwrap();
        std::fs::write(path.join("src/deep/file"), "1").unwrap();
        seen(&mut batches, "src/deep/file").await;
        std::fs::create_dir_all(path.join("new/er")).unwrap();
        std::fs::write(path.join("new/er/file"), "1").unwrap();
        seen(&mut batches, "new/er/file").await;
        std::fs::write(path.join("new/er/file"), "22").unwrap();
        seen(&mut batches, "new/er/file").await;
        std::fs::remove_file(path.join("gone")).unwrap();
        seen(&mut batches, "gone").await;

        drop(watch);
        assert!(scope.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn inotify_tells_changes_in_old_and_new_directories() {
        check(false).await;
    }

    #[tokio::test]
    async fn polling_tells_the_same() {
        check(true).await;
    }
}
