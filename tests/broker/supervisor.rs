//! The whole way of a job, with a runner that only writes down what it is asked.

use covibes::adapters::rabbitmq::dead_letters::DeadFilter;
use covibes::ports::broker::{OpenError, Phase};

use crate::place::{address, in_place, raw_channel, soon};
use crate::relay::Relay;
use crate::worker::{PANICS, Worker};

#[tokio::test]
async fn a_submitted_job_is_run_once_and_acknowledged_and_its_team_placed_once() {
    in_place(async |place| {
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        for n in 1..=20 {
            let action = if n <= 2 { "start" } else { "stop" };
            place.publish(n, if n % 2 == 0 { "even" } else { "odd" }, action).await;
        }
        for n in 1..=20 {
            worker.until(&format!("done {n}"), 1).await;
        }
        let log = worker.stop().await;
        assert_eq!(log.len(), 40, "{log:?}");
        let of_even: Vec<_> = log
            .iter()
            .filter_map(|line| line.strip_prefix("done ")?.parse::<u32>().ok())
            .filter(|n| n % 2 == 0)
            .collect();
        assert!(of_even.is_sorted(), "{of_even:?}");
        assert_eq!((place.facts.count("placed"), place.facts.count("forwarded")), (2, 20));
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_job_is_put_aside_with_its_reason() {
    in_place(async |place| {
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish_raw(1, "team.a.stop", b"bad").await;
        place.publish_raw(2, "team.a.fly", b"{}").await;
        place.publish_raw(3, "team.../x.stop", b"{}").await;
        place.publish_raw(4, "nonsense", b"{}").await;
        place.publish_raw(5, "team.A.stop", b"bad").await;
        place.publish_raw(6, "other.a.stop", b"{}").await;
        place.facts.until("dead_lettered", 6).await;
        let dead = place.client.dead_letters(&DeadFilter::default(), 10).await.unwrap();
        let mut reasons: Vec<_> =
            dead.iter().map(|dead| (dead.routing_key.as_str(), dead.reason.as_str())).collect();
        reasons.sort_unstable();
        let expected = [
            ("nonsense", "message.unknown_action"),
            ("other.a.stop", "message.routing_key"),
            ("team.../x.stop", "message.unknown_action"),
            ("team.A.stop", "message.bad_json"),
            ("team.a.fly", "message.unknown_action"),
            ("team.a.stop", "message.bad_json"),
        ];
        assert_eq!(reasons, expected);
        let log = worker.stop().await;
        assert!(!log.iter().any(|line| line.starts_with("run")), "{log:?}");
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_abandons_the_run_which_comes_again_in_order() {
    in_place(async |place| {
        let relay = Relay::new(&address()).await;
        place.give(&["a"]).await;
        let mut worker = Worker::start(&place, &relay.address);
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "restart").await;
        place.publish(2, "a", "sync").await;
        worker.until("run 1", 1).await;
        place.facts.until("received", 2).await;
        relay.cut();
        worker.until("abandoned 1", 1).await;
        let state = worker.is_in(Phase::Connecting).await;
        place.facts.until("not_connected", 2).await;
        assert!(state.last_error.is_some(), "{state:?}");
        relay.mend();
        worker.script.held.send_replace(false);
        worker.until("done 2", 1).await;
        assert_eq!(worker.is_in(Phase::Connected).await.last_error, None);
        let log = worker.stop().await;
        let expected = ["run 1", "abandoned 1", "run 1", "done 1", "run 2", "done 2"];
        assert_eq!(log[..6], expected);
        // If the dispatcher's last ack was cut off, it forwarded the last job
        // twice, and only that one: the record would make the second run do
        // nothing.
        assert!(log[6..].iter().all(|line| line.ends_with(" 2")), "{log:?}");
    })
    .await;
}

#[tokio::test]
async fn a_worker_without_a_broker_waits_for_it() {
    in_place(async |place| {
        place.give(&["a"]).await;
        let relay = Relay::new(&address()).await;
        relay.cut();
        let mut worker = Worker::start(&place, &relay.address);
        place.facts.until("not_connected", 2).await;
        relay.mend();
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "stop").await;
        worker.until("done 1", 1).await;
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_hands_the_rest_back_in_order() {
    in_place(async |place| {
        place.give(&["a"]).await;
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "restart").await;
        for n in 2..=5 {
            place.publish(n, "a", "restart").await;
        }
        worker.until("run 1", 1).await;
        place.facts.until("received", 5).await;
        worker.shutdown.cancel();
        worker.is_in(Phase::Draining).await;
        worker.script.held.send_replace(false);
        assert_eq!(worker.stop().await, ["run 1", "done 1"]);

        let mut successor = Worker::start(&place, &address());
        successor.script.held.send_replace(false);
        successor.is_in(Phase::Connected).await;
        successor.until("done 5", 1).await;
        let ran: Vec<_> =
            successor.stop().await.into_iter().filter(|line| line.starts_with("run")).collect();
        assert_eq!(ran, ["run 2", "run 3", "run 4", "run 5"]);
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_ends_the_worker() {
    in_place(async |place| {
        let (_connection, channel) = raw_channel().await;
        let mailbox = place.names.mailbox(&place.host);
        let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        let none = lapin::types::FieldTable::default();
        channel.queue_declare(mailbox.as_str().into(), options, none).await.unwrap();
        let worker = Worker::start(&place, &address());
        let ended = soon("the end", worker.running).await.unwrap();
        assert!(matches!(ended, Err(OpenError::WrongArguments { name, .. }) if name == mailbox));
    })
    .await;
}

/// Twenty jobs whose runs panic among five hundred healthy ones, one of which
/// runs all the time: they end among the dead letters and harm nobody.
#[tokio::test]
async fn a_panic_inside_a_run_ends_its_job_only() {
    in_place(async |place| {
        place.give(&["long", PANICS, "t0", "t1", "t2", "t3"]).await;
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish(1, "long", "restart").await;
        worker.until("run 1", 1).await;
        for n in 2..=521 {
            let team = if n % 26 == 0 { PANICS.to_owned() } else { format!("t{}", n % 4) };
            place.publish(n, &team, "stop").await;
        }
        place.facts.until("dead_lettered", 20).await;
        worker.until("done 521", 1).await;
        worker.script.held.send_replace(false);
        worker.until("done 1", 1).await;
        let dead = place.client.dead_letters(&DeadFilter::default(), 100).await.unwrap();
        assert_eq!(dead.len(), 20);
        assert!(dead.iter().all(|letter| letter.reason == "internal.bug"), "{dead:?}");
        assert_eq!(place.facts.count("session_ended"), 0);
        let log = worker.stop().await;
        let of_all = log.iter().filter(|line| line.starts_with("done")).count();
        assert_eq!(of_all, 501, "{log:?}");
        place.is_settled().await;
    })
    .await;
}
