//! Whatever was done here and there, and whatever sync is asked for then: no
//! commit, no stash, no staged, changed, unknown or ignored file is lost.
//!
//! Random histories with the real Git. What must survive is read before each
//! operation and looked for after it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::super::commits::{self, Request};
use super::super::cycle::{Memory, run_cycle};
use super::super::strategy::{Strategy, Wish};
use super::*;

/// Few names, so that both sides meet; `ignored` is ignored here.
const NAMES: [&str; 5] = ["file", "other", "dir/deep", "ignored", "new"];

#[derive(Debug, Clone)]
enum Step {
    /// Something that an agent does, in the workspace or in the worktree.
    Here {
        worktree: bool,
        change: Change,
    },
    /// Something that is pushed, to `main` or to `staging`.
    There {
        staging: bool,
        change: Change,
    },
    /// Something that sync is asked for.
    Sync(Option<&'static str>),
    Commit,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, u8),
    Remove(usize),
    Stage,
    Commit,
    /// Here: set aside. There: replace the last commit.
    Special,
    /// Here: another branch, or back. There: remove the branch, or make it again.
    Branch,
}

fn change() -> impl Strategy2<Value = Change> {
    prop_oneof![
        6 => (0..NAMES.len(), 0..4_u8).prop_map(|(name, word)| Change::Write(name, word)),
        1 => (0..NAMES.len()).prop_map(Change::Remove),
        1 => Just(Change::Stage),
        3 => Just(Change::Commit),
        1 => Just(Change::Special),
        1 => Just(Change::Branch),
    ]
}

/// The trait that is named like one of our own words.
use proptest::strategy::Strategy as Strategy2;

fn steps() -> impl Strategy2<Value = Vec<Step>> {
    let here = (any::<bool>(), change());
    let there = (any::<bool>(), change());
    let step = prop_oneof![
        5 => here.prop_map(|(worktree, change)| Step::Here { worktree, change }),
        4 => there.prop_map(|(staging, change)| Step::There { staging, change }),
        4 => prop_oneof![Just(None), Just(Some("rebase")), Just(Some("merge")), Just(Some("branch"))]
            .prop_map(Step::Sync),
        1 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 8..24)
}

/// Runs Git and does not mind when it refuses: not every change makes sense.
fn try_git(dir: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(dir).envs([
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.com"),
        ("GIT_COMMITTER_NAME", "A"),
        ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ("GIT_EDITOR", "true"),
    ]);
    let _ = command.output().unwrap();
}

fn apply(dir: &Path, change: &Change, is_here: bool) {
    if !dir.join(".git").exists() {
        return;
    }
    match change {
        Change::Write(name, word) => {
            let path = dir.join(NAMES[*name]);
            // A directory may be in the way, as in life.
            let _ = std::fs::create_dir_all(path.parent().unwrap());
            let _ = std::fs::write(path, format!("{word}\n{}\n", "line\n".repeat(3)));
        }
        Change::Remove(name) => {
            let _ = std::fs::remove_file(dir.join(NAMES[*name]));
        }
        Change::Stage => try_git(dir, &["add", "--all"]),
        Change::Commit => {
            // There, also what is ignored here.
            try_git(dir, if is_here { &["add", "--all"] } else { &["add", "--all", "--force"] });
            try_git(dir, &["commit", "-q", "-m", "a change"]);
        }
        Change::Special if is_here => try_git(dir, &["stash", "push", "-q", "--include-untracked"]),
        Change::Special => {
            try_git(dir, &["commit", "-q", "--amend", "--allow-empty", "-m", "again"])
        }
        Change::Branch if is_here => {
            let on_main = git(dir, &["branch", "--show-current"]) == "main";
            try_git(
                dir,
                if on_main {
                    &["checkout", "-q", "-B", "mine"]
                } else {
                    &["checkout", "-q", "main"]
                },
            );
        }
        Change::Branch => {}
    }
}

fn apply_there(place: &Place, staging: bool, change: &Change) {
    let upstream = place.path("upstream");
    if !staging {
        git(&upstream, &["checkout", "-q", "-f", "main"]);
        return apply(&upstream, change, false);
    }
    if matches!(change, Change::Branch) {
        git(&upstream, &["checkout", "-q", "-f", "main"]);
        return try_git(&upstream, &["branch", "-q", "-D", "staging"]);
    }
    try_git(&upstream, &["checkout", "-q", "-f", "main"]);
    try_git(&upstream, &["branch", "staging"]);
    git(&upstream, &["checkout", "-q", "-f", "staging"]);
    apply(&upstream, change, false);
    git(&upstream, &["checkout", "-q", "-f", "main"]);
}

/// What must survive of one checkout.
#[derive(Debug, PartialEq, Eq)]
struct Treasures {
    /// Files that differ from the commit, are unknown or ignored, as they are.
    files: BTreeMap<String, Option<Vec<u8>>>,
    /// What is staged of them.
    staged: BTreeMap<String, String>,
    branch: String,
}

fn treasures(dir: &Path) -> Treasures {
    let arguments =
        ["status", "--porcelain", "-z", "--ignored", "--untracked-files=all", "--no-renames"];
    let status = raw(dir, &arguments);
    let (mut files, mut staged) = (BTreeMap::new(), BTreeMap::new());
    for entry in status.split('\0').filter(|entry| entry.len() > 3) {
        let path = entry[3..].to_owned();
        let line = raw(dir, &["ls-files", "--stage", "-z", "--", &path]);
        staged.insert(path.clone(), line);
        files.insert(path.clone(), std::fs::read(dir.join(&path)).ok());
    }
    Treasures { files, staged, branch: git(dir, &["branch", "--show-current"]) }
}

fn raw(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(dir);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every commit that has a name here: branches, stashes, and what is checked out.
fn commits_here(place: &Place) -> BTreeSet<String> {
    let workspace = place.path("workspace");
    let names = ["rev-list", "--branches", "--glob=refs/stash", "--glob=refs/covibes", "HEAD"];
    let mut all: BTreeSet<String> = lines(&raw(&workspace, &names));
    let worktree = place.path("worktrees/stage");
    if worktree.join(".git").exists() {
        all.extend(lines(&raw(&worktree, &["rev-list", "HEAD"])));
    }
    // All stashes but the last are in its reflog.
    all.extend(lines(&raw(&workspace, &["stash", "list", "--format=%H"])));
    all
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn check_kept(before: &Treasures, dir: &Path, what: &str) {
    for (path, content) in &before.files {
        let now = std::fs::read(dir.join(path)).ok();
        assert_eq!(&now, content, "{what}: {path} is another");
        let line = raw(dir, &["ls-files", "--stage", "-z", "--", path]);
        assert_eq!(&line, &before.staged[path], "{what}: what is staged of {path} is another");
    }
    assert_eq!(git(dir, &["branch", "--show-current"]), before.branch, "{what}");
}

async fn play(steps: Vec<Step>) {
    let place = Place::cloned();
    git(&place.path("upstream"), &["branch", "staging"]);
    place.write("workspace/.git/info/exclude", "/ignored\n");
    let shared = shared(place.settings_with(&[("stage", "staging")]));
    let mut memory = Memory::default();
    run_cycle(&shared, &mut memory, None).await;
    for (number, step) in steps.iter().enumerate() {
        let what = format!("step {number}, {step:?}");
        match step {
            Step::Here { worktree: false, change } => apply(&place.path("workspace"), change, true),
            Step::Here { worktree: true, change: Change::Branch } => {}
            Step::Here { worktree: true, change } => {
                apply(&place.path("worktrees/stage"), change, true);
            }
            Step::There { staging, change } => apply_there(&place, *staging, change),
            Step::Sync(_) | Step::Commit => {
                let dirs = [place.path("workspace"), place.path("worktrees/stage")];
                let dirs: Vec<_> = dirs.into_iter().filter(|d| d.join(".git").exists()).collect();
                let before: Vec<Treasures> = dirs.iter().map(|dir| treasures(dir)).collect();
                let commits = commits_here(&place);
                let stashes = raw(&dirs[0], &["stash", "list", "--format=%H"]);
                match step {
                    Step::Sync(word) => {
                        let strategy = word.and_then(Strategy::parse);
                        for worktree in [None, Some("stage".to_owned())] {
                            let wish = strategy.map(|strategy| Wish { strategy, worktree });
                            run_cycle(&shared, &mut memory, wish.as_ref()).await;
                        }
                    }
                    _ => {
                        let request = Request {
                            agent: "one".to_owned(),
                            message: "m".to_owned(),
                            paths: Vec::new(),
                        };
                        // It may refuse: that loses nothing.
                        let _ = commits::commit(&shared, &request).await;
                    }
                }
                for (dir, before) in dirs.iter().zip(&before) {
                    check_kept(before, dir, &what);
                }
                let now = commits_here(&place);
                let lost: Vec<_> = commits.difference(&now).collect();
                assert!(lost.is_empty(), "{what}: {lost:?} have no name any more");
                assert_eq!(raw(&dirs[0], &["stash", "list", "--format=%H"]), stashes, "{what}");
            }
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 12,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn nothing_of_anybodys_is_ever_lost(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
