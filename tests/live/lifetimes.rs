//! How teams and things end without a job: `ttl`, `idle_stop`, what nobody owns; and what
//! somebody took away past the worker.

use std::time::Duration;

use serde_json::{Value, json};

use crate::docker::{self, docker};
use crate::events::kind;
use crate::net::visit;
use crate::place::{Place, STATE_MAX, is_full, until};
use crate::projects::plain;
use crate::worker::{Follower, Message, Worker};

/// The five minutes for which something must be nobody's, and what looks take.
const REAPED_MAX: Duration = Duration::from_secs(480);

fn start(place: &Place, team: &str, life: &Value) -> Message {
    if !place.data().join("workspaces").join(team).exists() {
        let files = place.dir.join("app");
        let files = if files.exists() { files } else { plain(place, "app") };
        place.workspace(team, &files);
    }
    let mut job = Message::start(team, &["main"]);
    for (key, value) in life.as_object().unwrap() {
        job.body["spec"][key] = value.clone();
    }
    job
}

/// Starts a team; gives the link of its preview.
async fn up(place: &Place, events: &mut Follower, job: &Message) -> url::Url {
    job.publish(place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(kind(&end), "job.succeeded", "{end}");
    end["data"]["links"]["main"].as_str().unwrap().parse().unwrap()
}

fn is_of(event: &Value, team: &str, wanted: &str) -> bool {
    event["subject"] == team && kind(event) == wanted
}

async fn until_of(events: &mut Follower, team: &str, wanted: &str) -> Value {
    events.until(&format!("{wanted} of {team}"), |event| is_of(event, team, wanted)).await
}

/// The same, if it has been told already as well.
async fn stopped(events: &mut Follower, team: &str) -> Value {
    match position(events, team, "team.stopped") {
        Some(at) => events.seen().0[at].clone(),
        None => until_of(events, team, "team.stopped").await,
    }
}

fn position(events: &Follower, team: &str, wanted: &str) -> Option<usize> {
    events.seen().0.iter().position(|event| is_of(event, team, wanted))
}

#[tokio::test]
async fn a_ttl_is_told_before_its_end_and_a_start_gives_a_new_life() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let life = json!({"ttl": "60s"});
    up(&place, &mut events, &start(&place, "short", &life)).await;
    up(&place, &mut events, &start(&place, "again", &life)).await;
    let warned = until_of(&mut events, "again", "team.expiring").await;
    assert_eq!(warned["data"]["reason"], "ttl", "{warned}");
    let left = warned["data"]["left_ms"].as_u64().unwrap();
    assert!((1..=30_000).contains(&left), "half of its life: {warned}");
    up(&place, &mut events, &start(&place, "again", &life)).await;
    let ended = stopped(&mut events, "short").await;
    assert!(ended["data"]["cause"].as_str().unwrap().contains("`ttl`"), "{ended}");
    let told = position(&events, "short", "team.expiring").expect("it was told before");
    assert!(told < position(&events, "short", "team.stopped").unwrap());
    // The other began a new life half a minute ago, and goes on.
    assert_eq!(position(&events, "again", "team.stopped"), None);
    assert!(docker::of_team(&place.instance, "short").await.containers.is_empty());
    let kept = place.data().join("workspaces/short");
    assert!(kept.exists(), "a stop keeps the workspace");
    assert_eq!(docker::of_team(&place.instance, "again").await.containers.len(), 2);
}

#[tokio::test]
async fn full_a_team_in_which_nothing_happens_stops_and_open_pages_do_not_count() {
    if !is_full("idle_stop") {
        return;
    }
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let life = json!({"idle_stop": "75s"});
    let link = up(&place, &mut events, &start(&place, "watched", &life)).await;
    up(&place, &mut events, &start(&place, "edited", &life)).await;
    // One page is open and asks all the time; the other team's files change.
    let file = place.data().join("workspaces/edited/note.txt");
    let using = async {
        let mut every = tokio::time::interval(Duration::from_secs(5));
        for turn in 0_u32.. {
            every.tick().await;
            let _ = visit(&link, "/").await;
            std::fs::write(&file, turn.to_string()).unwrap();
        }
    };
    let ended = tokio::select! {
        ended = stopped(&mut events, "watched") => ended,
        () = using => unreachable!("it goes on until the other stops"),
    };
    assert!(ended["data"]["cause"].as_str().unwrap().contains("idle_stop"), "{ended}");
    let warned = position(&events, "watched", "team.expiring").expect("it was told before");
    assert_eq!(events.seen().0[warned]["data"]["reason"], "idle");
    assert_eq!(position(&events, "edited", "team.stopped"), None, "its files changed");
    // Nobody edits any more.
    let ended = stopped(&mut events, "edited").await;
    assert!(ended["data"]["cause"].as_str().unwrap().contains("idle_stop"), "{ended}");
}

/// Makes a container, a network and a volume with an instance's label and no team's.
async fn litter(place: &Place, instance: &str) -> [String; 3] {
    let image = crate::git_server::agent_image().await;
    let name = docker::beside(&place.instance, &format!("of-{instance}"));
    let label = format!("covibes.instance={instance}");
    // By this one the test finds it again, if nobody removes it.
    let beside = docker::beside_label(&place.instance);
    let labels = ["--label", &label, "--label", &beside];
    docker(&[&["network", "create"][..], &labels, &[&name]].concat()).await;
    docker(&[&["volume", "create"][..], &labels, &[&name]].concat()).await;
    let sleep = ["--network", "none", "--entrypoint", "sleep", &image, "3600"];
    docker(&[&["run", "--detach", "--name", &name][..], &labels, &sleep].concat()).await;
    [name.clone(), name.clone(), name]
}

#[tokio::test]
async fn full_what_nobody_owns_goes_and_what_another_instance_owns_stays() {
    if !is_full("the reaper") {
        return;
    }
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let life = json!({});
    up(&place, &mut events, &start(&place, "owner", &life)).await;
    let owned = docker::of_team(&place.instance, "owner").await;
    let other = format!("{}-other", place.instance);
    let ours = litter(&place, &place.instance).await;
    let theirs = litter(&place, &other).await;
    let exists = async |names: &[String; 3]| {
        let has = async |command: &[&str]| {
            let text = docker(command).await;
            names.iter().any(|name| text.lines().any(|line| line == name))
        };
        [
            has(&["ps", "-a", "--format={{.Names}}"]).await,
            has(&["network", "ls", "--format={{.Name}}"]).await,
            has(&["volume", "ls", "--format={{.Name}}"]).await,
        ]
    };
    assert_eq!(exists(&ours).await, [true; 3]);
    worker.until_metric("covibes_orphans", 3.0).await;
    until("what nobody owns is gone", REAPED_MAX, async || {
        (exists(&ours).await == [false; 3]).then_some(())
    })
    .await;
    assert_eq!(exists(&theirs).await, [true; 3], "another instance's");
    assert_eq!(docker::of_team(&place.instance, "owner").await, owned, "a team's own");
    for kind in ["container", "network", "volume"] {
        let removed = format!("covibes_orphans_removed_total{{kind=\"{kind}\"}}");
        assert_eq!(worker.metric(&removed).await, 1.0, "{kind}");
    }
}

#[tokio::test]
async fn what_somebody_removed_past_the_worker_is_made_anew_or_told() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let link = up(&place, &mut events, &start(&place, "robbed", &json!({}))).await;
    let before = docker::of_team(&place.instance, "robbed").await;

    // A container with its volumes' data, and both networks at once.
    let preview = before.containers.iter().find(|name| name.contains("_preview_")).unwrap();
    docker(&["rm", "-f", preview]).await;
    for network in &before.networks {
        let members = docker(&["network", "inspect", "--format", NETWORK_MEMBERS, network]).await;
        for member in members.split_whitespace() {
            docker(&["network", "disconnect", "--force", network, member]).await;
        }
        docker(&["network", "rm", network]).await;
    }
    until("all of it is there again", STATE_MAX * 2, async || {
        (docker::of_team(&place.instance, "robbed").await == before).then_some(())
    })
    .await;
    crate::net::until_page_holds(&link, "/", "<h1>served</h1>").await;

    // What lay in the workspace is a person's to bring back: nothing is made in its place.
    let workspace = place.data().join("workspaces/robbed");
    let aside = place.dir.join("aside");
    std::fs::rename(&workspace, &aside).unwrap();
    let told = events
        .until("the team is told to be degraded", |event| {
            is_of(event, "robbed", "team.degraded")
                && event["data"]["cause"].as_str().unwrap().contains("directory behind volume")
        })
        .await;
    assert!(!workspace.exists(), "{told}");
    std::fs::rename(&aside, &workspace).unwrap();
    until_of(&mut events, "robbed", "team.running").await;
}

/// Names of the containers on a network.
const NETWORK_MEMBERS: &str = "{{range .Containers}}{{.Name}} {{end}}";
