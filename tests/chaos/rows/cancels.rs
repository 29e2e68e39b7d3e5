//! A stop at a random moment of a start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{StreamExt as _, iter};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Scale, judge, teams};
use crate::lab::{Ground, Lab, spec};
use crate::random::Random;
use crate::table::{Row, millis};

/// How long a container takes to start here, as on a real daemon.
const START_TAKES: Duration = Duration::from_millis(250);

/// How many teams are started and stopped at once.
const AT_ONCE: usize = 4;

/// On daemons without containers.
pub(crate) async fn stops(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let teams = teams(AT_ONCE);
    let lab = ground.lab("cancels", broker, 1).await;
    lab.settle(&teams).await;
    *lab.workers[0].engine.start_takes.lock().unwrap() = START_TAKES;
    on_a_lab(&lab, &teams, scale.of(24, 200), &random).await
}

/// Starts and stops each team again and again, so often in all.
pub(crate) async fn on_a_lab(lab: &Lab, teams: &[String], times: usize, random: &Random) -> Row {
    let of_teams = iter(teams).map(|team| async move {
        let (mut ended, mut broken) = (Vec::new(), Vec::new());
        for _ in 0..times / teams.len() {
            let start = lab.publish(team, "start", json!({ "spec": spec(2) })).await;
            let moment = random.below(900) as u64;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let stop = lab.publish(team, "stop", Value::Null).await;
            let stopped = lab.until_end_of(&stop).await;
            let started = lab.until_end_of(&start).await;
            let asked = lab.jobs().into_iter().find(|job| job.id == stop);
            let asked = asked.and_then(|job| job.confirmed).expect("the stop was confirmed");
            if started.kind == "job.cancelled" {
                ended.push((start, asked, started.at.saturating_duration_since(asked)));
            }
            if stopped.kind != "job.succeeded" {
                broken.push(format!("the stop of {team} ended as {}", stopped.kind));
            }
            broken.extend(lab.differs(team, None).await);
        }
        (ended, broken)
    });
    let of_teams: Vec<_> = of_teams.buffer_unordered(AT_ONCE).collect().await;
    let (ended, broken): (Vec<_>, Vec<_>) = of_teams.into_iter().unzip();
    let (ended, broken) = (ended.concat(), broken.concat());
    let printed: Vec<_> = lab.workers.iter().map(|worker| worker.printed()).collect();
    let returns: Vec<_> = ended
        .iter()
        .filter_map(|(start, asked, _)| {
            let returned = printed.iter().find_map(|text| interrupted_at(text, start))?;
            Some(returned.duration_since(wall(*asked)).try_into().unwrap_or_default())
        })
        .collect();
    let ends: Vec<_> = ended.iter().map(|(_, _, end)| *end).collect();
    let mut row = judge("stop at a random moment of a start", lab, teams, &[]).await;
    (row.faults, row.broken) = (times, broken);
    let three = |all: &[Duration]| {
        let [p50, p99, max] = [50, 99, 100].map(|percent| millis(all, percent));
        format!("p50 {p50} p99 {p99} max {max} ms")
    };
    row.note = format!(
        "{} cancelled, {} of them in a run; from the stop's confirm to the step's return: {}; \
         to the start's end with its undo: {}",
        ends.len(),
        returns.len(),
        three(&returns),
        three(&ends),
    );
    row
}

/// When the run of a job had returned because of a later one, as its worker printed it.
fn interrupted_at(printed: &str, job: &str) -> Option<Timestamp> {
    let is_it = |line: &&str| line.contains("run interrupted") && line.contains(job);
    let line: Value = serde_json::from_str(printed.lines().find(is_it)?).ok()?;
    line["timestamp"].as_str()?.parse().ok()
}

/// The time of day at an instant.
fn wall(at: Instant) -> Timestamp {
    Timestamp::now() - at.elapsed()
}
