//! Locks and notes of which it is not sure whose they are.

use std::time::{Duration, SystemTime};

use super::super::cycle::{Memory, run_cycle};
use super::super::notes::{Note, Notes, WORKSPACE, Way};
use super::*;
use crate::service::system::now;

async fn cycle(place: &Place) -> Value {
    let shared = shared(place.settings(place.remote()));
    let cycle = run_cycle(&shared, &mut Memory::default(), None).await;
    shared.board.cycled(cycle);
    serde_json::to_value(shapes::StatusBody::of(&shared.settings, &shared.board)).unwrap()
}

/// So many seconds before now.
pub(super) fn ago(seconds: u64) -> SystemTime {
    let since = Duration::from_millis(now().as_millisecond().cast_unsigned());
    SystemTime::UNIX_EPOCH + since - Duration::from_secs(seconds)
}

fn age(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(ago(seconds)).unwrap();
}

/// A workspace one commit behind, and the note of a move that was to change that.
struct Half {
    place: Place,
    old: String,
    new: String,
}

impl Half {
    fn new() -> Self {
        let place = Place::cloned();
        let old = git(&place.path("workspace"), &["rev-parse", "HEAD"]);
        place.write("upstream/file", "two\n");
        place.write("upstream/other", "other two\n");
        place.write("upstream/new", "new\n");
        let new = commit(&place.path("upstream"), "second");
        git(&place.path("workspace"), &["fetch", "-q"]);
        let half = Self { place, old, new };
        half.note("covibes-sync a");
        half
    }

    fn note(&self, word: &str) {
        let note = Note {
            lock: word.to_owned(),
            way: Way::Forward,
            branch: Some("main".to_owned()),
            from: Some(self.old.clone()),
            to: self.new.clone(),
        };
        let state = self.place.path("state");
        Notes(&state).hold(WORKSPACE).unwrap().write(&note).unwrap();
    }

    async fn ends(&self, outcome: &str) -> Value {
        let status = cycle(&self.place).await;
        assert_eq!(status["outcome"], outcome, "{status}");
        assert!(!status.to_string().contains("  "), "words are told as a person writes: {status}");
        status
    }

    async fn is_mended(&self) {
        let status = self.ends("mended").await;
        assert_eq!(status["head"], self.new.as_str());
        assert!(status["detail"].as_str().unwrap().contains("cut off"), "{status}");
        assert_eq!(git(&self.place.path("workspace"), &["status", "--porcelain"]), "");
        assert_eq!(self.place.read("workspace/new"), "new\n");
        assert!(!self.place.exists("state/workspace.json"));
        self.ends("up_to_date").await;
    }
}

#[tokio::test]
async fn a_lock_of_somebodys_stays_and_is_told_once_nobody_can_be_at_work() {
    let half = Half::new();
    std::fs::remove_file(half.place.path("state/workspace.json")).unwrap();
    // Also one that looks like the service's own, of which there is no note.
    half.place.write("workspace/.git/index.lock", "covibes-sync a");
    let status = half.ends("skipped").await;
    assert!(status["detail"].as_str().unwrap().contains("index.lock"), "{status}");
    age(&half.place.path("workspace/.git/index.lock"), 300);
    let status = half.ends("conflict").await;
    assert_eq!(status["conflicts"][0]["kind"], "locked", "{status}");
    assert_eq!(status["conflicts"][0]["paths"], json!([".git/index.lock"]), "{status}");
    assert_eq!(half.ends("conflict").await["conflicts"], status["conflicts"]);
    assert_eq!(half.place.read("workspace/.git/index.lock"), "covibes-sync a");
    assert!(!half.place.exists("state/workspace.json"), "nothing was begun");
    std::fs::remove_file(half.place.path("workspace/.git/index.lock")).unwrap();
    half.ends("fast_forwarded").await;
}

#[tokio::test]
async fn a_half_move_waits_for_an_agents_lock_and_takes_its_own_away() {
    let half = Half::new();
    half.place.write("workspace/file", "two\n");
    half.place.write("workspace/.git/index.lock", "DIRC, an agent's");
    half.ends("skipped").await;
    assert_eq!(half.place.read("workspace/.git/index.lock"), "DIRC, an agent's");
    half.place.write("workspace/.git/index.lock", "covibes-sync a");
    half.is_mended().await;
}

#[tokio::test]
async fn the_lock_of_a_name_goes_only_if_the_move_left_it() {
    let half = Half::new();
    let lock = half.place.path("workspace/.git/refs/heads/main.lock");
    half.place.write("workspace/file", "two\n");
    for (text, seconds, stays) in [
        // Another commit, and one of a moment ago.
        (half.old.replace('0', "1").replace(['a', 'b'], "c"), 30, true),
        (half.new.clone(), 0, true),
        // From before the move.
        (half.new.clone(), 90, true),
        (format!("{}\n", half.new), 30, false),
    ] {
        std::fs::write(&lock, &text).unwrap();
        age(&lock, seconds);
        age(&half.place.path("state/workspace.json"), 60);
        if stays {
            half.ends("skipped").await;
            assert_eq!(std::fs::read_to_string(&lock).unwrap(), text);
        } else {
            half.is_mended().await;
            assert!(!lock.exists());
        }
    }
}

#[tokio::test]
async fn the_lock_that_outlives_its_move_goes_too() {
    let half = Half::new();
    let workspace = half.place.path("workspace");
    // All is moved but the index, and the last lock is there.
    let index = half.place.path("index");
    std::fs::copy(workspace.join(".git/index"), &index).unwrap();
    git(&workspace, &["merge", "-q", "--ff-only", &half.new]);
    std::fs::copy(&index, workspace.join(".git/index")).unwrap();
    half.place.write("workspace/.git/index.lock", "covibes-sync a");
    half.place.write("workspace/.git/HEAD.lock", "");
    // What was changed since stays.
    half.place.write("workspace/file", "mine\n");
    half.ends("skipped").await;
    age(&half.place.path("state/workspace.json"), 60);
    age(&half.place.path("workspace/.git/HEAD.lock"), 30);
    half.ends("mended").await;
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "M file");
    assert_eq!(half.place.read("workspace/file"), "mine\n");
    assert!(!half.place.exists("workspace/.git/HEAD.lock"));
}

#[tokio::test]
async fn what_an_agent_staged_or_wrote_is_named_and_stays() {
    let half = Half::new();
    let workspace = half.place.path("workspace");
    // Half of it: one new, one that an agent staged as it likes, one that it wrote.
    half.place.write("workspace/new", "new\n");
    half.place.write("workspace/other", "staged\n");
    git(&workspace, &["add", "other"]);
    half.place.write("workspace/other", "other\n");
    half.place.write("workspace/file", "mine\n");
    let staged = git(&workspace, &["ls-files", "--stage"]);
    let status = half.ends("conflict").await;
    assert_eq!(status["conflicts"][0]["kind"], "half_moved", "{status}");
    assert_eq!(status["conflicts"][0]["paths"], json!(["file", "other"]), "{status}");
    assert_eq!(git(&workspace, &["ls-files", "--stage"]), staged);
    assert_eq!(half.place.read("workspace/file"), "mine\n");
    assert!(!half.place.exists("workspace/.git/index.lock"), "whoever mends it needs the lock");
    git(&workspace, &["checkout", "-q", "HEAD", "--", "file", "other"]);
    half.is_mended().await;
}

#[tokio::test]
async fn a_link_that_an_agent_made_is_not_followed() {
    let half = Half::new();
    let upstream = half.place.path("upstream");
    half.place.write("upstream/dir/inner", "inner\n");
    let new = commit(&upstream, "third");
    git(&half.place.path("workspace"), &["fetch", "-q"]);
    let half = Half { new, ..half };
    half.note("covibes-sync b");
    std::fs::create_dir(half.place.path("elsewhere")).unwrap();
    half.place.write("elsewhere/inner", "of somebody else\n");
    let link = half.place.path("workspace/dir");
    std::os::unix::fs::symlink(half.place.path("elsewhere"), &link).unwrap();
    let status = half.ends("conflict").await;
    assert_eq!(status["conflicts"][0]["paths"], json!(["dir/inner"]), "{status}");
    assert_eq!(half.place.read("elsewhere/inner"), "of somebody else\n");
    std::fs::remove_file(link).unwrap();
    half.is_mended().await;
}

#[tokio::test]
async fn whoever_went_on_from_a_half_move_is_left_alone() {
    let half = Half::new();
    let workspace = half.place.path("workspace");
    half.place.write("workspace/new", "new\n");
    git(&workspace, &["checkout", "-q", "-b", "mine"]);
    half.place.write("workspace/.git/index.lock", "covibes-sync a");
    half.ends("skipped").await;
    assert!(!half.place.exists("state/workspace.json"));
    assert!(!half.place.exists("workspace/.git/index.lock"));
    assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), half.old);
    assert_eq!(half.place.read("workspace/new"), "new\n");
}

#[tokio::test]
async fn two_syncs_do_not_move_at_once_and_none_moves_without_a_note() {
    let half = Half::new();
    let state = half.place.path("state");
    let hold = Notes(&state).hold(WORKSPACE).unwrap();
    let status = half.ends("skipped").await;
    assert!(status["detail"].as_str().unwrap().contains("another sync"), "{status}");
    drop(hold);
    half.is_mended().await;
    half.place.write("upstream/file", "three\n");
    commit(&half.place.path("upstream"), "third");
    std::fs::remove_dir_all(&state).unwrap();
    half.place.write("state", "no directory");
    let status = half.ends("failed").await;
    assert!(status["detail"].as_str().unwrap().contains("cannot be noted"), "{status}");
    assert_eq!(half.place.read("workspace/file"), "two\n");
}

#[tokio::test]
async fn a_file_or_link_that_took_a_directorys_place_is_no_strangers() {
    for is_link in [false, true] {
        let place = Place::cloned();
        let (upstream, workspace) = (place.path("upstream"), place.path("workspace"));
        place.write("upstream/swap/inner", "inner\n");
        let old = commit(&upstream, "a directory");
        git(&workspace, &["pull", "-q", "--ff-only"]);
        git(&upstream, &["rm", "-q", "-r", "swap"]);
        let put = |place: &Place, tree: &str| match is_link {
            true => std::os::unix::fs::symlink("file", place.path(tree).join("swap")).unwrap(),
            false => place.write(&format!("{tree}/swap"), "a file\n"),
        };
        put(&place, "upstream");
        let new = commit(&upstream, "something else");
        git(&workspace, &["fetch", "-q"]);
        // Killed when all files were written, and nothing else.
        std::fs::remove_dir_all(workspace.join("swap")).unwrap();
        put(&place, "workspace");
        let half = Half { place, old, new };
        half.note("covibes-sync a");
        let status = half.ends("mended").await;
        assert_eq!(status["head"], half.new.as_str());
        assert_eq!(git(&half.place.path("workspace"), &["status", "--porcelain"]), "");
        assert_eq!(half.place.path("workspace/swap").is_symlink(), is_link);
    }
}
