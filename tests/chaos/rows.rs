//! The rows of the table: one function each, all against the same contract.

pub(crate) mod brokers;
pub(crate) mod cancels;
pub(crate) mod controls;
pub(crate) mod docker;
pub(crate) mod installs;
pub(crate) mod kills;
pub(crate) mod moves;
pub(crate) mod order;
pub(crate) mod poison;
pub(crate) mod pressure;
pub(crate) mod real;
pub(crate) mod ways;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::checker;
use crate::history::Told;
use crate::lab::{Lab, spec};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{STATE_MAX, within};
use crate::worker::Worker;

/// How many jobs may be open at once: enough to keep every lane busy, few
/// enough that no team's lane is ever full.
const OPEN_MAX: usize = 24;

/// A fault that was.
pub(crate) struct Trouble {
    /// When it was over, or when somebody died of it, in Unix milliseconds: what
    /// is told carries its own time, and whoever reads it may be late.
    over: i64,
    /// The host whose worker died.
    died: Option<String>,
}

impl Trouble {
    pub(crate) fn over() -> Self {
        Self { over: jiff::Timestamp::now().as_millisecond(), died: None }
    }

    pub(crate) fn death_of(worker: &Worker) -> Self {
        Self { died: Some(worker.host.clone()), ..Self::over() }
    }
}

/// The sizes of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) full: bool,
}

impl Scale {
    pub(crate) fn of(self, quick: usize, full: usize) -> usize {
        if self.full { full } else { quick }
    }
}

/// Names of teams.
pub(crate) fn teams(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("team_{number}")).collect()
}

/// Publishes the next random job of a random team.
pub(crate) async fn publish_any(lab: &Lab, teams: &[String], random: &Random) {
    let team = random.pick(teams);
    let (action, more) = match random.below(100) {
        0..45 => ("start", json!({"spec": spec(random.below(3))})),
        45..65 => ("stop", Value::Null),
        65..73 => ("restart", json!({})),
        // Fails: there is no such part.
        73..83 => ("restart", json!({"targets": ["nobody"]})),
        83..90 => ("destroy", Value::Null),
        _ => ("status", Value::Null),
    };
    lab.publish(team, action, more).await;
}

/// Publishes random jobs while `faults` does its worst, at least `jobs` of them
/// and until it is done.
pub(crate) async fn under_load<T>(
    lab: &Lab,
    teams: &[String],
    random: &Random,
    jobs: usize,
    faults: impl Future<Output = T>,
) -> T {
    let over = AtomicBool::new(false);
    let load = async {
        let mut count = 0;
        while count < jobs || !over.load(Ordering::Relaxed) {
            publish_any(lab, teams, random).await;
            count += 1;
            // A system that is stuck is found by the checker.
            let room = async || (lab.open().len() < OPEN_MAX).then_some(());
            if within(STATE_MAX, room).await.is_none() {
                eprintln!("{OPEN_MAX} jobs stay open");
                return;
            }
        }
    };
    let faults = async {
        let done = faults.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    tokio::join!(load, faults).1
}

/// Waits until so many more jobs have ended, or nothing goes on.
pub(crate) async fn until_more_ended(lab: &Lab, more: usize) {
    let wanted = lab.ended_count() + more;
    within(STATE_MAX, async || (lab.ended_count() >= wanted).then_some(())).await;
}

/// For each moment, how long it took until a job ended after it. What died has
/// to be up again first: its last words are still being read after its death.
pub(crate) fn recoveries(told: &[Told], moments: &[Trouble]) -> Vec<Duration> {
    let next_end = |trouble: &Trouble| {
        let mut after = told.iter().filter(|told| told.time > trouble.over);
        if let Some(host) = &trouble.died {
            after.find(|told| told.kind == "host.up" && told.host == *host)?;
        }
        let is_next = |told: &&Told| {
            told.is_final() && trouble.died.as_ref().is_none_or(|host| *host == told.host)
        };
        let millis = after.find(is_next)?.time - trouble.over;
        Some(Duration::from_millis(millis.try_into().ok()?))
    };
    moments.iter().filter_map(next_end).collect()
}

/// Ends a row: brings the teams to a known end, looks, and judges.
pub(crate) async fn judge(fault: &str, lab: &Lab, teams: &[String], moments: &[Trouble]) -> Row {
    let mut history = lab.conclude(teams).await;
    let mut verdict = checker::check(&history);
    // A failed job is told before its copy is among the dead letters, and a lane
    // does not wait for that: a queue that was full takes it a little later.
    within(STATE_MAX, async || {
        if !verdict.lost.is_empty() {
            history = lab.history(history.wrong_at_end.clone()).await;
            verdict = checker::check(&history);
        }
        verdict.lost.is_empty().then_some(())
    })
    .await;
    if let Some(dir) = std::env::var_os("COVIBES_CHAOS_DUMP") {
        let name = fault.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(std::path::Path::new(&dir).join(name), format!("{history:#?}")).unwrap();
    }
    if !verdict.faults().is_empty() {
        for worker in &lab.workers {
            eprintln!("{fault}:\n{}", worker.last_words());
        }
    }
    let recovery = recoveries(&history.told, moments);
    let (fault, faults) = (fault.to_owned(), moments.len());
    Row { fault, docker: "fake", faults, verdict, recovery, ..Row::default() }
}

/// A row of one trouble: it comes again each time that some jobs have ended.
pub(crate) async fn broken_again_and_again(
    lab: &Lab,
    random: &Random,
    fault: &str,
    times: usize,
    trouble: impl AsyncFn(&Lab),
) -> Row {
    let teams = teams(6);
    lab.settle(&teams).await;
    let moments = under_load(lab, &teams, random, 0, async {
        let mut moments = Vec::new();
        for _ in 0..times {
            until_more_ended(lab, 8).await;
            trouble(lab).await;
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    judge(fault, lab, &teams, &moments).await
}

/// Kills a worker and starts it again; gives the moment of the kill.
pub(crate) fn kill_and_start(worker: &Arc<Worker>) -> Trouble {
    let trouble = Trouble::death_of(worker);
    worker.kill();
    worker.start();
    trouble
}
