//! What messaging costs: jobs that change nothing through dispatch, mailbox, lane
//! and their confirmed events, beside a bare program that does the same hops on
//! the same kinds of queues with the same confirms and fsyncs; in one run, on
//! one broker, in turns.
//!
//! `cargo bench --bench messaging [-- --jobs N] [--rounds N] [--seconds N]`; root
//! and RabbitMQ (COVIBES_AMQP_URL). `docs/BENCHMARKS.md` explains the table.

mod docker;
mod floor;
mod load;
mod worker;

use std::time::Duration;

use anyhow::Context;
use covibes::adapters::rabbitmq::Names;
use load::{AT_ONCE, Load, Measured};

/// Jobs a second while latency is measured.
const RATE: u32 = 100;

/// The queue of the memory test.
const QUEUED: usize = 10_000;
const QUEUED_TEAMS: usize = 1_000;
const MEMORY_MAX: f64 = 120.0;

struct Sizes {
    jobs: usize,
    rounds: usize,
    seconds: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let sizes = Sizes {
        jobs: argument("--jobs")?.unwrap_or(3_000),
        rounds: argument("--rounds")?.unwrap_or(3),
        seconds: u32::try_from(argument("--seconds")?.unwrap_or(20))?,
    };
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        eprintln!("round {} of {}", round + 1, sizes.rounds);
        floors.push(run_floor(&sizes).await?);
        ours.push(run_worker(&sizes).await?);
    }
    println!("| what | jobs/s, saturated | p50 ms at {RATE}/s | p99 ms at {RATE}/s |");
    println!("|---|---:|---:|---:|");
    for (what, all) in [("bare program", &floors), ("Covibes", &ours)] {
        for one in all {
            let [p50, p99] = [one.p50, one.p99].map(millis);
            println!("| {what} | {:.0} | {p50:.1} | {p99:.1} |", one.rate);
        }
    }
    let rate = |all: &[Measured]| median(all.iter().map(|one| one.rate).collect());
    let p99 = |all: &[Measured]| median(all.iter().map(|one| millis(one.p99)).collect());
    let (ratio, added) = (rate(&ours) / rate(&floors), p99(&ours) - p99(&floors));
    let memory = queued().await?;
    println!("\n| goal | measured | |\n|---|---:|---|");
    let line = |goal: &str, measured: f64, met: bool| {
        println!("| {goal} | {measured:.2} | {} |", if met { "met" } else { "**not met**" });
    };
    line("rate / bare program's ≥ 0.5", ratio, ratio >= 0.5);
    line("added p99 at 100 jobs/s ≤ 5 ms", added, added <= 5.0);
    let goal =
        format!("memory with {QUEUED} jobs of {QUEUED_TEAMS} teams queued ≤ {MEMORY_MAX} MB");
    line(&goal, memory.peak_megabytes, memory.peak_megabytes <= MEMORY_MAX);
    println!(
        "\nof those {QUEUED}: {} done, {} refused, in {:.1} s",
        memory.done, memory.refused, memory.seconds
    );
    Ok(())
}

async fn run_floor(sizes: &Sizes) -> anyhow::Result<Measured> {
    let names = names("floor")?;
    let floor = floor::Floor::start(&names).await?;
    let measured = measure(&names, sizes).await;
    floor.stop().await?;
    measured
}

async fn run_worker(sizes: &Sizes) -> anyhow::Result<Measured> {
    let names = names("ours")?;
    let docker = docker::Docker::start().await?;
    let worker = worker::Worker::start(&prefix("ours"), &docker).await?;
    let measured = measure(&names, sizes).await.with_context(|| worker.last_lines());
    worker.stop(&names).await?;
    measured
}

async fn measure(names: &Names, sizes: &Sizes) -> anyhow::Result<Measured> {
    worker::place(names, AT_ONCE).await?;
    let mut load = Load::new(names).await?;
    // Both sides warm: pools, caches, and the broker's queues.
    load.saturate(sizes.jobs / 4).await?;
    let rate = load.saturate(sizes.jobs).await?;
    let latencies = load.steady(RATE, sizes.seconds).await?;
    Ok(Measured { rate, p50: quantile(&latencies, 0.5), p99: quantile(&latencies, 0.99) })
}

struct Memory {
    peak_megabytes: f64,
    done: usize,
    refused: usize,
    seconds: f64,
}

/// Queues jobs while no worker runs, then starts one.
async fn queued() -> anyhow::Result<Memory> {
    let names = names("queued")?;
    let docker = docker::Docker::start().await?;
    // Declares the queues.
    worker::Worker::start(&prefix("queued"), &docker).await?.end().await?;
    worker::place(&names, QUEUED_TEAMS).await?;
    let mut load = Load::new(&names).await?;
    load.fill(QUEUED, QUEUED_TEAMS).await?;
    let began = std::time::Instant::now();
    let worker = worker::Worker::start(&prefix("queued"), &docker).await?;
    let (done, refused) = load.ends(QUEUED).await?;
    let seconds = began.elapsed().as_secs_f64();
    let peak_megabytes = worker.peak_megabytes()?;
    worker.stop(&names).await?;
    Ok(Memory { peak_megabytes, done, refused, seconds })
}

fn prefix(side: &str) -> String {
    format!("bench-{}-{side}", std::process::id())
}

fn names(side: &str) -> anyhow::Result<Names> {
    Names::new(&prefix(side)).context("the prefix is a name")
}

fn argument(name: &str) -> anyhow::Result<Option<usize>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map(|value| value.parse().context(name.to_owned())).transpose()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (sorted.len() as f64 * share) as usize;
    sorted[index.min(sorted.len() - 1)]
}
