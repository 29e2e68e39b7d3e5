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
    assert_eq!(status["worktrees"][0]["conflicts"][0]["kind"], "diverged", "{status}");
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
