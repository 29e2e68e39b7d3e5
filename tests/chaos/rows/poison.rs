//! A job that kills every worker that runs it.

use std::sync::Arc;

use serde_json::json;

use super::{Scale, judge, teams};
use crate::frames::Moment;
use crate::lab::{Ground, spec};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{STATE_MAX, within};

/// Deaths after which a job has to be put aside; the contract says three.
const DEATHS_MAX: usize = 5;

pub(crate) async fn jobs(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let (poisons, innocents) = (scale.of(1, 20), scale.of(4, 24));
    let teams = teams(6);
    let lab = ground.lab("poison", broker, 1).await;
    lab.settle(&teams).await;
    let worker = &lab.workers[0];
    let (mut moments, mut broken) = (Vec::new(), Vec::new());
    for number in 0..poisons {
        let victim = format!("victim_{number}");
        worker.make_workspace(&victim);
        for _ in 0..innocents {
            let team = random.pick(&teams);
            lab.publish(team, "start", json!({ "spec": spec(random.below(2)) })).await;
        }
        lab.until_quiet().await;
        let poison = lab.publish(&victim, "start", json!({ "spec": spec(0) })).await;
        let mut deaths = 0;
        while deaths < DEATHS_MAX && lab.end_of(&poison).is_none() {
            let begun = worker.relay.arm(Moment::StepStarted);
            let died = tokio::select! {
                fired = begun => fired.is_ok(),
                _ = within(STATE_MAX, async || lab.end_of(&poison)) => false,
            };
            worker.relay.disarm();
            if died {
                deaths += 1;
                moments.push(super::kill_and_start(worker));
                worker.until_ready().await;
            }
        }
        match lab.until_end_of(&poison).await {
            end if end.kind == "job.failed" => {}
            end => {
                broken.push(format!("{victim} killed {deaths} workers and ended as {}", end.kind))
            }
        }
        lab.publish(&victim, "destroy", json!(null)).await;
    }
    let mut row = judge("poison: a job that kills its worker", &lab, &teams, &moments).await;
    row.broken = broken;
    row.missing = Some("no strikes on this version");
    row
}
