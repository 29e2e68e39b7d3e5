//! What the log tells of a run: every line says whose it is, and a person who reads one
//! run's lines knows what happened, how long it took and what was decided.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use covibes::domain::ids::TeamId;
use covibes::domain::job::{Action, Job};
use covibes::domain::step::StepId;
use covibes::observe::lines::{Form, Lines};
use covibes::pipeline::job_runner::Finished;
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::pipeline::{run, start};
use crate::world::{Fault, World};

/// What is written on this thread while it lives.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

impl Log {
    pub(crate) fn of(level: LevelFilter) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Arc::clone(&text);
        let lines = Lines::new(Form::Json, move || Paper(Arc::clone(&writer)));
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(level));
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines so far, which are whole JSON objects.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text.lock().unwrap().clone();
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Paper(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

/// Holds that every line says which run it is about.
fn check_whose(lines: &[Value], job: &Job) {
    let runs: BTreeSet<_> = lines.iter().map(|line| text(line, "run.id")).collect();
    for line in lines {
        assert_eq!(text(line, "team.id"), job.team.as_str(), "{line}");
        assert_eq!(text(line, "job.id"), job.id.to_string(), "{line}");
        assert_eq!(text(line, "action"), job.action.kind().as_str(), "{line}");
        assert_eq!(line["attempt"], 1, "{line}");
        assert!(!text(line, "run.id").is_empty(), "{line}");
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_tells_its_story_in_about_ten_lines() {
    let world = World::new();
    let (runner, job) = (world.runner().await, start(&["main"]));
    // The host's images are made once, by whoever comes first, which is a story of its own.
    let first = Job { team: TeamId::parse("first").unwrap(), ..start(&["main"]) };
    assert_eq!(run(&runner, &first).await.unwrap(), Finished::Done);
    let log = Log::of(LevelFilter::INFO);
    assert_eq!(run(&runner, &job).await.unwrap(), Finished::Done);
    let lines = log.lines();
    check_whose(&lines, &job);
    let told: Vec<_> = lines.iter().map(|line| text(line, "message")).collect();
    assert!((8..=12).contains(&told.len()), "{told:#?}");
    assert!(told[0].starts_with("job begins"), "{told:#?}");
    assert!(told.last().unwrap().starts_with("job ends: create covibes_"), "{told:#?}");
    let steps: Vec<_> =
        lines.iter().map(|line| text(line, "step")).filter(|s| !s.is_empty()).collect();
    assert_eq!(steps, StepId::ALL.map(StepId::as_str), "{told:#?}");
    for line in lines.iter().filter(|line| !text(line, "step").is_empty()) {
        assert!(text(line, "message").starts_with("step finished: "), "{line}");
        assert!(line["millis"].is_u64(), "{line}");
    }
    assert!(lines.iter().all(|line| line["level"] == "INFO"), "{lines:#?}");
}

/// Every call that the world in memory takes says so, from within it.
#[tokio::test(start_paused = true)]
async fn every_line_of_a_run_says_whose_it_is_and_which_step_and_call() {
    let world = World::new();
    let (runner, mut job) = (world.runner().await, start(&["main"]));
    job.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let log = Log::of(LevelFilter::TRACE);
    assert_eq!(run(&runner, &job).await.unwrap(), Finished::Done);
    let lines = log.lines();
    check_whose(&lines, &job);
    let mut asked = BTreeSet::new();
    for line in &lines {
        assert_eq!(text(line, "trace.id"), "0af7651916cd43dd8448eb211c80319c", "{line}");
        if let Some(call) = text(line, "message").strip_prefix("the world is asked: ") {
            let seen = format!("{} {}", text(line, "docker.call"), text(line, "docker.on"));
            assert_eq!(call, seen, "{line}");
            asked.insert((text(line, "step"), text(line, "docker.call")));
        }
    }
    for expected in [
        ("", "build_image"),
        ("build", "create_network"),
        ("build", "wait_container"),
        ("start", "create_container"),
        ("start", "start_container"),
    ] {
        assert!(asked.contains(&expected), "{expected:?} {asked:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_names_code_hint_and_evidence() {
    let world = World::new();
    let (runner, job) = (world.runner().await, start(&["main"]));
    world.preview_state("failed");
    let log = Log::of(LevelFilter::INFO);
    assert!(matches!(run(&runner, &job).await.unwrap(), Finished::Dead(_)));
    let lines = log.lines();
    check_whose(&lines, &job);
    let end = lines.last().unwrap();
    assert!(text(end, "message").starts_with("job ends: failed: "), "{end}");
    assert_eq!((text(end, "level"), text(end, "step")), ("WARN", "health"), "{end}");
    assert_eq!(text(end, "fault"), "tenant", "{end}");
    for field in ["code", "hint", "evidence"] {
        assert!(!text(end, field).is_empty(), "{field}: {end}");
    }
    assert!(end["millis"].is_u64(), "{end}");
    let evidence = world.file(text(end, "evidence")).expect("the line names a file that is there");
    assert!(evidence.contains(text(end, "code")), "{evidence}");
    let failed = lines.iter().find(|line| text(line, "message").starts_with("step failed"));
    assert_eq!(failed.map(|line| text(line, "code")), Some(text(end, "code")), "{lines:#?}");
    assert!(lines.len() <= 14, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_run_says_why_and_a_stop_is_short() {
    let world = World::new();
    let (runner, job) = (world.runner().await, start(&["main"]));
    assert_eq!(run(&runner, &job).await.unwrap(), Finished::Done);
    let stop = Job { action: Action::Stop, ..start(&[]) };
    world.fail_at(world.calls().len(), Fault::Fails);
    let log = Log::of(LevelFilter::INFO);
    assert_eq!(run(&runner, &stop).await.unwrap(), Finished::Done);
    let lines = log.lines();
    check_whose(&lines, &stop);
    let told: Vec<_> = lines.iter().map(|line| text(line, "message")).collect();
    let repeated = lines.iter().find(|line| text(line, "message").contains("is repeated"));
    assert_eq!(repeated.map(|line| text(line, "code")), Some("docker.unreachable"), "{told:#?}");
    assert!(told.len() <= 5, "{told:#?}");
}
