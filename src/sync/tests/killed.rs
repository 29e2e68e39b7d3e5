//! A service that is killed in the middle of a move, with its Git, and what the next
//! one makes of that.
//!
//! A round runs a cycle in a process of its own, watches how far the move has come,
//! kills everything at a point that chance chose, and then looks at the next cycle.
//! `COVIBES_KILLS` says how many rounds; a seed is told by whatever fails.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::super::cycle::{Memory, run_cycle};
use super::super::notes::Notes;
use super::super::strategy::{Strategy, Wish};
use super::locks::ago;
use super::*;
use crate::service::system::now;

const DIR: &str = "COVIBES_KILLED_DIR";
const WISH: &str = "COVIBES_KILLED_WISH";

/// Enough that most kills land between two of them.
const FILES: usize = 600;

const PATIENCE: Duration = Duration::from_secs(60);

/// The cycle of a round, when the test below starts this one in a process of its own.
#[tokio::test]
async fn the_cycle_that_is_killed() {
    let environment = Environment::from_process();
    let Some(dir) = environment.path_if_set(DIR) else { return };
    let mut settings = settings_in(&dir, remote_in(&dir));
    settings.worktrees = vec![("stage".to_owned(), Branch::parse("staging").unwrap())];
    let wish = environment.text(WISH).unwrap().and_then(Strategy::parse);
    let wish = wish.map(|strategy| Wish { strategy, worktree: None });
    run_cycle(&shared(settings), &mut Memory::default(), wish.as_ref()).await;
}

/// Numbers that look like chance and come again with their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % bound
    }
}

fn name(number: usize) -> String {
    format!("d{:02}/f{number:04}", number % 30)
}

/// What a file holds in a version.
fn text(number: usize, version: usize) -> String {
    let lines = if number.is_multiple_of(200) { 60_000 } else { 20 + number % 60 };
    let version = if number.is_multiple_of(5) { 0 } else { version };
    format!("file {number} in version {version}\n").repeat(lines)
}

fn is_there(number: usize, version: usize) -> bool {
    !(number + version).is_multiple_of(9)
}

/// Writes a version upstream: files that change, come, go, become executable, and
/// change places with directories and links.
fn push(place: &Place, version: usize) -> String {
    let upstream = place.path("upstream");
    for number in 0..FILES {
        let path = upstream.join(name(number));
        if is_there(number, version) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text(number, version)).unwrap();
            let mode = if (number + version).is_multiple_of(7) { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
    let _ = std::fs::remove_dir_all(upstream.join("swap"));
    let _ = std::fs::remove_file(upstream.join("swap"));
    match version % 3 {
        0 => place.write("upstream/swap", "a file\n"),
        1 => place.write("upstream/swap/inner", "a directory\n"),
        _ => symlink("file", upstream.join("swap")).unwrap(),
    }
    commit(&upstream, &format!("version {version}"))
}

/// With version 0 everywhere, the branch `staging` too.
fn many() -> Place {
    let place = Place::cloned();
    std::fs::create_dir(place.path("state")).unwrap();
    // What collects garbage beside a round is in the way of the next one's files.
    for name in ["upstream", "workspace"] {
        git(&place.path(name), &["config", "gc.auto", "0"]);
    }
    push(&place, 0);
    git(&place.path("upstream"), &["branch", "staging"]);
    git(&place.path("workspace"), &["pull", "-q", "--ff-only"]);
    place
}

/// Where a round is killed.
#[derive(Debug)]
enum Point {
    Noted,
    Locked,
    /// A file is as in the new version.
    File(String),
    IndexWritten,
    BranchLocked,
    Moved,
    Unlocked,
    Late,
}

impl Point {
    fn any(dice: &mut Dice, tree: &str) -> Self {
        match dice.below(16) {
            0 => Self::Noted,
            1 => Self::Locked,
            2 => Self::IndexWritten,
            3 => Self::BranchLocked,
            4 => Self::Moved,
            5 => Self::Unlocked,
            6 => Self::Late,
            // Also right at one that takes long to write.
            7 | 8 => Self::File(format!("{tree}/{}", name(200 * (1 + dice.below(2))))),
            _ => Self::File(format!("{tree}/{}", name(dice.below(FILES)))),
        }
    }
}

struct Running {
    child: Child,
}

impl Running {
    fn start(place: &Place, wish: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "sync::tests::killed::the_cycle_that_is_killed", "--nocapture"])
            .env(DIR, place.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(wish) = wish {
            command.env(WISH, wish);
        }
        Self { child: command.spawn().unwrap() }
    }

    /// Kills the service and every Git of it when the point is there, or when all is over.
    fn kill_at(mut self, place: &Place, point: &Point, git_dir: &Path, note: &str) -> bool {
        let began = Instant::now();
        let (note, mut is_noted) = (place.path(note), false);
        let before = match point {
            Point::File(name) => stamp(&place.path(name)),
            _ => None,
        };
        let head = place.path("workspace/.git/refs/heads/main");
        let old = std::fs::read(&head).ok();
        let has = |name: &str| git_dir.join(name).symlink_metadata().is_ok();
        let mut had_lock = false;
        let is_killed = loop {
            assert!(began.elapsed() < PATIENCE, "neither {point:?} nor an end");
            if self.child.try_wait().unwrap().is_some() {
                break false;
            }
            is_noted = is_noted || note.exists();
            had_lock = had_lock || has("index.lock");
            let is_there = match point {
                Point::Noted => true,
                Point::Locked => has("index.lock"),
                Point::File(name) => stamp(&place.path(name)) != before,
                Point::IndexWritten => has("covibes-index.lock"),
                Point::BranchLocked => {
                    place.path("workspace/.git/refs/heads/main.lock").exists() || has("HEAD.lock")
                }
                Point::Moved => std::fs::read(&head).ok() != old,
                Point::Unlocked => had_lock && !has("index.lock"),
                Point::Late => false,
            };
            if is_noted && is_there {
                break true;
            }
            std::thread::yield_now();
        };
        let _ = self.child.kill();
        self.child.wait().unwrap();
        // In a container they all end at once; here one may be about to become Git.
        while kill_gits(place) || is_held(place, &note) {
            assert!(began.elapsed() < PATIENCE, "Git does not end");
        }
        is_killed
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, bool)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.is_file()))
}

/// Whether anybody who was started in a move still lives.
fn is_held(place: &Place, note: &Path) -> bool {
    let tree = note.file_stem().unwrap().to_str().unwrap();
    Notes(&place.path("state")).hold(tree).is_err()
}

/// Kills whatever Git works in this place; whether there was any.
fn kill_gits(place: &Place) -> bool {
    let mark = format!("GIT_DIR={}/", place.dir.path().display());
    let mut any = false;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            any = true;
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    any
}

/// Minutes go by: no Git holds a name's lock for so long.
fn time_passes(place: &Place) {
    let age = |path: &Path, seconds| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(ago(seconds)).unwrap();
    };
    for entry in std::fs::read_dir(place.path("state")).unwrap().flatten() {
        age(&entry.path(), 600);
    }
    for lock in locks(&place.path("workspace/.git")) {
        age(&lock, 300);
    }
}

fn locks(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(locks(&path));
        } else if name.ends_with(".lock") || name.starts_with("covibes-index") {
            found.push(path);
        }
    }
    found
}

/// The next service's first cycle.
async fn next(place: &Place) -> Value {
    let shared = shared(place.settings_with(&[("stage", "staging")]));
    let cycle = run_cycle(&shared, &mut Memory::default(), None).await;
    shared.board.cycled(cycle);
    serde_json::to_value(shapes::StatusBody::of(&shared.settings, &shared.board)).unwrap()
}

/// Everything is as in the commit, and nothing is left over.
fn check_whole(place: &Place, tree: &str, commit: &str, what: &str) {
    let dir = place.path(tree);
    assert_eq!(git(&dir, &["rev-parse", "HEAD"]), commit, "{what}");
    let status = git(&dir, &["status", "--porcelain", "--untracked-files=no"]);
    assert_eq!(status, "", "{what}");
    let tree_of = git(&dir, &["rev-parse", "HEAD^{tree}"]);
    assert_eq!(git(&dir, &["write-tree"]), tree_of, "{what}");
    check_clean(place, what);
}

fn check_clean(place: &Place, what: &str) {
    assert_eq!(locks(&place.path("workspace/.git")), Vec::<PathBuf>::new(), "{what}");
    let notes = std::fs::read_dir(place.path("state")).unwrap().flatten();
    let notes = notes.map(|entry| entry.file_name().into_string().unwrap());
    assert!(notes.into_iter().all(|name| !name.ends_with(".json")), "{what}");
}

fn rounds(few: usize) -> (usize, u64) {
    let environment = Environment::from_process();
    let many = environment.text("COVIBES_KILLS").unwrap().and_then(|text| text.parse().ok());
    let seed = environment.text("COVIBES_KILLS_SEED").unwrap().and_then(|text| text.parse().ok());
    (many.unwrap_or(few), seed.unwrap_or_else(|| now().as_second().cast_unsigned()))
}

/// Files that are nobody's but an agent's: unknown, ignored, and one set aside.
fn treasure(place: &Place) -> BTreeMap<&'static str, String> {
    place.write("workspace/.git/info/exclude", "/ignored\n");
    place.write("workspace/file", "set aside\n");
    git(&place.path("workspace"), &["stash", "push", "-q"]);
    let files = BTreeMap::from([
        ("workspace/unknown", "unknown\n".to_owned()),
        ("workspace/d01/unknown", "unknown, too\n".to_owned()),
        ("workspace/ignored", "ignored\n".to_owned()),
    ]);
    for (name, text) in &files {
        place.write(name, text);
    }
    files
}

fn check_treasure(place: &Place, files: &BTreeMap<&'static str, String>, what: &str) {
    for (name, text) in files {
        assert_eq!(&place.read(name), text, "{what}: {name}");
    }
    assert_eq!(git(&place.path("workspace"), &["show", "stash@{0}:file"]), "set aside", "{what}");
}

#[tokio::test]
async fn a_move_that_was_killed_is_finished_and_nothing_is_lost() {
    let (rounds, seed) = rounds(6);
    let mut dice = Dice(seed);
    let place = many();
    next(&place).await;
    let files = treasure(&place);
    let workspace = place.path("workspace");
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for round in 1..=rounds {
        let target = push(&place, round);
        let point = Point::any(&mut dice, "workspace");
        let what = format!("seed {seed}, round {round}, {point:?}");
        let running = Running::start(&place, None);
        let is_killed =
            running.kill_at(&place, &point, &workspace.join(".git"), "state/workspace.json");
        let is_half = place.exists("state/workspace.json");
        if is_half && dice.below(4) == 0 {
            // Killed again while it mends.
            let point = Point::any(&mut dice, "workspace");
            Running::start(&place, None).kill_at(
                &place,
                &point,
                &workspace.join(".git"),
                "state/workspace.json",
            );
        }
        time_passes(&place);
        let is_half = place.exists("state/workspace.json");
        let edited =
            (is_half && dice.below(2) == 0).then(|| edit(&place, &mut dice, round)).flatten();
        let status = next(&place).await;
        let outcome = status["outcome"].as_str().unwrap().to_owned();
        *ends.entry(format!("killed {is_killed}, half {is_half}: {outcome}")).or_default() += 1;
        check_treasure(&place, &files, &what);
        if let Some((path, text)) = edited {
            let now = std::fs::read(workspace.join(&path)).ok();
            assert_eq!(now, text, "{what}: {path}, {status}");
            let kind = status["conflicts"][0]["kind"].as_str();
            if outcome == "conflict" {
                assert_eq!(kind, Some("half_moved"), "{what}: {status}");
                assert_eq!(status["conflicts"][0]["paths"], json!([path]), "{what}");
                // It stays so, and is told the same.
                assert_eq!(next(&place).await["conflicts"], status["conflicts"], "{what}");
            }
            // Whoever did it has a copy, and does what the report says; the file that the kill
            // hit may be told once more, if it was the next one.
            put_back(&workspace, &path);
            let mut status = next(&place).await;
            if let Some(path) = status["conflicts"][0]["paths"][0].as_str() {
                put_back(&workspace, path);
                status = next(&place).await;
            }
            assert_ne!(status["outcome"], "conflict", "{what}: {status}");
        } else if is_half {
            assert_eq!(outcome, "mended", "{what}: {status}");
        }
        check_whole(&place, "workspace", &target, &what);
        check_treasure(&place, &files, &what);
    }
    eprintln!("seed {seed}: {ends:#?}");
    assert!(
        ends.keys().any(|end| end.contains("half true")),
        "no kill was in the middle: {ends:?}"
    );
}

/// What the report asks for: as in the commit, or away.
fn put_back(dir: &Path, path: &str) {
    match git_says(dir, &["ls-files", "--error-unmatch", "--", path]) {
        true => _ = git(dir, &["checkout", "-q", "--", path]),
        false => std::fs::remove_file(dir.join(path)).unwrap(),
    }
}

fn git_says(dir: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// An agent changes a file that the move changes, or removes one; what it is then.
fn edit(place: &Place, dice: &mut Dice, round: usize) -> Option<(String, Option<Vec<u8>>)> {
    let number = (0..).map(|_| dice.below(FILES)).find(|number| !number.is_multiple_of(5))?;
    let path = format!("workspace/{}", name(number));
    place.write(&path, &format!("an agent's own, in round {round}\n"));
    let content = std::fs::read(place.path(&path)).unwrap();
    Some((name(number), Some(content)))
}

#[tokio::test]
async fn worktrees_and_joined_histories_are_finished_too() {
    let (rounds, seed) = rounds(4);
    let mut dice = Dice(seed);
    let place = many();
    next(&place).await;
    let (workspace, upstream) = (place.path("workspace"), place.path("upstream"));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for round in 1..=rounds {
        // The worktree: made anew, or moved.
        let is_made = round % 2 == 1;
        if is_made {
            git(&workspace, &["worktree", "remove", "--force", "../worktrees/stage"]);
        }
        let target = push(&place, round);
        git(&upstream, &["branch", "-q", "-f", "staging", "main"]);
        git(&upstream, &["reset", "-q", "--hard", "main~1"]);
        let point = Point::any(&mut dice, "worktrees/stage");
        let what = format!("seed {seed}, round {round}, worktree, made {is_made}, {point:?}");
        let admin = workspace.join(".git/worktrees/stage");
        let running = Running::start(&place, None);
        running.kill_at(&place, &point, &admin, "state/worktree-stage.json");
        let is_half = place.exists("state/worktree-stage.json");
        time_passes(&place);
        let status = next(&place).await;
        let state = status["worktrees"][0]["state"].as_str().unwrap().to_owned();
        *ends.entry(format!("made {is_made}, half {is_half}: {state}")).or_default() += 1;
        if is_half {
            assert_eq!(state, "mended", "{what}: {status}");
        }
        check_whole(&place, "worktrees/stage", &target, &what);
        // Its own entry: one that was cut off before it had a place stays empty beside it.
        let entry = git(&place.path("worktrees/stage"), &["rev-parse", "--absolute-git-dir"]);
        assert!(!Path::new(&entry).join("locked").exists(), "{what}");

        // Commits on both sides, joined in each of the ways.
        let strategy = ["rebase", "merge", "branch"][dice.below(3)];
        place.write("workspace/mine", &format!("mine in round {round}\n"));
        let mine = commit(&workspace, "mine");
        git(&upstream, &["reset", "-q", "--hard", &target]);
        let point = Point::any(&mut dice, "workspace");
        let what = format!("seed {seed}, round {round}, {strategy}, {point:?}");
        let running = Running::start(&place, Some(strategy));
        running.kill_at(&place, &point, &workspace.join(".git"), "state/workspace.json");
        let is_half = place.exists("state/workspace.json");
        time_passes(&place);
        let status = next(&place).await;
        let outcome = status["outcome"].as_str().unwrap().to_owned();
        *ends.entry(format!("{strategy}, half {is_half}: {outcome}")).or_default() += 1;
        if is_half {
            assert_eq!(outcome, "mended", "{what}: {status}");
        }
        let head = git(&workspace, &["rev-parse", "HEAD"]);
        check_whole(&place, "workspace", &head, &what);
        // Wherever it ended, what was committed has a name.
        let named = git(&workspace, &["for-each-ref", "--contains", &mine]);
        assert!(!named.is_empty(), "{what}");
        // All of it goes upstream, and both begin anew.
        git(&workspace, &["reset", "-q", "--hard", &target]);
    }
    eprintln!("seed {seed}: {ends:#?}");
    assert!(
        ends.keys().any(|end| end.contains("half true")),
        "no kill was in the middle: {ends:?}"
    );
}
