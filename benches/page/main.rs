//! What a person waits for who opens the operator page with hundreds of teams: the first
//! paint beside the same page as a plain file, how long an update keeps the page busy,
//! and what a thousand listeners cost who never read.
//!
//! `cargo bench --bench page [-- --teams N --loads N --updates N --listeners N]`; root,
//! RabbitMQ, chromium, and Docker for one container whose figures stand for all. The
//! worker is the real one; its daemon is the one of the chaos tests, because two hundred
//! teams are six hundred containers. `docs/BENCHMARKS.md` explains the table.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends here")]

#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/browser.rs"]
mod browser;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/docker.rs"]
mod docker;
#[expect(dead_code, unused_imports, reason = "the chaos tests' own, of which this needs a part")]
#[path = "../../tests/chaos"]
mod chaos {
    pub(crate) mod engine;
}
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
#[path = "../../tests/live/worker.rs"]
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use browser::{Browser, Page};
use chaos::engine::{FakeEngine, Health};
use covibes::domain::limits::PREVIEW_STATE_PORT;
use place::{Place, until};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use worker::{Follower, Message, Worker};

const TOKEN: &str = "the-measurements-own-token";

const PAINT_MILLIS_MAX: f64 = 300.0;

const UPDATE_MILLIS_MAX: f64 = 16.0;

/// For all that never read together, besides what is kept for those who come back.
const LISTENERS_MIB_MAX: f64 = 64.0;

/// Jobs that are open at once while the teams are brought up.
const AT_ONCE: usize = 8;

/// Events that the listeners do not read: more than are kept for anybody.
const UNREAD: usize = 1500;

/// How long the browser, the worker and a busy machine may take for anything.
const ANY_MAX: Duration = Duration::from_secs(120);

struct Sizes {
    teams: usize,
    loads: usize,
    updates: usize,
    listeners: usize,
}

impl Sizes {
    fn parse() -> Self {
        let mut sizes = Self { teams: 200, loads: 15, updates: 40, listeners: 1000 };
        // Cargo itself adds `--bench`.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(option) = arguments.next() {
            let number = arguments.next().and_then(|text| text.parse().ok());
            let number: usize = number.expect("every option takes a number");
            match option.as_str() {
                "--teams" => sizes.teams = number.max(1),
                "--loads" => sizes.loads = number.max(1),
                "--updates" => sizes.updates = number.max(1),
                "--listeners" => sizes.listeners = number,
                other => panic!("unknown option {other}; see the head of this file"),
            }
        }
        sizes
    }
}

#[tokio::main]
async fn main() {
    let sizes = Sizes::parse();
    let limit = rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let mut place = Place::unprepared();
    place.set("COVIBES_CAPACITY_MEMORY_OVERCOMMIT", "1000.0");
    place.set("COVIBES_CAPACITY_CPU_OVERCOMMIT", "10000.0");
    place.set("COVIBES_CAPACITY_TEAMS_MAX", "100000");
    std::fs::write(place.dir.join("token"), TOKEN).unwrap();
    let token = place.dir.join("token").display().to_string();
    place.set("COVIBES_HTTP_TOKEN_FILE", token);
    let socket = place.dir.join("docker.sock");
    place.set("COVIBES_DOCKER_SOCKET", socket.display().to_string());
    let health = Health::default();
    let _answering = health.serve().await;
    // What a preview's supervisor says: its page is where every service answers.
    let running = r#"{"state":"running","port":8080}"#.to_owned();
    let (_, _supervising) = serve((Ipv4Addr::UNSPECIFIED, PREVIEW_STATE_PORT), running).await;
    let daemon = FakeEngine::new(60, &health);
    daemon.state().pid = one_container(&place).await;
    daemon.listen(&socket);
    let worker = Worker::ready(&place).await;
    bring_up(&place, sizes.teams).await;

    println!("| what | measured | goal | |\n|---|---:|---:|---|");
    let browser = Browser::start(&[]);
    let page = browser.page().await;
    page.look(1280, 900, false).await;
    let (own, file) = paints(&page, &place, sizes.loads).await;
    row(&format!("first paint, {} teams, p50, ms", sizes.teams), middle(&own), PAINT_MILLIS_MAX);
    println!("| the same page as a file, p50, ms | {:.1} | | |", middle(&file));
    println!("| ratio | {:.2} | | |", middle(&own) / middle(&file));
    let updates = updates(&page, &place, sizes.updates, sizes.teams).await;
    row("an update: script, style and layout, p50, ms", middle(&updates), UPDATE_MILLIS_MAX);
    row("an update, 95th of a hundred, ms", share(&updates, 0.95), UPDATE_MILLIS_MAX);
    println!("| an update, slowest of {}, ms | {:.1} | | |", updates.len(), share(&updates, 1.0));
    if sizes.listeners > 0 {
        let (grown, missed) = listeners(&place, &worker, sizes.listeners).await;
        let what = format!("{} listeners who never read, MiB", sizes.listeners);
        row(&what, grown, LISTENERS_MIB_MAX);
        row("events that one who reads missed meanwhile", missed, 0.0);
    }
    browser.end().await;
    worker.process.kill();
    docker::remove_instance(&place.instance);
}

fn row(what: &str, measured: f64, goal: f64) {
    let met = if measured <= goal { "met" } else { "**not met**" };
    println!("| {what} | {measured:.1} | ≤ {goal} | {met} |");
}

fn middle(measured: &[f64]) -> f64 {
    share(measured, 0.5)
}

fn share(measured: &[f64], share: f64) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1]
}

/// The process of a real container, so that rows have figures and bars.
async fn one_container(place: &Place) -> u32 {
    let images = docker::docker(&["image", "ls", "-q", "--filter=label=covibes.instance=host"]);
    let images = images.await;
    let Some(image) = images.lines().next() else { return 0 };
    let label = format!("--label=covibes.instance={}", place.instance);
    let run = ["run", "-d", "--rm", &label, "--memory=256m", "--cpus=0.5", "--network=none"];
    let run = [&run[..], &["--entrypoint=sleep", image, "3600"]].concat();
    let id = docker::docker(&run).await;
    let pid = docker::docker(&["inspect", "--format={{.State.Pid}}", id.trim()]).await;
    pid.trim().parse().unwrap()
}

fn team(number: usize) -> String {
    format!("shown_{number:03}")
}

async fn bring_up(place: &Place, teams: usize) {
    let mut events = Follower::new(place).await;
    let project = place.directory("app");
    std::fs::write(project.join("index.html"), "<h1>served</h1>").unwrap();
    let explicit = "preview:\n  command: serve\n  port: 8080\n";
    std::fs::write(project.join(".covibes.yml"), explicit).unwrap();
    for batch in (0..teams).collect::<Vec<_>>().chunks(AT_ONCE) {
        let mut jobs = Vec::new();
        for one in batch {
            let name = team(*one);
            place.workspace(&name, &project);
            let mut job = Message::start(&name, &["main", "staging"]);
            job.body["spec"]["agents"] = serde_json::json!([{"name": "agent-1"}]);
            job.publish(place).await;
            jobs.push(job);
        }
        for job in jobs {
            if events.seen().of_job(&job.id).of("job.succeeded").is_empty() {
                let end = events.end_of(&job.id).await;
                assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
            }
        }
        eprintln!("{} of {teams} teams run", batch.last().unwrap() + 1);
    }
}

fn address(place: &Place) -> String {
    format!("http://tester:{TOKEN}@{}/teams", place.http())
}

/// Milliseconds to the first paint of the worker's page, and of the same as a file.
async fn paints(page: &Page, place: &Place, loads: usize) -> (Vec<f64>, Vec<f64>) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
    let text = net::send(place.http(), "GET", "/teams", &headers, "", |_| false).await.body;
    eprintln!("the page is {} KiB", text.len() / 1024);
    let (file, _serving) = serve((Ipv4Addr::LOCALHOST, 0), text).await;
    let (mut own, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..loads {
        own.push(paint(page, &address(place)).await);
        plain.push(paint(page, &format!("http://{file}/")).await);
    }
    (own, plain)
}

async fn paint(page: &Page, url: &str) -> f64 {
    page.open("about:blank").await;
    page.open(url).await;
    until("the page is painted", ANY_MAX, async || {
        let painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0";
        let at = page.value(painted).await.as_f64()?;
        (at > 0.0).then_some(at)
    })
    .await
}

/// A server that has nothing to do but send these bytes.
async fn serve(address: (Ipv4Addr, u16), text: String) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let answer: std::sync::Arc<[u8]> = [head.as_bytes(), text.as_bytes()].concat().into();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = std::sync::Arc::clone(&answer);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    (address, AbortOnDropHandle::new(serving))
}

/// Counts to the end of style and layout what the page itself counts as one update.
const COUNT: &str = "window.updates = []; (() => { \
    const measure = performance.measure.bind(performance); \
    performance.measure = (name, options) => { document.body.offsetHeight; \
    window.updates.push(performance.now() - options.start); return measure(name, options); }; \
    })(); 0";

/// Milliseconds of each update while one team after the other stops and starts.
async fn updates(page: &Page, place: &Place, wanted: usize, teams: usize) -> Vec<f64> {
    page.open(&address(place)).await;
    page.until_shows("live").await;
    page.value(COUNT).await;
    let mut one = 0;
    loop {
        let name = team(one % teams);
        let action = if (one / teams).is_multiple_of(2) { "stop" } else { "status" };
        Message::new(&name, action).publish(place).await;
        one += 1;
        let before = page.value("updates.length").await.as_u64().unwrap();
        until("the page was brought up to date", ANY_MAX, async || {
            (page.value("updates.length").await.as_u64()? > before).then_some(())
        })
        .await;
        let all = page.value("updates").await;
        let all: Vec<f64> = all.as_array().unwrap().iter().filter_map(|ms| ms.as_f64()).collect();
        // The first finds everything new.
        if all.len() > wanted {
            return all[1..].to_vec();
        }
    }
}

/// MiB by which the worker grew, and events that one who reads did not get.
async fn listeners(place: &Place, worker: &Worker<'_>, count: usize) -> (f64, f64) {
    let head =
        format!("GET /events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let connect = async || {
        let mut stream = TcpStream::connect(place.http()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let mut reader = tokio::io::BufReader::new(connect().await).lines();
    let before = worker.memory();
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(connect().await);
    }
    // It reads from its connection on; who is first asked is first served.
    while !reader.next_line().await.unwrap().unwrap().contains("hello") {}
    let reading = tokio::spawn(async move {
        let (mut got, mut gaps) = (0, 0);
        while got < UNREAD {
            let next = tokio::time::timeout(ANY_MAX, reader.next_line()).await;
            let Ok(Ok(Some(line))) = next else { break };
            got += usize::from(line.starts_with("data: ") && line.contains("\"nobody\""));
            gaps += usize::from(line == "event: gap");
        }
        UNREAD - got + gaps
    });
    let client = place.client();
    for _ in 0..UNREAD {
        let asked = Message::new("nobody", "status");
        let body = asked.body.to_string();
        client.publish_job(body.as_bytes(), &asked.key, &asked.id, &[]).await.unwrap();
    }
    let missed = reading.await.unwrap();
    let grown = worker.memory().saturating_sub(before) as f64 / f64::from(1 << 20);
    drop(silent);
    (grown, missed as f64)
}
