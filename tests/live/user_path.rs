//! A person's own directory: read, shown, and left as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::docker::{self, exec};
use crate::net::until_page_holds;
use crate::place::Place;
use crate::projects;

/// Everything about a tree that a person would miss: kind, mode, owner and
/// content by path.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else {
            let digest = Sha256::digest(std::fs::read(&path).unwrap());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let line = format!("{:o} {}:{} {content}", meta.mode(), meta.uid(), meta.gid());
        found.insert(path.strip_prefix(root).unwrap().to_owned(), line);
    }
    found
}

/// Without empty directories that were not there before: mount points.
fn without_mount_points(
    root: &Path,
    before: &BTreeMap<PathBuf, String>,
) -> BTreeMap<PathBuf, String> {
    let mut now = listing(root);
    now.retain(|path, _| {
        before.contains_key(path)
            || std::fs::read_dir(root.join(path)).map_or(true, |mut d| d.next().is_some())
    });
    now
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with something committed and something not.
fn repository(place: &Place, owner: u32) -> PathBuf {
    let path = projects::plain(place, "mine");
    let page = "const fs = require('fs');\nrequire('http').createServer((_, response) => \
                response.end(fs.readFileSync('page.txt'))).listen(process.env.PORT, '0.0.0.0');";
    std::fs::write(path.join("server.js"), page).unwrap();
    std::fs::write(path.join("page.txt"), "first").unwrap();
    git(&path, &["init", "--quiet"]);
    git(&path, &["add", "--all"]);
    git(&path, &["commit", "--quiet", "--message", "first"]);
    std::fs::write(path.join("draft.txt"), "not committed").unwrap();
    std::os::unix::fs::symlink("page.txt", path.join("link")).unwrap();
    for relative in listing(&path).into_keys() {
        lchown(path.join(relative), Some(owner), Some(owner)).unwrap();
    }
    path
}

async fn check(owner: u32, runs_as: &str) {
    let place = Place::new().await;
    let path = repository(&place, owner);
    let before = listing(&path);
    let up = ["up", path.to_str().unwrap(), "--team", "mine", "--json"];
    let link = place.done(&up).await.link("main");
    until_page_holds(&link, "/", "first").await;
    for name in docker::ids(&place.instance, "mine").await.keys() {
        let id = exec(name, &["sh", "-c", "echo $(id -u):$(id -g)"]).await;
        assert_eq!(id.output, runs_as, "{name}");
    }
    assert_eq!(without_mount_points(&path, &before), before);

    // An edit of the person's shows in the page, whichever way it goes.
    std::fs::write(path.join("page.txt"), "second").unwrap();
    until_page_holds(&link, "/", "second").await;
    let edited = listing(&path);
    assert!(!place.done(&up).await.changed());
    place.done(&["down", "mine", "--json"]).await;
    assert_eq!(without_mount_points(&path, &edited), edited);
    place.done(&["destroy", "mine", "--json"]).await;
    let mut after = listing(&path);
    // Only the person's own edit differs.
    let page = Path::new("page.txt");
    assert_ne!(after.remove(page), before.get(page).cloned());
    let mut untouched = before;
    untouched.remove(page);
    assert_eq!(after, untouched);
    place.assert_gone("mine").await;
}

#[tokio::test]
async fn a_directory_of_roots_is_copied_and_left_as_it_was() {
    check(0, "1000:1000").await;
}

#[tokio::test]
async fn a_directory_of_a_persons_is_bound_and_left_as_it_was() {
    check(1234, "1234:1234").await;
}

#[tokio::test]
async fn what_is_written_in_a_copy_never_comes_back() {
    let place = Place::new().await;
    let path = repository(&place, 0);
    let before = listing(&path);
    let up = ["up", path.to_str().unwrap(), "--team", "mine", "--json"];
    let link = place.done(&up).await.link("main");
    let ids = docker::ids(&place.instance, "mine").await;
    let agent = ids.keys().find(|name| name.contains("_agent_")).unwrap();
    let wrote = exec(agent, &["sh", "-c", "echo by-agent > /workspace/page.txt"]).await;
    assert_eq!(wrote.code, 0, "{wrote:?}");
    until_page_holds(&link, "/", "by-agent").await;
    // The mirror looks again at each edit of the person's.
    std::fs::write(path.join("draft.txt"), "edited").unwrap();
    crate::place::until("the edit is carried over", crate::place::STATE_MAX, async || {
        let read = exec(agent, &["cat", "/workspace/draft.txt"]).await;
        (read.output == "edited").then_some(())
    })
    .await;
    std::fs::write(path.join("draft.txt"), "not committed").unwrap();
    place.done(&["destroy", "mine", "--json"]).await;
    assert_eq!(listing(&path), before);
}
