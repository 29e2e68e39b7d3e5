//! Fetching and moving forward, and what must not be lost or run.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::service::testing::is_gone;

/// Syncs once and checks the outcome; returns the status.
async fn check(place: &Place, outcome: &str, conflict: Option<&str>) -> Value {
    let service = Service::start(place.settings(place.remote())).await;
    let status = service.sync().await;
    assert_eq!(status["outcome"], outcome, "{status}");
    let kind = status["conflicts"][0]["kind"].as_str();
    assert_eq!(kind, conflict, "{status}");
    service.end().await;
    status
}

#[tokio::test]
async fn a_clean_checkout_moves_forward() {
    let place = Place::cloned();
    place.write("upstream/file", "two\n");
    place.write("upstream/new/file", "new\n");
    let head = commit(&place.path("upstream"), "second");
    place.write("workspace/untracked", "mine\n");
    let service = Service::start(place.settings(place.remote())).await;
    let moved = eventually("moved", || async {
        let status = service.status().await;
        (status["outcome"] == "fast_forwarded").then_some(status)
    })
    .await;
    assert_eq!(moved["head"], head);
    assert_eq!((&moved["branch"], &moved["dirty"]), (&json!("main"), &json!(false)));
    assert_eq!((&moved["ahead"], &moved["behind"]), (&json!(0), &json!(0)));
    assert_eq!(moved["untracked_files"], 1);
    assert_eq!(place.read("workspace/file"), "two\n");
    assert_eq!(place.read("workspace/new/file"), "new\n");
    let again = service.sync().await;
    assert_eq!(again["outcome"], "up_to_date");
    let health = service.client.get("/health").await.json();
    assert_eq!(health["status"], "ok", "{health}");
    let metrics = service.client.get("/metrics").await.text;
    assert!(metrics.contains("covibes_sync_cycles_total{outcome=\"fast_forwarded\"} 1"));
    service.end().await;
}

#[tokio::test]
async fn changed_files_are_a_conflict_and_stay() {
    let place = Place::cloned();
    let head = git(&place.path("workspace"), &["rev-parse", "HEAD"]);
    place.write("workspace/file", "my work\n");
    // Even a change that the remote does not touch is left alone.
    place.write("upstream/other", "theirs\n");
    commit(&place.path("upstream"), "second");
    let status = check(&place, "conflict", Some("dirty")).await;
    assert_eq!(status["conflicts"][0]["paths"], json!(["file"]));
    assert_eq!((&status["behind"], &status["head"]), (&json!(1), &json!(head)));
    assert_eq!(place.read("workspace/file"), "my work\n");
    assert_eq!(place.read("workspace/other"), "other\n");
}

#[tokio::test]
async fn changed_files_are_no_conflict_while_nothing_is_new() {
    let place = Place::cloned();
    place.write("workspace/file", "my work\n");
    let status = check(&place, "up_to_date", None).await;
    assert_eq!((&status["dirty"], &status["changed_files"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn files_that_cannot_be_looked_at_are_told_and_stop_only_what_would_move_them() {
    let place = Place::cloned();
    let service = Service::start(place.settings(place.remote())).await;
    service.sync().await;
    let index = place.path("workspace/.git/index");
    let good = std::fs::read(&index).unwrap();
    std::fs::write(&index, "no index").unwrap();
    let status = service.sync().await;
    assert_eq!((&status["outcome"], &status["dirty"]), (&json!("up_to_date"), &json!(null)));
    let message = status["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("index"), "{message}");
    let health = service.client.get("/health").await.json();
    assert_eq!(health["status"], "failed", "{health}");
    place.write("upstream/file", "two\n");
    commit(&place.path("upstream"), "second");
    assert_eq!(service.sync().await["outcome"], "failed");
    std::fs::write(&index, good).unwrap();
    let status = service.sync().await;
    assert_eq!((&status["outcome"], &status["dirty"]), (&json!("fast_forwarded"), &json!(false)));
    assert_eq!(service.client.get("/health").await.json()["status"], "ok");
    service.end().await;
}

#[tokio::test]
async fn commits_on_both_sides_are_a_conflict_and_stay() {
    let place = Place::cloned();
    place.write("workspace/file", "mine\n");
    let head = commit(&place.path("workspace"), "mine");
    place.write("upstream/file", "theirs\n");
    commit(&place.path("upstream"), "theirs");
    let status = check(&place, "conflict", Some("diverged")).await;
    assert_eq!((&status["ahead"], &status["behind"]), (&json!(1), &json!(1)));
    assert_eq!(git(&place.path("workspace"), &["rev-parse", "HEAD"]), head);
    assert_eq!(place.read("workspace/file"), "mine\n");
}

#[tokio::test]
async fn an_unknown_file_in_the_way_is_a_conflict_and_stays() {
    let place = Place::cloned();
    place.write("workspace/new", "mine\n");
    place.write("upstream/new", "theirs\n");
    place.write("upstream/file", "two\n");
    commit(&place.path("upstream"), "second");
    let status = check(&place, "conflict", Some("untracked")).await;
    assert_eq!(status["conflicts"][0]["paths"], json!(["new"]));
    assert_eq!(place.read("workspace/new"), "mine\n");
    assert_eq!(place.read("workspace/file"), "one\n");
}

#[tokio::test]
async fn an_ignored_file_in_the_way_is_a_conflict_and_stays() {
    let place = Place::cloned();
    place.write("workspace/.git/info/exclude", "/.env\n");
    place.write("workspace/.env", "KEY=mine\n");
    place.write("upstream/.env", "KEY=theirs\n");
    commit(&place.path("upstream"), "second");
    let status = check(&place, "conflict", Some("untracked")).await;
    assert_eq!(status["conflicts"][0]["paths"], json!([".env"]));
    assert_eq!(place.read("workspace/.env"), "KEY=mine\n");
}

#[tokio::test]
async fn another_branch_is_left_alone() {
    let place = Place::cloned();
    git(&place.path("workspace"), &["checkout", "-q", "-b", "feature"]);
    place.write("upstream/file", "two\n");
    commit(&place.path("upstream"), "second");
    let status = check(&place, "skipped", None).await;
    assert_eq!(status["detail"], "feature is checked out, not main");
    assert_eq!(place.read("workspace/file"), "one\n");
}

#[tokio::test]
async fn a_remote_that_is_away_is_a_failure_and_not_the_end() {
    let place = Place::cloned();
    std::fs::remove_dir_all(place.path("upstream")).unwrap();
    let service = Service::start(place.settings(place.remote())).await;
    let status = service.sync().await;
    assert_eq!(status["outcome"], "failed");
    assert!(status["detail"].as_str().unwrap().contains("git fetch failed"), "{status}");
    assert_eq!((&status["branch"], &status["repository"]), (&json!("main"), &json!(true)));
    let health = service.client.get("/health").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (200, &json!("degraded")));
    service.end().await;
}

#[tokio::test]
async fn a_transport_that_is_not_allowed_is_refused_by_git_too() {
    let place = Place::cloned();
    let mut settings = place.settings(place.remote());
    settings.git.protocols = "https:ssh";
    let service = Service::start(settings).await;
    let status = service.sync().await;
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("transport 'file' not allowed"), "{detail}");
    service.end().await;
}

#[tokio::test]
async fn no_repository_is_said_and_is_fine() {
    let place = Place::new();
    // A link or a file could lead anywhere.
    std::os::unix::fs::symlink("/", place.path("workspace/.git")).unwrap();
    let service = Service::start(place.settings(Source::Nothing)).await;
    let status = service.sync().await;
    assert_eq!(
        (&status["outcome"], &status["repository"]),
        (&json!("no_repository"), &json!(false))
    );
    assert_eq!(service.client.get("/health").await.json()["status"], "ok");
    std::fs::remove_dir_all(place.path("workspace")).unwrap();
    assert_eq!(service.client.get("/health").await.status, 503);
    service.end().await;
}

#[tokio::test]
async fn everything_but_health_needs_the_token() {
    let place = Place::new();
    let service = Service::start(place.settings(Source::Nothing)).await;
    let stranger = Client { address: service.client.address, token: None };
    assert_eq!(stranger.get("/health").await.status, 200);
    for path in ["/status", "/metrics", "/sync", "/nothing"] {
        assert_eq!(stranger.get(path).await.status, 401, "{path}");
    }
    assert_eq!(stranger.post("/sync", &json!({})).await.status, 401);
    service.end().await;
}

/// Sets traps in the repository; each leaves a file when it is run.
fn set_traps(place: &Place) {
    let workspace = place.path("workspace");
    let trap = |name: &str| {
        let path = place.path(&format!("trap-{name}"));
        // Filters pass on what they are given; a server that only listens would hang.
        let rest = if name == "ran-uploadpack" { "exit 1" } else { "exec cat" };
        let script = format!("#!/bin/sh\ntouch {}\n{rest}\n", place.path(name).display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let hook = trap("ran-hook");
    for name in ["post-merge", "post-checkout", "reference-transaction", "post-index-change"] {
        let link = workspace.join(".git/hooks").join(name);
        std::os::unix::fs::symlink(&hook, link).unwrap();
    }
    for (key, value) in [
        ("core.fsmonitor", trap("ran-fsmonitor")),
        ("filter.evil=x.clean", trap("ran-clean")),
        ("filter.evil=x.smudge", trap("ran-smudge")),
        ("filter.evil=x.required", "true".to_owned()),
        ("core.alternateRefsCommand", trap("ran-alternates")),
        ("merge.verifySignatures", "true".to_owned()),
        ("gpg.program", trap("ran-gpg")),
        ("core.worktree", place.path("source").to_str().unwrap().to_owned()),
    ] {
        git(&workspace, &["config", key, &value]);
    }
    git(&workspace, &["config", "remote.origin.uploadpack", &trap("ran-uploadpack")]);
    place.write("workspace/.git/info/attributes", "* filter=evil=x\n");
}

fn sprung(place: &Place) -> Vec<String> {
    let names = std::fs::read_dir(place.dir.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("ran-")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn nothing_that_the_repository_configures_is_run() {
    let place = Place::cloned();
    set_traps(&place);
    place.write("upstream/file", "two\n");
    commit(&place.path("upstream"), "second");
    // The same size, another time: Git must look inside, through the clean filter.
    place.write("workspace/file", "one\n");
    // The first cycle moved it forward, the asked-for one found nothing new.
    let status = check(&place, "up_to_date", None).await;
    assert_eq!(status["dirty"], false, "{status}");
    assert_eq!(place.read("workspace/file"), "two\n");
    assert_eq!(sprung(&place), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(place.path("source")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_traps_of_the_test_above_are_real() {
    let place = Place::cloned();
    set_traps(&place);
    let workspace = place.path("workspace");
    git(&workspace, &["config", "--unset", "core.worktree"]);
    git(&workspace, &["config", "--unset", "merge.verifySignatures"]);
    let ran = Command::new("git").args(["status"]).current_dir(&workspace).output().unwrap();
    drop(ran);
    place.write("workspace/file", "changed\n");
    for arguments in
        [vec!["add", "file"], vec!["checkout", "HEAD", "--", "file"], vec!["fetch", "origin"]]
    {
        // Some of them fail, because the traps are no good filters.
        let _ = Command::new("git").args(arguments).current_dir(&workspace).output().unwrap();
    }
    let sprung = sprung(&place);
    for name in ["ran-clean", "ran-fsmonitor", "ran-hook", "ran-smudge", "ran-uploadpack"] {
        assert!(sprung.iter().any(|other| other == name), "{name} in {sprung:?}");
    }
}

#[tokio::test]
async fn a_git_that_hangs_ends_with_the_service() {
    let place = Place::cloned();
    let pid_file = place.path("pid");
    let script = format!("#!/bin/sh\ntrap '' TERM\necho $$ > {}\nsleep 600\n", pid_file.display());
    place.write("bin/git", &script);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("bin/git"), executable).unwrap();
    let mut settings = place.settings(Source::Nothing);
    let mut path = place.path("bin").into_os_string();
    path.push(":");
    path.push(&settings.git.path);
    settings.git.path = path;
    let service = Service::start(settings).await;
    eventually("git runs", || async {
        std::fs::read(&pid_file).is_ok_and(|pid| !pid.is_empty()).then_some(())
    })
    .await;
    tokio::time::timeout(Duration::from_secs(2), service.end()).await.unwrap();
    is_gone(&pid_file).await;
}
