//! Watches chosen directories through inotify.
//!
//! `notify` calls back on its own thread, where asking it for another watch
//! would wait for itself: the callback only takes notes, and [`Tree::collect`]
//! follows new directories from a blocking thread.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::{Changes, PATHS_MAX, Scope, WatchOptions};

/// What the callback has heard since the last look.
#[derive(Debug, Default)]
struct Notes {
    changed: HashSet<PathBuf>,
    appeared: HashSet<PathBuf>,
    rescan: bool,
    root_gone: bool,
}

impl Notes {
    fn hear(&mut self, options: &WatchOptions, event: &Event) {
        self.rescan |= event.need_rescan();
        let appeared = match event.kind {
            // Reading is not changing.
            EventKind::Access(_) => return,
            EventKind::Create(_) => true,
            EventKind::Modify(ModifyKind::Name(mode)) => mode != RenameMode::From,
            EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => {
                false
            }
        };
        let removed = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))
        );
        for path in &event.paths {
            self.root_gone |= removed && *path == options.root;
            if options.relative(path).is_none() {
                continue;
            }
            if self.changed.len() >= PATHS_MAX {
                self.rescan = true;
                // New directories must be followed, however many there are.
                if !appeared {
                    continue;
                }
            } else {
                self.changed.insert(path.clone());
            }
            if appeared {
                self.appeared.insert(path.clone());
            }
        }
    }
}

/// The watched directories under a root.
pub(super) struct Tree {
    watcher: RecommendedWatcher,
    options: WatchOptions,
    notes: Arc<Mutex<Notes>>,
    heard: Arc<Notify>,
}

impl Tree {
    /// Watches every directory that is not ignored, or says why it cannot.
    pub(super) async fn plant(scope: &Scope, options: WatchOptions) -> Result<Self, String> {
        scope.block(move || Self::plant_now(options)).await.unwrap_or_else(|| Err(stopped()))
    }

    fn plant_now(options: WatchOptions) -> Result<Self, String> {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let heard = Arc::new(Notify::new());
        let callback = {
            let (notes, heard, options) = (notes.clone(), heard.clone(), options.clone());
            move |event: notify::Result<Event>| {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(event) => notes.hear(&options, &event),
                    Err(_) => notes.rescan = true,
                }
                let news = notes.rescan || notes.root_gone || !notes.changed.is_empty();
                drop(notes);
                if news {
                    heard.notify_one();
                }
            }
        };
        let watcher = notify::recommended_watcher(callback).map_err(reason)?;
        let mut tree = Self { watcher, options, notes, heard };
        let root = tree.options.root.clone();
        if !root.is_dir() {
            return Err("the directory does not exist".to_owned());
        }
        tree.follow(&root, &mut Changes::default())?;
        Ok(tree)
    }

    /// Resolves when something was heard.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn changed(&self) {
        self.heard.notified().await;
    }

    /// Takes what was heard and follows new directories.
    pub(super) async fn collect(mut self, scope: &Scope) -> Result<(Self, Changes), String> {
        let collected = move || {
            let notes =
                std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
            if notes.root_gone {
                return Err("the directory was removed or replaced".to_owned());
            }
            let mut changes = Changes { rescan: notes.rescan, ..Changes::default() };
            for path in &notes.changed {
                if let Some(relative) = self.options.relative(path) {
                    changes.add(relative);
                }
            }
            for path in &notes.appeared {
                if is_directory(path) {
                    self.follow(path, &mut changes)?;
                }
            }
            if notes.rescan {
                // Directories may have appeared unheard; watching one twice is free.
                let root = self.options.root.clone();
                self.follow(&root, &mut Changes::default())?;
            }
            Ok((self, changes))
        };
        scope.block(collected).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Watches a directory and all below, and tells what it finds there.
    ///
    /// A directory is watched before it is read, so that nothing slips between.
    fn follow(&mut self, top: &Path, found: &mut Changes) -> Result<(), String> {
        let mut waiting = vec![top.to_owned()];
        while let Some(dir) = waiting.pop() {
            match self.watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                Err(error) if is_gone(&error) && dir != self.options.root => continue,
                Err(error) => return Err(reason(error)),
            }
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                let Some(relative) = self.options.relative(&path) else { continue };
                found.add(relative);
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A directory that vanished, or may not be read, is no reason to give up the rest.
fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
        ),
        ErrorKind::Generic(_)
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_)
        | ErrorKind::MaxFilesWatch => false,
    }
}

fn reason(error: notify::Error) -> String {
    match error.kind {
        ErrorKind::MaxFilesWatch => super::WATCHES_USED_UP.to_owned(),
        ErrorKind::Io(error)
            if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) =>
        {
            super::INSTANCES_USED_UP.to_owned()
        }
        ErrorKind::Io(error) => format!("inotify failed: {}", error.kind()),
        ErrorKind::Generic(_)
        | ErrorKind::PathNotFound
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_) => "inotify failed".to_owned(),
    }
}

fn stopped() -> String {
    "the service is stopping".to_owned()
}
