//! The way between workers and broker: torn, silent, slow, sliced.

use std::sync::Arc;
use std::time::Duration;

use super::{Scale, broken_again_and_again, until_more_ended};
use crate::lab::Ground;
use crate::random::Random;
use crate::relay::Way;
use crate::table::Row;

/// Resets one worker's connections, mid-word.
pub(crate) async fn resets(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("resets", "relay: resets");
    broken_again_and_again(
        &ground.lab(names.0, broker, 2).await,
        &random,
        names.1,
        scale.of(4, 50),
        async |lab| {
            random.pick(&lab.workers).relay.reset();
        },
    )
    .await
}

/// Lets nothing pass for a while, on connections that stay.
pub(crate) async fn silence(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("silence", "relay: silence of 20 s");
    broken_again_and_again(
        &ground.lab(names.0, broker, 2).await,
        &random,
        names.1,
        scale.of(1, 20),
        async |lab| {
            let worker = random.pick(&lab.workers);
            worker.relay.set(Way::Silent);
            // The fault is the time itself.
            tokio::time::sleep(Duration::from_secs(20)).await;
            worker.relay.set(Way::Open);
        },
    )
    .await
}

/// Delays everything.
pub(crate) async fn latency(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("latency", "relay: latency of 500 ms each way");
    broken_again_and_again(
        &ground.lab(names.0, broker, 2).await,
        &random,
        names.1,
        scale.of(1, 20),
        async |lab| {
            for worker in &lab.workers {
                worker.relay.set(Way::Slow(Duration::from_millis(500)));
            }
            until_more_ended(lab, 1).await;
            for worker in &lab.workers {
                worker.relay.set(Way::Open);
            }
        },
    )
    .await
}

/// Sends everything in pieces of five bytes.
pub(crate) async fn slicing(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let names = ("slicing", "relay: slices of 5 bytes");
    broken_again_and_again(
        &ground.lab(names.0, broker, 2).await,
        &random,
        names.1,
        scale.of(2, 10),
        async |lab| {
            for worker in &lab.workers {
                worker.relay.set(Way::Sliced);
            }
            until_more_ended(lab, 10).await;
            for worker in &lab.workers {
                worker.relay.set(Way::Open);
            }
        },
    )
    .await
}
