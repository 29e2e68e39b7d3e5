//! What lies in Covibes' own directories, whether something changed in a workspace, and
//! how large it is. Follows no link and is bounded: the trees are tenants'.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ports::host::{Kept, Trace};

/// Entries that a trace looks at; a larger project shows changes of the others
/// by its directories.
const ENTRIES_MAX: u64 = 50_000;

/// Depth to which a trace goes.
const DEPTH_MAX: usize = 32;

/// Entries that are counted for a size: more is a hostile tree, which is large already.
const COUNTED_MAX: u64 = 2_000_000;

/// What a file system counts blocks in, whatever its own are.
const BLOCK_BYTES: u64 = 512;

/// What changes by itself, or is large and installed.
const PASSED_OVER: [&str; 2] = [".git", "node_modules"];

/// A trace of all that lies below.
pub(super) fn trace(directories: &[PathBuf]) -> Trace {
    let mut trace = Trace::default();
    for directory in directories {
        look(directory, DEPTH_MAX, &mut trace);
    }
    trace
}

fn look(directory: &Path, depth: usize, trace: &mut Trace) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if trace.entries >= ENTRIES_MAX {
            return;
        }
        let name = entry.file_name();
        // Of the entry itself, never of what a link leads to.
        let Ok(meta) = entry.metadata() else { continue };
        trace.entries += 1;
        let is_passed_over = PASSED_OVER.iter().any(|passed| name == *passed);
        if !is_passed_over {
            let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            trace.newest_nanos = trace.newest_nanos.max(nanos);
            if meta.is_dir() && depth > 0 {
                look(&entry.path(), depth - 1, trace);
            }
        }
    }
}

/// Bytes on the disk of what lies below, until they are more than `enough`.
///
/// Directories wait in a list, and none is held open while another is read: a tree of any
/// depth costs neither stack nor file descriptors. Below the longest path that the kernel
/// takes nothing is seen.
pub(super) fn size_of(directory: &Path, enough: u64) -> u64 {
    let Ok(root) = fs::symlink_metadata(directory) else { return 0 };
    let (mut bytes, mut counted) = (0_u64, 0_u64);
    let mut linked = HashSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // What is mounted in it is counted where it comes from.
            if meta.dev() != root.dev() {
                continue;
            }
            if meta.is_dir() {
                waiting.push(entry.path());
            } else if meta.nlink() > 1 && !linked.insert(meta.ino()) {
                continue;
            }
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(BLOCK_BYTES));
            counted += 1;
            if bytes > enough || counted > COUNTED_MAX {
                return bytes;
            }
        }
    }
    bytes
}

/// What lies in one directory.
pub(super) fn kept_in(directory: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut kept: Vec<Kept> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(Kept {
                path: entry.path(),
                bytes: if meta.is_file() { meta.len() } else { 0 },
                is_dir: meta.is_dir(),
                modified_unix_ms: meta.mtime().saturating_mul(1000) + meta.mtime_nsec() / 1_000_000,
            })
        })
        .collect();
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_and_what_is_passed_over_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::create_dir_all(root.join("node_modules/x")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        std::os::unix::fs::symlink("/", root.join("src/link")).unwrap();
        fs::write(root.join("src/deep/a"), "1").unwrap();
        let look = || trace(&[root.to_owned(), root.join("nothing")]);
        let before = look();
        // src, deep, link, a, node_modules and .git themselves.
        assert_eq!(before.entries, 6);
        fs::write(root.join("node_modules/x/y"), "").unwrap();
        fs::write(root.join(".git/index"), "").unwrap();
        assert_eq!(look(), before);
        let file = fs::File::options().write(true).open(root.join("src/deep/a")).unwrap();
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 32);
        file.set_modified(later).unwrap();
        assert_ne!(look(), before);
    }

    #[test]
    fn a_size_is_what_the_disk_holds() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mebibyte = vec![7; 1 << 20];
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/one"), &mebibyte).unwrap();
        let all = || size_of(root, u64::MAX);
        let one = all();
        assert!((1 << 20..(1 << 20) + 65_536).contains(&one), "{one}");
        // A hole, a second name and what a link leads to take nothing.
        fs::File::create(root.join("hole")).unwrap().set_len(8 << 40).unwrap();
        fs::hard_link(root.join("a/b/one"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("usr")).unwrap();
        std::os::unix::fs::symlink("..", root.join("a/up")).unwrap();
        assert!(all() < one + 65_536, "{}", all());
        fs::write(root.join("two"), &mebibyte).unwrap();
        assert!(all() >= 2 << 20, "{}", all());
        assert!(size_of(root, 1) > 1);
        assert_eq!(size_of(&root.join("nothing"), u64::MAX), 0);
        // No stack, no open files: a tree as deep as paths can be.
        let mut deep = root.join("deep");
        while deep.as_os_str().len() < 3900 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(all() >= 2 << 20);
    }

    #[test]
    fn what_lies_in_a_directory_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "four").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let kept = kept_in(dir.path());
        let short: Vec<_> = kept.iter().map(|k| (k.is_dir, k.bytes)).collect();
        assert_eq!(short, [(true, 0), (false, 4)]);
        assert!(kept[1].modified_unix_ms > 1_700_000_000_000);
        assert_eq!(kept_in(&dir.path().join("nothing")), []);
    }
}
