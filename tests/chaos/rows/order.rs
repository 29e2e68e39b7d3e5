//! The order of publishing decides, whatever is told about time.

use std::sync::Arc;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Scale, judge, kill_and_start, teams, under_load, until_more_ended};
use crate::lab::{Ground, spec};
use crate::random::Random;
use crate::table::Row;

/// Debian's libfaketime.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Destroy, start and stop in a random order, back to back: the last one wins.
pub(crate) async fn back_to_back(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let times = scale.of(20, 200);
    let teams = teams(4);
    let lab = ground.lab("backtoback", broker, 2).await;
    lab.settle(&teams).await;
    let mut broken = Vec::new();
    for number in 0..times {
        let team = &teams[number % teams.len()];
        let mut actions = vec!["destroy", "start", "stop"];
        let mut last = (String::new(), "");
        while !actions.is_empty() {
            let action = actions.remove(random.below(actions.len()));
            let more = if action == "start" { json!({"spec": spec(1)}) } else { Value::Null };
            last = (lab.publish(team, action, more).await, action);
        }
        let end = lab.until_end_of(&last.0).await;
        let wanted = (last.1 == "start").then_some(1);
        if end.kind != "job.succeeded" {
            broken.push(format!("the last job of {team}, a {}, ended as {}", last.1, end.kind));
        }
        broken.extend(lab.differs(team, wanted).await);
    }
    let mut row = judge("destroy, start, stop back to back", &lab, &teams, &[]).await;
    (row.faults, row.broken) = (times, broken);
    row
}

/// Two producers whose clocks are two minutes apart.
pub(crate) async fn producers(ground: Ground, broker: u16, scale: Scale) -> Row {
    let times = scale.of(20, 200);
    let teams = teams(4);
    let lab = ground.lab("producers", broker, 1).await;
    lab.settle(&teams).await;
    let mut broken = Vec::new();
    for number in 0..times {
        let team = &teams[number % teams.len()];
        let now = jiff::Timestamp::now();
        let early = (now - jiff::SignedDuration::from_secs(60)).to_string();
        let late = (now + jiff::SignedDuration::from_secs(60)).to_string();
        // The later published is the earlier issued.
        let start = json!({ "spec": spec(0) });
        let last = if number % 2 == 0 {
            lab.publish_as_of(team, "start", start, &late).await;
            lab.publish_as_of(team, "stop", Value::Null, &early).await
        } else {
            lab.publish_as_of(team, "stop", Value::Null, &late).await;
            lab.publish_as_of(team, "start", start, &early).await
        };
        lab.until_end_of(&last).await;
        broken.extend(lab.differs(team, (number % 2 == 1).then_some(0)).await);
    }
    let mut row = judge("clocks of two producers 2 min apart", &lab, &teams, &[]).await;
    (row.faults, row.broken) = (times, broken);
    row
}

/// Workers whose clocks are an hour wrong, one way and the other.
pub(crate) async fn clocks(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let times = scale.of(2, 10);
    let teams = teams(6);
    let lab = ground.lab("clocks", broker, 1).await;
    lab.settle(&teams).await;
    let is_there = std::path::Path::new(FAKETIME).exists();
    let moments = under_load(&lab, &teams, &random, 20, async {
        let mut moments = Vec::new();
        for number in 0..if is_there { times } else { 0 } {
            until_more_ended(&lab, 10).await;
            let worker = &lab.workers[0];
            worker.set("LD_PRELOAD", FAKETIME);
            // Timeouts go on; only the time of day is wrong.
            worker.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            worker.set("FAKETIME", if number % 2 == 0 { "+1h" } else { "-1h" });
            moments.push(kill_and_start(worker));
            worker.until_ready().await;
        }
        moments
    })
    .await;
    let mut row = judge("clock an hour wrong, after kill -9", &lab, &teams, &moments).await;
    // The events' own times are what is wrong here.
    row.recovery.clear();
    if !is_there {
        row.note = "not run: libfaketime is not installed".to_owned();
    }
    row
}

/// 300 jobs of one team behind a start that takes long, then a stop.
pub(crate) async fn window(ground: Ground, broker: u16, scale: Scale) -> Row {
    let times = scale.of(1, 10);
    let teams = teams(2);
    let lab = ground.lab("window", broker, 1).await;
    lab.settle(&teams).await;
    let (mut broken, mut took) = (Vec::new(), [Vec::new(), Vec::new()]);
    let engine = &lab.workers[0].engine;
    for number in 0..2 * times {
        *engine.start_takes.lock().unwrap() = Duration::from_secs(5);
        let team = &teams[0];
        lab.publish(team, "start", json!({ "spec": spec(2) })).await;
        for other in 0..300 {
            if number % 2 == 0 {
                lab.publish(team, "start", json!({ "spec": spec(other % 2) })).await;
            } else {
                lab.publish(team, "status", Value::Null).await;
            }
        }
        let asked = Instant::now();
        let stop = lab.publish(team, "stop", Value::Null).await;
        let end = lab.until_end_of(&stop).await;
        took[number % 2].push(end.at - asked);
        if end.kind != "job.succeeded" {
            broken.push(format!("the stop behind 300 jobs ended as {}", end.kind));
        }
        broken.extend(lab.differs(team, None).await);
        *engine.start_takes.lock().unwrap() = Duration::from_millis(5);
        lab.until_quiet().await;
    }
    let mut row =
        judge("window filled: 300 starts or status, then a stop", &lab, &teams, &[]).await;
    (row.faults, row.broken) = (2 * times, broken);
    let max = took.map(|took| crate::table::millis(&took, 100));
    row.note = format!(
        "the stop's end after its publish: behind starts max {} ms, behind status max {} ms",
        max[0], max[1]
    );
    row
}
