//! The beginnings of packs that fetches leave when they are cut off.
//!
//! Git removes them only where somebody collects garbage, and here nobody does:
//! a remote that is too large would fill the disk with one of them at each try.
//! Agents fetch in the same repository, so what may still grow is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Somebody's own Git writes to a pack at least this often, even while it works
/// out what is in it.
const FOREIGN_REST: Duration = Duration::from_secs(3600);

/// Names that Git gives to what comes in.
const PREFIXES: [&str; 2] = ["tmp_pack_", "tmp_idx_"];

/// Size, and time of the last writing.
type Stamp = (u64, Option<SystemTime>);

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    since: Instant,
    /// Whether it came while a fetch of this service failed.
    is_own: bool,
}

/// What was seen of them in the last cycles.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    seen: BTreeMap<OsString, Seen>,
}

impl Leftovers {
    /// Removes what has not grown since it was left, and returns what is there.
    pub(super) fn tidy(&mut self, git_dir: &Path) -> BTreeSet<OsString> {
        let here = list(git_dir);
        self.seen.retain(|name, _| here.contains_key(name));
        for (name, stamp) in &here {
            match self.seen.get(name) {
                Some(seen) if seen.stamp == *stamp => {
                    if seen.is_own || seen.since.elapsed() >= FOREIGN_REST {
                        let removed = std::fs::remove_file(packs(git_dir).join(name));
                        let name = name.to_string_lossy();
                        tracing::info!(%name, bytes = stamp.0, ?removed, "an unfinished pack goes");
                    }
                }
                Some(_) | None => {
                    let seen = Seen { stamp: *stamp, since: Instant::now(), is_own: false };
                    self.seen.insert(name.clone(), seen);
                }
            }
        }
        here.into_keys().collect()
    }

    /// Notes what is there since `before`, because a fetch failed.
    pub(super) fn note_failure(&mut self, git_dir: &Path, before: &BTreeSet<OsString>) {
        for (name, stamp) in list(git_dir) {
            if !before.contains(&name) {
                self.seen.insert(name, Seen { stamp, since: Instant::now(), is_own: true });
            }
        }
    }
}

fn packs(git_dir: &Path) -> PathBuf {
    git_dir.join("objects/pack")
}

fn list(git_dir: &Path) -> BTreeMap<OsString, Stamp> {
    let entries = std::fs::read_dir(packs(git_dir)).into_iter().flatten().flatten();
    let unfinished = entries.filter_map(|entry| {
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|n| PREFIXES.iter().any(|p| n.starts_with(p)));
        let metadata = entry.metadata().ok().filter(|metadata| is_one && metadata.is_file())?;
        Some((name, (metadata.len(), metadata.modified().ok())))
    });
    unfinished.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_failed_fetch_left_goes_and_what_may_grow_stays() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(dir.path());
        std::fs::create_dir_all(&packs).unwrap();
        let write = |name: &str, text: &str| std::fs::write(packs.join(name), text).unwrap();
        write("pack-1.pack", "a pack");
        write("tmp_pack_agent", "somebody's");
        let mut leftovers = Leftovers::default();
        let before = leftovers.tidy(dir.path());
        write("tmp_pack_own", "half");
        write("tmp_pack_grows", "half");
        leftovers.note_failure(dir.path(), &before);
        write("tmp_pack_grows", "more than half");
        leftovers.tidy(dir.path());
        let names = || list(dir.path()).into_keys().collect::<Vec<_>>();
        assert_eq!(names(), ["tmp_pack_agent", "tmp_pack_grows"]);
        // What was somebody else's after all is given the time of somebody else's.
        leftovers.tidy(dir.path());
        assert_eq!(names(), ["tmp_pack_agent", "tmp_pack_grows"]);
        tokio::time::advance(FOREIGN_REST).await;
        leftovers.tidy(dir.path());
        assert_eq!(names(), Vec::<OsString>::new());
        assert!(packs.join("pack-1.pack").exists());
    }
}
