//! Workers that die: at random, and exactly between two things that belong
//! together. And workers that are asked to go.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt as _};

use super::{Scale, Trouble, judge, kill_and_start, teams, under_load, until_more_ended};
use crate::engine::{Kind, Verb};
use crate::frames::Moment;
use crate::lab::{Ground, Lab};
use crate::random::Random;
use crate::table::Row;
use crate::wait::STATE_MAX;
use crate::worker::Worker;

/// Three workers, one of them killed again and again.
pub(crate) async fn at_random(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let (jobs, kills) = (scale.of(120, 1000), scale.of(6, 50));
    let teams = teams(scale.of(6, 20));
    let lab = ground.lab("kills", broker, 3).await;
    lab.settle(&teams).await;
    let moments = under_load(&lab, &teams, &random, jobs, async {
        let mut moments = Vec::new();
        for _ in 0..kills {
            until_more_ended(&lab, jobs / (kills + 1)).await;
            moments.push(kill_and_start(random.pick(&lab.workers)));
        }
        moments
    })
    .await;
    judge("kill -9 of workers at random", &lab, &teams, &moments).await
}

/// Where a worker dies.
#[derive(Debug, Clone, Copy)]
enum Window {
    Words(Moment),
    Effect(Verb),
}

/// The windows, and what they are called.
const WINDOWS: [(Window, &str); 6] = [
    (Window::Words(Moment::DispatchAck), "after forward, before ack"),
    (Window::Effect(Verb::Start), "after effect, before record"),
    (Window::Words(Moment::FinalEvent), "after record, before final event"),
    (Window::Words(Moment::DeadLetterCopy), "after final event, before DLQ copy"),
    (Window::Words(Moment::MailboxAckOfDeadLetter), "after DLQ copy, before ack"),
    (Window::Words(Moment::MailboxAck), "after final event, before ack"),
];

/// Kills whichever worker comes first to a window, so often for each of them.
pub(crate) async fn in_windows(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let times = scale.of(1, 20);
    let teams = teams(scale.of(6, 20));
    let lab = ground.lab("windows", broker, 3).await;
    lab.settle(&teams).await;
    let (moments, hits) = under_load(&lab, &teams, &random, 0, async {
        let (mut moments, mut hits) = (Vec::new(), Vec::new());
        for (window, name) in WINDOWS {
            let mut count = 0;
            for _ in 0..times {
                let Some(worker) = first_in(&lab, window).await else { break };
                moments.push(kill_and_start(&worker));
                worker.until_ready().await;
                count += 1;
            }
            hits.push((name, count));
        }
        (moments, hits)
    })
    .await;
    let mut row = judge("kill -9 of workers in each crash window", &lab, &teams, &moments).await;
    let missed = hits.iter().filter(|(_, count)| *count < times);
    row.broken = missed.map(|(name, _)| format!("no worker came to: {name}")).collect();
    let names: Vec<_> = hits.iter().map(|(name, count)| format!("{count} {name}")).collect();
    row.note = names.join(", ");
    row
}

/// The worker that comes first to a window, where it stands still.
async fn first_in(lab: &Lab, window: Window) -> Option<Arc<Worker>> {
    let armed = lab.workers.iter().map(|worker| {
        let firing = match window {
            Window::Words(moment) => worker.relay.arm(moment),
            Window::Effect(verb) => worker.engine.arm(verb, Kind::Container),
        };
        async move { firing.await.is_ok().then(|| Arc::clone(worker)) }
    });
    let mut armed: FuturesUnordered<_> = armed.collect();
    let first = tokio::time::timeout(STATE_MAX, armed.next()).await;
    for worker in &lab.workers {
        worker.relay.disarm();
        worker.engine.disarm();
    }
    first.ok()??
}

/// Asks one of three workers to end while all have work, and starts it again.
pub(crate) async fn sigterm(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let times = scale.of(3, 50);
    let teams = teams(scale.of(6, 20));
    let lab = ground.lab("drains", broker, 3).await;
    lab.settle(&teams).await;
    let (moments, broken) = under_load(&lab, &teams, &random, 0, async {
        let (mut moments, mut broken) = (Vec::new(), Vec::new());
        for _ in 0..times {
            until_more_ended(&lab, 8).await;
            let worker = random.pick(&lab.workers);
            let status = worker.terminate().await;
            if status.code() != Some(0) {
                broken.push(format!("{} drained and ended with {status}", worker.host));
            }
            moments.push(Trouble::death_of(worker));
            worker.start();
            worker.until_ready().await;
        }
        (moments, broken)
    })
    .await;
    let mut row = judge("SIGTERM under load", &lab, &teams, &moments).await;
    row.broken = broken;
    row
}
