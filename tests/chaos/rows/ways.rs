//! The way between workers and broker: torn, silent, slow, sliced.

use std::sync::Arc;
use std::time::Duration;

use super::{Scale, Trouble, judge, teams, under_load, until_more_ended};
use crate::lab::{Ground, Lab};
use crate::random::Random;
use crate::relay::Way;
use crate::table::Row;

async fn on_a_way(
    ground: &Ground,
    broker: u16,
    random: &Random,
    (name, fault): (&str, &str),
    times: usize,
    trouble: impl AsyncFn(&Lab),
) -> Row {
    let teams = teams(6);
    let lab = ground.lab(name, broker, 2).await;
    lab.settle(&teams).await;
    let moments = under_load(&lab, &teams, random, 0, async {
        let mut moments = Vec::new();
        for _ in 0..times {
            until_more_ended(&lab, 8).await;
            trouble(&lab).await;
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    judge(fault, &lab, &teams, &moments).await
}

/// Resets one worker's connections, mid-word.
pub(crate) async fn resets(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("resets", "relay: resets");
    on_a_way(&ground, broker, &random, names, scale.of(4, 50), async |lab| {
        random.pick(&lab.workers).relay.reset();
    })
    .await
}

/// Lets nothing pass for a while, on connections that stay.
pub(crate) async fn silence(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("silence", "relay: silence of 20 s");
    on_a_way(&ground, broker, &random, names, scale.of(1, 20), async |lab| {
        let worker = random.pick(&lab.workers);
        worker.relay.set(Way::Silent);
        // The fault is the time itself.
        tokio::time::sleep(Duration::from_secs(20)).await;
        worker.relay.set(Way::Open);
    })
    .await
}

/// Delays everything.
pub(crate) async fn latency(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("latency", "relay: latency of 500 ms each way");
    on_a_way(&ground, broker, &random, names, scale.of(1, 20), async |lab| {
        for worker in &lab.workers {
            worker.relay.set(Way::Slow(Duration::from_millis(500)));
        }
        until_more_ended(lab, 1).await;
        for worker in &lab.workers {
            worker.relay.set(Way::Open);
        }
    })
    .await
}

/// Sends everything in pieces of five bytes.
pub(crate) async fn slicing(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("slicing", "relay: slices of 5 bytes");
    on_a_way(&ground, broker, &random, names, scale.of(2, 10), async |lab| {
        for worker in &lab.workers {
            worker.relay.set(Way::Sliced);
        }
        until_more_ended(lab, 10).await;
        for worker in &lab.workers {
            worker.relay.set(Way::Open);
        }
    })
    .await
}
