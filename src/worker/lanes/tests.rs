//! What lanes promise, with a runner that only writes down what it is asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::bench::{Bench, start, start_of};
use super::*;
use crate::domain::job::Action;

mod bench;
mod turns;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn jobs_of_a_team_run_one_after_the_other_in_order() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", Action::Restart { targets: Vec::new() });
    bench.submit(2, "a", Action::Sync);
    bench.submit(3, "a", Action::Restart { targets: Vec::new() });
    bench.until("accepted 3 at 2").await;
    assert_eq!((bench.load.running(), bench.load.waiting()), (1, 2));
    bench.release(1);
    bench.until("ack 3").await;
    let log = bench.end().await;
    assert_eq!(log, ["run 1", "ack 1", "run 2", "ack 2", "run 3", "ack 3"]);
}

#[tokio::test(start_paused = true)]
async fn teams_run_in_parallel_up_to_the_limit_and_stops_beyond_it() {
    let config = LanesConfig { running_max: 2, ..LanesConfig::default() };
    let bench = Bench::new(config, [1, 2, 3, 4]);
    for (n, team) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.submit(n, team, start());
    }
    bench.until("run 2").await;
    bench.submit(4, "d", Action::Stop);
    bench.until("run 4").await;
    assert!(!bench.log().contains(&"run 3".to_owned()));
    bench.release(1);
    bench.until("run 3").await;
    for n in 2..=4 {
        bench.release(n);
    }
    for n in 1..=4 {
        bench.until(&format!("ack {n}")).await;
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_cancels_the_running_start_and_runs_after_it() {
    for (action, n) in
        [(Action::Stop, 2), (Action::Destroy, 3), (Action::Restart { targets: Vec::new() }, 4)]
    {
        let bench = Bench::new(LanesConfig::default(), [1]);
        bench.submit(1, "a", start());
        bench.until("run 1").await;
        bench.submit(n, "a", action);
        bench.until(&format!("ack {n}")).await;
        let cancelled = format!("1 cancelled by {n}");
        let expected = ["run 1", &cancelled, "ack 1", &format!("run {n}"), &format!("ack {n}")];
        assert_eq!(bench.end().await, expected);
    }
}

/// After a crash in between they would come again alone, and run after it.
#[tokio::test(start_paused = true)]
async fn a_job_is_settled_after_those_it_overtook() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.script.hold_skip(2);
    bench.submit(1, "a", start_of("main"));
    bench.until("run 1").await;
    bench.submit(2, "a", start_of("one"));
    bench.submit(3, "a", start_of("two"));
    bench.submit(4, "a", Action::Stop);
    // It runs at once, and so does whatever comes to other teams.
    bench.until("run 4").await;
    bench.submit(5, "b", Action::Stop);
    bench.until("ack 5").await;
    let acks = |log: Vec<String>| log.into_iter().filter(|l| l.starts_with("ack")).collect();
    let before: Vec<_> = acks(bench.log());
    assert!(!before.contains(&"ack 4".to_owned()), "{before:?}");
    bench.release(2);
    bench.until("ack 4").await;
    let all: Vec<_> = acks(bench.end().await);
    assert_eq!(all[all.len() - 3..], ["ack 2", "ack 3", "ack 4"]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_start_supersedes_the_running_one() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start_of("main"));
    bench.until("run 1").await;
    bench.submit(2, "a", start_of("staging"));
    bench.until("ack 2").await;
    assert_eq!(bench.end().await, ["run 1", "1 superseded by 2", "ack 1", "run 2", "ack 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_identical_start_ends_with_the_running_one() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    bench.submit(3, "a", start());
    bench.until("accepted 3 at 2").await;
    bench.release(1);
    bench.until("ack 3").await;
    let expected = ["run 1", "ack 1", "join 2 with 1", "ack 2", "join 3 with 1", "ack 3"];
    assert_eq!(bench.end().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_start_overtakes_a_mending_of_the_same() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.script.only_mends(1);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    bench.until("ack 2").await;
    assert_eq!(bench.end().await, ["run 1", "1 superseded by 2", "ack 1", "run 2", "ack 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_identical_starts_keeps_the_window_free() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    for n in 100..400 {
        bench.submit(n, "a", start());
    }
    assert_eq!(bench.load.waiting(), 16);
    bench.until("ack 383").await;
    bench.submit(999, "a", Action::Stop);
    bench.until("ack 999").await;
    let log = bench.end().await;
    assert_eq!(log.iter().filter(|line| line.starts_with("ack")).count(), 302);
    assert!(log.contains(&"skip 399: cancelled by 999".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("join")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn what_joined_an_interrupted_start_runs_after_it() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    // It cancels the running start and leaves the waiting one.
    bench.submit(3, "a", Action::Restart { targets: Vec::new() });
    bench.until("ack 3").await;
    let expected = ["run 1", "1 cancelled by 3", "ack 1", "run 2", "ack 2", "run 3", "ack 3"];
    assert_eq!(bench.end().await, expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_joins_a_start_that_only_tells_its_recorded_end_again() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.script.decide(1);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    bench.until("accepted 2 at 1").await;
    bench.release(1);
    bench.until("ack 2").await;
    assert_eq!(bench.end().await, ["run 1", "ack 1", "run 2", "ack 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_identical_start_behind_another_job_is_a_newer_one() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", Action::Sync);
    bench.submit(3, "a", start());
    bench.until("ack 3").await;
    let expected = ["run 1", "1 superseded by 3", "ack 1", "run 2", "ack 2", "run 3", "ack 3"];
    assert_eq!(bench.end().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stop_skips_what_waits_before_it_and_not_what_comes_after() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", Action::Stop);
    bench.until("run 1").await;
    bench.submit(2, "a", start());
    bench.submit(3, "a", Action::Sync);
    bench.submit(4, "a", Action::Stop);
    bench.submit(5, "a", start());
    // They end at once, although the first still runs: the window stays free.
    bench.until("ack 2").await;
    bench.until("ack 3").await;
    bench.release(1);
    bench.until("ack 5").await;
    let log = bench.end().await;
    let ran: Vec<_> = log.iter().filter(|line| line.starts_with("run")).collect();
    assert_eq!(ran, ["run 1", "run 4", "run 5"]);
    assert!(log.contains(&"skip 2: cancelled by 4".to_owned()), "{log:?}");
    assert!(log.contains(&"skip 3: cancelled by 4".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_other_starts_or_syncs_leaves_one_of_each_waiting() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", Action::Stop);
    bench.until("run 1").await;
    for n in 100..400 {
        bench.submit(n, "a", start());
    }
    for n in 1000..1300 {
        bench.submit(n, "a", Action::Sync);
    }
    assert_eq!(bench.load.waiting(), 2);
    bench.release(1);
    bench.until("ack 1299").await;
    let log = bench.end().await;
    let ran: Vec<_> = log.iter().filter(|line| line.starts_with("run")).collect();
    assert_eq!(ran, ["run 1", "run 399", "run 1299"]);
    assert_eq!(log.iter().filter(|line| line.starts_with("ack")).count(), 601);
}

#[tokio::test(start_paused = true)]
async fn the_seventeenth_waiting_job_of_a_team_is_refused() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", Action::Stop);
    bench.until("run 1").await;
    for n in 2..=18 {
        bench.submit(n, "a", Action::Restart { targets: Vec::new() });
    }
    bench.until("dead 18: capacity.queue_full").await;
    assert_eq!(bench.load.waiting(), 16);
    // A stop makes its own room, and other teams are not concerned.
    bench.submit(19, "a", Action::Stop);
    bench.submit(20, "b", Action::Sync);
    bench.until("ack 20").await;
    bench.release(1);
    bench.until("ack 19").await;
    assert!(!bench.end().await.contains(&"run 2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_full_host_refuses_what_takes_long_and_lets_stops_in() {
    let config = LanesConfig { running_max: 1, waiting_max: 2, ..LanesConfig::default() };
    let bench = Bench::new(config, [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "b", start());
    bench.submit(3, "c", start());
    bench.submit(4, "d", start());
    bench.until("dead 4: capacity.queue_full").await;
    bench.submit(5, "e", Action::Stop);
    bench.until("ack 5").await;
    bench.release(1);
    bench.until("ack 3").await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn statuses_of_one_team_share_an_answer_and_do_not_fill_the_window() {
    let bench = Bench::new(LanesConfig::default(), []);
    for n in 1..=300 {
        bench.submit(n, "a", Action::Status);
    }
    bench.submit(999, "a", Action::Stop);
    bench.until("ack 999").await;
    for n in 1..=300 {
        bench.until(&format!("ack {n}")).await;
    }
    let log = bench.end().await;
    let answers = log.iter().filter(|line| line.starts_with("status")).count();
    assert!((1..=2).contains(&answers), "{answers}");
}

#[tokio::test(start_paused = true)]
async fn a_status_is_answered_beside_the_lane() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "a", Action::Status);
    bench.until("ack 2").await;
    bench.release(1);
    bench.until("ack 1").await;
    assert_eq!(bench.end().await, ["run 1", "status 2", "ack 2", "ack 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_ends_after_the_first_and_runs_nothing() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(1, "a", start());
    bench.submit(2, "a", Action::Sync);
    bench.submit(2, "a", Action::Sync);
    bench.release(1);
    bench.until_times("ack 2", 2).await;
    let expected = ["run 1", "ack 1", "ack 1", "run 2", "ack 2", "ack 2"];
    assert_eq!(bench.end().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_higher_attempt_is_another_job() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", Action::Restart { targets: Vec::new() });
    bench.until("run 1").await;
    bench.submit_attempt(1, 2, "a", Action::Restart { targets: Vec::new() });
    bench.release(1);
    bench.until_times("ack 1", 2).await;
    assert_eq!(bench.end().await, ["run 1", "ack 1", "run 1", "ack 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_job_is_put_aside_and_its_duplicate_only_acknowledged() {
    let bench = Bench::new(LanesConfig::default(), [404]);
    bench.submit(404, "a", start());
    bench.until("run 404").await;
    bench.submit(404, "a", start());
    bench.release(404);
    bench.until("ack 404").await;
    assert_eq!(bench.end().await, ["run 404", "dead 404: git.not_found", "ack 404"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_begins_nothing() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.submit(2, "b", Action::Stop);
    bench.until("ack 2").await;
    bench.until("run 1").await;
    bench.submit(3, "a", Action::Sync);
    bench.until("accepted 3 at 1").await;
    let draining = bench.lanes.drain(HOUR);
    let releasing = async {
        bench.submit(4, "c", Action::Stop);
        bench.release(1);
    };
    tokio::join!(draining, releasing);
    let log = bench.end().await;
    assert!(log.contains(&"ack 1".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.contains(" 3") || line.contains(" 4")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_abandons_what_outlasts_its_grace() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.lanes.drain(Duration::from_secs(30)).await;
    assert_eq!(bench.end().await, ["run 1", "abandoned 1"]);
}

#[tokio::test(start_paused = true)]
async fn abandoned_lanes_settle_nothing() {
    let bench = Bench::new(LanesConfig::default(), [1, 2]);
    bench.submit(1, "a", start());
    bench.submit(2, "b", start());
    bench.until("run 1").await;
    bench.until("run 2").await;
    bench.submit(1, "a", start());
    bench.submit(3, "a", Action::Sync);
    bench.lanes.abandon().await;
    let log: BTreeSet<_> = bench.end().await.into_iter().collect();
    let lines: Vec<_> = log.iter().map(String::as_str).collect();
    assert_eq!(lines, ["abandoned 1", "abandoned 2", "run 1", "run 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_finds_the_session_over_is_not_settled_and_says_so() {
    let bench = Bench::new(LanesConfig::default(), []);
    bench.submit(500, "a", start());
    assert_eq!(bench.lanes.failed().await, "the event log is gone");
    bench.lanes.abandon().await;
    assert_eq!(bench.end().await, ["run 500"]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_panics_costs_its_own_job_only() {
    let bench = Bench::new(LanesConfig::default(), []);
    bench.submit(666, "a", start());
    bench.until("dead 666: internal.bug").await;
    bench.submit(2, "a", Action::Stop);
    bench.until("ack 2").await;
    let expected = [
        "run 666",
        "failed 666 with the team: internal.bug",
        "dead 666: internal.bug",
        "run 2",
        "ack 2",
    ];
    assert_eq!(bench.end().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_too_long_fails() {
    let config = LanesConfig { running_max: 1, ..LanesConfig::default() };
    let bench = Bench::new(config, [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    bench.submit(2, "b", start());
    bench.until("dead 2: job.deadline").await;
    bench.release(1);
    bench.until("ack 1").await;
    assert!(!bench.end().await.contains(&"run 2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_jobs_own_is_heeded_unless_its_end_is_known() {
    let bench = Bench::new(LanesConfig::default(), [1]);
    bench.submit(1, "a", start());
    bench.until("run 1").await;
    let began = Instant::now();
    bench.script.leave(2, Duration::from_secs(30));
    bench.submit(2, "b", Action::Sync);
    bench.until("ack 2").await;
    for (n, team) in [(3, "c"), (4, "d")] {
        bench.script.leave(n, Duration::ZERO);
        bench.submit(n, team, start());
        if n == 3 {
            bench.until("dead 3: job.deadline").await;
            bench.script.decide(4);
        }
    }
    bench.until("ack 4").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    bench.script.leave(5, Duration::from_secs(30));
    bench.submit(5, "a", Action::Sync);
    bench.until("accepted 5 at 1").await;
    bench.release(1);
    bench.until("ack 5").await;
    let log = bench.end().await;
    assert!(log.contains(&"run 4".to_owned()) && !log.contains(&"run 3".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_while_somebody_else_has_the_team() {
    let leases = Arc::new(TeamLeases::default());
    let mut bench = Bench::new(LanesConfig::default(), []);
    let runner = Arc::clone(&bench.script);
    let config = LanesConfig::default();
    bench.lanes = Lanes::new(runner, Arc::clone(&leases), config, Arc::clone(&bench.load));
    let team = TeamId::parse("a").unwrap();
    let lease = leases.acquire(&team).await;
    bench.submit(1, "a", start());
    bench.until("accepted 1 at 0").await;
    // It can still be overtaken.
    bench.submit(2, "a", Action::Stop);
    bench.until("ack 1").await;
    drop(lease);
    bench.until("ack 2").await;
    assert_eq!(bench.end().await, ["skip 1: cancelled by 2", "ack 1", "run 2", "ack 2"]);
}
