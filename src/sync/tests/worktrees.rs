//! Worktrees of previews, one for each branch.

use super::*;

const STAGING: &[(&str, &str)] = &[("stage", "staging")];

fn staging(place: &Place, page: &str) -> String {
    let upstream = place.path("upstream");
    git(&upstream, &["checkout", "-q", "-B", "staging"]);
    place.write("upstream/page", page);
    let made = commit(&upstream, page);
    git(&upstream, &["checkout", "-q", "main"]);
    made
}

fn state(status: &Value) -> &Value {
    &status["worktrees"][0]["state"]
}

#[tokio::test]
async fn a_worktree_comes_with_its_branch_and_stays_when_it_goes() {
    let place = Place::cloned();
    let service = Service::start(place.settings_with(STAGING)).await;
    let status = service.sync().await;
    assert_eq!((&status["outcome"], state(&status)), (&json!("up_to_date"), &json!("no_branch")));
    assert_eq!(status["missing_branches"], json!(["staging"]));

    let first = staging(&place, "one");
    let status = service.sync().await;
    assert_eq!(
        (state(&status), &status["worktrees"][0]["head"]),
        (&json!("created"), &json!(first))
    );
    assert_eq!(place.read("worktrees/stage/page"), "one");
    assert_eq!(state(&service.sync().await), "up_to_date");

    let second = staging(&place, "two");
    let status = service.sync().await;
    assert_eq!(
        (state(&status), &status["worktrees"][0]["head"]),
        (&json!("fast_forwarded"), &json!(second))
    );
    assert_eq!(place.read("worktrees/stage/page"), "two");
    assert_eq!(place.read("workspace/file"), "one\n");

    git(&place.path("upstream"), &["branch", "-q", "-D", "staging"]);
    let status = service.sync().await;
    assert_eq!((&status["outcome"], state(&status)), (&json!("up_to_date"), &json!("branch_gone")));
    assert_eq!(place.read("worktrees/stage/page"), "two");
    let health = service.client.get("/health").await.json();
    assert_eq!(health["status"], "degraded", "{health}");
    service.end().await;
}

#[tokio::test]
async fn work_in_a_worktree_is_left_alone() {
    let place = Place::cloned();
    staging(&place, "one");
    let service = Service::start(place.settings_with(STAGING)).await;
    service.sync().await;
    place.write("worktrees/stage/page", "mine");
    staging(&place, "two");
    let status = service.sync().await;
    assert_eq!(status["worktrees"][0]["conflicts"][0]["kind"], "dirty", "{status}");
    assert_eq!(place.read("worktrees/stage/page"), "mine");
    let mine = commit(&place.path("worktrees/stage"), "mine");
    let status = service.sync().await;
    // The branch was begun anew.
    assert_eq!(status["worktrees"][0]["conflicts"][0]["kind"], "rewritten", "{status}");
    assert_eq!(git(&place.path("worktrees/stage"), &["rev-parse", "HEAD"]), mine);
    service.end().await;
}

#[tokio::test]
async fn a_worktree_without_work_follows_a_history_that_was_replaced() {
    let place = Place::cloned();
    let first = staging(&place, "one");
    let service = Service::start(place.settings_with(STAGING)).await;
    service.sync().await;
    // A clone writes no log of where its branches began.
    std::fs::remove_dir_all(place.path("workspace/.git/logs/refs/remotes")).unwrap();
    let upstream = place.path("upstream");
    git(&upstream, &["checkout", "-q", "staging"]);
    place.write("upstream/page", "rewritten");
    git(&upstream, &["commit", "-q", "-a", "--amend", "-m", "again"]);
    let status = service.sync().await;
    assert_eq!(
        (state(&status), &status["rewritten_branches"]),
        (&json!("fast_forwarded"), &json!(["staging"]))
    );
    assert_eq!(place.read("worktrees/stage/page"), "rewritten");
    let kept = git(&place.path("workspace"), &["rev-parse", &format!("refs/covibes/kept/{first}")]);
    assert_eq!(kept, first);
    service.end().await;
}

#[tokio::test]
async fn a_worktree_that_leads_elsewhere_is_none() {
    let place = Place::cloned();
    staging(&place, "one");
    let service = Service::start(place.settings_with(STAGING)).await;
    service.sync().await;
    staging(&place, "two");
    let elsewhere = place.path("elsewhere");
    git(place.dir.path(), &["init", "-q", "elsewhere"]);
    let link = format!("gitdir: {}/.git\n", elsewhere.display());
    place.write("worktrees/stage/.git", &link);
    let status = service.sync().await;
    assert_eq!(state(&status), "failed", "{status}");
    let detail = status["worktrees"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("no worktree of the workspace"), "{detail}");
    assert_eq!(place.read("worktrees/stage/page"), "one");
    service.end().await;
}

#[tokio::test]
async fn one_cycle_alone_makes_the_worktrees_and_says_what_is_missing() {
    let place = Place::cloned();
    staging(&place, "one");
    run_once(place.settings_with(STAGING)).await.unwrap();
    assert_eq!(place.read("worktrees/stage/page"), "one");
    let missing = run_once(place.settings_with(&[("x", "no-such")])).await.unwrap_err();
    assert_eq!(missing, "couldn't find remote ref no-such");
}

/// A worktree with a commit of its own, and one more upstream.
async fn diverged(place: &Place, service: &Service, here: &str, there: &str) -> (String, String) {
    staging(place, "one");
    service.sync().await;
    place.write(&format!("worktrees/stage/{here}"), "mine");
    let mine = commit(&place.path("worktrees/stage"), "mine");
    let upstream = place.path("upstream");
    git(&upstream, &["checkout", "-q", "staging"]);
    place.write(&format!("upstream/{there}"), "theirs");
    let theirs = commit(&upstream, "theirs");
    git(&upstream, &["checkout", "-q", "main"]);
    (mine, theirs)
}

async fn join(service: &Service, strategy: &str) -> Value {
    let body = json!({"strategy": strategy, "worktree": "stage"});
    let answer = service.client.post("/sync", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["worktrees"][0].clone()
}

#[tokio::test]
async fn commits_in_a_worktree_are_no_conflict_while_nothing_is_new() {
    let place = Place::cloned();
    staging(&place, "one");
    let service = Service::start(place.settings_with(STAGING)).await;
    service.sync().await;
    place.write("worktrees/stage/new", "mine");
    let mine = commit(&place.path("worktrees/stage"), "mine");
    let shown = service.sync().await["worktrees"][0].clone();
    assert_eq!((&shown["state"], &shown["head"]), (&json!("up_to_date"), &json!(mine)));
    assert_eq!((&shown["ahead"], &shown["behind"]), (&json!(1), &json!(0)));
    service.end().await;
}

#[tokio::test]
async fn a_worktree_that_diverged_is_counted_and_joined_on_request() {
    for (strategy, state, ahead) in
        [("rebase", "rebased", 1), ("merge", "merged", 2), ("branch", "branched", 0)]
    {
        let place = Place::cloned();
        let service = Service::start(place.settings_with(STAGING)).await;
        let (mine, theirs) = diverged(&place, &service, "new", "page").await;
        let main = place.read("workspace/file");
        let shown = service.sync().await["worktrees"][0].clone();
        assert_eq!(shown["conflicts"][0]["kind"], "diverged", "{shown}");
        assert_eq!((&shown["ahead"], &shown["behind"]), (&json!(1), &json!(1)));
        // The same word for the workspace leaves it alone.
        assert_eq!(service.join(strategy).await["worktrees"][0]["head"], mine.as_str());

        let shown = join(&service, strategy).await;
        assert_eq!((&shown["state"], &shown["ahead"]), (&json!(state), &json!(ahead)), "{shown}");
        assert_eq!(shown["behind"], 0, "{shown}");
        let worktree = place.path("worktrees/stage");
        assert_eq!(shown["head"], git(&worktree, &["rev-parse", "HEAD"]).as_str());
        assert_eq!(place.read("worktrees/stage/page"), "theirs");
        assert_eq!(place.exists("worktrees/stage/new"), strategy != "branch");
        if strategy == "branch" {
            let branch = shown["local_branch"].as_str().unwrap();
            assert_eq!(git(&worktree, &["rev-parse", branch]), mine);
            assert_eq!(shown["head"], theirs.as_str());
        }
        let kept = format!("refs/covibes/kept/{mine}");
        assert_eq!(git(&worktree, &["rev-parse", &kept]), mine);
        // Detached as before, and nobody else's files have moved.
        assert_eq!(git(&worktree, &["branch", "--show-current"]), "");
        assert_eq!(git(&worktree, &["status", "--porcelain"]), "");
        assert_eq!(place.read("workspace/file"), main);
        assert_eq!(service.sync().await["worktrees"][0]["state"], "up_to_date");
        service.end().await;
    }
}

#[tokio::test]
async fn what_both_sides_changed_in_a_worktree_is_named_and_untouched() {
    let place = Place::cloned();
    let service = Service::start(place.settings_with(STAGING)).await;
    let (mine, _) = diverged(&place, &service, "page", "page").await;
    let shown = service.sync().await["worktrees"][0].clone();
    assert_eq!(shown["conflicts"][0]["paths"], json!(["page"]), "{shown}");
    for strategy in ["rebase", "merge"] {
        let shown = join(&service, strategy).await;
        assert_eq!(shown["conflicts"][0]["kind"], "merge", "{shown}");
        assert_eq!((&shown["head"], &*place.read("worktrees/stage/page")), (&json!(mine), "mine"));
    }
    // A branch that an agent made there is the one that moves.
    let worktree = place.path("worktrees/stage");
    git(&worktree, &["checkout", "-q", "-b", "feature"]);
    let shown = join(&service, "branch").await;
    assert_eq!(shown["state"], "branched", "{shown}");
    assert_eq!(git(&worktree, &["branch", "--show-current"]), "feature");
    assert_eq!(git(&worktree, &["rev-parse", "feature"]), shown["head"].as_str().unwrap());
    for body in [
        json!({"strategy": "merge", "worktree": "other"}),
        json!({"worktree": "stage"}),
        json!({"strategy": "theirs", "worktree": "stage"}),
    ] {
        assert_eq!(service.client.post("/sync", &body).await.status, 400, "{body}");
    }
    service.end().await;
}
