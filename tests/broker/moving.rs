//! Teams that move between two hosts on a real broker, with runners that only
//! write down what they are asked.

use std::sync::Arc;
use std::time::Duration;

use covibes::domain::ids::{HostId, TeamId};
use covibes::ports::broker::Phase;
use uuid::Uuid;

use crate::place::{Place, address, in_place, soon};
use crate::relay::Relay;
use crate::worker::Worker;

const WAIT: Duration = Duration::from_secs(60);

fn host(raw: &str) -> HostId {
    HostId::parse(raw).unwrap()
}

async fn connected(place: &Place, address: &str, name: &str) -> Worker {
    let mut worker = Worker::start_on(place, address, &host(name), &Arc::default());
    worker.is_in(Phase::Connected).await;
    worker
}

/// Both hosts speak, and hear each other like this.
async fn both_are_heard(place: &Place) {
    assert_eq!(place.client.hosts().await.unwrap().len(), 2);
}

/// Leaves the workspace of team a on the worker's host.
async fn has_stopped_a_team(place: &Place, worker: &Worker) {
    place.publish(1, "a", "start").await;
    // A start that a stop finds waiting is skipped, and leaves nothing.
    worker.until("done 1", 1).await;
    place.publish(2, "a", "stop").await;
    worker.until("done 2", 1).await;
}

/// Moves a team; gives whether it was done, and what was said.
async fn order(place: &Place, team: &str, to: &str) -> (bool, String) {
    let team = TeamId::parse(team).unwrap();
    let moved = place.client.move_team(&team, &host(to), Uuid::new_v4(), WAIT).await;
    let answer = moved.unwrap().expect("an answer");
    (answer.done, answer.message)
}

/// The jobs of a worker, and what it did with records, in order.
fn story(log: Vec<String>) -> Vec<String> {
    log.into_iter().filter(|line| !line.starts_with("run ")).collect()
}

#[tokio::test]
async fn a_stopped_team_moves_and_no_job_of_it_is_lost_or_overtaken() {
    in_place(async |place| {
        let old = connected(&place, &address(), "h1").await;
        place.publish(1, "a", "start").await;
        old.until("done 1", 1).await;
        let new = connected(&place, &address(), "h2").await;
        both_are_heard(&place).await;
        let (done, message) = order(&place, "a", "h2").await;
        assert!(!done && message.contains("stays on h1") && message.contains("team.running"));
        for (team, to, why) in [
            ("a", "h1", "a is on h1 already"),
            ("a", "h9", "no host h9"),
            ("z", "h2", "no host has z"),
        ] {
            let (done, message) = order(&place, team, to).await;
            assert!(!done && message.contains(why), "{message}");
        }
        // Jobs before the order, and behind it while it is carried out.
        place.publish(2, "a", "stop").await;
        let jobs = async {
            for n in 3..=12 {
                // Stops are never skipped for one another.
                place.publish(n, "a", "stop").await;
            }
        };
        let ((done, message), ()) = tokio::join!(order(&place, "a", "h2"), jobs);
        assert!(done && message == "a has moved from h1 to h2", "{message}");
        new.until("done 12", 1).await;
        old.until("left a", 1).await;
        place.facts.until("moved", 1).await;
        let (old, new) = (story(old.stop().await), story(new.stop().await));
        // Where it is cut depends on when the order came; nothing is on both.
        let cut = old.iter().position(|line| line == "left a").unwrap();
        assert_eq!(cut + 1, old.len(), "{old:?}");
        let arrived = new.iter().position(|line| line.starts_with("arrived a after")).unwrap();
        assert_eq!(arrived, 0, "{new:?}");
        let jobs: Vec<_> = old[..cut].iter().chain(&new[1..]).cloned().collect();
        let expected: Vec<_> = (1..=12).map(|n| format!("done {n}")).collect();
        assert_eq!(jobs, expected);
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_team_moves_there_and_back_and_there_again() {
    in_place(async |place| {
        let first = connected(&place, &address(), "h1").await;
        has_stopped_a_team(&place, &first).await;
        let second = connected(&place, &address(), "h2").await;
        both_are_heard(&place).await;
        for (n, to) in [(3, "h2"), (4, "h1"), (5, "h2")] {
            let (done, message) = order(&place, "a", to).await;
            assert!(done, "{message}");
            place.publish(n, "a", "sync").await;
            let on = if to == "h1" { &first } else { &second };
            on.until(&format!("done {n}"), 1).await;
        }
        first.until("left a", 2).await;
        first.stop().await;
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_move_goes_on_when_its_host_and_its_dispatcher_are_cut_off_in_the_middle() {
    in_place(async |place| {
        let relay = Relay::new(&address()).await;
        // The first to come dispatches, and has the team.
        let old = connected(&place, &relay.address, "h1").await;
        has_stopped_a_team(&place, &old).await;
        let new = connected(&place, &address(), "h2").await;
        both_are_heard(&place).await;
        let cutting = async {
            for n in 3..=6 {
                place.publish(n, "a", "stop").await;
            }
            new.until_like("arrived a after").await;
            let lost = place.facts.count("session_ended");
            relay.cut();
            place.facts.until("session_ended", lost + 1).await;
            relay.mend();
        };
        let ((done, message), ()) = tokio::join!(order(&place, "a", "h2"), cutting);
        assert!(done, "{message}");
        soon("the last job", new.until("done 6", 1)).await;
        let (old, new) = (story(old.stop().await), story(new.stop().await));
        let mut jobs: Vec<_> = old.iter().chain(&new).filter(|l| l.starts_with("done")).collect();
        jobs.dedup();
        let expected: Vec<_> = (1..=6).map(|n| format!("done {n}")).collect();
        assert_eq!(jobs, expected.iter().collect::<Vec<_>>(), "{old:?} {new:?}");
    })
    .await;
}
