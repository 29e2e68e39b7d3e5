//! What a later job does to an earlier one, and to what runs.

use serde_json::json;

use crate::docker;
use crate::place::{Place, STATE_MAX, until};
use crate::projects;
use crate::worker::{Follower, Message, Worker};

#[tokio::test]
async fn a_stop_behind_a_running_start_cancels_it() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace("halt", &projects::gated(&place, "app"));
    let start = Message::start("halt", &["main"]);
    start.publish(&place).await;
    until("the install runs", STATE_MAX, async || {
        (!docker::running_oneshots(&place.instance, "halt").await.is_empty()).then_some(())
    })
    .await;

    let stop = Message::new("halt", "stop");
    stop.publish(&place).await;
    let end = events.end_of(&start.id).await;
    assert_eq!(end["type"], "covibes.job.cancelled", "{end}");
    assert_eq!(end["data"]["by"], stop.id.as_str());
    let end = events.end_of(&stop.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let left = docker::of_team(&place.instance, "halt").await;
    assert_eq!(left, docker::Things::default());
    place.assert_no_mounts();
}

#[tokio::test]
async fn another_preview_touches_only_what_changed() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace("grow", &projects::plain(&place, "app"));
    let mut run = async |previews: &[&str]| {
        let mut job = Message::start("grow", previews);
        job.body["spec"]["agents"] = json!([{"name": "agent-1"}]);
        job.publish(&place).await;
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
        (docker::ids(&place.instance, "grow").await, end["data"].clone())
    };
    let (one, _) = run(&["main"]).await;
    assert_eq!(one.len(), 3, "{one:?}");

    let (two, _) = run(&["main", "second"]).await;
    assert_eq!(two.len(), 4, "{two:?}");
    assert!(one.iter().all(|(name, id)| two.get(name) == Some(id)), "{one:?} {two:?}");

    let (fewer, end) = run(&["main"]).await;
    assert_eq!(fewer, one, "{end}");
}

#[tokio::test]
async fn a_failed_change_keeps_what_runs() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("keep", &projects::plain(&place, "app"));
    let job = Message::start("keep", &["main"]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link: url::Url = end["data"]["links"]["main"].as_str().unwrap().parse().unwrap();
    let before = docker::ids(&place.instance, "keep").await;

    // Another port is another container, and that one ends at once.
    let project = "preview:\n  command: node -e 'process.exit(7)'\n  port: 4000\n";
    std::fs::write(workspace.join(".covibes.yml"), project).unwrap();
    let change = Message::start("keep", &["main"]);
    change.publish(&place).await;
    let end = events.end_of(&change.id).await;
    assert_eq!(end["data"]["failure"]["code"], "preview.exited", "{end}");
    assert_eq!(docker::ids(&place.instance, "keep").await, before);
    crate::net::until_page_holds(&link, "/", "<h1>served</h1>").await;
    let states = events.seen().clone();
    assert_eq!(states.of("team.degraded").len(), 1, "{:?}", states.kinds());
}
