//! The broker dies, is restarted, runs out of memory, or has full queues.

use std::sync::Arc;
use std::time::Duration;

use super::{Scale, Trouble, judge, teams, under_load, until_more_ended};
use crate::broker::Broker;
use crate::history::Told;
use crate::lab::{Ground, Lab};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{until, within};

/// Kills and restarts the node under two workers.
pub(crate) async fn gone(
    ground: Ground,
    broker: Arc<Broker>,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let (kills, stops) = (scale.of(1, 20), scale.of(1, 5));
    let teams = teams(scale.of(6, 20));
    let lab = ground.lab("broker", broker.port, 2).await;
    lab.settle(&teams).await;
    let moments = under_load(&lab, &teams, &random, 0, async {
        let mut moments = Vec::new();
        for number in 0..kills + stops {
            until_more_ended(&lab, 15).await;
            // Stops first: 3.10 loses a stream whose queue was declared within
            // the last second before a kill.
            if number < stops {
                broker.stop().await;
            } else {
                broker.kill().await;
            }
            broker.run();
            broker.until_answers().await;
            let trouble = Trouble::over();
            let works = |told: &Told| told.is_final() && told.time > trouble.over;
            lab.until_told("a job ends after the broker is back", works).await;
            moments.push(trouble);
        }
        moments
    })
    .await;
    let mut row = judge("kill -9 and restart of the broker", &lab, &teams, &moments).await;
    row.note = format!("{kills} kills, {stops} restarts; recovery from the port's answer");
    row
}

/// Blocks publishers by a memory alarm.
pub(crate) async fn alarms(
    ground: Ground,
    broker: Arc<Broker>,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let times = scale.of(1, 10);
    let teams = teams(6);
    let lab = ground.lab("alarm", broker.port, 2).await;
    lab.settle(&teams).await;
    let moments = under_load(&lab, &teams, &random, 0, async {
        let mut moments = Vec::new();
        for _ in 0..times {
            until_more_ended(&lab, 10).await;
            broker.control(&["set_vm_memory_high_watermark", "0.000001"]).await;
            // The broker says so to whoever publishes first.
            let blocked = async || {
                for worker in &lab.workers {
                    if worker.is_blocked().await {
                        return Some(());
                    }
                }
                None
            };
            until("a worker knows that the broker blocks", blocked).await;
            broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    let mut row = judge("memory alarm", &lab, &teams, &moments).await;
    row.note = bounded_memory(&lab, &mut row.broken);
    row
}

/// The queues that are made full, and the most that each takes meanwhile.
const FULL: [(&str, u32); 3] = [("dispatch", 1), ("host\\..*", 1), ("dlq", 1)];

/// Makes one queue after the other full.
pub(crate) async fn full_queues(
    ground: Ground,
    broker: Arc<Broker>,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let times = scale.of(1, 4);
    let teams = teams(6);
    let lab = ground.lab("full", broker.port, 2).await;
    lab.settle(&teams).await;
    let moments = under_load(&lab, &teams, &random, 0, async {
        let mut moments = Vec::new();
        for (queue, length) in (0..times).flat_map(|_| FULL) {
            until_more_ended(&lab, 10).await;
            let (pattern, limit) =
                (format!("^full\\.{queue}$"), format!("{{\"max-length\":{length}}}"));
            broker
                .control(&["set_policy", "--apply-to", "queues", "chaos", &pattern, &limit])
                .await;
            // A full queue of dead letters stops lanes, so nothing may end.
            let ended = lab.ended_count();
            let goes_on = async || (lab.ended_count() >= ended + 10).then_some(());
            within(Duration::from_secs(5), goes_on).await;
            broker.control(&["clear_policy", "chaos"]).await;
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    let mut row = judge("full queues", &lab, &teams, &moments).await;
    row.note =
        format!("dispatch, mailboxes, dead letters; {}", bounded_memory(&lab, &mut row.broken));
    row
}

/// What a worker may have had at most: several times what it has at rest, far
/// below what unsent messages of a row would take.
const MEMORY_MAX_MIB: u64 = 200;

/// Says what the largest worker had; it is broken if that is too much.
fn bounded_memory(lab: &Lab, broken: &mut Vec<String>) -> String {
    let peak = lab.workers.iter().map(|worker| worker.memory_peak_mib()).max().unwrap_or(0);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let said = format!("peak memory of a worker {peak} MiB ({build} build)");
    if !(1..=MEMORY_MAX_MIB).contains(&peak) {
        broken.push(said.clone());
    }
    said
}
