//! RabbitMQ and Docker going away, and the worker dying, at the worst moments:
//! seen in readiness and metrics, nothing lost, nothing done twice.

use serde_json::Value;

use crate::docker;
use crate::events::kind;
use crate::net::until_page_holds;
use crate::place::{Place, STATE_MAX, broker_address, free_port, until};
use crate::projects;
use crate::relay::{DockerRelay, TcpRelay};
use crate::worker::{Follower, Message, Worker};

/// Points the place at a port on which a relay may listen, and gives what is
/// needed to start one.
fn behind_a_relay(place: &mut Place) -> (u16, (String, u16)) {
    let mut url: url::Url = broker_address().parse().unwrap();
    let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    let port = free_port();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    place.set("COVIBES_AMQP_URL", url);
    (port, target)
}

async fn until_install_runs(place: &Place, team: &str) {
    until("the install runs", STATE_MAX, async || {
        (!docker::running_oneshots(&place.instance, team).await.is_empty()).then_some(())
    })
    .await;
}

/// Holds that a team came up once and that nothing else is there.
async fn assert_up_once(place: &Place, events: &Follower, job: &Message, end: &Value, team: &str) {
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link: url::Url = end["data"]["links"]["main"].as_str().unwrap().parse().unwrap();
    until_page_holds(&link, "/", "<h1>served</h1>").await;
    // An end that is told twice, because its confirm was lost, is the same one.
    let ends = events.seen().of_job(&job.id);
    assert!(ends.of("job.succeeded").iter().all(|event| event["id"] == end["id"]));
    assert!(ends.of("job.failed").is_empty(), "{:?}", ends.kinds());
    let things = docker::of_team(&place.instance, team).await;
    assert_eq!(things.containers.len(), 2, "{things:?}");
    assert_eq!(things.networks.len(), 2, "{things:?}");
    assert_eq!(things.volumes.len(), 3, "{things:?}");
    assert!(docker::running_oneshots(&place.instance, team).await.is_empty());
    no_scratch(place, team);
}

/// Holds that neither overlay nor half-made modules are left.
fn no_scratch(place: &Place, team: &str) {
    let preview = place.data().join("cache").join(team).join("preview-main");
    let left: Vec<_> = std::fs::read_dir(&preview)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("overlay-") || name.starts_with("modules.new-"))
        .collect();
    assert_eq!(left, [""; 0], "{}", preview.display());
}

/// Holds that a later destroy finds its way through whatever happened.
async fn destroy(place: &Place, events: &mut Follower, team: &str) {
    let job = Message::new(team, "destroy");
    job.publish(place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    assert!(place.is_gone(team).await);
    place.assert_no_mounts();
}

#[tokio::test]
async fn a_broker_that_comes_later_is_waited_for() {
    let mut place = Place::new().await;
    let (port, target) = behind_a_relay(&mut place);
    let worker = Worker::start(&place);
    worker.until_fails("broker").await;
    assert_eq!(worker.metric("covibes_broker_connected{role=\"mailbox\"}").await, 0.0);

    let _relay = TcpRelay::start(port, target).await;
    worker.until_ready().await;
    assert_eq!(worker.metric("covibes_broker_connected{role=\"mailbox\"}").await, 1.0);
    let mut events = Follower::new(&place).await;
    place.workspace("late", &projects::plain(&place, "app"));
    let job = Message::start("late", &["main"]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_up_once(&place, &events, &job, &end, "late").await;
}

#[tokio::test]
async fn a_connection_cut_during_an_install_loses_nothing() {
    let mut place = Place::new().await;
    let (port, target) = behind_a_relay(&mut place);
    let relay = TcpRelay::start(port, target.clone()).await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("cut", &projects::gated(&place, "app"));
    let job = Message::start("cut", &["main"]);
    job.publish(&place).await;
    until_install_runs(&place, "cut").await;

    drop(relay);
    worker.until_fails("broker").await;
    projects::open_gate(&workspace);
    let _relay = TcpRelay::start(port, target).await;
    worker.until_ready().await;
    let end = events.end_of(&job.id).await;
    assert_up_once(&place, &events, &job, &end, "cut").await;
    worker.until_metric("covibes_messages_redelivered_total", 1.0).await;
    let series = "covibes_broker_reconnects_total{reason=\"session_ended\"}";
    worker.until_metric(series, 1.0).await;
    destroy(&place, &mut events, "cut").await;
}

/// A start whose Docker comes after it; `waits` holds what is seen meanwhile.
async fn check_docker_later(
    mut place: Place,
    waits: impl AsyncFnOnce(&Worker<'_>, &mut Follower, &Message),
) {
    let socket = place.dir.join("docker.sock");
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let worker = Worker::start(&place);
    worker.until_fails("docker").await;
    // The two are looked for side by side; a job needs the broker's queues.
    worker.until_holds("broker").await;
    assert_eq!(worker.metric("covibes_docker_up").await, 0.0);
    let mut events = Follower::new(&place).await;
    place.workspace("late", &projects::plain(&place, "app"));
    let job = Message::start("late", &["main"]);
    job.publish(&place).await;
    waits(&worker, &mut events, &job).await;

    let _relay = DockerRelay::start(&socket);
    let end = events.end_of(&job.id).await;
    assert_up_once(&place, &events, &job, &end, "late").await;
    worker.until_ready().await;
    assert_eq!(worker.metric("covibes_docker_up").await, 1.0);
}

#[tokio::test]
async fn a_docker_that_comes_later_is_waited_for() {
    // On a broker without a placement table nobody knows yet what this host
    // has, so the job waits before it is given to one.
    check_docker_later(Place::new().await, async |worker, _, _| {
        worker.until_metric("covibes_dispatcher_waiting_jobs", 1.0).await;
    })
    .await;
}

#[tokio::test]
async fn a_docker_that_is_away_at_the_next_boot_is_waited_for() {
    let place = Place::new().await;
    let first = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    // It is answered once the placement table is whole.
    let early = Message::new("early", "stop");
    early.publish(&place).await;
    events.end_of(&early.id).await;
    first.process.terminate();
    assert_eq!(first.process.end().await.code, Some(0));

    check_docker_later(place, async |_, events, job| {
        let retrying = events
            .until("the job is tried again", |event| {
                event["correlationid"] == job.id.as_str() && kind(event) == "job.retrying"
            })
            .await;
        assert_eq!(retrying["data"]["failure"]["code"], "docker.unreachable", "{retrying}");
    })
    .await;
}

#[tokio::test]
async fn a_docker_that_goes_during_an_install_is_waited_for() {
    let mut place = Place::new().await;
    let socket = place.dir.join("docker.sock");
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let relay = DockerRelay::start(&socket);
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("gone", &projects::gated(&place, "app"));
    let job = Message::start("gone", &["main"]);
    job.publish(&place).await;
    until_install_runs(&place, "gone").await;

    drop(relay);
    worker.until_fails("docker").await;
    projects::open_gate(&workspace);
    let _relay = DockerRelay::start(&socket);
    let end = events.end_of(&job.id).await;
    assert_up_once(&place, &events, &job, &end, "gone").await;
    let retried = events.seen().of_job(&job.id);
    assert!(!retried.of("job.retrying").is_empty(), "{:?}", retried.kinds());
    destroy(&place, &mut events, "gone").await;
}

/// Kills the worker at a moment of a start; the next one completes the job.
async fn check_killed(team: &str, moment: impl AsyncFnOnce(&Place, &mut Follower, &Message)) {
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace(team, &projects::gated(&place, "app"));
    let job = Message::start(team, &["main"]);
    job.publish(&place).await;
    until_install_runs(&place, team).await;
    moment(&place, &mut events, &job).await;
    worker.process.kill();
    projects::open_gate(&workspace);

    let next = Worker::ready(&place).await;
    let end = events.end_of(&job.id).await;
    assert_up_once(&place, &events, &job, &end, team).await;
    next.until_metric("covibes_messages_redelivered_total", 1.0).await;
    destroy(&place, &mut events, team).await;
}

#[tokio::test]
async fn a_worker_killed_during_an_install_is_followed_by_one_that_completes_it() {
    check_killed("dead_1", async |_, _, _| {}).await;
}

#[tokio::test]
async fn a_worker_killed_during_a_start_is_followed_by_one_that_completes_it() {
    check_killed("dead_2", async |place, events, job| {
        projects::open_gate(&place.data().join("workspaces/dead_2"));
        events.step_of(&job.id, "start").await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_killed_during_health_is_followed_by_one_that_completes_it() {
    check_killed("dead_3", async |place, events, job| {
        projects::open_gate(&place.data().join("workspaces/dead_3"));
        events.step_of(&job.id, "health").await;
    })
    .await;
}
