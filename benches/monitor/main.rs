//! What it costs to watch: CPU and memory of a worker at rest over many containers, how
//! soon a killed container is told, what a reading of the kernel's figures takes.
//!
//! `cargo bench --bench monitor [-- --teams N --seconds N --kills N]`; root, Docker,
//! RabbitMQ. Each team has two agents, a preview and a sync service: fifty teams are two
//! hundred containers and need about 8 GB. `docs/BENCHMARKS.md` explains the table.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends here")]

#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/docker.rs"]
mod docker;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/events.rs"]
mod events;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/net.rs"]
mod net;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/place.rs"]
mod place;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/policy.rs"]
mod policy;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/projects.rs"]
mod projects;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/worker.rs"]
mod worker;

use std::time::{Duration, Instant};

use covibes::adapters::host::LinuxHost;
use covibes::ports::host::Host as _;
use place::Place;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use worker::{Follower, Message, Worker};

/// Of one core.
const CPU_PERCENT_MAX: f64 = 3.0;

const RESIDENT_MIB_MAX: f64 = 60.0;

const TOLD_MILLIS_MAX: f64 = 100.0;

const READING_MILLIS_MAX: f64 = 0.2;

const SCRAPE_MILLIS_MAX: f64 = 20.0;

/// Scrapes of the worker's page.
const SCRAPES: usize = 50;

/// Jobs that are open at once while the teams are brought up.
const AT_ONCE: usize = 8;

/// What Linux counts processes' time in, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Readings of all containers.
const READINGS: u32 = 50;

struct Sizes {
    teams: usize,
    seconds: u64,
    kills: usize,
}

impl Sizes {
    fn parse() -> Self {
        let mut sizes = Self { teams: 50, seconds: 120, kills: 20 };
        // Cargo itself adds `--bench`.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(option) = arguments.next() {
            let number = arguments.next().and_then(|text| text.parse().ok());
            let number: u64 = number.expect("every option takes a number");
            match option.as_str() {
                "--teams" => sizes.teams = usize::try_from(number).unwrap().max(1),
                "--seconds" => sizes.seconds = number.max(1),
                "--kills" => sizes.kills = usize::try_from(number).unwrap().max(1),
                other => panic!("unknown option {other}; there are --teams, --seconds, --kills"),
            }
        }
        sizes
    }
}

#[tokio::main]
async fn main() {
    let sizes = Sizes::parse();
    let mut place = Place::new().await;
    // The host lends more than it has: nothing here does any work.
    place.set("COVIBES_CAPACITY_MEMORY_OVERCOMMIT", "100.0");
    place.set("COVIBES_CAPACITY_CPU_OVERCOMMIT", "1000.0");
    place.set("COVIBES_CAPACITY_TEAMS_MAX", "1000");
    let worker = Worker::ready(&place).await;
    let pid = worker.process.id();
    println!("| what | measured | goal | |\n|---|---:|---:|---|");
    bring_up(&place, sizes.teams).await;

    let cost = cost(pid, Duration::from_secs(sizes.seconds)).await;
    let containers = sizes.teams * 4;
    row(&format!("CPU over {containers} containers, % of a core"), cost.0, CPU_PERCENT_MAX);
    row("resident, MiB", cost.1, RESIDENT_MIB_MAX);
    row("a reading, ms per container", readings(&place).await, READING_MILLIS_MAX);
    row("a scrape over HTTP, p50, ms", scrapes(&worker).await, SCRAPE_MILLIS_MAX);
    let (mut told, mut dockers) = kills(&place, sizes.kills, sizes.teams).await;
    told.sort_by(f64::total_cmp);
    dockers.sort_by(f64::total_cmp);
    row("killed to told, p50, ms", told[told.len() / 2], TOLD_MILLIS_MAX);
    println!("| killed to told, slowest, ms | {:.1} | | |", told[told.len() - 1]);
    println!("| killed to Docker's own word, p50, ms | {:.1} | | |", dockers[dockers.len() / 2]);
    worker.process.terminate();
}

fn row(what: &str, measured: f64, goal: f64) {
    let met = if measured <= goal { "met" } else { "**not met**" };
    println!("| {what} | {measured:.3} | ≤ {goal} | {met} |");
}

fn team(number: usize) -> String {
    format!("watched_{number}")
}

async fn bring_up(place: &Place, teams: usize) {
    let mut events = Follower::new(place).await;
    let project = projects::plain(place, "app");
    for (number, batch) in (0..teams).collect::<Vec<_>>().chunks(AT_ONCE).enumerate() {
        let mut jobs = Vec::new();
        for one in batch {
            let name = team(*one);
            place.workspace(&name, &project);
            let mut job = Message::start(&name, &["main"]);
            job.body["spec"]["agents"] = json!([{"name": "agent-1"}, {"name": "agent-2"}]);
            job.publish(place).await;
            jobs.push(job);
        }
        for job in jobs {
            let seen = events.seen().of_job(&job.id);
            if !seen.of("job.succeeded").is_empty() {
                continue;
            }
            let end = events.end_of(&job.id).await;
            assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
        }
        eprintln!("{} of {teams} teams run", (number * AT_ONCE + batch.len()).min(teams));
    }
}

/// Percent of a core over a while, and MiB resident at its end.
async fn cost(pid: u32, time: Duration) -> (f64, f64) {
    let before = cpu_ticks(pid);
    let began = Instant::now();
    tokio::time::sleep(time).await;
    let spent = (cpu_ticks(pid) - before) as f64 / TICKS_PER_SECOND;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (spent / began.elapsed().as_secs_f64() * 100.0, kib / 1024.0)
}

/// CPU time of a process and of the programs that it waited for.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may hold spaces; what follows it does not.
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<_> = after.split_whitespace().collect();
    fields[11..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Milliseconds that a reading of one container's figures takes.
async fn readings(place: &Place) -> f64 {
    let filter = format!("--filter=label=covibes.instance={}", place.instance);
    let ids = docker::docker(&["ps", "-q", &filter]).await;
    let ids: Vec<_> = ids.lines().collect();
    let arguments = [&["inspect", "--format={{.State.Pid}}"][..], &ids].concat();
    let pids = docker::docker(&arguments).await;
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    let host = LinuxHost::new(Vec::new());
    let began = Instant::now();
    for _ in 0..READINGS {
        let found = host.usage(&pids).await;
        assert!(found.iter().all(Option::is_some), "a container cannot be read");
    }
    began.elapsed().as_secs_f64() * 1000.0 / f64::from(READINGS) / pids.len() as f64
}

/// Milliseconds from the question for the metrics to their last byte.
async fn scrapes(worker: &Worker<'_>) -> f64 {
    let mut took = Vec::new();
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let answer = worker.get("/metrics").await.unwrap();
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        assert!(answer.status == 200 && answer.body.contains("covibes_teams"));
    }
    took.sort_by(f64::total_cmp);
    took[SCRAPES / 2]
}

/// When the daemon itself says that a container died, whichever it is.
async fn deaths() -> tokio::sync::mpsc::UnboundedReceiver<Instant> {
    let mut socket = tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
    // `{"event":["die"]}`
    let ask = "GET /events?filters=%7B%22event%22%3A%5B%22die%22%5D%7D HTTP/1.1\r\nHost: d\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut head = [0; 4096];
    let read = socket.read(&mut head).await.unwrap();
    assert!(head[..read].starts_with(b"HTTP/1.1 200"));
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read) = socket.read(&mut chunk).await
            && read > 0
        {
            let now = Instant::now();
            if String::from_utf8_lossy(&chunk[..read]).contains("\"die\"") {
                let _ = tell.send(now);
            }
        }
    });
    told
}

/// Milliseconds from a kill's request to the event in a dashboard's hands, and to the daemon's
/// own.
async fn kills(place: &Place, kills: usize, teams: usize) -> (Vec<f64>, Vec<f64>) {
    let mut events = Follower::new(place).await;
    let mut deaths = deaths().await;
    let (mut took, mut dockers) = (Vec::new(), Vec::new());
    for number in 0..kills {
        let name = team(number % teams);
        let container = format!("covibes.{}_sync_{name}", place.instance);
        let kill = format!("POST /containers/{container}/kill HTTP/1.1\r\nHost: d\r\n\r\n");
        let mut socket = tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
        let began = Instant::now();
        socket.write_all(kill.as_bytes()).await.unwrap();
        let told = events.until("the death is told", |event| {
            event["type"] == "covibes.container.exited" && event["subject"] == name.as_str()
        });
        told.await;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        let died = deaths.recv().await.unwrap();
        dockers.push(died.saturating_duration_since(began).as_secs_f64() * 1000.0);
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"204"), "{}", String::from_utf8_lossy(&answer));
        // The next one finds a team that is whole.
        let again = events.until("it runs again", |event| {
            event["type"] == "covibes.container.restarted" && event["subject"] == name.as_str()
        });
        again.await;
    }
    (took, dockers)
}
