//! The Docker daemon is restarted, hangs, and refuses.

use std::sync::Arc;
use std::time::Duration;

use super::{Scale, broken_again_and_again};
use crate::engine::Mode;
use crate::lab::Ground;
use crate::random::Random;
use crate::table::Row;

/// A restart without live-restore: connections end and containers stop.
pub(crate) async fn restarts(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let names = ("restarts", "Docker daemon restarted");
    broken_again_and_again(
        &ground.lab(names.0, broker, 1).await,
        &random,
        names.1,
        scale.of(2, 20),
        async |lab| {
            let engine = &lab.workers[0].engine;
            engine.become_(Mode::Down);
            engine.state().stop_all();
            // A real one was measured to take a second; the fault is the time.
            tokio::time::sleep(Duration::from_secs(1)).await;
            engine.become_(Mode::Well);
        },
    )
    .await
}

/// Takes requests and answers none for a while.
pub(crate) async fn hangs(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let seconds = scale.of(5, 30);
    let fault = format!("Docker daemon hung for {seconds} s");
    let names = ("hangs", fault.as_str());
    broken_again_and_again(
        &ground.lab(names.0, broker, 1).await,
        &random,
        names.1,
        scale.of(1, 20),
        async |lab| {
            let engine = &lab.workers[0].engine;
            engine.become_(Mode::Hung);
            tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
            engine.become_(Mode::Well);
        },
    )
    .await
}

/// Refuses every second request, before its effect or after it by turns.
pub(crate) async fn refusals(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let names = ("refusals", "Docker daemon answers 5xx");
    broken_again_and_again(
        &ground.lab(names.0, broker, 1).await,
        &random,
        names.1,
        scale.of(3, 50),
        async |lab| {
            let engine = &lab.workers[0].engine;
            engine.become_(Mode::Refusing);
            tokio::time::sleep(Duration::from_millis(300)).await;
            engine.become_(Mode::Well);
        },
    )
    .await
}
