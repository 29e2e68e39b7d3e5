//! Teams that start from a Git repository: cloned over HTTPS through the egress
//! proxy by host policy, followed by sync, refused where it must be.

use serde_json::{Value, json};

use crate::docker::{self, exec};
use crate::git_server::GitServer;
use crate::net::{until_page_holds, visit};
use crate::place::{Place, STATE_MAX, until};
use crate::policy::{GIT_DENIED, GIT_SERVER};
use crate::worker::{Follower, Message, Worker};

const TOKEN: &str = "ghp_canary0123456789canary0123456789cana";

/// Secrets of a worker's, as an operator lays them out.
fn secrets(place: &mut Place, files: &[(&str, &str)]) {
    let directory = place.directory("secrets");
    for (name, content) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    place.set("COVIBES_PATHS_SECRETS", directory.display().to_string());
}

fn is_sync(event: &Value, kind: &str) -> bool {
    event["type"] == format!("covibes.sync.{kind}")
}

#[tokio::test]
async fn a_private_repository_is_followed_by_ssh_and_its_host_key_is_pinned() {
    let mut place = Place::new().await;
    let server = GitServer::with_ssh(&place).await;
    let known = server.known_host();
    secrets(&mut place, &[("ssh/forge", &server.key()), ("known_hosts", &known)]);
    let clone = server.project(&place);
    server.push(&clone, "staging", "on staging");
    server.run(&clone, &["reset", "--quiet", "--hard", "HEAD~1"]);
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let previews =
        json!([{"name": "main", "branch": "main"}, {"name": "staging", "branch": "staging"}]);
    let git = json!({"url": server.ssh_url("app"), "ref": "main", "credentials": "ssh:forge"});
    let job = start("keyed", git, previews);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let told = events.seen().of_job(&job.id);
    let (main, staging) = (told.link("main"), told.link("staging"));
    until_page_holds(&main, "/", "first").await;
    until_page_holds(&staging, "/", "on staging").await;

    // Both checkouts follow, and the team is told.
    let pushed = server.push(&clone, "main", "second");
    let synced = events.until("main is told", |event| {
        is_sync(event, "synced") && event["data"]["head"] == pushed.as_str()
    });
    synced.await;
    until_page_holds(&main, "/", "second").await;
    // Even a history that was replaced, where nobody works.
    server.replace(&clone, "staging", "staging again");
    until_page_holds(&staging, "/", "staging again").await;

    // What an agent changed goes to a branch, without moving anything.
    let ids = docker::ids(&place.instance, "keyed").await;
    let sync = ids.keys().find(|name| name.contains("_sync_")).unwrap();
    let edit = exec(sync, &["sh", "-c", "echo mine > /workspace/page.txt"]).await;
    assert_eq!(edit.code, 0, "{edit:?}");
    let commit = ["sync", "keyed", "--commit", "agent-1", "-m", "a page", "--push", "agent-1"];
    let ended = place.run(&commit).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("modified page.txt"), "{ended:?}");
    let there = server.head_of("app", "covibes/keyed/agent-1").unwrap();
    assert!(ended.stdout.contains(&there[..12]), "{ended:?}");
    let head = exec(sync, &["git", "-C", "/workspace", "rev-parse", "HEAD"]).await.output;
    assert_eq!(head, pushed);

    // Work is in the way, and is named.
    server.push(&clone, "main", "third");
    let told = events.until("the conflict is told", |event| is_sync(event, "conflict")).await;
    assert_eq!(told["data"]["paths"], json!(["page.txt"]), "{told}");
    assert_eq!(told["data"]["behind"], 1, "{told}");
    let shown = place.run(&["teams", "show", "keyed"]).await.stdout;
    for word in ["conflict main", "dirty: 1 changed", "page.txt", "worktree staging: up_to_date"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let ended = place.run(&["sync", "keyed"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");

    // Somebody else in the server's place gets nothing.
    server.swap_host_key().await;
    let told = events.until("the key is told", |event| is_sync(event, "failed")).await;
    assert_eq!(told["data"]["failure"]["code"], "git.host_key", "{told}");
    let job = Message::new("keyed", "sync");
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["data"]["failure"]["code"], "git.host_key", "{end}");
}

#[tokio::test]
async fn a_token_opens_a_private_repository_and_is_found_nowhere() {
    let mut place = Place::new().await;
    let server = GitServer::new(&place).await;
    secrets(&mut place, &[("https/forge", TOKEN)]);
    server.token(TOKEN);
    server.project(&place);
    server.copy("app", "private");
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let git = json!({"url": server.url("private"), "ref": "main", "credentials": "https:forge"});
    let mut job = start("token", git, json!([{"name": "main"}]));
    job.body["spec"]["agents"] = json!([{"name": "one"}]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");

    let ids = docker::ids(&place.instance, "token").await;
    let name = |role: &str| ids.keys().find(|n| n.contains(&format!("_{role}_"))).unwrap();
    let edit = exec(name("agent"), &["sh", "-c", "echo mine > /workspace/page.txt"]).await;
    assert_eq!(edit.code, 0, "{edit:?}");
    let commit = ["sync", "token", "--commit", "one", "-m", "a page", "--push", "one", "--json"];
    let ended = place.run(&commit).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(server.head_of("private", "covibes/token/one").is_some());

    let mut texts =
        vec![("the command", ended.stdout), ("events", format!("{:?}", events.seen().0))];
    for name in ids.keys() {
        texts.push(("inspect", docker::docker(&["inspect", name]).await));
        let logs = std::process::Command::new("docker").args(["logs", name]).output().unwrap();
        texts.push(("logs", String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into()));
    }
    texts.push(("the worker's log", worker.process.stderr()));
    texts.push((
        "an agent's files",
        exec(
            name("agent"),
            &[
                "sh",
                "-c",
                "cat /proc/1/environ; \
        cat /home/claude/.ssh/* /workspace/.git/config; ls -R /run",
            ],
        )
        .await
        .output,
    ));
    let found = |path: std::path::PathBuf| {
        let output = std::process::Command::new("grep").args(["-rl", TOKEN]).arg(path).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    let state = std::path::Path::new("/var/lib/covibes/instances").join(&place.instance);
    for directory in [place.data().join("workspaces"), state] {
        assert_eq!(found(directory), "");
    }
    for (what, text) in texts {
        assert!(!text.contains(TOKEN), "the token is in {what}");
    }
}

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
