//! What a collector gets of a run: a trace that goes on from its producer's, a span for
//! each step and call to Docker. And that a collector which is gone, silent or unwilling
//! costs spans only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use covibes::domain::job::Job;
use covibes::domain::step::StepId;
use covibes::observe::otlp::{self, Exporter};
use covibes::observe::spans::TRACED;
use covibes::pipeline::job_runner::{Finished, JobRunner as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::pipeline::{run, start};
use crate::world::World;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Nothing takes as long; whatever does, hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What the collector does with what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses,
    /// Answers once it is in another mood.
    Silent,
}

/// A collector in memory, behind a real socket.
#[derive(Clone)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// Requests so far, answered or not.
    asked: Arc<watch::Sender<usize>>,
    mood: Arc<watch::Sender<Mood>>,
}

async fn take(State(collector): State<Collector>, body: Bytes) -> (StatusCode, Vec<u8>) {
    let sent = ExportTraceServiceRequest::decode(body).unwrap();
    collector.asked.send_modify(|asked| *asked += 1);
    let mut mood = collector.mood.subscribe();
    let mood = *mood.wait_for(|mood| *mood != Mood::Silent).await.unwrap();
    if mood == Mood::Refuses {
        return (StatusCode::INTERNAL_SERVER_ERROR, Vec::new());
    }
    let resources = sent.resource_spans.into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    collector.spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
    (StatusCode::OK, Vec::new())
}

impl Collector {
    fn new(mood: Mood) -> Self {
        let (asked, mood) = (watch::Sender::new(0), watch::Sender::new(mood));
        Self { spans: Arc::default(), asked: Arc::new(asked), mood: Arc::new(mood) }
    }

    fn listen(&self, io: &Runtime) -> SocketAddr {
        let listener = io.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let take = axum::routing::post(take);
        let router = axum::Router::new().route("/v1/traces", take).with_state(self.clone());
        io.spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

/// A thread whose spans go to a collector. What is sent is sent in real time; what is
/// done may be done under another clock.
struct Traced {
    io: Runtime,
    exporter: Option<Exporter>,
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Traced {
    fn to(io: Runtime, address: SocketAddr) -> Self {
        let endpoint = format!("http://{address}/v1/traces").parse().unwrap();
        let (exporter, layer) = {
            let _io = io.enter();
            otlp::open(&endpoint, "host-1").unwrap()
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        let subscriber = tracing::subscriber::set_default(subscriber);
        Self { io, exporter: Some(exporter), _subscriber: subscriber }
    }

    /// Sends what is left, within a bounded time.
    fn end(mut self) {
        let exporter = self.exporter.take().unwrap();
        let end = async { tokio::time::timeout(HANGS, exporter.end()).await };
        self.io.block_on(end).expect("the end waits for nobody for long");
        // What hangs is let go, as by the end of the process.
        self.io.shutdown_background();
    }
}

fn io() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Does this on this thread, under paused time.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(work)
}

fn produced(flags: &str, attempt: u32) -> Job {
    Job {
        traceparent: Some(format!("00-{TRACE}-{PARENT}-{flags}")),
        tracestate: Some("vendor=1".to_owned()),
        attempt,
        ..start(&["main"])
    }
}

/// The spans of these jobs, run one after the other in a new world.
fn spans_of(jobs: &[Job]) -> Vec<Span> {
    spans_in(&World::new(), jobs)
}

fn spans_in(world: &World, jobs: &[Job]) -> Vec<Span> {
    let (collector, io) = (Collector::new(Mood::Takes), io());
    let address = collector.listen(&io);
    let traced = Traced::to(io, address);
    block_on(async {
        let runner = world.runner().await;
        for job in jobs {
            run(&runner, job).await.unwrap();
        }
        // What no run does is no part of a trace.
        runner.snapshot(None).await.unwrap();
    });
    traced.end();
    collector.spans()
}

fn text(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans of runs.
fn runs(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| text(span, "run.id").is_some()).collect()
}

#[test]
fn a_run_is_a_part_of_its_producers_trace_with_its_steps_and_calls() {
    let job = produced("01", 1);
    let spans = spans_of(std::slice::from_ref(&job));
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span)).collect();
    let [run] = runs(&spans)[..] else { panic!("{spans:#?}") };
    assert_eq!((hex(&run.trace_id).as_str(), hex(&run.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!((run.name.as_str(), run.kind()), ("start", SpanKind::Consumer));
    assert_eq!(run.trace_state, "vendor=1");
    assert_eq!(text(run, "team.id").as_deref(), Some(job.team.as_str()));
    assert_eq!(text(run, "job.id"), Some(job.id.to_string()));
    assert_eq!(text(run, "outcome").as_deref(), Some("succeeded"));
    assert_eq!(run.status.as_ref().map_or(0, |status| status.code), SpanStatus::Unset as i32);

    let mut steps = Vec::new();
    let mut calls = BTreeSet::new();
    for span in spans.iter().filter(|span| span.span_id != run.span_id) {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:#?}");
        let parent = by_id.get(&span.parent_span_id).expect("a parent of its own trace");
        assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{span:#?}");
        assert!(parent.end_time_unix_nano >= span.end_time_unix_nano, "{span:#?}");
        match (text(span, "step"), text(span, "docker.call")) {
            (Some(step), None) => {
                assert_eq!(parent.span_id, run.span_id, "{span:#?}");
                assert_eq!(span.name, step);
                steps.push((span.start_time_unix_nano, step));
            }
            (None, Some(call)) => {
                assert_eq!((span.name.as_str(), span.kind()), (call.as_str(), SpanKind::Client));
                calls.insert((parent.name.clone(), call, text(span, "docker.on").unwrap()));
            }
            other => panic!("{other:?} {span:#?}"),
        }
    }
    steps.sort();
    let steps: Vec<_> = steps.iter().map(|(_, step)| step.as_str()).collect();
    assert_eq!(steps, StepId::ALL.map(StepId::as_str));
    let called = |parent: &str, call: &str, on: &str| {
        calls.contains(&(parent.to_owned(), call.to_owned(), on.to_owned()))
    };
    assert!(called("start", "create_container", "covibes_preview_team_alpha_main"), "{calls:#?}");
    assert!(called("start", "list", "main"), "{calls:#?}");
    // An install has a name of its own each time.
    let is_install = |(parent, call, on): &(String, String, String)| {
        parent == "build"
            && call == "wait_container"
            && on.starts_with("covibes_install_team_alpha")
    };
    assert!(calls.iter().any(is_install), "{calls:#?}");
}

#[test]
fn who_sends_no_context_gets_a_trace_and_who_is_not_sampled_none() {
    let [first, second] = [start(&["main"]), start(&["main"])];
    let spans = spans_of(&[first, produced("00", 1), second]);
    let runs = runs(&spans);
    assert_eq!(runs.len(), 2, "{runs:#?}");
    let traces: BTreeSet<_> = spans.iter().map(|span| hex(&span.trace_id)).collect();
    assert_eq!(traces.len(), 2, "{traces:?}");
    assert!(!traces.contains(TRACE), "{traces:?}");
    for run in runs {
        assert!(run.parent_span_id.is_empty() && run.links.is_empty(), "{run:#?}");
    }
}

#[test]
fn a_requeued_job_begins_a_trace_that_points_to_the_first() {
    let spans = spans_of(&[produced("01", 2)]);
    let [run] = runs(&spans)[..] else { panic!("{spans:#?}") };
    assert_ne!(hex(&run.trace_id), TRACE);
    assert!(run.parent_span_id.is_empty(), "{run:#?}");
    let [link] = &run.links[..] else { panic!("{run:#?}") };
    assert_eq!((hex(&link.trace_id).as_str(), hex(&link.span_id).as_str()), (TRACE, PARENT));
}

#[test]
fn what_failed_says_why() {
    let world = World::new();
    world.preview_state("failed");
    let spans = spans_in(&world, &[produced("01", 1)]);
    let failed: BTreeMap<_, _> = spans
        .iter()
        .filter(|span| span.status.as_ref().is_some_and(|s| s.code == SpanStatus::Error as i32))
        .map(|span| (span.name.as_str(), span.status.as_ref().unwrap().message.as_str()))
        .collect();
    let [run] = runs(&spans)[..] else { panic!("{spans:#?}") };
    let code = text(run, "error.type").unwrap();
    assert!(code.starts_with("preview."), "{code}");
    let expected = BTreeMap::from([("health", code.as_str()), ("start", code.as_str())]);
    assert_eq!(failed, expected);
}

/// Runs a start against a collector that is no help, and holds that it does not matter.
fn check_only_spans_are_lost(mood: Option<Mood>) {
    let (collector, io) = (Collector::new(mood.unwrap_or(Mood::Takes)), io());
    let address = match mood {
        Some(_) => collector.listen(&io),
        // Nobody listens there any more.
        None => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    };
    let traced = Traced::to(io, address);
    let world = World::new();
    let runner = block_on(world.runner());
    for _ in 0..3 {
        assert_eq!(block_on(run(&runner, &start(&["main"]))).unwrap(), Finished::Done);
    }
    let asked = collector.asked.subscribe();
    traced.end();
    assert_eq!(*asked.borrow() > 0, mood.is_some(), "it was asked if it is there");
    assert_eq!(collector.spans(), []);
}

#[test]
fn a_collector_that_is_gone_costs_spans_only() {
    check_only_spans_are_lost(None);
}

#[test]
fn a_collector_that_refuses_costs_spans_only() {
    check_only_spans_are_lost(Some(Mood::Refuses));
}

#[test]
fn a_collector_that_never_answers_costs_spans_only() {
    check_only_spans_are_lost(Some(Mood::Silent));
}

#[test]
fn no_more_spans_wait_for_a_slow_collector_than_fit() {
    let (collector, io) = (Collector::new(Mood::Silent), io());
    let address = collector.listen(&io);
    let traced = Traced::to(io, address);
    let many =
        || (0..20_000).for_each(|_| drop(tracing::info_span!(target: TRACED, "x").entered()));
    many();
    let mut asked = collector.asked.subscribe();
    let first = asked.wait_for(|asked| *asked > 0);
    traced.io.block_on(async { tokio::time::timeout(HANGS, first).await }).unwrap().unwrap();
    many();
    collector.mood.send_replace(Mood::Takes);
    traced.end();
    let taken = collector.spans().len();
    // What was on its way, what waited, and what found room while that was sent.
    assert!((512..=4 * 2048).contains(&taken), "{taken} of 40,000");
}
