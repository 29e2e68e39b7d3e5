//! Two histories that become one, on request.

use super::*;

/// One commit here and one there, each to a file of its own.
fn diverged(place: &Place, here: &str, there: &str) -> (String, String) {
    place.write(&format!("workspace/{here}"), "mine\n");
    let mine = commit(&place.path("workspace"), "mine");
    place.write(&format!("upstream/{there}"), "theirs\n");
    let theirs = commit(&place.path("upstream"), "theirs");
    (mine, theirs)
}

fn log(place: &Place, range: &str) -> Vec<String> {
    let text = git(&place.path("workspace"), &["log", "--format=%s", range]);
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn local_commits_go_on_top_with_their_authors() {
    let place = Place::cloned();
    let (mine, theirs) = diverged(&place, "new", "file");
    let service = Service::start(place.settings(place.remote())).await;
    let before = service.sync().await;
    assert_eq!((&before["outcome"], &before["head"]), (&json!("conflict"), &json!(mine)));
    let status = service.join("rebase").await;
    assert_eq!(status["outcome"], "rebased", "{status}");
    assert_eq!((&status["ahead"], &status["behind"]), (&json!(1), &json!(0)));
    assert_eq!(log(&place, &format!("{theirs}..main")), ["mine"]);
    assert_eq!(
        (&*place.read("workspace/new"), &*place.read("workspace/file")),
        ("mine\n", "theirs\n")
    );
    let workspace = place.path("workspace");
    let format = "--format=%an %ad %cn";
    let author = |commit: &str| git(&workspace, &["log", "-1", "--date=raw", format, commit]);
    let (old, new) = (author(&mine), author("main"));
    assert_eq!(new, old.replace(" A", " covibes-sync"), "{old}");
    // The old commit keeps a name.
    assert_eq!(git(&workspace, &["rev-parse", &format!("refs/covibes/kept/{mine}")]), mine);
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
    service.end().await;
}

#[tokio::test]
async fn a_merge_joins_both_and_a_branch_sets_the_local_ones_aside() {
    for (strategy, outcome, ahead) in [("merge", "merged", 2), ("branch", "branched", 0)] {
        let place = Place::cloned();
        let (mine, theirs) = diverged(&place, "new", "file");
        let service = Service::start(place.settings(place.remote())).await;
        let status = service.join(strategy).await;
        assert_eq!(
            (&status["outcome"], &status["ahead"]),
            (&json!(outcome), &json!(ahead)),
            "{status}"
        );
        let workspace = place.path("workspace");
        if strategy == "merge" {
            let parents = git(&workspace, &["log", "-1", "--format=%P"]);
            assert_eq!(parents, format!("{mine} {theirs}"));
            assert_eq!(place.read("workspace/new"), "mine\n");
        } else {
            assert_eq!(status["head"], theirs.as_str());
            let branch = status["local_branch"].as_str().unwrap();
            assert_eq!(branch, format!("covibes/team_a/local-{}", &mine[..12]));
            assert_eq!(git(&workspace, &["rev-parse", branch]), mine);
            assert!(!place.exists("workspace/new"));
        }
        assert_eq!(place.read("workspace/file"), "theirs\n");
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
        service.end().await;
    }
}

#[tokio::test]
async fn what_both_sides_changed_is_named_and_nothing_is_touched() {
    let place = Place::cloned();
    let (mine, _) = diverged(&place, "file", "file");
    let service = Service::start(place.settings(place.remote())).await;
    let status = service.sync().await;
    assert_eq!(status["conflicts"][0]["kind"], "diverged");
    assert_eq!(status["conflicts"][0]["paths"], json!(["file"]));
    for strategy in ["rebase", "merge"] {
        let status = service.join(strategy).await;
        assert_eq!(status["conflicts"][0]["kind"], "merge", "{status}");
        assert_eq!(status["conflicts"][0]["paths"], json!(["file"]));
        assert_eq!(status["head"], mine.as_str());
        assert_eq!(place.read("workspace/file"), "mine\n");
        assert_eq!(git(&place.path("workspace"), &["status", "--porcelain"]), "");
    }
    service.end().await;
}

#[tokio::test]
async fn changed_files_and_files_in_the_way_stop_every_strategy() {
    let place = Place::cloned();
    let (mine, _) = diverged(&place, "new", "file");
    place.write("workspace/.git/info/exclude", "/ignored\n");
    let service = Service::start(place.settings(place.remote())).await;
    for strategy in ["rebase", "merge", "branch"] {
        place.write("workspace/other", "changed\n");
        let status = service.join(strategy).await;
        assert_eq!(status["conflicts"][1]["kind"], "dirty", "{status}");
        assert_eq!(
            (place.read("workspace/other"), &status["head"]),
            ("changed\n".to_owned(), &json!(mine))
        );
        git(&place.path("workspace"), &["checkout", "-q", "--", "other"]);
    }
    // Ignored files are somebody's as well: keys and settings, mostly.
    place.write("workspace/ignored", "secret\n");
    place.write("upstream/ignored", "theirs\n");
    commit(&place.path("upstream"), "a file of that name");
    for strategy in ["rebase", "merge", "branch"] {
        let status = service.join(strategy).await;
        assert_eq!(status["conflicts"][0]["kind"], "untracked", "{strategy}: {status}");
        assert_eq!(place.read("workspace/ignored"), "secret\n", "{strategy}");
        assert_eq!(git(&place.path("workspace"), &["rev-parse", "main"]), mine, "{strategy}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_history_that_the_remote_replaced_is_told_apart_and_kept() {
    let place = Place::cloned();
    let service = Service::start(place.settings(place.remote())).await;
    let old = service.sync().await["head"].as_str().unwrap().to_owned();
    let upstream = place.path("upstream");
    place.write("upstream/file", "rewritten\n");
    git(&upstream, &["commit", "-q", "-a", "--amend", "-m", "first, again"]);
    let status = service.sync().await;
    assert_eq!(status["conflicts"][0]["kind"], "rewritten", "{status}");
    assert_eq!(status["rewritten_branches"], json!(["main"]));
    assert_eq!(status["head"], old.as_str());
    // And still at the next look, although nothing new came.
    assert_eq!(service.sync().await["conflicts"][0]["kind"], "rewritten");
    let status = service.join("branch").await;
    assert_eq!(
        (&status["outcome"], &status["rewritten_branches"]),
        (&json!("branched"), &json!([]))
    );
    assert_eq!(place.read("workspace/file"), "rewritten\n");
    let branch = status["local_branch"].as_str().unwrap();
    assert_eq!(git(&place.path("workspace"), &["rev-parse", branch]), old);
    let metrics = service.client.get("/metrics").await.text;
    assert!(metrics.contains("covibes_sync_rewritten_total 1"), "{metrics}");
    service.end().await;
}

#[tokio::test]
async fn a_strategy_that_is_none_is_refused() {
    let place = Place::cloned();
    let service = Service::start(place.settings(place.remote())).await;
    for body in [json!({"strategy": "theirs"}), json!({"strategie": "merge"})] {
        assert_eq!(service.client.post("/sync", &body).await.status, 400, "{body}");
    }
    service.end().await;
}
