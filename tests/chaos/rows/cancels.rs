//! A stop at a random moment of a start.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{StreamExt as _, iter};
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
        let (mut returns, mut broken) = (Vec::new(), Vec::new());
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
                returns.push(started.at.saturating_duration_since(asked));
            }
            if stopped.kind != "job.succeeded" {
                broken.push(format!("the stop of {team} ended as {}", stopped.kind));
            }
            broken.extend(lab.differs(team, None).await);
        }
        (returns, broken)
    });
    let ended: Vec<_> = of_teams.buffer_unordered(AT_ONCE).collect().await;
    let (returns, broken): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    let (returns, broken) = (returns.concat(), broken.concat());
    let mut row = judge("stop at a random moment of a start", lab, teams, &[]).await;
    (row.faults, row.broken) = (times, broken);
    row.note = format!(
        "{} cancelled; from the stop's confirm to the start's end with its undo: \
         p50 {} p99 {} max {} ms",
        returns.len(),
        millis(&returns, 50),
        millis(&returns, 99),
        millis(&returns, 100)
    );
    row
}
