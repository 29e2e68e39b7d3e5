//! Notices changes by comparing one look at a tree with the next.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Changes, Scope, WatchOptions};

/// As quick as a person expects a page to follow an edit.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Looking takes at most one twentieth of the time, however large the tree is.
const PAUSE_PER_LOOK: u32 = 20;

/// Memory stays bounded; what lies beyond is not noticed.
const ENTRIES_MAX: usize = 500_000;

/// What a look tells about one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        // A directory's own times change with its entries, which are seen anyway.
        let (size, modified) = if metadata.is_dir() {
            (0, (0, 0))
        } else {
            (metadata.size(), (metadata.mtime(), metadata.mtime_nsec()))
        };
        Self { inode: metadata.ino(), mode: metadata.mode(), size, modified }
    }
}

/// One look at a tree.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    stamps: HashMap<PathBuf, Stamp>,
    took: Duration,
}

impl Snapshot {
    /// Looks at everything that is not ignored; symlinks are not followed.
    pub(super) async fn take(scope: &Scope, options: &WatchOptions) -> Self {
        let options = options.clone();
        scope.block(move || Self::take_now(&options)).await.unwrap_or_default()
    }

    fn take_now(options: &WatchOptions) -> Self {
        let begun = Instant::now();
        let mut stamps = HashMap::new();
        let mut waiting = vec![options.root.clone()];
        while let Some(dir) = waiting.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if options.ignores(&entry.file_name()) || stamps.len() >= ENTRIES_MAX {
                    continue;
                }
                let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
                if let Some(relative) = options.relative(&path) {
                    stamps.insert(relative.to_owned(), Stamp::of(&metadata));
                }
                if metadata.is_dir() {
                    waiting.push(path);
                }
            }
        }
        Self { stamps, took: begun.elapsed() }
    }

    /// Returns how long to wait before the next look.
    pub(super) fn pause(&self) -> Duration {
        PAUSE_MIN.max(self.took * PAUSE_PER_LOOK)
    }

    /// Tells what differs in a later look.
    pub(super) fn changes_to(&self, later: &Self) -> Changes {
        let mut changes = Changes::default();
        for (path, stamp) in &later.stamps {
            if self.stamps.get(path) != Some(stamp) {
                changes.add(path);
            }
        }
        for path in self.stamps.keys().filter(|path| !later.stamps.contains_key(*path)) {
            changes.add(path);
        }
        changes
    }
}
