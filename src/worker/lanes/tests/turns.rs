//! Who gets a turn: suspects one at a time, and starts when there is room.

use std::time::Duration;

use tokio::time::Instant;

use super::bench::{Bench, start, start_of};
use crate::domain::ids::TeamId;
use crate::domain::job::Action;
use crate::worker::lanes::LanesConfig;

#[tokio::test(start_paused = true)]
async fn suspects_run_one_at_a_time_and_the_rest_beside_them() {
    let bench = Bench::new(LanesConfig::default(), [1, 2, 3]);
    for (n, team) in [(1, "a"), (2, "b")] {
        bench.script.suspect(n, false);
        bench.submit(n, team, start());
        bench.until(&format!("accepted {n} at 0")).await;
    }
    bench.submit(3, "c", start());
    bench.until("run 1").await;
    bench.until("run 3").await;
    assert!(!bench.log().contains(&"run 2".to_owned()));
    // A stop still cancels the one that waits, and the one that runs.
    bench.submit(4, "b", Action::Stop);
    bench.until("ack 4").await;
    bench.script.suspect(5, false);
    bench.submit(5, "d", start());
    bench.submit(6, "a", Action::Stop);
    bench.until("ack 5").await;
    bench.release(3);
    bench.until("ack 3").await;
    let log = bench.end().await;
    assert!(log.contains(&"skip 2: cancelled by 4".to_owned()), "{log:?}");
    assert!(log.contains(&"1 cancelled by 6".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_must_be_alone_waits_for_the_rest_and_holds_it_up() {
    let config = LanesConfig { running_max: 1, ..LanesConfig::default() };
    let bench = Bench::new(config, [1, 2]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.script.suspect(2, true);
    bench.submit(2, "b", start());
    bench.until("accepted 2 at 0").await;
    bench.submit(3, "c", start());
    bench.until("accepted 3 at 0").await;
    // What frees the host never waits.
    bench.submit(4, "d", Action::Stop);
    bench.until("ack 4").await;
    bench.release(1);
    bench.until("run 2").await;
    assert!(!bench.log().contains(&"run 3".to_owned()));
    bench.release(2);
    bench.until("ack 3").await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_without_room_waits_and_holds_nothing() {
    let config = LanesConfig { running_max: 1, ..LanesConfig::default() };
    let bench = Bench::new(config, []);
    for n in [1, 2] {
        bench.script.has_no_room_for(n);
        bench.script.suspect(n, false);
    }
    bench.submit(1, "a", start());
    bench.until("waits 1 at 1: capacity.memory").await;
    bench.submit(2, "b", start());
    bench.until("waits 2 at 2: capacity.memory").await;
    // Neither the permit nor the suspects' slot is held.
    bench.script.suspect(3, false);
    bench.submit(3, "c", start());
    bench.until("ack 3").await;
    bench.submit(4, "b", Action::Stop);
    bench.until("ack 4").await;
    let began = Instant::now();
    bench.script.has_room();
    bench.until("ack 1").await;
    assert_eq!(began.elapsed(), Duration::ZERO, "it is told of room");
    let log = bench.end().await;
    assert!(log.contains(&"skip 2: cancelled by 4".to_owned()), "{log:?}");
    assert_eq!(log.iter().filter(|line| line.starts_with("waits")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_finds_no_room_in_time_says_what_was_short() {
    let bench = Bench::new(LanesConfig::default(), []);
    bench.script.has_no_room_for(1);
    let began = Instant::now();
    bench.submit(1, "a", start());
    bench.until("dead 1: capacity.memory").await;
    assert_eq!(began.elapsed(), Duration::from_secs(20 * 60));
    let log = bench.end().await;
    assert_eq!(log[0], "waits 1 at 1: capacity.memory");
    assert!(!log.iter().any(|line| line.starts_with("run")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_start_takes_the_place_of_one_that_waits_for_room() {
    let bench = Bench::new(LanesConfig::default(), []);
    bench.script.has_no_room_for(1);
    bench.submit(1, "a", start_of("large"));
    bench.until("waits 1 at 1: capacity.memory").await;
    bench.submit(2, "a", start_of("small"));
    bench.until("ack 2").await;
    let log = bench.end().await;
    assert!(log.contains(&"skip 1: superseded by 2".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn room_that_others_free_is_found_by_looking() {
    let bench = Bench::new(LanesConfig::default(), []);
    bench.script.has_no_room_for(1);
    bench.submit(1, "a", start());
    bench.until("waits 1 at 1: capacity.memory").await;
    let began = Instant::now();
    bench.script.has_room_unnoticed();
    bench.until("ack 1").await;
    assert_eq!(began.elapsed(), LanesConfig::default().room_interval);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_has_ended_when_nothing_runs_or_waits_in_it() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    let team = TeamId::parse("a").unwrap();
    assert!(bench.lanes.ended(&team).is_cancelled());
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    let ended = bench.lanes.ended(&team);
    assert!(!ended.is_cancelled());
    bench.release(1);
    ended.cancelled().await;
    // What joined has ended too.
    assert_eq!(bench.log().last().map(String::as_str), Some("ack 2"));
    bench.script.has_no_room_for(3);
    bench.submit(3, "a", start());
    bench.until("waits 3 at 1: capacity.memory").await;
    assert!(!bench.lanes.ended(&team).is_cancelled());
    bench.script.has_room();
    bench.until("ack 3").await;
    bench.end().await;
}
