//! Commits and pushes for agents.

use super::*;

fn bare(place: &Place) {
    // A repository that is checked out takes no pushes to its own branch.
    git(&place.path("upstream"), &["config", "receive.denyCurrentBranch", "ignore"]);
}

async fn commit_as(service: &Service, agent: &str, paths: &[&str]) -> Value {
    let body = json!({"agent": agent, "message": format!("by {agent}"), "paths": paths});
    let answer = service.client.post("/commit", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_commit_takes_what_is_named_and_moves_nothing() {
    let place = Place::cloned();
    let workspace = place.path("workspace");
    place.write("workspace/file", "changed\n");
    place.write("workspace/src/new", "new\n");
    place.write("workspace/not mine", "other\n");
    std::fs::remove_file(place.path("workspace/other")).unwrap();
    git(&workspace, &["add", "not mine"]);
    let look = || {
        let head = git(&workspace, &["rev-parse", "HEAD"]);
        (head, git(&workspace, &["status", "--porcelain"]), git(&workspace, &["ls-files", "-s"]))
    };
    let before = look();
    let service = Service::start(place.settings(place.remote())).await;
    let made = commit_as(&service, "one", &["file", "src", "other"]).await;
    let taken = json!([
        {"path": "file", "change": "modified"},
        {"path": "other", "change": "deleted"},
        {"path": "src/new", "change": "added"},
    ]);
    assert_eq!((&made["taken"], &made["branch"]), (&taken, &json!("covibes/team_a/one")));
    let commit = made["commit"].as_str().unwrap();
    assert_eq!(git(&workspace, &["show", &format!("{commit}:file")]), "changed");
    assert_eq!(git(&workspace, &["log", "-1", "--format=%an %s", commit]), "one by one");
    assert_eq!(look(), before);

    // The same again is nothing; what was put back since is taken back.
    assert_eq!(commit_as(&service, "one", &["file"]).await["commit"], Value::Null);
    place.write("workspace/file", "one\n");
    let made = commit_as(&service, "one", &["file"]).await;
    assert_eq!(made["taken"], json!([{"path": "file", "change": "modified"}]));
    assert_eq!(made["parent"], commit);
    // And everything, for another agent, on a branch of its own.
    let made = commit_as(&service, "two", &[]).await;
    assert_eq!(made["taken"].as_array().unwrap().len(), 3, "{made}");
    let leftovers = std::fs::read_dir(place.dir.path()).unwrap();
    let names = leftovers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.contains("covibes-index")));
    service.end().await;
}

#[tokio::test]
async fn a_branch_that_is_checked_out_and_a_persons_directory_are_left_alone() {
    let place = Place::cloned();
    let workspace = place.path("workspace");
    git(&workspace, &["checkout", "-q", "-b", "covibes/team_a/one"]);
    place.write("workspace/file", "changed\n");
    let service = Service::start(place.settings(place.remote())).await;
    let body = json!({"agent": "one", "message": "m"});
    let answer = service.client.post("/commit", &body).await;
    assert_eq!(answer.status, 409, "{}", answer.text);
    assert!(answer.text.contains("is checked out"), "{}", answer.text);
    for (body, status) in [
        (json!({"agent": "../x", "message": "m"}), 400),
        (json!({"agent": "one", "message": ""}), 400),
        (json!({"agent": "one", "message": "m", "paths": ["../x"]}), 400),
        (json!({"agent": "one", "message": "m", "force": true}), 400),
    ] {
        assert_eq!(service.client.post("/commit", &body).await.status, status, "{body}");
    }
    service.end().await;

    let mut settings = place.settings(Source::Nothing);
    settings.report_only = true;
    let service = Service::start(settings).await;
    for path in ["/commit", "/push", "/sync"] {
        let body = match path {
            "/commit" => json!({"agent": "two", "message": "m"}),
            "/push" => json!({"agent": "two"}),
            _ => json!({"strategy": "merge"}),
        };
        assert_eq!(service.client.post(path, &body).await.status, 409, "{path}");
    }
    assert_eq!(service.sync().await["outcome"], "local_only");
    assert_eq!(place.read("workspace/file"), "changed\n");
    service.end().await;
}

#[tokio::test]
async fn a_persons_directory_is_reported_with_its_own_upstream() {
    let place = Place::cloned();
    place.write("workspace/file", "mine\n");
    commit(&place.path("workspace"), "mine");
    let service = Service::start(place.settings(Source::Nothing)).await;
    let status = service.sync().await;
    assert_eq!((&status["ahead"], &status["behind"]), (&json!(1), &json!(0)), "{status}");
    service.end().await;
}

#[tokio::test]
async fn a_push_sends_the_agents_branch_and_never_by_force() {
    let place = Place::cloned();
    bare(&place);
    place.write("workspace/file", "changed\n");
    let service = Service::start(place.settings(place.remote())).await;
    let push = async || service.client.post("/push", &json!({"agent": "one"})).await;
    assert_eq!(push().await.status, 409);
    let made = commit_as(&service, "one", &[]).await;
    let pushed = push().await;
    assert_eq!(pushed.status, 200, "{}", pushed.text);
    let there = git(&place.path("upstream"), &["rev-parse", "covibes/team_a/one"]);
    assert_eq!(pushed.json()["commit"], there.as_str());
    assert_eq!(made["commit"], there.as_str());
    // Somebody else was there.
    git(&place.path("upstream"), &["branch", "-f", "covibes/team_a/one", "main"]);
    place.write("upstream/x", "x");
    commit(&place.path("upstream"), "x");
    git(&place.path("upstream"), &["branch", "-f", "covibes/team_a/one", "main"]);
    let refused = push().await;
    assert_eq!(refused.status, 502, "{}", refused.text);
    assert!(refused.text.contains("rejected"), "{}", refused.text);
    let metrics = service.client.get("/metrics").await.text;
    assert!(metrics.contains("covibes_sync_pushes_total{outcome=\"failed\"} 1"), "{metrics}");
    service.end().await;
}
