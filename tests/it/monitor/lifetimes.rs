//! When a team ends by itself, and what puts that off.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_ttl_ends_a_team_after_warnings_and_a_start_extends_it() {
    let ttl = Some(30 * MINUTE);
    let host = Host::with_team(Spec { ttl, ..spec(&["main"]) }).await;
    let before = host.told().len();
    host.during(22 * MINUTE, async {}).await;
    let told = host.told().split_off(before);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0.as_str(), &told[0].1["reason"]), ("team.expiring", &"ttl".into()));
    let left = told[0].1["left_ms"].as_u64().unwrap();
    assert!((540_000..=600_000).contains(&left), "{left}");

    host.world.pass(22 * 60_000);
    host.done(&start(Spec { ttl, ..spec(&["main"]) })).await;
    host.during(15 * MINUTE, async {}).await;
    assert_eq!(host.picture().state, TeamState::Running, "the start gave it a new life");
    host.during(16 * MINUTE, async {}).await;
    assert_eq!(host.world.containers(TEAM).len(), 0);
    let told = host.told();
    let (kind, data) = told.last().unwrap();
    assert_eq!((kind.as_str(), &data["cause"]), ("team.stopped", &"its `ttl` is over".into()));
    let warnings = host.kinds(before).iter().filter(|kind| *kind == "team.expiring").count();
    assert_eq!(warnings, 3, "one before the start, two after it");
}

#[tokio::test(start_paused = true)]
async fn an_idle_team_is_stopped_and_file_changes_keep_it() {
    let idle_stop = Some(10 * MINUTE);
    let host = Host::with_team(Spec { idle_stop, ..spec(&["main"]) }).await;
    for change in 1..=3 {
        host.world.touches_files(change);
        host.during(8 * MINUTE, async {}).await;
        assert_eq!(host.picture().state, TeamState::Running);
    }
    host.during(11 * MINUTE, async {}).await;
    assert_eq!(host.world.containers(TEAM).len(), 0);
    let told = host.told();
    let (kind, data) = told.last().unwrap();
    assert_eq!(kind, "team.stopped");
    assert!(data["cause"].as_str().unwrap().contains("idle_stop"), "{data}");
}

#[tokio::test(start_paused = true)]
async fn a_team_that_works_is_neither_warned_nor_stopped_however_short_its_idle_stop() {
    let host = Host::with_team(Spec { idle_stop: Some(MINUTE), ..spec(&["main"]) }).await;
    let before = host.told().len();
    // Seldom enough for a look to come between a change and the end that it puts off.
    let works = async {
        for change in 1..=10 {
            host.world.touches_files(change);
            tokio::time::sleep(29 * SECOND).await;
        }
    };
    host.during(Duration::ZERO, works).await;
    assert_eq!(host.kinds(before), Vec::<String>::new());
    host.during(3 * MINUTE, async {}).await;
    assert_eq!(host.kinds(before), ["team.expiring", "team.stopping", "team.stopped"]);
}
