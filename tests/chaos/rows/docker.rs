//! The Docker daemon is restarted, hangs, and refuses.

use std::sync::Arc;
use std::time::Duration;

use super::{Scale, Trouble, judge, teams, under_load, until_more_ended};
use crate::engine::Mode;
use crate::lab::{Ground, Lab};
use crate::random::Random;
use crate::table::Row;

async fn on_a_daemon(
    ground: &Ground,
    broker: u16,
    random: &Random,
    (name, fault): (&str, &str),
    times: usize,
    trouble: impl AsyncFn(&Lab),
) -> Row {
    let teams = teams(6);
    let lab = ground.lab(name, broker, 1).await;
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

/// A restart without live-restore: connections end and containers stop.
pub(crate) async fn restarts(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let names = ("restarts", "Docker daemon restarted");
    on_a_daemon(&ground, broker, &random, names, scale.of(2, 20), async |lab| {
        let engine = &lab.workers[0].engine;
        engine.become_(Mode::Down);
        engine.state().stop_all();
        // A real one was measured to take a second; the fault is the time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        engine.become_(Mode::Well);
    })
    .await
}

/// Takes requests and answers none for a while.
pub(crate) async fn hangs(ground: Ground, broker: u16, scale: Scale, random: Arc<Random>) -> Row {
    let seconds = scale.of(5, 30);
    let fault = format!("Docker daemon hung for {seconds} s");
    let names = ("hangs", fault.as_str());
    on_a_daemon(&ground, broker, &random, names, scale.of(1, 20), async |lab| {
        let engine = &lab.workers[0].engine;
        engine.become_(Mode::Hung);
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        engine.become_(Mode::Well);
    })
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
    on_a_daemon(&ground, broker, &random, names, scale.of(3, 50), async |lab| {
        let engine = &lab.workers[0].engine;
        engine.become_(Mode::Refusing);
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine.become_(Mode::Well);
    })
    .await
}
