//! What a preview costs over its dev server alone: the time until the first page, the way of an
//! edit into a page that is open, a second start, memory.
//!
//! `cargo bench --bench previews [-- --rounds N]`; root, Docker, RabbitMQ, chromium. The same dev
//! server runs under Covibes and in a plain container with the same mounts and limits, in one run.
//! `docs/PREVIEWS.md` explains the table.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends here")]

#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/browser.rs"]
mod browser;
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
mod plain;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/policy.rs"]
mod policy;
#[expect(dead_code, reason = "the live tests' own, of which this needs a part")]
#[path = "../../tests/live/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use browser::{Browser, Page};
use events::Events;
use place::Place;
use plain::Plain;
use url::Url;
use worker::{Follower, Message, Worker};

/// Starts of the Vite preview on either side.
const STARTS: usize = 5;

/// Dev servers let changes of one file go that follow each other within about 50 ms, and a limit
/// on processor time is one over 100 ms.
const BETWEEN_EDITS: Duration = Duration::from_millis(400);

/// The supervisor beside the dev server.
const MEMORY_MAX_MIB: f64 = 3.0;

#[tokio::main]
async fn main() {
    // Cargo itself adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let edits = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 20,
        (Some("--rounds"), Some(number)) => number.parse().expect("--rounds takes a number"),
        (Some(other), _) => panic!("unknown option {other}; the only one is --rounds N"),
    };
    let place = Place::new().await;
    let bench = Bench { place: &place, worker: Worker::ready(&place).await };
    println!("| what | Covibes | beside it | ratio | goal | |\n|---|---:|---:|---:|---:|---|");
    let memory = bench.starts(first_of_all().await).await;
    bench.edits("vite-react", "src/App.jsx", "Covibes Vite React example", edits).await;
    bench.edits("nextjs", "app/page.jsx", "Covibes Next.js example", edits).await;
    let met = if memory <= MEMORY_MAX_MIB { "met" } else { "**not met**" };
    println!("| memory added per preview, MiB | {memory:.1} | | | ≤ {MEMORY_MAX_MIB} | {met} |");
    bench.worker.process.terminate();
}

struct Bench<'a> {
    place: &'a Place,
    worker: Worker<'a>,
}

/// A start that ended, as a person waits for it.
struct Started {
    took: Duration,
    links: Vec<(String, Url)>,
    build: String,
    build_took: Duration,
}

/// The first start on a host that has no image yet: images are named by what is in them, so the
/// host is new to a bundle of certificates that nobody has.
async fn first_of_all() -> Duration {
    let mut place = Place::unprepared();
    let bundle = place.dir.join("bundle.crt");
    let known = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    std::fs::write(&bundle, format!("# {}\n{known}", place.instance)).unwrap();
    place.set("COVIBES_IMAGES_CA_BUNDLE", bundle.display().to_string());
    let before = images().await;
    let bench = Bench { place: &place, worker: Worker::ready(&place).await };
    bench.workspace("first", "vite-react");
    let took = bench.start("first", &["main"]).await.took;
    bench.end("first", "destroy").await;
    bench.worker.process.terminate();
    for image in images().await.difference(&before) {
        docker::docker(&["rmi", image]).await;
    }
    took
}

async fn images() -> BTreeSet<String> {
    let listed =
        docker::docker(&["images", "--format={{.Repository}}:{{.Tag}}", "covibes/*"]).await;
    listed.lines().map(str::to_owned).collect()
}

impl Bench<'_> {
    async fn start(&self, team: &str, previews: &[&str]) -> Started {
        let mut events = Follower::new(self.place).await;
        let job = Message::start(team, previews);
        let began = Instant::now();
        job.publish(self.place).await;
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
        let took = began.elapsed();
        let told = events.seen().of_job(&job.id);
        let links = previews.iter().map(|name| ((*name).to_owned(), told.link(name)));
        Started {
            took,
            links: links.collect(),
            build: told.step_message("build"),
            build_took: step_took(&told, "build"),
        }
    }

    async fn end(&self, team: &str, action: &str) {
        let mut events = Follower::new(self.place).await;
        let job = Message::new(team, action);
        job.publish(self.place).await;
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    }

    /// A workspace with an example in it, as the worker finds one.
    fn workspace(&self, team: &str, example: &str) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
        let workspace = self.place.workspace(team, &from);
        let mut own = std::process::Command::new("chown");
        let own = own.args(["-R", "1000:1000"]).arg(&workspace).status();
        assert!(own.expect("chown runs").success());
        workspace
    }

    async fn container(&self, team: &str, preview: &str) -> String {
        let all = docker::ids(&self.place.instance, team).await;
        let end = format!("_preview_{team}_{preview}");
        all.into_keys().find(|name| name.ends_with(&end)).expect("the preview runs")
    }

    /// Second starts, and a preview that is added to a team; returns the memory of the supervisor.
    async fn starts(&self, first_of_all: Duration) -> f64 {
        self.workspace("starts", "vite-react");
        let first = self.start("starts", &["main"]).await;
        self.end("starts", "stop").await;
        let second = self.start("starts", &["main"]).await;
        assert!(second.build.contains("unchanged"), "{}", second.build);
        let what = "restart with nothing changed / first start, images built";
        row(what, second.took, first_of_all, 0.2, 0.0);
        // Without a goal: that the dev server itself takes longer than a fifth of it is possible.
        let (ours, theirs) = (second.took.as_secs_f64(), first.took.as_secs_f64());
        println!(
            "| restart with nothing changed / first start, modules installed | {:.0} ms | {:.0} ms | {:.2} | | |",
            ours * 1000.0,
            theirs * 1000.0,
            ours / theirs
        );

        let both = ["main", "two"];
        let started = self.start("starts", &both).await;
        let what = "modules of a second preview, equal lockfile / installed: build step";
        row(what, started.build_took, first.build_took, 0.25, 0.0);
        let container = self.container("starts", "two").await;
        let memory = plain::supervisor_mebibytes(&container).await;
        let plain = Plain::like(&container).await;
        let (_, link) = started.links.into_iter().find(|(name, _)| name == "two").expect("two");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            self.start("starts", &["main"]).await;
            ours.push(self.added("starts", &both, &link).await);
            self.start("starts", &["main"]).await;
            let began = Instant::now();
            plain.start(None).await;
            until_served(&link).await;
            theirs.push(began.elapsed());
            plain.remove().await;
        }
        let what = "Vite preview added to a running team: job to first 200 / docker run";
        row(what, median(ours), median(theirs), 1.15, 0.0);
        self.end("starts", "destroy").await;
        memory
    }

    /// From the job to the first page of the preview that it adds.
    async fn added(&self, team: &str, previews: &[&str], link: &Url) -> Duration {
        let mut events = Follower::new(self.place).await;
        let job = Message::start(team, previews);
        let began = Instant::now();
        job.publish(self.place).await;
        until_served(link).await;
        let took = began.elapsed();
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
        let build = events.seen().of_job(&job.id).step_message("build");
        assert!(build.contains("unchanged"), "{build}");
        took
    }

    /// The way of edits into an open page.
    async fn edits(&self, example: &str, file: &str, text: &str, rounds: usize) {
        let team = &format!("edits-{example}");
        let workspace = self.workspace(team, example);
        let started = self.start(team, &["main"]).await;
        let link = &started.links[0].1;
        let file = workspace.join(file);
        let ours = watch(link, &file, text, rounds).await;
        let plain = Plain::like(&self.container(team, "main").await).await;
        self.end(team, "stop").await;
        // A team that is stopped has no networks.
        plain.start(Some("bridge")).await;
        until_served(link).await;
        let theirs = watch(link, &file, text, rounds).await;
        plain.remove().await;
        self.end(team, "destroy").await;
        let what = format!("{example}: edit to DOM change, p50 of {rounds} / plain container");
        row(&what, median(ours), median(theirs), 1.1, 0.020);
    }
}

/// How long a finished step took.
fn step_took(told: &Events, step: &str) -> Duration {
    let finished = told.of("step.finished");
    let found = finished.iter().find(|event| event["data"]["step"] == step).expect(step);
    Duration::from_millis(found["data"]["duration_ms"].as_u64().expect("a step has a duration"))
}

/// Waits for the first page; asks often, or the question would be part of the answer.
async fn until_served(link: &Url) {
    let look = async {
        loop {
            if net::visit(link, "/").await.is_some_and(|answer| answer.status == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(place::STATE_MAX, look).await.expect("the page is served");
}

/// Edits a file again and again, and measures from each save to the text in the page.
async fn watch(link: &Url, file: &Path, text: &str, rounds: usize) -> Vec<Duration> {
    let original = std::fs::read_to_string(file).expect("the file is there");
    let browser = Browser::start(&[]);
    let page = browser.page().await;
    page.open(link.as_str()).await;
    page.until_shows(text).await;
    page.until_connected().await;
    let mut times = Vec::new();
    // The first edits warm the server up.
    for round in 0..rounds + 3 {
        let wanted = format!("Edit number {round}.");
        let edited = original.replace(text, &wanted);
        let saved = async {
            let saved = Instant::now();
            std::fs::write(file, edited).expect("the file can be written");
            saved
        };
        let (_, saved) = tokio::join!(changed(&page, &wanted), saved);
        if round >= 3 {
            times.push(saved.elapsed());
        }
        tokio::time::sleep(BETWEEN_EDITS).await;
    }
    browser.end().await;
    std::fs::write(file, original).expect("the file can be written");
    times
}

/// Resolves in the moment in which the page holds a text.
async fn changed(page: &Page, text: &str) {
    let script = format!(
        "new Promise((done) => {{\
           const look = () => document.body.textContent.includes({text:?}) && done(true);\
           new MutationObserver(look).observe(document, \
             {{subtree: true, childList: true, characterData: true}});\
           look();\
         }})"
    );
    page.value(&script).await;
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn row(what: &str, ours: Duration, theirs: Duration, ratio_max: f64, slack_seconds: f64) {
    let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
    let met = if ours <= theirs * ratio_max + slack_seconds { "met" } else { "**not met**" };
    let slack = if slack_seconds > 0.0 { " + 20 ms" } else { "" };
    let (ms, other, ratio) = (ours * 1000.0, theirs * 1000.0, ours / theirs);
    println!("| {what} | {ms:.0} ms | {other:.0} ms | {ratio:.2} | ≤ {ratio_max}{slack} | {met} |");
}
