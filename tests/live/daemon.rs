//! A Docker daemon whose connections are cut, and one that hangs: no death is lost or told
//! twice, and what waits for answers does not pile up. The daemon itself goes on; a relay
//! before it does this.

use std::time::Duration;

use crate::docker::docker;
use crate::events::kind;
use crate::net::visit;
use crate::place::Place;
use crate::projects::plain;
use crate::relay::DockerRelay;
use crate::worker::{Follower, Message, Worker};

const TEAM: &str = "followed";

/// A listing asks three things at once, and six loops make one; each waits for its answer,
/// or gives up after half a minute, before it asks again. The stream of events is one more.
const HELD_MAX: usize = 24;

/// Times that a fact about a part was told.
fn told(events: &Follower, wanted: &str, role: &str) -> usize {
    let seen = events.seen().0.iter();
    seen.filter(|event| kind(event) == wanted && event["data"]["role"] == role).count()
}

/// Waits until a fact about a part was told so often.
async fn until_told(events: &mut Follower, wanted: &str, role: &str, times: usize) {
    while told(events, wanted, role) < times {
        let what = format!("{wanted} of {role}, {times} times");
        events.until(&what, |e| kind(e) == wanted && e["data"]["role"] == role).await;
    }
}

/// Requests for the stream of events, with what they resume from.
fn streams(relay: &DockerRelay) -> Vec<String> {
    let all = relay.requests.all().into_iter();
    all.filter(|line| line.contains("/events?")).collect()
}

#[tokio::test]
async fn a_daemon_that_is_cut_off_or_hangs_loses_no_death_and_gathers_no_calls() {
    let mut place = Place::new().await;
    let socket = place.dir.join("docker.sock");
    let relay = DockerRelay::start(&socket);
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace(TEAM, &plain(&place, "app"));
    let mut job = Message::start(TEAM, &["main"]);
    job.body["spec"]["agents"] = serde_json::json!([{"name": "agent-1"}]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link: url::Url = end["data"]["links"]["main"].as_str().unwrap().parse().unwrap();
    let name = |role: &str| format!("covibes.{}_{role}_{TEAM}", place.instance);
    let (agent, sync) = (format!("{}_agent-1", name("agent")), name("sync"));

    // The stream alone is cut, again and again, with a death in each gap.
    for round in 1..=2 {
        relay.cut();
        docker(&["kill", &agent]).await;
        until_told(&mut events, "container.restarted", "agent", round).await;
        assert_eq!(told(&events, "container.exited", "agent"), round);
    }
    let asked = streams(&relay);
    assert!(asked.len() > 2, "it is followed again after each cut: {asked:?}");
    assert!(asked.iter().all(|line| line.contains("since=")), "{asked:?}");

    // The way is gone for a while, and meanwhile two parts die.
    drop(relay);
    worker.until_fails("docker").await;
    docker(&["kill", &sync]).await;
    docker(&["kill", &agent]).await;
    let relay = DockerRelay::start(&socket);
    worker.until_holds("docker").await;
    until_told(&mut events, "container.restarted", "sync", 1).await;
    until_told(&mut events, "container.restarted", "agent", 3).await;
    let exits = |events: &Follower| ["sync", "agent"].map(|r| told(events, "container.exited", r));
    assert_eq!(exits(&events), [1, 3], "{:?}", events.seen().kinds());

    // It takes connections and answers nothing: calls wait for their time, and no more of
    // them than there are kinds. The team is served, the worker is alive and says so.
    let before = relay.requests.all().len();
    relay.hang(true);
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    for _ in 0..7 {
        looks.tick().await;
        assert_eq!(worker.get("/livez").await.unwrap().status, 200);
        assert_eq!(visit(&link, "/").await.unwrap().status, 200);
    }
    let held = relay.held_max();
    let asked = relay.requests.all().split_off(before);
    eprintln!("{held} calls waited at once, of these: {asked:#?}");
    assert!(held <= HELD_MAX, "{held} calls wait at once, of these: {asked:#?}");
    docker(&["kill", &sync]).await;
    relay.hang(false);
    worker.until_holds("docker").await;
    until_told(&mut events, "container.restarted", "sync", 2).await;
    assert_eq!(exits(&events), [2, 3], "{:?}", events.seen().kinds());
    let destroy = Message::new(TEAM, "destroy");
    destroy.publish(&place).await;
    events.end_of(&destroy.id).await;
    assert!(place.is_gone(TEAM).await, "something is left in Docker");
}
