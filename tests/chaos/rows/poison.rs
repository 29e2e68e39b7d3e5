//! Jobs that end every worker that runs them, or fail for good, among healthy
//! ones that take long and are cut off by every death. One of those is at it for
//! ten minutes in the full form.
//!
//! A worker that panics inside a job does not die of it: `tests/broker` has that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use covibes::adapters::rabbitmq::dead_letters::DeadFilter;
use serde_json::{Value, json};

use super::{Scale, Trouble, judge, teams};
use crate::frames::Moment;
use crate::lab::{Ground, Lab, spec};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{STATE_MAX, until, within};
use crate::worker::Worker;

/// Deaths after which a job has to be put aside. The contract says three while
/// it is the only suspect; those before are shared with the innocents.
const DEATHS_MAX: usize = 8;

/// How long a healthy start takes here: longer than a worker lives.
const INNOCENT_TAKES: Duration = Duration::from_secs(2);

/// What a poison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    Abort,
    Error,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Kill, Self::Abort, Self::Error];

    /// The reason that its dead letter has to bear.
    fn reason(self) -> &'static str {
        match self {
            Self::Kill | Self::Abort => "job.poisoned",
            Self::Error => "target.not_found",
        }
    }

    fn end(self, worker: &Worker) {
        match self {
            Self::Kill | Self::Error => worker.kill(),
            Self::Abort => worker.abort(),
        }
    }
}

pub(crate) async fn jobs(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let (poisons, innocents) = (scale.of(3, 20), scale.of(4, 24));
    // As long as retries last, less the longest pause between two of them: else chance
    // decides whether its last one comes in time.
    let long_takes = Duration::from_secs(scale.of(10, 565) as u64);
    let teams = teams(6);
    let lab = ground.lab("poison", broker, 1).await;
    lab.settle(&teams).await;
    let worker = &lab.workers[0];
    let (mut moments, mut broken, mut healthy) = (Vec::new(), Vec::new(), Vec::new());
    let mut poisonous = Vec::new();
    let long = "long".to_owned();
    lab.settle(std::slice::from_ref(&long)).await;
    worker.engine.refuse_starts_of(&long, Instant::now() + long_takes);
    healthy.push(lab.publish(&long, "start", json!({ "spec": spec(0) })).await);
    for number in 0..poisons {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let victim = format!("victim_{number}");
        lab.settle(std::slice::from_ref(&victim)).await;
        if kind == Kind::Error {
            // It has to run to have no such part.
            lab.publish(&victim, "start", json!({ "spec": spec(0) })).await;
        }
        *worker.engine.start_takes.lock().unwrap() = INNOCENT_TAKES;
        for _ in 0..innocents {
            let team = random.pick(&teams);
            let spec = json!({ "spec": spec(random.below(2)) });
            healthy.push(lab.publish(team, "start", spec).await);
        }
        let (action, more) = match kind {
            Kind::Kill | Kind::Abort => ("start", json!({ "spec": spec(0) })),
            Kind::Error => ("restart", json!({ "targets": ["nobody"] })),
        };
        let poison = lab.publish(&victim, action, more).await;
        let deaths = run_until_put_aside(&lab, worker, kind, &poison, &mut moments).await;
        *worker.engine.start_takes.lock().unwrap() = Duration::from_millis(5);
        match lab.until_end_of(&poison).await {
            end if end.kind == "job.failed" => {}
            end => broken.push(format!("{victim} ended {deaths} workers and is {}", end.kind)),
        }
        poisonous.push((poison, kind));
        lab.until_quiet().await;
        lab.publish(&victim, "destroy", Value::Null).await;
    }
    let innocent_and_dead =
        healthy.iter().filter_map(|job| lab.end_of(job).filter(|e| e.is_dead()));
    broken.extend(innocent_and_dead.map(|end| format!("an innocent of {} is dead", end.team)));
    broken.extend(wrong_reasons(&lab, &poisonous).await);
    lab.publish(&long, "destroy", Value::Null).await;
    let mut row =
        judge("poison: a job that kills or aborts its worker, or fails", &lab, &teams, &moments)
            .await;
    row.broken = broken;
    row.note = format!(
        "{poisons} poisons among {} healthy starts of 2 s or more, one of them at it for {} s; \
         {} deaths",
        healthy.len(),
        long_takes.as_secs(),
        moments.len()
    );
    row
}

/// Ends the worker each time that it runs the job, until the job has ended.
async fn run_until_put_aside(
    lab: &Lab,
    worker: &Arc<Worker>,
    kind: Kind,
    poison: &str,
    moments: &mut Vec<Trouble>,
) -> usize {
    let mut deaths = 0;
    while kind != Kind::Error && deaths < DEATHS_MAX && lab.end_of(poison).is_none() {
        let begun = worker.relay.arm_about(Moment::StepStarted, poison);
        let died = tokio::select! {
            fired = begun => fired.is_ok(),
            // One that is at it for ten minutes may have to end first.
            _ = within(STATE_MAX, async || lab.end_of(poison)) => false,
        };
        worker.relay.disarm();
        if died {
            deaths += 1;
            moments.push(Trouble::death_of(worker));
            kind.end(worker);
            worker.start();
            worker.until_ready().await;
        }
    }
    deaths
}

/// The poisons whose dead letters are missing or say something else.
async fn wrong_reasons(lab: &Lab, poisonous: &[(String, Kind)]) -> Vec<String> {
    let filter = DeadFilter::default();
    let dead = until("the dead letters can be read", async || {
        lab.client.dead_letters(&filter, 1000).await.ok()
    })
    .await;
    let wrong = poisonous.iter().filter_map(|(job, kind)| {
        let letter = dead.iter().find(|letter| letter.message_id.as_ref() == Some(job));
        let reason = letter.map(|letter| letter.reason.as_str());
        (reason != Some(kind.reason())).then(|| format!("{kind:?} {job} is dead as {reason:?}"))
    });
    wrong.collect()
}
