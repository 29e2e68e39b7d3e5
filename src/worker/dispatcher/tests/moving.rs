//! Moves of teams between hosts.

use super::paper::{Letter, heartbeat, job};
use super::world::World;
use crate::domain::control::CtlMessage;

/// A team `a` on `old`, and a host `new` that was heard.
async fn world() -> World {
    let world = World::new();
    world.paper.place("a", "old");
    world.hosts.heard(heartbeat("new", 5, 9)).await;
    world
}

fn says(world: &World, from: &str, refusal: Option<&str>) {
    let word = (from.to_owned(), refusal.map(str::to_owned));
    world.paper.change(|state| state.words.push_back(word));
}

/// Dispatches these letters; gives the log and the answer.
async fn check(world: &World, letters: Vec<Letter>) -> (Vec<String>, (bool, String)) {
    let count = world.paper.settled() + letters.len();
    world.paper.publish(letters);
    world.run_until(|paper| paper.settled() >= count).await;
    let answer = world.paper.said().into_iter().rev().find_map(|said| match said {
        CtlMessage::Answer { done, message, .. } => Some((done, message)),
        _ => None,
    });
    (world.paper.log(), answer.expect("an answer"))
}

#[tokio::test(start_paused = true)]
async fn a_team_moves_between_its_jobs_and_has_never_two_places() {
    let world = world().await;
    says(&world, "old", None);
    let letters = vec![job(1, "a", "stop"), Letter::move_team(2, "a", "new"), job(3, "a", "stop")];
    let (log, (done, message)) = check(&world, letters).await;
    assert!(done && message == "a has moved from old to new", "{message}");
    let expected = [
        "forward 1 of a: old",
        "ack 1",
        "depart a to new",
        "leave a at old",
        "release a from old",
        "place a on new",
        "ack 2",
        "forward 3 of a: new",
        "ack 3",
    ];
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn a_team_that_may_not_go_stays_and_its_jobs_go_on() {
    let world = world().await;
    says(&world, "old", Some("the team has containers (team.running)"));
    let letters = vec![Letter::move_team(2, "a", "new"), job(3, "a", "stop")];
    let (log, (done, message)) = check(&world, letters).await;
    assert!(!done && message.contains("stays on old") && message.contains("team.running"));
    assert_eq!(log[2..], ["forward 3 of a: old", "ack 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_holds_up_its_team_for_a_while_only() {
    let world = world().await;
    let letters = vec![Letter::move_team(2, "a", "new"), job(3, "a", "stop"), job(4, "b", "stop")];
    let (log, (done, message)) = check(&world, letters).await;
    assert!(!done && message.contains("did not answer"), "{message}");
    let at = |line: &str| log.iter().position(|logged| logged == line);
    assert!(at("ack 4") < at("ack 2") && at("ack 2") < at("forward 3 of a: old"), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_move_that_cannot_be_is_refused_before_anything_is_asked() {
    let world = world().await;
    world.hosts.heard(heartbeat("quiet", 5, 9)).await;
    tokio::time::advance(std::time::Duration::from_secs(20)).await;
    for (to, why) in [("nobody", "no host nobody, only new, own, quiet"), ("quiet", "silent")] {
        let (log, (done, message)) = check(&world, vec![Letter::move_team(2, "a", to)]).await;
        assert!(!done && message.contains(why), "{message}");
        assert!(!log.iter().any(|line| line.starts_with("depart")), "{log:?}");
    }
    let (_, (done, message)) = check(&world, vec![Letter::move_team(3, "z", "own")]).await;
    assert!(!done && message.contains("no host has z"), "{message}");
    says(&world, "own", None);
    world.paper.place("b", "own");
    let (_, (done, message)) = check(&world, vec![Letter::move_team(4, "b", "own")]).await;
    assert!(!done && message.contains("b is on own already"), "{message}");
}

/// The dispatcher before died when the team had left one place and had not got
/// the other.
#[tokio::test(start_paused = true)]
async fn a_move_that_was_cut_off_is_brought_to_its_end() {
    let world = world().await;
    says(&world, "unplaced", None);
    says(&world, "new", None);
    world.paper.displace("a");
    let letters = vec![Letter::move_team(2, "a", "new").again(), job(3, "a", "stop")];
    let (log, (done, message)) = check(&world, letters).await;
    assert!(done && message == "a is on new", "{message}");
    assert_eq!(log.last().unwrap(), "ack 3");
    assert_eq!(world.paper.place_of("a").as_deref(), Some("new"));
    // One that was nowhere before is nowhere again.
    says(&world, "unplaced", None);
    says(&world, "new", Some("nothing of the team is here"));
    let again = Letter::move_team(4, "z", "new").again();
    let (_, (done, message)) = check(&world, vec![again]).await;
    assert!(!done && message.contains("no host has z"), "{message}");
    assert_eq!(world.paper.place_of("z"), None);
}
