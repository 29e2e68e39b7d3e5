//! The broker away, Docker away, the worker killed: retried, visible, and
//! nothing lost.

use crate::docker;
use crate::place::{Place, STATE_MAX, broker_address, free_port, until};
use crate::projects;
use crate::relay::{DockerRelay, TcpRelay};
use crate::worker::{Follower, Message, Worker};

#[tokio::test]
async fn a_killed_workers_start_is_completed_by_the_next() {
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("kill", &projects::gated(&place, "app"));
    let start = Message::start("kill", &["main"]);
    start.publish(&place).await;
    until("the install runs", STATE_MAX, async || {
        (!docker::running_oneshots(&place.instance, "kill").await.is_empty()).then_some(())
    })
    .await;
    worker.process.kill();
    worker.process.end().await;
    projects::open_gate(&workspace);
    let _worker = Worker::ready(&place).await;
    let end = events.end_of(&start.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    assert!(docker::running_oneshots(&place.instance, "kill").await.is_empty());
    assert_eq!(docker::ids(&place.instance, "kill").await.len(), 2);
}

#[tokio::test]
async fn a_broker_that_comes_later_is_waited_for() {
    let mut place = Place::new().await;
    let port = free_port();
    let real = url::Url::parse(&broker_address()).unwrap();
    let mut through = real.clone();
    through.set_host(Some("127.0.0.1")).unwrap();
    through.set_port(Some(port)).unwrap();
    place.set("COVIBES_AMQP_URL", through.as_str());
    let worker = Worker::start(&place);
    worker.until_fails("broker").await;
    let target = (real.host_str().unwrap().to_owned(), real.port().unwrap_or(5672));
    let _relay = TcpRelay::start(port, target).await;
    worker.until_ready().await;
    let mut events = Follower::new(&place).await;
    let stop = Message::new("late", "stop");
    stop.publish(&place).await;
    assert_eq!(events.end_of(&stop.id).await["type"], "covibes.job.succeeded");
}

#[tokio::test]
async fn docker_that_goes_away_in_a_step_is_waited_for() {
    let mut place = Place::new().await;
    let socket = place.dir.join("docker.sock");
    let relay = DockerRelay::start(&socket);
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("away", &projects::gated(&place, "app"));
    let start = Message::start("away", &["main"]);
    start.publish(&place).await;
    until("the install runs", STATE_MAX, async || {
        (!docker::running_oneshots(&place.instance, "away").await.is_empty()).then_some(())
    })
    .await;
    drop(relay);
    events.until("the fault is told", |event| event["type"] == "covibes.job.retrying").await;
    worker.until_fails("docker").await;
    projects::open_gate(&workspace);
    let _relay = DockerRelay::start(&socket);
    let end = events.end_of(&start.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    assert!(docker::running_oneshots(&place.instance, "away").await.is_empty());
}
