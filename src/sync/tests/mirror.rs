//! One way, and only what is its own.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

async fn in_step(service: &Service) -> Value {
    let status = service.sync().await;
    assert_eq!(status["mirror"]["state"], "in_step", "{status}");
    status
}

#[tokio::test]
async fn everything_but_dependencies_is_copied() {
    let place = Place::new();
    git(&place.path("source"), &["init", "-q", "-b", "main"]);
    place.write("source/src/main.js", "main");
    place.write("source/run.sh", "run");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("source/run.sh"), executable).unwrap();
    commit(&place.path("source"), "first");
    place.write("source/node_modules/a/index.js", "no");
    place.write("source/packages/b/node_modules/c", "no");
    symlink("src/main.js", place.path("source/inside")).unwrap();
    symlink("/etc/hostname", place.path("source/outside")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        place.path("source/fifo"),
        rustix::fs::Mode::from_raw_mode(0o644),
    )
    .unwrap();
    // Mount points of the previews.
    std::fs::create_dir_all(place.path("workspace/node_modules")).unwrap();
    std::fs::create_dir_all(place.path("workspace/.next")).unwrap();

    let service = Service::start(place.settings(place.mirror())).await;
    let status = in_step(&service).await;
    assert_eq!(place.read("workspace/src/main.js"), "main");
    let mode = std::fs::metadata(place.path("workspace/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert!(!place.exists("workspace/node_modules/a"));
    assert!(place.exists("workspace/packages/b") && place.exists("workspace/.next"));
    assert!(!place.exists("workspace/packages/b/node_modules"));
    let link = |name: &str| std::fs::read_link(place.path(name)).unwrap();
    assert_eq!(link("workspace/inside"), Path::new("src/main.js"));
    assert_eq!(link("workspace/outside"), Path::new("/etc/hostname"));
    assert_eq!((&status["outcome"], &status["branch"]), (&json!("local_only"), &json!("main")));
    let warnings = status["mirror"]["warnings"].as_array().unwrap();
    let mut paths: Vec<_> = warnings.iter().map(|w| w["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["fifo", "outside"]);
    assert_eq!(status["mirror"]["mode"], "inotify");
    // The mirror's own directory is not seen by Git.
    let untracked = git(&place.path("workspace"), &["status", "--porcelain"]);
    assert!(!untracked.contains("covibes"), "{untracked}");
    let copied = status["mirror"]["copied_total"].clone();
    assert_eq!(in_step(&service).await["mirror"]["copied_total"], copied);
    service.end().await;
}

#[tokio::test]
async fn changes_are_followed_without_being_asked() {
    let place = Place::new();
    place.write("source/a", "1");
    place.write("source/dir/b", "1");
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    place.write("source/a", "two");
    place.write("source/new/deep/c", "3");
    eventually("copied", || async {
        let done = place.exists("workspace/new/deep/c")
            && place.read("workspace/a") == "two"
            && place.read("workspace/new/deep/c") == "3";
        done.then_some(())
    })
    .await;
    std::fs::remove_dir_all(place.path("source/dir")).unwrap();
    eventually("deleted", || async { (!place.exists("workspace/dir")).then_some(()) }).await;
    std::fs::rename(place.path("source/new"), place.path("source/moved")).unwrap();
    eventually("moved", || async {
        let moved = place.exists("workspace/moved/deep/c") && !place.exists("workspace/new");
        moved.then_some(())
    })
    .await;
    service.end().await;
}

#[tokio::test]
async fn what_is_not_its_own_is_left_alone() {
    let place = Place::new();
    for name in ["keep/ours", "both", "changed", "swap/inner"] {
        place.write(&format!("source/{name}"), "1");
    }
    place.write("workspace/foreign", "mine");
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    place.write("workspace/keep/foreign", "mine");
    place.write("workspace/changed", "my own words");
    // An agent turns a directory into a link to somewhere else.
    std::fs::remove_dir_all(place.path("workspace/swap")).unwrap();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    place.write("elsewhere/inner", "untouched");
    symlink(place.path("elsewhere"), place.path("workspace/swap")).unwrap();

    std::fs::remove_dir_all(place.path("source/keep")).unwrap();
    std::fs::remove_file(place.path("source/changed")).unwrap();
    std::fs::remove_dir_all(place.path("source/swap")).unwrap();
    in_step(&service).await;
    assert!(!place.exists("workspace/keep/ours"));
    assert_eq!(place.read("workspace/keep/foreign"), "mine");
    assert_eq!(place.read("workspace/foreign"), "mine");
    assert_eq!(place.read("workspace/changed"), "my own words");
    assert_eq!(place.read("elsewhere/inner"), "untouched");

    // And writes through no link either.
    place.write("source/swap/inner", "2");
    in_step(&service).await;
    assert_eq!(place.read("elsewhere/inner"), "untouched");
    assert_eq!(place.read("workspace/swap/inner"), "2");
    service.end().await;
}

#[tokio::test]
async fn what_went_while_the_service_was_down_goes_after_it() {
    let place = Place::new();
    for name in ["a", "dir/b", "c"] {
        place.write(&format!("source/{name}"), "1");
    }
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    service.end().await;
    std::fs::remove_dir_all(place.path("source/dir")).unwrap();
    place.write("workspace/foreign", "mine");
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    assert!(!place.exists("workspace/dir"));
    assert!(place.exists("workspace/a") && place.exists("workspace/foreign"));
    service.end().await;
}

#[tokio::test]
async fn a_source_that_looks_unmounted_deletes_nothing() {
    let place = Place::new();
    place.write("source/a", "1");
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    std::fs::remove_file(place.path("source/a")).unwrap();
    let status = service.sync().await;
    // Watching may have seen the one file go; a whole look at nothing is refused.
    assert!(["failed", "in_step"].contains(&status["mirror"]["state"].as_str().unwrap()));
    std::fs::remove_dir(place.path("source")).unwrap();
    let status = service.sync().await;
    assert_eq!(status["mirror"]["state"], "failed", "{status}");
    let health = service.client.get("/health").await.json();
    assert_eq!(health["status"], "degraded", "{health}");
    service.end().await;
}

#[tokio::test]
async fn a_file_and_a_directory_may_change_places() {
    let place = Place::new();
    place.write("source/a", "file");
    place.write("source/b/inner", "1");
    let service = Service::start(place.settings(place.mirror())).await;
    in_step(&service).await;
    std::fs::remove_file(place.path("source/a")).unwrap();
    std::fs::remove_dir_all(place.path("source/b")).unwrap();
    place.write("source/a/inner", "1");
    place.write("source/b", "file");
    in_step(&service).await;
    assert_eq!(place.read("workspace/a/inner"), "1");
    assert_eq!(place.read("workspace/b"), "file");
    service.end().await;
}

#[test]
fn a_remote_and_a_directory_exclude_each_other() {
    let place = Place::new();
    let error = SyncSettings::from_environment(&Environment::from_pairs([
        ("COVIBES_TOKEN_FILE", place.path("token").to_str().unwrap()),
        ("COVIBES_GIT_REMOTE", "https://example.com/a.git"),
        ("COVIBES_MIRROR_SOURCE", "/source"),
    ]));
    assert!(error.is_err());
}
