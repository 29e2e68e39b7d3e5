//! Chaos: real workers and a real broker are broken in every way that an
//! operator meets, and what happened is counted from outside.
//!
//! `cargo test --test chaos -- --nocapture` prints one table;
//! `COVIBES_TEST_FULL=1` takes the long form of every row. Needs root, Debian's
//! `rabbitmq-server`, and nothing that is shared: see `apart`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod apart;
mod broker;
mod checker;
mod daemon;
mod engine;
mod frames;
mod history;
mod http;
mod lab;
mod random;
mod relay;
mod rows;
mod table;
mod wait;
mod worker;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use tokio::sync::Semaphore;

use crate::broker::Broker;
use crate::lab::Ground;
use crate::random::Random;
use crate::rows::Scale;
use crate::table::Row;

/// Rows that run at once: most of them wait most of the time.
const ROWS_AT_ONCE: usize = 4;

/// Rows that have not run yet.
type Pending = Pin<Box<dyn Future<Output = Vec<Row>>>>;

#[test]
fn what_is_confirmed_is_done_once_and_in_order() {
    apart::run("what_is_confirmed_is_done_once_and_in_order", run_all);
}

#[test]
fn what_breaks_the_rules_is_found() {
    apart::run("what_breaks_the_rules_is_found", run_controls);
}

async fn run_all(dir: &Path) {
    let scale = Scale { full: std::env::var("COVIBES_TEST_FULL").is_ok_and(|v| v == "1") };
    let only = std::env::var("COVIBES_CHAOS_ROWS").ok();
    let seed = random::seed();
    eprintln!("seed {seed}; COVIBES_CHAOS_SEED repeats its choices");
    let began = Instant::now();
    let ground = Ground::new(dir);
    let _inside = (ground.health.serve().await, engine::proxy().await);
    let (steady, shaken) =
        tokio::join!(Broker::start(dir, "steady", 5673), Broker::start(dir, "shaken", 5674));
    let (port, shaken) = (steady.port, Arc::new(shaken));
    let number = std::sync::atomic::AtomicU64::new(0);
    let random = || {
        let row = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Random::new(seed + row))
    };
    let on = || ground.clone();
    let broken = || Arc::clone(&shaken);
    // A row of a three-node cluster and its partition belongs after the broker's;
    // it needs namespaces of its own for the nodes.
    let brokers = vec![
        pending("broker", rows::brokers::gone(on(), broken(), scale, random())),
        pending("alarm", rows::brokers::alarms(on(), broken(), scale, random())),
        pending("full", rows::brokers::full_queues(on(), broken(), scale, random())),
    ];
    let mut others = vec![
        pending("silence", rows::ways::silence(on(), port, scale, random())),
        pending("kills", rows::kills::at_random(on(), port, scale, random())),
        pending("windows", rows::kills::in_windows(on(), port, scale, random())),
        pending("drains", rows::kills::sigterm(on(), port, scale, random())),
        pending("resets", rows::ways::resets(on(), port, scale, random())),
        pending("latency", rows::ways::latency(on(), port, scale, random())),
        pending("slicing", rows::ways::slicing(on(), port, scale, random())),
        pending("restarts", rows::docker::restarts(on(), port, scale, random())),
        pending("hangs", rows::docker::hangs(on(), port, scale, random())),
        pending("refusals", rows::docker::refusals(on(), port, scale, random())),
        pending("cancels", rows::cancels::stops(on(), port, scale, random())),
        pending("poison", rows::poison::jobs(on(), port, scale, random())),
        pending("backtoback", rows::order::back_to_back(on(), port, scale, random())),
        pending("clocks", rows::order::clocks(on(), port, scale, random())),
        pending("producers", rows::order::producers(on(), port, scale)),
        pending("move", rows::moves::between_hosts(on(), port, scale, random())),
        pending("window", rows::order::window(on(), port, scale)),
        pending("dashboard", rows::pressure::dashboards(on(), port, scale, random())),
    ];
    let real: Pending = Box::pin(rows::real::all(on(), port, scale, random()));
    others.push(("real", real));
    let is_wanted = |(name, _): &(&str, _)| {
        only.as_ref().is_none_or(|only| only.split(',').any(|wanted| wanted == *name))
    };
    let turns = Arc::new(Semaphore::new(ROWS_AT_ONCE));
    let chain = async {
        let mut done = Vec::new();
        for (name, row) in brokers.into_iter().filter(is_wanted) {
            done.extend(one(name, row).await);
        }
        done
    };
    let beside = others.into_iter().filter(is_wanted).map(|(name, row)| {
        let turns = Arc::clone(&turns);
        async move {
            let _turn = turns.acquire().await;
            one(name, row).await
        }
    });
    let (rows, chained) = tokio::join!(futures::future::join_all(beside), chain);
    let rows: Vec<Row> = rows.into_iter().flatten().chain(chained).collect();
    println!("\n{}", table::text(&rows));
    let form = if scale.full { "full" } else { "quick" };
    println!("{form} form, seed {seed}, {} s in all", began.elapsed().as_secs());
    let complaints = table::complaints(&rows);
    println!("{complaints}");
    let failed = rows.iter().filter(|row| !row.holds()).count();
    assert!(failed == 0, "{failed} rows fail; the faults are above");
}

fn pending(
    name: &'static str,
    row: impl Future<Output = Row> + 'static,
) -> (&'static str, Pending) {
    (name, Box::pin(async { vec![row.await] }))
}

/// Runs a row to its end; one that cannot go on is a row that fails.
async fn one(name: &'static str, row: Pending) -> Vec<Row> {
    let began = Instant::now();
    let rows = AssertUnwindSafe(row).catch_unwind().await.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        let broken = vec![format!("the row did not come to its end: {said}")];
        vec![Row { fault: name.to_owned(), docker: "fake", broken, ..Row::default() }]
    });
    // A run that is ended early has told this much.
    let (lines, complaints) = (table::lines(&rows), table::complaints(&rows));
    eprintln!("{name}: {} s\n{lines}{complaints}", began.elapsed().as_secs());
    rows
}

async fn run_controls(dir: &Path) {
    let ground = Ground::new(dir);
    let _inside = (ground.health.serve().await, engine::proxy().await);
    let broker = Broker::start(dir, "steady", 5673).await;
    let on = || ground.clone();
    let (sixteen, cancel, unbinds) = tokio::join!(
        rows::controls::sixteen_in_flight(on(), broker.port),
        rows::controls::drain_by_cancel(on(), broker.port),
        rows::controls::host_unbinds(on(), broker.port),
    );
    assert!(!sixteen.inversions.is_empty(), "jobs in in flight broke nothing: {sixteen:?}");
    assert!(!cancel.inversions.is_empty(), "a drain by cancel broke nothing: {cancel:?}");
    assert!(!unbinds.leftovers.is_empty(), "a host that unbinds broke nothing: {unbinds:?}");
    println!("16 forwarded jobs in flight: {} inversions found", sixteen.inversions.len());
    println!("drain by cancel: {} inversions found", cancel.inversions.len());
    println!("host unbinds by itself: {:?}", unbinds.leftovers);
}
