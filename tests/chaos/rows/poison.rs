//! Jobs that kill every worker that runs them, among healthy ones that take
//! long and are cut off by every death.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Scale, judge, kill_and_start, teams};
use crate::frames::Moment;
use crate::lab::{Ground, spec};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{STATE_MAX, within};

/// Deaths after which a job has to be put aside. The contract says three while
/// it is the only suspect; those before are shared with the innocents.
const DEATHS_MAX: usize = 8;

/// How long a healthy start takes here: longer than a worker lives.
const INNOCENT_TAKES: Duration = Duration::from_secs(2);

pub(crate) async fn jobs(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let (poisons, innocents) = (scale.of(1, 20), scale.of(4, 24));
    let teams = teams(6);
    let lab = ground.lab("poison", broker, 1).await;
    lab.settle(&teams).await;
    let worker = &lab.workers[0];
    let (mut moments, mut broken, mut healthy) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..poisons {
        let victim = format!("victim_{number}");
        lab.settle(std::slice::from_ref(&victim)).await;
        *worker.engine.start_takes.lock().unwrap() = INNOCENT_TAKES;
        for _ in 0..innocents {
            let team = random.pick(&teams);
            let spec = json!({ "spec": spec(random.below(2)) });
            healthy.push(lab.publish(team, "start", spec).await);
        }
        let poison = lab.publish(&victim, "start", json!({ "spec": spec(0) })).await;
        let mut deaths = 0;
        while deaths < DEATHS_MAX && lab.end_of(&poison).is_none() {
            let begun = worker.relay.arm_about(Moment::StepStarted, &poison);
            let died = tokio::select! {
                fired = begun => fired.is_ok(),
                _ = within(STATE_MAX, async || lab.end_of(&poison)) => false,
            };
            worker.relay.disarm();
            if died {
                deaths += 1;
                moments.push(kill_and_start(worker));
                worker.until_ready().await;
            }
        }
        *worker.engine.start_takes.lock().unwrap() = Duration::from_millis(5);
        match lab.until_end_of(&poison).await {
            end if end.kind == "job.failed" => {}
            end => broken.push(format!("{victim} killed {deaths} workers and is {}", end.kind)),
        }
        lab.until_quiet().await;
        lab.publish(&victim, "destroy", Value::Null).await;
    }
    let innocent_and_dead =
        healthy.iter().filter_map(|job| lab.end_of(job).filter(|e| e.is_dead()));
    broken.extend(innocent_and_dead.map(|end| format!("an innocent of {} is dead", end.team)));
    let mut row = judge("poison: a job that kills its worker", &lab, &teams, &moments).await;
    row.broken = broken;
    row.note = format!("{poisons} poisons among {} healthy starts of 2 s or more", healthy.len());
    row
}
