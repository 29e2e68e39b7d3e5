//! Where log lines and spans go, set once by each command.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use crate::app::configuration::Configuration;
use crate::observe::CountLines;
use crate::observe::lines::{Form, Lines};

type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs of a command: its own progress is enough for a person, so it logs errors only.
pub fn of_command() {
    begin("error,lapin=off", None);
}

/// Logs of a worker, and its traces if somebody collects them.
///
/// # Errors
/// Traces are asked for and cannot be sent.
pub fn of_worker(configuration: &Configuration) -> anyhow::Result<Traces> {
    let (traces, spans) = Traces::of(configuration)?;
    begin("info,lapin=off", spans);
    Ok(traces)
}

/// Sends log lines to stderr: JSON off a terminal, readable on one.
fn begin(default: &str, spans: Option<Spans>) {
    // lapin logs whole messages that come back unrouted; no body belongs in a log.
    let filter = EnvFilter::try_from_env("COVIBES_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Whatever level is asked for, a line bears whose it is.
    let whose = filter_fn(|metadata| {
        metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    });
    let whose = whose.with_max_level_hint(LevelFilter::INFO);
    let form = match std::io::stderr().is_terminal() {
        true => Form::Readable { colours: std::env::var_os("NO_COLOR").is_none() },
        false => Form::Json,
    };
    let lines = Lines::new(form, std::io::stderr).and_then(CountLines);
    let subscriber = tracing_subscriber::registry().with(spans);
    // A second call, in tests, keeps the first.
    let _ = subscriber.with(lines.with_filter(whose.or(filter))).try_init();
}

/// What goes on in the background for traces, if anything does.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otlp")]
    exporter: Option<crate::observe::otlp::Exporter>,
}

impl Traces {
    #[cfg(feature = "otlp")]
    fn of(configuration: &Configuration) -> anyhow::Result<(Self, Option<Spans>)> {
        let Some(endpoint) = &configuration.otlp else { return Ok((Self::default(), None)) };
        let host = configuration.settings.host.as_str();
        let (exporter, spans) = crate::observe::otlp::open(endpoint, host)?;
        Ok((Self { exporter: Some(exporter) }, Some(spans)))
    }

    #[cfg(not(feature = "otlp"))]
    fn of(_: &Configuration) -> anyhow::Result<(Self, Option<Spans>)> {
        Ok((Self::default(), None))
    }

    /// Sends what has not been sent, within a bounded time.
    pub async fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.end().await;
        }
    }
}
