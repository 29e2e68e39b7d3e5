//! How long a team of four containers takes to start, under Covibes, on the
//! bare Engine, and under Compose v2; all in one run, in turns, so that what
//! else the machine does touches all three alike.
//!
//! `cargo bench --bench team_start [-- --rounds N] [--trace]`; root, Docker
//! and RabbitMQ. `docs/BENCHMARKS.md` explains the table.

mod bare;
mod compose;
mod product;
mod recorder;
mod rest;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use bollard::{API_DEFAULT_VERSION, Docker};
use covibes::domain::limits::CONTAINER_UID;

use bare::{Scope, Team};
use compose::Compose;
use product::Product;
use recorder::{Call, Recorder};

/// Second starts per round: they are short.
const UNCHANGED: usize = 5;

/// How long a team runs before it is started a second time: the services in
/// it are throttled to a tenth of a CPU and work at first.
const SETTLED: Duration = Duration::from_secs(3);

/// What the measured figures are compared with.
struct Goal {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    ratio_max: f64,
}

const GOALS: &[Goal] = &[
    Goal {
        what: "start step / bare Engine, first start",
        ours: FIRST_OURS,
        theirs: FIRST_BARE,
        ratio_max: 1.15,
    },
    Goal {
        what: "start step / Compose up -d, first start",
        ours: FIRST_OURS,
        theirs: FIRST_COMPOSE,
        ratio_max: 1.0,
    },
    Goal {
        what: "start step / bare Engine, after a stop",
        ours: AGAIN_OURS,
        theirs: AGAIN_BARE,
        ratio_max: 1.15,
    },
    Goal {
        what: "start step / Compose up -d, after a stop",
        ours: AGAIN_OURS,
        theirs: AGAIN_COMPOSE,
        ratio_max: 1.0,
    },
    Goal {
        what: "start step / bare Engine, containers only",
        ours: ONLY_OURS,
        theirs: ONLY_BARE,
        ratio_max: 1.15,
    },
    Goal {
        what: "start step / Compose up -d, containers only",
        ours: ONLY_OURS,
        theirs: ONLY_COMPOSE,
        ratio_max: 1.0,
    },
    Goal {
        what: "start to healthy / up -d --wait, rendered intervals",
        ours: HEALTHY_OURS,
        theirs: WAIT_OWN,
        ratio_max: 0.1,
    },
    Goal {
        what: "start to healthy / up -d --wait, interval 1 s",
        ours: HEALTHY_OURS,
        theirs: WAIT_1S,
        ratio_max: 1.0,
    },
    Goal {
        what: "second start, whole job / second up -d",
        ours: SECOND_OURS,
        theirs: SECOND_COMPOSE,
        ratio_max: 0.5,
    },
];

const FIRST_OURS: &str = "first start: Covibes, start step";
const FIRST_BARE: &str = "first start: bare Engine";
const FIRST_COMPOSE: &str = "first start: Compose up -d";
const AGAIN_OURS: &str = "after a stop: Covibes, start step";
const AGAIN_BARE: &str = "after a stop: bare Engine";
const AGAIN_COMPOSE: &str = "after a stop: Compose up -d";
const ONLY_OURS: &str = "containers only: Covibes, start step";
const ONLY_BARE: &str = "containers only: bare Engine";
const ONLY_COMPOSE: &str = "containers only: Compose up -d";
const HEALTHY_OURS: &str = "to healthy: Covibes, start and health steps";
const WAIT_OWN: &str = "to healthy: Compose up -d --wait, 30 s and 15 s";
const WAIT_1S: &str = "to healthy: Compose up -d --wait, 1 s";
const SECOND_OURS: &str = "nothing changed: Covibes, whole job";
const SECOND_COMPOSE: &str = "nothing changed: Compose up -d";

const PREPARED: &str = "once a minute more: Covibes, host preparation looked at";

/// Everything measured, in the order of the table.
const ROWS: &[&str] = &[
    FIRST_OURS,
    FIRST_BARE,
    FIRST_COMPOSE,
    AGAIN_OURS,
    AGAIN_BARE,
    AGAIN_COMPOSE,
    ONLY_OURS,
    ONLY_BARE,
    ONLY_COMPOSE,
    HEALTHY_OURS,
    WAIT_OWN,
    WAIT_1S,
    SECOND_OURS,
    SECOND_COMPOSE,
    PREPARED,
];

/// Samples by row.
#[derive(Default)]
struct Table(std::collections::BTreeMap<&'static str, Vec<Duration>>);

impl Table {
    fn add(&mut self, row: &'static str, took: Duration) {
        self.0.entry(row).or_default().push(took);
    }

    fn millis(&self, row: &str) -> Vec<f64> {
        let mut millis: Vec<f64> =
            self.0.get(row).into_iter().flatten().map(|d| d.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        millis
    }

    fn median(&self, row: &str) -> f64 {
        let millis = self.millis(row);
        let middle = millis.len() / 2;
        match millis.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => millis[middle],
            _ => f64::midpoint(millis[middle - 1], millis[middle]),
        }
    }

    fn print(&self) {
        println!("\n| what | median ms | least | most | n |\n|---|---:|---:|---:|---:|");
        for row in ROWS {
            let millis = self.millis(row);
            let (Some(least), Some(most)) = (millis.first(), millis.last()) else { continue };
            let (median, n) = (self.median(row), millis.len());
            println!("| {row} | {median:.1} | {least:.1} | {most:.1} | {n} |");
        }
        println!("\n| ratio of medians | measured | goal | |\n|---|---:|---:|---|");
        for goal in GOALS {
            let ratio = self.median(goal.ours) / self.median(goal.theirs);
            let verdict = if ratio <= goal.ratio_max { "met" } else { "**not met**" };
            println!("| {} | {ratio:.3} | ≤ {} | {verdict} |", goal.what, goal.ratio_max);
        }
    }
}

/// What the command line says.
struct Arguments {
    rounds: usize,
    trace: bool,
    rest_only: bool,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut arguments = Self { rounds: 5, trace: false, rest_only: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo says so.
                "--bench" => {}
                "--trace" => arguments.trace = true,
                "--rest" => arguments.rest_only = true,
                "--rounds" => {
                    let number = words.next().context("--rounds takes a number")?;
                    arguments.rounds = number.parse().context("--rounds takes a number")?;
                }
                other => anyhow::bail!("{other}: only --rounds N, --rest and --trace are known"),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse()?;
    let binary = Path::new(env!("CARGO_BIN_EXE_covibes"));
    let binaries = binary.parent().context("the program has no directory")?;
    let scratch = tempfile::Builder::new().prefix("covibes-bench-").tempdir()?;
    if !arguments.rest_only {
        team(&arguments, binaries, scratch.path()).await?;
    }
    if !arguments.trace {
        rest::measure(binary, scratch.path()).await?;
    }
    Ok(())
}

/// The part with the team.
async fn team(arguments: &Arguments, binaries: &Path, scratch: &Path) -> anyhow::Result<()> {
    let project = project(scratch)?;
    let instance = format!("bench{}", std::process::id() % 100_000);
    let configuration = product::configuration(&instance, binaries)?;
    let result = measured(arguments, &configuration, scratch, &project).await;
    // Whatever happened, nothing of this instance stays.
    let product = Product::wire(&configuration, &project).await?;
    product.destroy().await.context("taking the team away")?;
    drop(product);
    for directory in [&configuration.settings.data_dir, &configuration.settings.state_dir] {
        if let Err(error) = std::fs::remove_dir_all(directory) {
            eprintln!("{}: {error}", directory.display());
        }
    }
    result?.print();
    Ok(())
}

async fn measured(
    arguments: &Arguments,
    configuration: &covibes::app::configuration::Configuration,
    scratch: &Path,
    project: &Path,
) -> anyhow::Result<Table> {
    let socket = &configuration.file.docker.socket;
    eprintln!("warming up, recording what Covibes asks of Docker");
    let calls = record(configuration, scratch, project, arguments.trace).await?;
    if arguments.trace {
        return Ok(Table::default());
    }
    let docker = Docker::connect_with_unix(socket, 120, API_DEFAULT_VERSION)?;
    let bare = Team::from_calls(docker, &calls)?;
    let program = Compose::fetch(&binaries_beside(configuration)?).await?;
    let mut table = Table::default();
    for _ in 0..arguments.rounds {
        // Each knows nothing of what the last one saw.
        let product = Product::wire(configuration, project).await?;
        table.add(PREPARED, product.prepare().await?);
    }
    let mut product = Product::wire(configuration, project).await?;
    for number in 1..=arguments.rounds {
        eprintln!("round {number} of {}", arguments.rounds);
        let result = round(&mut table, &mut product, &bare, &program, scratch).await;
        // Before the verdict: a failed round leaves nothing either.
        bare.wipe(Scope::Everything).await?;
        result?;
        product.destroy().await?;
        product.forget().await?;
    }
    Ok(table)
}

fn binaries_beside(
    configuration: &covibes::app::configuration::Configuration,
) -> anyhow::Result<PathBuf> {
    let directory = configuration.file.images.binaries.clone();
    Ok(directory.context("no directory of binaries")?.join("compose-v2"))
}

/// One turn of everything. Neighbours in the table are neighbours in time.
async fn round(
    table: &mut Table,
    product: &mut Product,
    bare: &Team,
    program: &Path,
    scratch: &Path,
) -> anyhow::Result<()> {
    // Nothing is there.
    let took = product.start().await?;
    table.add(FIRST_OURS, took.step("start"));
    tokio::time::sleep(SETTLED).await;
    for _ in 0..UNCHANGED {
        table.add(SECOND_OURS, product.start().await?.job);
    }
    let text = product.rendered()?;
    let compose = Compose::new(program, scratch.join("compose.yaml"), &text)?;
    let close = with_interval_of_a_second(&text);
    let close = Compose::new(program, scratch.join("compose-1s.yaml"), &close)?;
    bare.wipe(Scope::Everything).await?;
    table.add(FIRST_BARE, timed(bare.up(Scope::Everything)).await?);
    bare.wipe(Scope::Everything).await?;
    table.add(FIRST_COMPOSE, compose.run(&["up", "-d"]).await?);
    tokio::time::sleep(SETTLED).await;
    for _ in 0..UNCHANGED {
        table.add(SECOND_COMPOSE, compose.run(&["up", "-d"]).await?);
    }

    // Networks and volumes are there.
    bare.wipe(Scope::Containers).await?;
    table.add(ONLY_COMPOSE, compose.run(&["up", "-d"]).await?);
    bare.wipe(Scope::Everything).await?;
    bare.up(Scope::Everything).await?;
    bare.wipe(Scope::Containers).await?;
    table.add(ONLY_BARE, timed(bare.up(Scope::Containers)).await?);
    bare.wipe(Scope::Containers).await?;
    table.add(ONLY_OURS, product.start().await?.step("start"));

    // Volumes are there.
    bare.wipe(Scope::Networks).await?;
    table.add(AGAIN_BARE, timed(bare.up(Scope::Networks)).await?);
    bare.wipe(Scope::Networks).await?;
    let took = product.start().await?;
    table.add(AGAIN_OURS, took.step("start"));
    table.add(HEALTHY_OURS, took.healthy);
    bare.wipe(Scope::Everything).await?;
    compose.run(&["create"]).await?;
    bare.wipe(Scope::Networks).await?;
    table.add(AGAIN_COMPOSE, compose.run(&["up", "-d"]).await?);

    bare.wipe(Scope::Networks).await?;
    table.add(WAIT_1S, close.run(&["up", "-d", "--wait"]).await?);
    bare.wipe(Scope::Networks).await?;
    table.add(WAIT_OWN, compose.run(&["up", "-d", "--wait"]).await?);
    Ok(())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    work.await?;
    Ok(started.elapsed())
}

fn with_interval_of_a_second(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start().strip_prefix("interval: ") {
        Some(_) => format!("{}interval: 1s\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// A directory with a page, not root's.
fn project(scratch: &Path) -> anyhow::Result<PathBuf> {
    let project = scratch.join("project");
    std::fs::create_dir(&project)?;
    std::fs::write(project.join("index.html"), "<!doctype html><title>four</title>\n")?;
    for path in [&project, &project.join("index.html")] {
        chown(path, Some(CONTAINER_UID), Some(CONTAINER_UID))?;
    }
    // The service's user must be able to get there.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch, open)?;
    Ok(project)
}

/// Runs the team once through the recorder and gives the first start's calls.
async fn record(
    configuration: &covibes::app::configuration::Configuration,
    scratch: &Path,
    project: &Path,
    trace: bool,
) -> anyhow::Result<Vec<Call>> {
    let daemon = configuration.file.docker.socket.clone();
    let recorder = Recorder::listen(scratch.join("docker.sock"), &daemon)?;
    let mut recorded = configuration.clone();
    recorded.file.docker.socket = recorder.socket.display().to_string();
    let mut product = Product::wire(&recorded, project).await?;
    // The first one prepares the host, images included.
    product.start().await?;
    product.destroy().await?;
    product.forget().await?;
    recorder.take();
    let first = product.start().await?;
    let calls = recorder.take();
    if trace {
        print_trace("first start", &first, &calls);
        for _ in 0..3 {
            let second = product.start().await?;
            print_trace("second start", &second, &recorder.take());
        }
    }
    product.destroy().await?;
    Ok(calls)
}

fn print_trace(what: &str, took: &product::Took, calls: &[Call]) {
    println!("\n{what}: job {:.1} ms", took.job.as_secs_f64() * 1e3);
    for step in ["workspace", "detect", "config", "build", "start", "health"] {
        println!("  {step}: {:.1} ms", took.step(step).as_secs_f64() * 1e3);
    }
    let began = calls.first().map(|call| call.at).unwrap_or_default();
    for call in calls {
        let (at, took) = ((call.at - began).as_secs_f64() * 1e3, call.took.as_secs_f64() * 1e3);
        let path: String = call.path.chars().take(110).collect();
        println!("  {at:8.1} {took:7.1} {} {path}", call.method);
    }
}
