//! The dispatcher over a broker of paper, under paused time.

use super::*;
use crate::domain::control::{CtlMessage, Holding};
use crate::domain::failure::Code;

mod moving;
mod paper;
mod world;

use self::paper::{Letter, Paper, host, job, order, team};
use self::world::World;

/// Runs the dispatcher over these letters until it has settled `settled` of them
/// and nothing more moves, then stops it. Returns the log.
async fn check(world: &World, letters: Vec<Letter>, settled: usize) -> Vec<String> {
    world.paper.publish(letters);
    world.run_until(|paper| paper.settled() >= settled).await;
    world.paper.log()
}

#[tokio::test(start_paused = true)]
async fn a_team_is_placed_once_and_its_jobs_go_through_the_binding() {
    let world = World::new();
    let log = check(&world, vec![job(1, "a", "start"), job(2, "a", "stop")], 2).await;
    let expected = [
        "forward 1 of a: nowhere",
        "forward 1 of a: nowhere",
        "place a on own",
        "forward 1 of a: own",
        "ack 1",
        "forward 2 of a: own",
        "ack 2",
    ];
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn the_first_placement_waits_for_the_hosts_to_speak() {
    let world = World::new();
    let began = tokio::time::Instant::now();
    check(&world, vec![job(1, "a", "start")], 1).await;
    assert!(began.elapsed() >= PLACEMENT_WAIT, "{:?}", began.elapsed());
    assert_eq!(world.paper.said()[0], CtlMessage::Ask);
    // A team that has a place waits for nobody.
    let world = World::new();
    world.paper.place("a", "own");
    let began = tokio::time::Instant::now();
    check(&world, vec![job(1, "a", "start")], 1).await;
    assert!(began.elapsed() < PLACEMENT_WAIT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn teams_go_beside_each_other_and_each_has_one_job_under_way() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.paper.place(name, "own");
    }
    world.paper.hold("a");
    let letters = vec![
        job(1, "a", "sync"),
        job(2, "a", "sync"),
        job(3, "b", "sync"),
        job(4, "a", "sync"),
        job(5, "c", "sync"),
        job(6, "b", "sync"),
    ];
    let log = check(&world, letters, 3).await;
    assert!(!log.iter().any(|line| line.contains("forward 2") || line.contains("forward 4")));
    world.paper.let_go("a");
    world.run_until(|paper| paper.settled() >= 6).await;
    let of_a: Vec<_> = world.paper.log().into_iter().filter(|line| line.contains("of a")).collect();
    // What a stopped dispatcher left comes again, to its successor.
    assert!(
        of_a.ends_with(&[
            "forward 1 of a: own".to_owned(),
            "forward 2 of a: own".to_owned(),
            "forward 4 of a: own".to_owned(),
        ]),
        "{of_a:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_job_is_put_aside_for_what_is_wrong_with_it() {
    let world = World::new();
    let large = Letter::job(3, "team.a.start", vec![b'x'; desk::FORWARD_BYTES_MAX + 1]);
    let letters = vec![
        Letter::job(1, "team.A.start", b"bad".to_vec()),
        Letter::job(2, "nonsense", b"a".to_vec()),
        large,
    ];
    let log = check(&world, letters, 3).await;
    let expected = [
        "dead 1: message.invalid_team_id",
        "dead 2: message.routing_key",
        "dead 3: message.too_large",
    ];
    assert_eq!(log, expected);
    // Only the second has a team to tell.
    let events = world.paper.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("\"covibes.job.rejected\""), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_dispatcher_is_another_source_and_has_no_sequence() {
    let world = World::new();
    world.paper.place("a", "own");
    world.paper.fill("own");
    let log = check(&world, vec![job(1, "a", "start")], 1).await;
    assert_eq!(log, ["forward 1 of a: full", "dead 1: capacity.host_unavailable"]);
    let events = world.paper.events();
    assert!(events[0].contains("/covibes/dispatchers/own"), "{events:?}");
    assert!(!events[0].contains("sequence"), "{events:?}");
    assert!(world.facts().contains(&"refused capacity.host_unavailable".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_new_team_does_not_stay_where_its_start_was_refused() {
    let world = World::new();
    world.paper.fill("own");
    let log = check(&world, vec![job(1, "a", "start")], 1).await;
    assert_eq!(
        log[2..],
        [
            "place a on own",
            "forward 1 of a: full",
            "release a from own",
            "dead 1: capacity.host_unavailable"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_team_that_is_nowhere_is_answered_for() {
    let world = World::new();
    let letters = vec![
        job(1, "a", "stop"),
        job(2, "b", "destroy"),
        job(3, "c", "status"),
        job(4, "d", "restart"),
        job(5, "e", "sync"),
    ];
    let log = check(&world, letters, 5).await;
    for line in ["ack 1", "ack 2", "ack 3", "dead 4: team.not_found", "dead 5: team.not_found"] {
        assert!(log.iter().any(|said| said == line), "{line}: {log:?}");
    }
    assert!(!log.iter().any(|line| line.starts_with("place")), "{log:?}");
    let mut types: Vec<_> = world
        .paper
        .events()
        .iter()
        .map(|body| body.split("\"type\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
        .collect();
    types.sort();
    let expected = [
        "covibes.job.failed",
        "covibes.job.failed",
        "covibes.job.succeeded",
        "covibes.job.succeeded",
        "covibes.job.succeeded",
        "covibes.team.destroyed",
        "covibes.team.snapshot",
        "covibes.team.stopped",
    ];
    assert_eq!(types, expected);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_told_with_the_same_ids() {
    let told = async || {
        let world = World::new();
        check(&world, vec![job(1, "a", "stop")], 1).await;
        world.paper.event_ids()
    };
    let (once, again) = (told().await, told().await);
    assert_eq!(once.len(), 2);
    assert_eq!(once, again);
}

#[tokio::test(start_paused = true)]
async fn a_full_cluster_refuses_only_when_nothing_may_wait() {
    let world = World::new();
    world.hosts.heard(paper::heartbeat("own", -3, 1)).await;
    let log = check(&world, vec![job(1, "a", "start")], 1).await;
    assert!(log.contains(&"place a on own".to_owned()), "{log:?}");
    let world = World::new();
    world.hosts.heard(paper::heartbeat("own", -3, 0)).await;
    let log = check(&world, vec![job(1, "a", "start")], 1).await;
    assert_eq!(log.last().unwrap(), "dead 1: capacity.host_unavailable");
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_what_waits_is_left_for_the_next() {
    let world = World::new();
    world.paper.publish(vec![job(1, "a", "start")]);
    // Before the time to place is there.
    world.run_until(|paper| !paper.log().is_empty()).await;
    assert_eq!(world.paper.log(), ["forward 1 of a: nowhere"]);
    assert_eq!(world.paper.settled(), 0);
    assert_eq!(world.facts().last().unwrap(), "0 wait");
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_team_is_released_when_its_host_says_that_nothing_is_left() {
    let world = World::new();
    world.paper.place("a", "own");
    check(&world, vec![job(1, "a", "destroy")], 1).await;
    assert_eq!(world.paper.mailbox("own"), ["1", "fence 1"]);
    // Another dispatcher has it now, and knows of no fence: it asks itself.
    let log = check(&world, vec![order("a", "own", 1, true)], 2).await;
    assert!(!log.iter().any(|line| line.starts_with("release")), "{log:?}");
    assert_eq!(world.paper.mailbox("own"), ["1", "fence 1", "fence 2"]);
}

/// What is published while the fence is on its way, and what then becomes of
/// the team's place.
async fn check_fence(after: Vec<Letter>, is_empty: bool, is_released: bool) -> World {
    let world = World::new();
    world.paper.place("a", "own");
    world.paper.answer_fences(after, is_empty);
    world.paper.publish(vec![job(1, "a", "destroy")]);
    world.run_until(Paper::is_quiet).await;
    assert_eq!(world.paper.place_of("a").is_none(), is_released, "{:?}", world.paper.log());
    world
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_fence_releases_the_team() {
    let world = check_fence(vec![], true, true).await;
    assert!(world.facts().contains(&"released".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_team_of_which_something_is_left_keeps_its_place() {
    check_fence(vec![], false, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_behind_the_destroy_voids_the_fence() {
    // The host answers "nothing is left" before the start reaches it; by the
    // time the answer is read, the start is on its way there. A second answer
    // comes after the start and says so.
    let world = check_fence(vec![job(2, "a", "start")], true, false).await;
    let log = world.paper.log();
    assert!(world.facts().contains(&"void".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("release")), "{log:?}");
    assert_eq!(world.paper.mailbox("own"), ["1", "fence 1", "2", "fence 2"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_last_of_two_fences_counts() {
    let world = World::new();
    world.paper.place("a", "own");
    let answers = vec![order("a", "own", 1, true), order("a", "own", 2, true)];
    let letters = vec![job(1, "a", "destroy"), job(2, "a", "destroy")];
    let log = check(&world, letters.into_iter().chain(answers).collect(), 4).await;
    let released: Vec<_> = log.iter().filter(|line| line.starts_with("release")).collect();
    assert_eq!(released.len(), 1, "{log:?}");
    assert_eq!(world.paper.place_of("a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_table_is_written_anew_from_what_hosts_have() {
    let world = World::new();
    world.paper.lose_the_table();
    world.hosts.heard(paper::heartbeat("two", 5, 9)).await;
    let holding = |name: &str, runs, sequence| Holding { team: team(name), runs, sequence };
    world.paper.inventory("own", vec![holding("a", false, 9), holding("c", false, 1)]);
    let letters =
        vec![job(1, "a", "stop"), job(2, "b", "start"), job(3, "c", "stop"), job(4, "d", "stop")];
    world.paper.publish(letters);
    // One host has not answered: nobody is placed, and nobody is nowhere.
    world.run_until(|paper| paper.asked() >= 3).await;
    assert_eq!(world.paper.settled(), 0, "{:?}", world.paper.log());
    assert!(world.facts().contains(&"waits for two".to_owned()), "{:?}", world.facts());
    assert!(!world.paper.is_marked());

    world.paper.inventory("two", vec![holding("a", true, 1), holding("b", true, 1)]);
    world.run_until(|paper| paper.settled() >= 4).await;
    // What runs counts more than a workspace that was left behind.
    assert_eq!(world.paper.place_of("a").as_deref(), Some("two"));
    assert_eq!(world.paper.place_of("b").as_deref(), Some("two"));
    assert_eq!(world.paper.place_of("c").as_deref(), Some("own"));
    assert_eq!(world.paper.place_of("d"), None);
    assert!(world.paper.is_marked());
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_table_still_holds_is_not_placed_twice() {
    let world = World::new();
    world.paper.lose_the_table();
    world.paper.place("a", "two");
    let holding = Holding { team: team("a"), runs: true, sequence: 9 };
    world.paper.inventory("own", vec![holding]);
    world.paper.publish(vec![job(1, "b", "stop")]);
    world.run_until(|paper| paper.settled() >= 1).await;
    assert_eq!(world.paper.place_of("a").as_deref(), Some("two"));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_host_is_not_waited_for() {
    let world = World::new();
    world.paper.lose_the_table();
    world.hosts.heard(paper::heartbeat("gone", 5, 9)).await;
    world.paper.inventory("own", vec![]);
    let letters = vec![job(1, "a", "stop"), Letter::evict(2, "gone")];
    let log = check(&world, letters, 2).await;
    assert!(log.contains(&"ack 1".to_owned()), "{log:?}");
    assert!(world.paper.is_marked());
}

#[tokio::test(start_paused = true)]
async fn an_evicted_hosts_jobs_go_on_in_order_before_newer_ones() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.paper.place(name, "gone");
    }
    world.paper.put(
        "gone",
        vec![
            job(1, "a", "start"),
            job(2, "b", "stop"),
            job(3, "a", "sync"),
            Letter::fence(4, "b"),
            job(5, "a", "stop"),
        ],
    );
    let letters = vec![Letter::evict(6, "gone"), job(7, "a", "sync"), job(8, "c", "stop")];
    let log = check(&world, letters, 8).await;
    assert_eq!(world.paper.mailbox("own"), ["1", "3", "5", "7"], "{log:?}");
    // It finds this first, should it ever come back.
    assert_eq!(world.paper.mailbox("gone"), ["vacate 6"]);
    assert_eq!(world.paper.place_of("a").as_deref(), Some("own"));
    assert_eq!((world.paper.place_of("b"), world.paper.place_of("c")), (None, None));
    let answer = |message: &CtlMessage| matches!(message, CtlMessage::Answer { done: true, .. });
    assert!(world.paper.said().iter().any(answer), "{:?}", world.paper.said());
    assert!(world.paper.said().contains(&CtlMessage::Forget { host: host("gone") }));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_in_hand_beside_an_eviction() {
    let world = World::new();
    world.paper.place("a", "own");
    world.paper.hold("a");
    let letters = vec![job(1, "a", "sync"), Letter::evict(2, "gone"), job(3, "b", "stop")];
    world.paper.publish(letters);
    world.run_until(|paper| paper.is_waiting_for("a")).await;
    assert_eq!(world.paper.settled(), 0, "{:?}", world.paper.log());
    world.paper.let_go("a");
    world.run_until(|paper| paper.settled() >= 3).await;
    let log = world.paper.log();
    let at = |line: &str| log.iter().position(|said| said == line).unwrap();
    assert!(at("ack 1") < at("renew gone") && at("renew gone") < at("ack 3"), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_connected_is_not_evicted() {
    for name in ["own", "two"] {
        let world = World::new();
        world.paper.place("a", name);
        world.paper.read_by_its_host(name);
        check(&world, vec![Letter::evict(1, name)], 1).await;
        assert_eq!(world.paper.place_of("a").as_deref(), Some(name));
        assert_eq!(world.paper.mailbox(name), Vec::<String>::new());
        let refused =
            |message: &CtlMessage| matches!(message, CtlMessage::Answer { done: false, .. });
        assert!(world.paper.said().iter().any(refused), "{:?}", world.paper.said());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_told_as_lost_once_and_its_jobs_wait() {
    let world = World::new();
    world.hosts.heard(paper::heartbeat("two", 5, 9)).await;
    world.paper.place("a", "two");
    world.paper.publish(vec![Letter::nudge(1)]);
    world.speak_until(|paper| !paper.events().is_empty()).await;
    world.paper.publish(vec![job(2, "a", "sync")]);
    world.speak_until(|paper| paper.settled() >= 2).await;
    let events = world.paper.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("covibes.host.lost") && events[0].contains("\"two\""), "{events:?}");
    assert!(events[0].contains("/covibes/dispatchers/own"), "{events:?}");
    assert_eq!(world.paper.mailbox("two"), ["2"]);
}

#[test]
fn only_a_whole_routing_key_names_a_team() {
    assert_eq!(team_of_key("team.team_alpha.start").unwrap().as_str(), "team_alpha");
    // The action is the host's affair: an unknown one is refused there.
    assert!(team_of_key("team.a.fly").is_some());
    for bad in ["", "team", "team.a", "team.A.start", "team..start", "teams.a.start", "team.a.b.c"]
    {
        assert!(team_of_key(bad).is_none(), "{bad}");
    }
    assert_eq!(Code::CapacityHostUnavailable.as_str(), "capacity.host_unavailable");
}
