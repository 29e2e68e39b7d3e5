//! Traces: the spans of runs, steps and calls to the Engine go to a collector as OTLP over
//! HTTP (ADR 0056).
//!
//! Nobody who works waits for that. A span that ended is put into a queue of a fixed
//! length, or lost; a thread of its own sends what is there, and gives up on a collector
//! that is gone, silent or unwilling. The log says when spans begin to be lost, and when
//! that is over.

use std::fmt;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::{Layer, Registry};
use url::Url;

use super::spans::TRACED;
use crate::domain::job::Job;

/// Spans that wait to be sent; a start has about forty. More are lost.
const WAITING_MAX: usize = 2048;

/// Spans of one request.
const BATCH_MAX: usize = 512;

/// How long a span waits for others to go with.
const BATCH_DELAY: Duration = Duration::from_secs(2);

/// How long a collector may take for a request, tries included.
const SEND_MAX: Duration = Duration::from_secs(5);

/// How long the end of the process waits for what has not been sent.
const END_MAX: Duration = Duration::from_secs(3);

/// An answer says little; a longer one is no collector's.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}")]
pub struct NoTraces {
    endpoint: String,
    #[source]
    source: opentelemetry_otlp::ExporterBuildError,
}

/// What sends spans.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Sends what has not been sent, as far as the collector takes it in time.
    pub async fn end(self) {
        // Off the threads, because it waits for the one that sends.
        let end = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(END_MAX));
        if !matches!(end.await, Ok(Ok(()))) {
            tracing::warn!("the last spans were not taken by the collector");
        }
    }
}

/// Begins to send spans to `endpoint` in the name of `host`, as long as this runtime lives.
/// What is returned second makes them.
///
/// # Errors
/// The endpoint is none.
pub fn open(
    endpoint: &Url,
    host: &str,
) -> Result<(Exporter, Box<dyn Layer<Registry> + Send + Sync>), NoTraces> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new(Handle::current()))
        .with_endpoint(endpoint.as_str())
        .with_timeout(SEND_MAX)
        .build()
        .map_err(|source| NoTraces { endpoint: endpoint.to_string(), source })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(WAITING_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let resource = Resource::builder()
        .with_service_name("covibes")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", host.to_owned()))
        .with_attribute(KeyValue::new("host.name", host.to_owned()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
        )
        .with_resource(resource)
        .build();
    let is_traced = filter_fn(|metadata| metadata.is_span() && metadata.target() == TRACED);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("covibes"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(is_traced.with_max_level_hint(LevelFilter::INFO));
    Ok((Exporter(provider), layer.boxed()))
}

/// Makes a run a part of its producer's trace. One that an operator asked for again begins
/// its own, which may be days later, and only points to the first.
pub(super) fn follow(span: &Span, job: &Job) {
    let Some(producer) = producer(job) else { return };
    if job.attempt > 1 {
        span.add_link(producer);
    } else {
        // Without a collector there is nothing to be a part of.
        let _ = span.set_parent(Context::new().with_remote_span_context(producer));
    }
}

fn producer(job: &Job) -> Option<SpanContext> {
    let mut parts = job.traceparent.as_deref()?.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    // A bad state is dropped alone.
    let state = job.tracestate.as_deref().and_then(|state| TraceState::from_str(state).ok());
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, state.unwrap_or_default());
    context.is_valid().then_some(context)
}

/// The other side.
struct Collector {
    runtime: Handle,
    tasks: TaskTracker,
    /// Whether it took what it was sent last.
    takes: AtomicBool,
}

impl Collector {
    fn new(runtime: Handle) -> Self {
        Self { runtime, tasks: TaskTracker::new(), takes: AtomicBool::new(true) }
    }

    /// Says so once when spans begin to be lost, and once when that is over.
    fn note(&self, refusal: Option<&dyn fmt::Display>) {
        match (refusal, self.takes.swap(refusal.is_none(), Ordering::Relaxed)) {
            (Some(reason), true) => {
                tracing::warn!(%reason, "the collector takes no spans; they are lost meanwhile");
            }
            (None, false) => tracing::info!("the collector takes spans again"),
            (Some(_), false) | (None, true) => {}
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Whoever calls stands on a thread without a runtime, where not even a timer is made.
        let sent = async {
            let sending = tokio::time::timeout(SEND_MAX, send(request));
            sending.await.unwrap_or_else(|late| Err(late.into()))
        };
        let sent = self.tasks.spawn_on(sent, &self.runtime).await.unwrap_or_else(|e| Err(e.into()));
        match &sent {
            Ok(answer) if answer.status().is_success() => self.note(None),
            Ok(answer) => self.note(Some(&answer.status())),
            Err(error) => self.note(Some(error)),
        }
        sent
    }
}

/// One request on a connection of its own: there is one every two seconds at most.
async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the endpoint has no host")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    head.headers.insert(header::HOST, authority.as_str().parse()?);
    head.uri = head.uri.path_and_query().ok_or("the endpoint has no path")?.as_str().parse()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(head, body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    // Polled here and not spawned: it ends with this request.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
