//! Several workers on one broker: who dispatches, where teams go, and what
//! becomes of a host that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use covibes::domain::ids::{HostId, TeamId};
use covibes::ports::broker::{Broker as _, Forwarded, Phase};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use uuid::Uuid;

use crate::place::{Place, address, in_place, next_job, raw_channel, soon};
use crate::relay::Relay;
use crate::worker::{TestEstate, Worker};

fn host(raw: &str) -> HostId {
    HostId::parse(raw).unwrap()
}

fn team(raw: &str) -> TeamId {
    TeamId::parse(raw).unwrap()
}

async fn connected(place: &Place, address: &str, name: &str, estate: &Arc<TestEstate>) -> Worker {
    let mut worker = Worker::start_on(place, address, &host(name), estate);
    worker.is_in(Phase::Connected).await;
    worker
}

/// The jobs that a worker ended, in order.
fn done(log: &[String]) -> Vec<u128> {
    log.iter().filter_map(|line| line.strip_prefix("done ")?.parse().ok()).collect()
}

/// Jobs `1..=count` of teams `t0`, `t1`, ... in turn; the first of each is a
/// start, and ends before the stops begin, which would cancel it.
async fn publish(place: &Place, workers: &[&Worker], count: u128, teams: u128) {
    for n in 1..=count {
        let action = if n <= teams { "start" } else { "stop" };
        place.publish(n, &format!("t{}", n % teams), action).await;
        if n == teams {
            for n in 1..=teams {
                until_done(workers, n).await;
            }
        }
    }
}

async fn until_done(workers: &[&Worker], n: u128) {
    let line = format!("done {n}");
    let each = workers.iter().map(|worker| Box::pin(worker.until(&line, 1)));
    soon(&line, futures::future::select_all(each)).await;
}

/// Whether every team's jobs were done in order, by one worker, and none is
/// missing; what comes twice comes right behind itself.
fn check_order(logs: &[Vec<String>], count: u128, teams: u128) {
    let mut by_team: BTreeMap<u128, Vec<(usize, u128)>> = BTreeMap::new();
    for (worker, log) in logs.iter().enumerate() {
        for n in done(log) {
            by_team.entry(n % teams).or_default().push((worker, n));
        }
    }
    for n in 0..teams {
        let mut done = by_team.remove(&n).unwrap_or_default();
        done.dedup();
        let expected: Vec<_> = (1..=count).filter(|job| job % teams == n).collect();
        let (workers, jobs): (Vec<_>, Vec<_>) = done.iter().copied().unzip();
        assert_eq!(jobs, expected, "team t{n}: {logs:?}");
        assert!(workers.iter().all(|worker| *worker == workers[0]), "team t{n} on two hosts");
    }
}

#[tokio::test]
async fn teams_spread_over_three_hosts_and_each_keeps_its_order() {
    in_place(async |place| {
        let mut workers = Vec::new();
        for name in ["h1", "h2", "h3"] {
            workers.push(connected(&place, &address(), name, &Arc::default()).await);
        }
        let (count, teams) = (120, 9);
        let all: Vec<_> = workers.iter().collect();
        publish(&place, &all, count, teams).await;
        for n in count - teams + 1..=count {
            until_done(&all, n).await;
        }
        let mut logs = Vec::new();
        for worker in workers {
            logs.push(worker.stop().await);
        }
        check_order(&logs, count, teams);
        assert_eq!(place.facts.count("placed"), 9);
        assert!(logs.iter().all(|log| !log.is_empty()), "{logs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dispatcher_that_is_cut_off_is_followed_by_another_in_order() {
    in_place(async |place| {
        let relay = Relay::new(&address()).await;
        // The first to come has the queue.
        let first = connected(&place, &relay.address, "h1", &Arc::default()).await;
        place.facts.until("table_known", 1).await;
        let second = connected(&place, &address(), "h2", &Arc::default()).await;
        // Few enough of each that no lane is full while its host is away.
        let (count, teams) = (300, 25);
        let both = [&first, &second];
        let publishing = publish(&place, &both, count, teams);
        let cutting = async {
            for forwarded in [60, 140, 220] {
                place.facts.until("forwarded", forwarded).await;
                let lost = place.facts.count("session_ended");
                relay.cut();
                place.facts.until("session_ended", lost + 1).await;
                relay.mend();
                let back = place.facts.count("connected");
                place.facts.until("connected", back.max(lost + 3)).await;
            }
        };
        tokio::join!(publishing, cutting);
        for n in count - teams + 1..=count {
            until_done(&both, n).await;
        }
        assert!(place.facts.count("elected") >= 2);
        let logs = [first.stop().await, second.stop().await];
        check_order(&logs, count, teams);
    })
    .await;
}

#[tokio::test]
async fn what_comes_back_is_told_apart_from_what_was_stored() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        for n in (0..20).step_by(2) {
            session.table.place(&team(&format!("t{n}")), &place.host).await.unwrap();
        }
        for round in 0..15 {
            let mut incoming = Vec::new();
            for n in 0..20_u128 {
                place.publish(round * 20 + n, &format!("t{n}"), "sync").await;
                incoming.push((n, next_job(&mut session).await));
            }
            let forwards = incoming.iter().map(|(n, incoming)| async move {
                (*n, incoming.forward(&team(&format!("t{n}"))).await.unwrap())
            });
            for (n, forwarded) in soon("all fates", futures::future::join_all(forwards)).await {
                let expected = if n % 2 == 0 { Forwarded::Stored } else { Forwarded::Unplaced };
                assert_eq!(forwarded, expected, "t{n} in round {round}");
            }
            for (_, incoming) in incoming {
                incoming.settle().ack().await.unwrap();
            }
        }
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_start_behind_a_destroy_always_wins_and_a_destroy_alone_releases() {
    in_place(async |place| {
        let worker = connected(&place, &address(), "h1", &Arc::default()).await;
        place.publish(1, "a", "start").await;
        worker.until("done 1", 1).await;
        for n in 1..=20 {
            place.publish(2 * n, "a", "destroy").await;
            place.publish(2 * n + 1, "a", "start").await;
        }
        place.publish(100, "a", "sync").await;
        worker.until("done 100", 1).await;
        // Whatever the fences said, the team has a place, and the last start won.
        assert_eq!(place.facts.count("answered"), 0);
        place.publish(101, "a", "destroy").await;
        let released = place.facts.count("released");
        place.facts.until("released", released + 1).await;
        place.publish(102, "a", "stop").await;
        place.facts.until("answered", 1).await;
        place.publish(103, "a", "start").await;
        worker.until("done 103", 1).await;
        let log = worker.stop().await;
        assert!(!log.contains(&"run 102".to_owned()), "{log:?}");
        assert!(done(&log).is_sorted(), "{log:?}");
    })
    .await;
}

#[tokio::test]
async fn a_start_that_left_nothing_gives_its_place_back() {
    in_place(async |place| {
        let worker = connected(&place, &address(), "h1", &Arc::default()).await;
        worker.script.starts_leave_nothing();
        place.publish(1, "a", "start").await;
        worker.until("done 1", 1).await;
        place.facts.until("released", 1).await;
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_lost_its_table_is_told_by_all_known_hosts() {
    in_place(async |place| {
        let estate = TestEstate::of(&["a"]);
        *estate.known.lock().unwrap() = vec![host("h1"), host("h2")];
        let first = connected(&place, &address(), "h1", &estate).await;
        place.publish(1, "a", "sync").await;
        place.publish(2, "b", "start").await;
        place.publish(3, "c", "start").await;
        // What the first reported goes on; the rest waits for the second.
        first.until("done 1", 1).await;
        place.facts.until("table_waits", 1).await;
        assert_eq!(place.facts.count("forwarded"), 1);
        let second = connected(&place, &address(), "h2", &TestEstate::of(&["b"])).await;
        second.until("done 2", 1).await;
        place.facts.until("forwarded", 3).await;
        place.facts.until("table_known", 1).await;
        let logs = [first.stop().await, second.stop().await];
        assert!(!logs[0].contains(&"run 2".to_owned()), "{logs:?}");
    })
    .await;
}

/// A host with jobs 1 to 4 in its mailbox, gone: `a` sync, `b` start, `b` sync,
/// `a` start.
async fn gone(place: &Place) {
    let session = place.broker_of(&address(), &host("gone")).open().await.unwrap();
    for name in ["a", "b", "c"] {
        session.table.place(&team(name), &host("gone")).await.unwrap();
    }
    session.table.mark().await.unwrap();
    session.link.close().await;
    for (n, name, action) in
        [(1, "a", "sync"), (2, "b", "start"), (3, "b", "sync"), (4, "a", "start")]
    {
        place.publish(n, name, action).await;
    }
}

#[tokio::test]
async fn an_evicted_hosts_jobs_go_on_in_order_and_it_removes_its_containers_if_it_returns() {
    in_place(async |place| {
        gone(&place).await;
        let worker = connected(&place, &address(), "h1", &Arc::default()).await;
        place.facts.until("forwarded", 4).await;
        let nonce = Uuid::from_u128(1);
        let dead_host = host("gone");
        let evicted = place.client.evict(&dead_host, nonce, Duration::from_secs(30));
        let (evicted, ()) = tokio::join!(evicted, async {
            place.facts.until("evicted", 1).await;
            place.publish(5, "b", "sync").await;
            place.publish(6, "c", "stop").await;
        });
        let answer = evicted.unwrap().expect("an answer");
        assert!(answer.done, "{answer:?}");
        worker.until("done 5", 1).await;
        worker.until("done 4", 1).await;
        place.facts.until("answered", 1).await;
        // The sync of a team that is nowhere has nothing to do.
        let dead = place.client.dead_letters(&Default::default(), 10).await.unwrap();
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert_eq!(dead[0].reason, "team.not_found");

        let estate = TestEstate::of(&["a", "b"]);
        let returned = connected(&place, &address(), "gone", &estate).await;
        let mut vacated = estate.vacated.subscribe();
        soon("it is empty", vacated.wait_for(|teams| teams.len() == 2)).await.unwrap();
        let log = worker.stop().await;
        assert_eq!(done(&log).iter().filter(|n| [2, 3, 5].contains(*n)).count(), 3, "{log:?}");
        let of_b: Vec<_> = done(&log).into_iter().filter(|n| [2, 3, 5].contains(n)).collect();
        assert_eq!(of_b, [2, 3, 5]);
        let log = returned.stop().await;
        assert!(!log.iter().any(|line| line.starts_with("run")), "{log:?}");
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_connected_is_not_evicted() {
    in_place(async |place| {
        place.give(&[]).await;
        let first = connected(&place, &address(), "h1", &Arc::default()).await;
        place.facts.until("table_known", 1).await;
        let nonce = Uuid::from_u128(1);
        let answer = place.client.evict(&host("h1"), nonce, Duration::from_secs(30)).await;
        let answer = answer.unwrap().expect("an answer");
        assert!(!answer.done && answer.message.contains("h1"), "{answer:?}");
        let hosts = place.client.hosts().await.unwrap();
        assert_eq!(hosts.len(), 1, "{hosts:?}");
        assert!(hosts[0].dispatches && hosts[0].room.is_some(), "{hosts:?}");
        first.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_said_on_ctl_is_answered_or_ignored() {
    in_place(async |place| {
        let worker = connected(&place, &address(), "h1", &Arc::default()).await;
        let (_connection, channel) = raw_channel().await;
        let ctl = place.names.ctl();
        let say = async |key: &str, body: &[u8]| {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let publish =
                channel.basic_publish(ctl.as_str().into(), key.into(), options, body, properties);
            publish.await.unwrap();
        };
        say("heartbeat", b"{\"kind\":\"heartbeat\"}").await;
        say("nonsense", b"\xff").await;
        place.facts.until("ctl_ignored", 2).await;
        say("snapshot", b"").await;
        worker.until("snapshot all", 1).await;
        say("snapshot", b"{\"team\":\"a\"}").await;
        worker.until("snapshot a", 1).await;
        worker.stop().await;
    })
    .await;
}

/// The same with a host that unbinds by itself: the rule that this breaks is
/// what keeps jobs from going astray, so the check above must notice.
#[tokio::test]
async fn a_place_taken_away_by_anybody_else_makes_a_running_team_nowhere() {
    in_place(async |place| {
        place.give(&["a"]).await;
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "sync").await;
        worker.until("done 1", 1).await;
        let (_connection, channel) = raw_channel().await;
        let (mailbox, route) = (place.names.mailbox(&place.host), place.names.route());
        let none = lapin::types::FieldTable::default();
        channel.queue_unbind(mailbox.into(), route.into(), "a".into(), none).await.unwrap();
        place.publish(2, "a", "stop").await;
        place.facts.until("answered", 1).await;
        let log = worker.stop().await;
        assert!(!log.contains(&"run 2".to_owned()), "{log:?}");
    })
    .await;
}
