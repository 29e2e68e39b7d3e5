//! Two workers with one Docker, each with an instance of its own, as two hosts
//! of one broker: a team that moves, and a host that was evicted and returns.

use serde_json::{Value, json};

use crate::docker::{self, exec};
use crate::git_server::GitServer;
use crate::net::until_page_holds;
use crate::place::{Place, STATE_MAX, until};
use crate::worker::{Follower, Message, Worker};

/// A second host on the first one's part of the broker.
async fn beside(first: &Place) -> Place {
    let mut second = Place::new().await;
    second.set("COVIBES_AMQP_PREFIX", &first.instance);
    second
}

async fn succeeds(place: &Place, events: &mut Follower, message: &Message) -> Value {
    message.publish(place).await;
    let end = events.end_of(&message.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    end
}

/// Orders a move; gives the exit code and what was said.
async fn order(place: &Place, team: &str, to: &Place) -> (Option<i32>, String) {
    let ended = place.run(&["host", "move", team, &to.instance]).await;
    (ended.code, ended.stderr)
}

/// Waits until the hosts hear each other.
async fn until_both_speak(place: &Place, second: &Place) {
    until("both hosts speak", STATE_MAX, async || {
        let listed = place.run(&["host", "ls"]).await.stdout;
        let speaks = |host: &str| listed.lines().any(|l| l.starts_with(host) && l.contains(" up "));
        (speaks(&place.instance) && speaks(&second.instance)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_team_moves_to_another_host_when_nothing_of_it_would_be_lost() {
    let old = Place::new().await;
    let new = beside(&old).await;
    let server = GitServer::new(&old).await;
    server.project(&old);
    let _old_worker = Worker::ready(&old).await;
    let mut events = Follower::new(&old).await;
    let mut start = Message::new("mover", "start");
    let git = json!({"url": server.url("app"), "ref": "main"});
    start.body["spec"] = json!({
        "workspace": {"git": git}, "agents": [], "previews": [{"name": "main", "branch": "main"}],
    });
    succeeds(&old, &mut events, &start).await;
    let _new_worker = Worker::ready(&new).await;
    until_both_speak(&old, &new).await;

    let (code, said) = order(&old, "mover", &new).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("team.running"), "{said}");

    // Somebody's work: a commit, and a file that is in none.
    let ids = docker::ids(&old.instance, "mover").await;
    let sync = ids.keys().find(|name| name.contains("_sync_")).unwrap().clone();
    let script = "cd /workspace && echo mine > page.txt && git -c user.name=t \
                  -c user.email=t@example.org commit -qam mine && echo new > notes.txt";
    let worked = exec(&sync, &["sh", "-c", script]).await;
    assert_eq!(worked.code, 0, "{worked:?}");
    succeeds(&old, &mut events, &Message::new("mover", "stop")).await;
    let (code, said) = order(&old, "mover", &new).await;
    assert_eq!(code, Some(1), "{said}");
    for word in ["team.has_local_work", "uncommitted", "notes.txt", "unpushed"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    let mut again = start.clone();
    again.id = Message::new("mover", "start").id;
    again.body["job_id"] = json!(again.id);
    succeeds(&old, &mut events, &again).await;
    let script = "cd /workspace && git reset -q --hard origin/main && rm -f notes.txt";
    let undone = exec(&sync, &["sh", "-c", script]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    succeeds(&old, &mut events, &Message::new("mover", "stop")).await;

    let (code, said) = order(&old, "mover", &new).await;
    assert_eq!(code, Some(0), "{said}");
    until("nothing of the team is left where it was", STATE_MAX, async || {
        let workspace = old.data().join("workspaces/mover");
        (old.is_gone("mover").await && !workspace.exists()).then_some(())
    })
    .await;
    let (code, said) = order(&old, "mover", &new).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("already"), "{said}");

    // The spec came along, and so did the numbers.
    let restart = Message::new("mover", "restart");
    let end = succeeds(&old, &mut events, &restart).await;
    assert!(end["source"].as_str().unwrap().contains(&new.instance), "{end}");
    let link = events.seen().of_job(&restart.id).link("main");
    until_page_holds(&link, "/", "first").await;
    events.seen().of_team("mover").assert_in_sequence();
    assert!(!new.is_gone("mover").await);
    succeeds(&old, &mut events, &Message::new("mover", "destroy")).await;
    new.assert_gone("mover").await;
    old.assert_gone("mover").await;
}

#[tokio::test]
async fn an_evicted_host_that_returns_removes_its_containers_and_keeps_its_workspaces() {
    let old = Place::new().await;
    let new = beside(&old).await;
    let project = old.example("vite-react");
    old.workspace("kept", &project);
    let old_worker = Worker::ready(&old).await;
    let mut events = Follower::new(&old).await;
    succeeds(&old, &mut events, &Message::start("kept", &["main"])).await;
    let _new_worker = Worker::ready(&new).await;
    until_both_speak(&old, &new).await;

    old_worker.process.kill();
    let ended = new.run(&["host", "evict", &old.instance, "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Its containers run on, and nobody here is told to stop anything.
    let stop = succeeds(&old, &mut events, &Message::new("kept", "stop")).await;
    assert!(stop["source"].as_str().unwrap().contains("dispatchers"), "{stop}");
    let before = docker::of_team(&old.instance, "kept").await;
    assert!(!before.containers.is_empty(), "{before:?}");

    let _returned = Worker::ready(&old).await;
    let left = until("its containers are removed", STATE_MAX, async || {
        let left = docker::of_team(&old.instance, "kept").await;
        (left.containers.is_empty() && left.networks.is_empty()).then_some(left)
    })
    .await;
    assert_eq!(left.volumes, before.volumes);
    assert!(old.data().join("workspaces/kept/package.json").exists());
    // It is a host like any other again.
    until_both_speak(&new, &old).await;
}
