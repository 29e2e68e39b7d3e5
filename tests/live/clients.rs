//! The clients of examples/clients as the outside world of a real worker: what
//! they publish is done, in order, and what they show is what was told.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::place::{COMMAND_MAX, Place, Process, STATE_MAX, broker_address, free_port, until};
use crate::projects;
use crate::relay::TcpRelay;
use crate::worker::{Message, Worker};

#[derive(Clone, Copy)]
enum Language {
    Rust,
    Python,
}

impl Language {
    fn start(self, place: &Place, client: &str, arguments: &[&str]) -> Process {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Rust => {
                let mut build = vec!["build", "--quiet", "--example", client];
                // As this was built, or everything is built once more.
                if cfg!(feature = "otlp") {
                    build.push("--all-features");
                }
                let built = Command::new(env!("CARGO")).args(build).status().unwrap();
                assert!(built.success(), "the example {client} does not build");
                let binary = PathBuf::from(env!("CARGO_BIN_EXE_covibes"));
                place.start_program(&binary.with_file_name("examples").join(client), arguments)
            }
            Self::Python => {
                let python = root.join("target/clients-python/bin/python");
                assert!(python.exists(), "no pika here: run ops/setup.sh --tests");
                let script = root.join("examples/clients").join(client).with_extension("py");
                let script = script.to_str().unwrap();
                place.start_program(&python, &[&[script][..], arguments].concat())
            }
        }
    }
}

/// A line of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    sequence: String,
    team: String,
    kind: String,
    job: String,
    origin: String,
}

fn shown(subscriber: &Process) -> Vec<Shown> {
    let text = subscriber.stdout();
    // The last line may still be on its way.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let parse = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().expect(line);
        let (sequence, team, kind) = (word(), word(), word());
        Shown { sequence, team, kind, job: word(), origin: word() }
    };
    whole.lines().map(parse).collect()
}

fn of_team(shown: &[Shown], team: &str) -> Vec<Shown> {
    shown.iter().filter(|event| event.team == team).cloned().collect()
}

fn is_end_of(event: &Shown, job: &str) -> bool {
    let ends = ["job.succeeded", "job.cancelled", "job.superseded"];
    event.job == job && ends.iter().any(|end| event.kind.ends_with(end))
}

/// Starts a subscriber and waits until it hears something.
async fn listening(language: Language, place: &Place, arguments: &[&str]) -> Process {
    let subscriber = language.start(place, "subscriber", arguments);
    until("the subscriber hears", STATE_MAX, async || {
        assert!(subscriber.is_running(), "it ended: {}", subscriber.stderr());
        Message::new("nobody", "status").publish(place).await;
        (!shown(&subscriber).is_empty()).then_some(())
    })
    .await;
    subscriber
}

/// Runs a publisher to its end; gives the ids of its jobs.
async fn published(publisher: Process) -> Vec<String> {
    let ended = publisher.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(str::to_owned).collect()
}

async fn until_shown(subscriber: &Process, jobs: &[String]) -> Vec<Shown> {
    until("every job has its end", COMMAND_MAX, async || {
        let shown = shown(subscriber);
        let failed = shown.iter().find(|event| event.kind == "covibes.job.failed");
        assert_eq!(failed, None, "{}", subscriber.stderr());
        let has_ended = |job: &String| shown.iter().any(|event| is_end_of(event, job));
        jobs.iter().all(has_ended).then_some(shown)
    })
    .await
}

async fn check(language: Language) {
    let mut place = Place::new().await;
    let without_worker = language.start(&place, "publisher", &["stop:blue"]).end().await;
    assert_eq!(without_worker.code, Some(1), "{}", without_worker.stderr);

    let _worker = Worker::ready(&place).await;
    let wall = listening(language, &place, &["wall"]).await;
    jobs_are_done_in_order(language, &place, &wall).await;
    a_gap_is_filled_from_the_log(language, &mut place, &wall).await;
    a_cut_connection_loses_nothing(language, &mut place, &wall).await;
    remove_dashboards(&place, &["wall", "small"]).await;
}

async fn jobs_are_done_in_order(language: Language, place: &Place, wall: &Process) {
    place.workspace("blue", &projects::plain(place, "app"));
    let spec = place.dir.join("spec.json");
    std::fs::write(&spec, r#"{"workspace":{"local":true},"agents":[],"previews":[]}"#).unwrap();
    // Only a team that has a host has numbered events.
    let starts = ["blue", "green"].map(|team| format!("start:{team}={}", spec.display()));
    // A stop right behind a start would cancel it.
    let starts = [starts[0].as_str(), &starts[1]];
    let mut jobs = published(language.start(place, "publisher", &starts)).await;
    until_shown(wall, &jobs).await;
    let stops = ["stop:blue", "stop:green", "stop:blue"];
    jobs.extend(published(language.start(place, "publisher", &stops)).await);
    assert_eq!(jobs.len(), 5);
    let shown = until_shown(wall, &jobs).await;
    let blue = of_team(&shown, "blue");
    let position = |job: &String| blue.iter().position(|event| is_end_of(event, job)).unwrap();
    assert!([&jobs[0], &jobs[2], &jobs[4]].is_sorted_by_key(|job| position(job)), "{blue:?}");
    assert!(blue.is_sorted_by(|one, two| one.sequence < two.sequence), "{blue:?}");
    for kind in ["covibes.team.running", "covibes.team.stopped"] {
        assert!(blue.iter().any(|event| event.kind == kind), "{kind}: {blue:?}");
    }
    assert!(shown.iter().all(|event| event.origin == "live"), "{shown:?}");
}

async fn a_gap_is_filled_from_the_log(language: Language, place: &mut Place, wall: &Process) {
    place.set("DASHBOARD_LENGTH", "3");
    let small = language.start(place, "subscriber", &["small", "green"]);
    // It asks for a snapshot by itself.
    until("the snapshot is shown", STATE_MAX, async || {
        let snapshot = |event: &Shown| event.kind == "covibes.team.snapshot";
        shown(&small).iter().any(snapshot).then_some(())
    })
    .await;
    let first = shown(&small)[0].sequence.clone();
    small.signal(Signal::STOP);
    let jobs = published(language.start(place, "publisher", &["stop:green"; 12])).await;
    let told = until_shown(wall, &jobs).await;
    small.signal(Signal::CONT);
    let seen = until_shown(&small, &jobs[11..]).await;
    // A snapshot may be told after the last job.
    let end = of_team(&told, "green").last().unwrap().sequence.clone();
    let sequences = |shown: &[Shown]| -> Vec<String> {
        let of = of_team(shown, "green").into_iter().map(|event| event.sequence);
        of.filter(|sequence| (&first..=&end).contains(&sequence)).collect()
    };
    assert_eq!(sequences(&seen), sequences(&told));
    assert!(seen.iter().any(|event| event.origin == "log"), "nothing was missing: {seen:?}");
}

async fn a_cut_connection_loses_nothing(language: Language, place: &mut Place, wall: &Process) {
    let url = url::Url::parse(&broker_address()).unwrap();
    let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    let mut through = url.clone();
    let port = free_port();
    through.set_host(Some("127.0.0.1")).unwrap();
    through.set_port(Some(port)).unwrap();
    let relay = TcpRelay::start(port, target.clone()).await;
    place.set("COVIBES_AMQP_URL", through.as_str());
    // More than 16 of one team would be refused.
    let stops: Vec<String> = (0..60).map(|n| format!("stop:red-{}", n % 10)).collect();
    let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
    let publisher = language.start(place, "publisher", &stops);
    until("some jobs are published", STATE_MAX, async || {
        (publisher.stdout().lines().count() > 5).then_some(())
    })
    .await;
    drop(relay);
    until("the publisher sees it", STATE_MAX, async || {
        (!publisher.stderr().is_empty()).then_some(())
    })
    .await;
    let _relay = TcpRelay::start(port, target).await;
    let jobs = published(publisher).await;
    place.set("COVIBES_AMQP_URL", broker_address());
    assert_eq!(jobs.len(), 60);
    let shown = until_shown(wall, &jobs).await;
    // Once at least: a job whose confirm was cut off was published again, and the
    // dispatcher, which keeps no records, answers for teams without a host again
    // what it answered, under the same id.
    for job in &jobs {
        assert!(shown.iter().any(|event| is_end_of(event, job)), "{job}");
    }
}

async fn remove_dashboards(place: &Place, names: &[&str]) {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&broker_address(), properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for name in names {
        let queue = format!("{}.dashboard.{name}", place.instance);
        channel.queue_delete(queue.into(), Default::default()).await.unwrap();
    }
}

#[tokio::test]
async fn the_clients_in_rust_are_heard_and_hear_everything() {
    check(Language::Rust).await;
}

#[tokio::test]
async fn the_clients_in_python_are_heard_and_hear_everything() {
    check(Language::Python).await;
}
