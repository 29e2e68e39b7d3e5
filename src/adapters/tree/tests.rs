//! Hostile trees on a real file system, through `openat2` and through its fallback.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::detect::detect;

/// Runs a check on the same tree, once for each way of resolving paths.
fn check(prepare: impl Fn(&Path), assert: impl Fn(&WorkspaceTree)) {
    let dir = TempDir::new().unwrap();
    prepare(dir.path());
    for by_component in [false, true] {
        let tree = WorkspaceTree::open(dir.path()).unwrap();
        tree.by_component.set(by_component);
        let started = Instant::now();
        assert(&tree);
        assert!(started.elapsed() < Duration::from_secs(1), "a hostile file held up the look");
        assert_eq!(tree.by_component.get(), by_component, "openat2 works where tests run");
    }
}

fn code(tree: &WorkspaceTree, path: &str) -> &'static str {
    tree.read(path).unwrap_err().code()
}

fn node(dir: &Path, name: &str, kind: FileType, device: u64) -> bool {
    rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from(0o644), device).is_ok()
}

#[test]
fn plain_files_are_read_and_listed_in_order() {
    let prepare = |root: &Path| {
        fs::create_dir_all(root.join("src/node_modules/x")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(root.join("src/b.js"), "b").unwrap();
        fs::write(root.join("src/a.js"), "a").unwrap();
    };
    check(prepare, |tree| {
        assert_eq!(tree.read("src/a.js").unwrap().unwrap(), "a");
        assert_eq!(tree.read("./src//b.js").unwrap().unwrap(), "b");
        assert!(tree.read("none").unwrap().is_none());
        assert!(tree.read("src/a.js/below").unwrap().is_none());
        let names = |dir: &str| {
            let entries = tree.list(dir).unwrap();
            entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names("src"), ["a.js", "b.js"]);
        assert_eq!(names("."), ["src"]);
        assert!(names("src/node_modules").is_empty());
        assert!(names("none").is_empty());
        assert_eq!(tree.kind("src").unwrap(), Some(Kind::Directory));
    });
}

#[test]
fn links_are_never_followed() {
    let prepare = |root: &Path| {
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/file"), "x").unwrap();
        symlink("/etc/passwd", root.join("package.json")).unwrap();
        symlink("real", root.join("app")).unwrap();
        symlink("/", root.join("host")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
    };
    check(prepare, |tree| {
        for path in ["package.json", "app/file", "host/etc/passwd", "loop", "magic/etc/passwd"] {
            assert_eq!(code(tree, path), "workspace.symlink_refused", "{path}");
        }
        assert_eq!(tree.list("app").unwrap_err().code(), "workspace.symlink_refused");
        assert_eq!(tree.kind("app").unwrap(), Some(Kind::Symlink));
        assert_eq!(detect(tree, None).unwrap_err().code(), "workspace.symlink_refused");
        assert_eq!(detect(tree, Some("app")).unwrap_err().code(), "workspace.symlink_refused");
    });
}

#[test]
fn paths_never_leave_the_root() {
    let prepare = |root: &Path| fs::create_dir(root.join("a")).unwrap();
    check(prepare, |tree| {
        for path in ["../x", "a/../../x", "/etc/passwd", "a\0b"] {
            assert_eq!(code(tree, path), "workspace.invalid_path", "{path}");
        }
    });
}

#[test]
fn only_plain_files_are_opened() {
    let prepare = |root: &Path| {
        assert!(node(root, "package.json", FileType::Fifo, 0));
        UnixListener::bind(root.join("socket")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        // Only root may make a device; without it the check below is left out.
        node(root, "device", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    };
    check(prepare, |tree| {
        for path in ["package.json", "socket", "directory"] {
            assert_eq!(code(tree, path), "workspace.not_regular_file", "{path}");
        }
        if tree.kind("device").unwrap().is_some() {
            assert_eq!(code(tree, "device"), "workspace.not_regular_file");
        }
        assert_eq!(tree.head("package.json", 1).unwrap_err().code(), "workspace.not_regular_file");
        assert_eq!(detect(tree, None).unwrap_err().code(), "workspace.not_regular_file");
    });
}

#[test]
fn large_and_sparse_files_are_refused_unread() {
    let prepare = |root: &Path| {
        File::create(root.join("package.json")).unwrap().set_len(8 << 40).unwrap();
        fs::write(root.join("fits"), vec![b'x'; 256 * 1024]).unwrap();
        fs::write(root.join("over"), vec![b'x'; 256 * 1024 + 1]).unwrap();
    };
    check(prepare, |tree| {
        assert_eq!(code(tree, "package.json"), "workspace.file_too_large");
        assert_eq!(code(tree, "over"), "workspace.file_too_large");
        assert_eq!(tree.read("fits").unwrap().unwrap().len(), 256 * 1024);
        assert_eq!(tree.head("package.json", 16).unwrap().unwrap().len(), 16);
        assert_eq!(detect(tree, None).unwrap_err().code(), "workspace.file_too_large");
    });
}

#[test]
fn deep_and_wide_trees_are_bounded() {
    let prepare = |root: &Path| {
        fs::create_dir_all(root.join("d/".repeat(200))).unwrap();
        fs::create_dir(root.join("wide")).unwrap();
        for number in 0..=ENTRIES_MAX {
            fs::write(root.join(format!("wide/{number}")), "").unwrap();
        }
        fs::write(root.join("wide/package.json"), "{\"dependencies\":{\"next\":\"16\"}}").unwrap();
    };
    check(prepare, |tree| {
        assert_eq!(tree.list(&"d/".repeat(9)).unwrap_err().code(), "workspace.too_many_files");
        // Too wide to list, yet its well-known names are found.
        let findings = detect(tree, Some("wide")).unwrap();
        assert_eq!(findings.framework.as_str(), "nextjs");
        assert!(findings.warnings.iter().any(|warning| warning.contains("too many entries")));
    });
}

#[test]
fn node_modules_cost_nothing() {
    let prepare = |root: &Path| {
        fs::write(root.join("package.json"), "{\"devDependencies\":{\"vite\":\"8\"}}").unwrap();
        fs::write(root.join("index.html"), "").unwrap();
        for number in 0..20_000 {
            let dir = root.join(format!("node_modules/{}", number / 100));
            if number % 100 == 0 {
                fs::create_dir_all(&dir).unwrap();
            }
            fs::write(dir.join(number.to_string()), "").unwrap();
        }
    };
    check(prepare, |tree| {
        assert_eq!(detect(tree, None).unwrap().framework.as_str(), "vite-vanilla");
        // The two files at the root.
        assert_eq!(tree.listed.get(), 2);
    });
}

#[test]
fn a_hundred_thousand_files_that_nobody_wrote_are_no_hang() {
    let prepare = |root: &Path| {
        fs::write(root.join("package.json"), "{\"devDependencies\":{\"vite\":\"8\"}}").unwrap();
        fs::write(root.join("index.html"), "").unwrap();
        // What a detector must not walk, one directory after the other.
        for name in ["node_modules", ".git", "vendor", "dist", "build", "target", ".venv", ".next"]
        {
            for number in 0..125 {
                let dir = root.join(name).join(number.to_string());
                fs::create_dir_all(&dir).unwrap();
                for file in 0..100 {
                    File::create(dir.join(file.to_string())).unwrap();
                }
            }
        }
    };
    check(prepare, |tree| {
        let findings = detect(tree, None).unwrap();
        assert_eq!(findings.framework.as_str(), "vite-vanilla");
        assert!(tree.listed.get() < 100, "{} entries were listed", tree.listed.get());
    });
}

#[test]
fn a_file_that_is_swapped_while_it_is_read_never_leads_outside() {
    let dir = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let root = dir.path().to_owned();
    let (stop, reads, turns) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        // By turns a file, a link to the secret, a pipe and a directory, each put there at once,
        // and each left there until the next look has begun.
        scope.spawn(|| {
            let (next, place) = (root.join("next"), root.join("package.json"));
            for turn in (0..4).cycle() {
                match turn {
                    0 => fs::write(&next, "{}").unwrap(),
                    1 => symlink(&secret, &next).unwrap(),
                    2 => assert!(node(&root, "next", FileType::Fifo, 0)),
                    _ => fs::create_dir(&next).unwrap(),
                }
                let _ = fs::remove_dir(&place);
                let _ = fs::rename(&next, &place);
                let _ = fs::remove_file(&next).or_else(|_| fs::remove_dir(&next));
                turns.fetch_add(1, Relaxed);
                let seen = reads.load(Relaxed);
                let is_over = || stop.load(Relaxed) || began.elapsed() > Duration::from_secs(30);
                while reads.load(Relaxed) == seen && !is_over() {
                    std::thread::yield_now();
                }
                // Also if the other side has failed.
                if is_over() {
                    break;
                }
            }
        });
        let (mut read, mut refused) = (0, 0);
        while turns.load(Relaxed) < 400 && began.elapsed() < Duration::from_secs(20) {
            let tree = WorkspaceTree::open(dir.path()).unwrap();
            tree.by_component.set(reads.fetch_add(1, Relaxed) % 2 == 0);
            match tree.read("package.json") {
                Ok(Some(bytes)) => {
                    assert_ne!(bytes, "secret");
                    read += 1;
                }
                Ok(None) => {}
                Err(error) => {
                    let codes =
                        ["workspace.symlink_refused", "workspace.not_regular_file", "workspace.io"];
                    assert!(codes.contains(&error.code()), "{error}");
                    refused += 1;
                }
            }
        }
        stop.store(true, Relaxed);
        let turns = turns.load(Relaxed);
        assert!(read > 0 && refused > 0, "{read} read, {refused} refused in {turns} turns");
    });
}
