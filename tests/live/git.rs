//! Teams that start from a Git repository: cloned over HTTPS through the egress
//! proxy by host policy, followed by sync, refused where it must be.

use serde_json::{Value, json};

use crate::docker::{self, exec};
use crate::git_server::GitServer;
use crate::net::{until_page_holds, visit};
use crate::place::{Place, STATE_MAX, until};
use crate::policy::{GIT_DENIED, GIT_SERVER};
use crate::worker::{Follower, Message, Worker};

/// A start from a repository, without agents; sync looks every five seconds.
fn start(team: &str, git: Value, previews: Value) -> Message {
    let mut message = Message::new(team, "start");
    message.body["spec"] = json!({
        "workspace": {"git": git}, "agents": [], "previews": previews, "sync": {"interval": "5s"},
    });
    message
}

#[tokio::test]
async fn a_team_starts_from_a_repository_and_follows_it() {
    let place = Place::new().await;
    let server = GitServer::new(&place).await;
    let clone = server.project(&place);
    server.push(&clone, "staging", "on staging");
    server.run(&clone, &["reset", "--quiet", "--hard", "HEAD~1"]);

    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let previews =
        json!([{"name": "main", "branch": "main"}, {"name": "staging", "branch": "staging"}]);
    let job = start("forge", json!({"url": server.url("app"), "ref": "main"}), previews);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let told = events.seen().of_job(&job.id);
    let cloned = told.step_message("workspace");
    assert!(cloned.starts_with("cloned at main"), "{cloned}");
    let (main, staging) = (told.link("main"), told.link("staging"));
    until_page_holds(&main, "/", "first").await;
    until_page_holds(&staging, "/", "on staging").await;

    let ids = docker::ids(&place.instance, "forge").await;
    let sync = ids.keys().find(|name| name.contains("_sync_")).unwrap();
    let at = async |directory: &str, what: &[&str]| {
        exec(sync, &[&["git", "-C", directory], what].concat()).await.output
    };
    assert_eq!(at("/workspace", &["rev-parse", "--abbrev-ref", "HEAD"]).await, "main");
    let worktrees = at("/workspace", &["worktree", "list"]).await;
    assert!(worktrees.contains("/worktrees/staging"), "{worktrees}");

    // A push is picked up, fast-forward, and the page is the new one.
    let pushed = server.push(&clone, "main", "second");
    until_page_holds(&main, "/", "second").await;
    assert_eq!(at("/workspace", &["rev-parse", "HEAD"]).await, pushed);
    assert_eq!(at("/workspace", &["status", "--porcelain"]).await, "");
    let other = visit(&staging, "/").await.unwrap().body;
    assert_eq!(other, "on staging");

    // Work that is not committed wins over a push.
    let edit = exec(sync, &["sh", "-c", "echo mine > /workspace/page.txt"]).await;
    assert_eq!(edit.code, 0, "{edit:?}");
    let third = server.push(&clone, "main", "third");
    until("sync has seen the push", STATE_MAX, async || {
        let seen = at("/workspace", &["rev-parse", "refs/remotes/origin/main"]).await;
        (seen == third).then_some(())
    })
    .await;
    until_page_holds(&main, "/", "mine").await;
    assert_eq!(at("/workspace", &["rev-parse", "HEAD"]).await, pushed);

    let destroy = Message::new("forge", "destroy");
    destroy.publish(&place).await;
    let end = events.end_of(&destroy.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    place.assert_gone("forge").await;
}

#[tokio::test]
async fn repositories_that_may_not_be_cloned_are_refused_by_name() {
    let place = Place::new().await;
    let server = GitServer::new(&place).await;
    server.project(&place);
    server.bomb("bomb");
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;

    let main = json!([{"name": "main"}]);
    let elsewhere = json!([{"name": "main", "branch": "no-such"}]);
    let app = server.url("app");
    for (code, url, reference, previews) in [
        // Beside the server, in the network that is allowed, but on no list.
        ("git.host_not_allowed", app.replace(GIT_SERVER, "198.19.77.3"), "main", &main),
        ("git.address_denied", app.replace(GIT_SERVER, GIT_DENIED), "main", &main),
        ("git.redirect_refused", server.url("moved"), "main", &main),
        ("git.auth_failed", server.url("private"), "main", &main),
        ("git.not_found", server.url("absent"), "main", &main),
        ("git.invalid_ref", app.clone(), "no-such", &main),
        ("git.invalid_ref", app.clone(), "main", &elsewhere),
        ("git.too_many_files", server.url("bomb"), "main", &main),
    ] {
        let job = start("denied", json!({"url": url, "ref": reference}), previews.clone());
        job.publish(&place).await;
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.failed", "{code}: {end}");
        let failure = &end["data"]["failure"];
        assert_eq!(failure["code"], code, "{failure}");
        assert_eq!(failure["step"], "workspace", "{failure}");
        assert!(failure["hint"].as_str().is_some_and(|hint| hint.ends_with('.')), "{failure}");
        assert_eq!(end["data"]["undone"], true, "{end}");
        place.assert_gone("denied").await;
    }
}
