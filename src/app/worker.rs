//! `covibes worker`, and the commands that look at a host.
//!
//! The worker outlives every trouble outside: while Docker or the broker does
//! not answer it waits, says so in `/readyz` and metrics, and loses nothing.

pub mod cluster;
pub mod gauges;
pub mod gc;
pub mod host;
pub mod observer;
pub mod teams;
pub mod top;
pub mod tunnels;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::adapters::audit::FileAudit;
use crate::adapters::known_hosts::FileKnownHosts;
use crate::adapters::rabbitmq::RabbitBroker;
use crate::adapters::rabbitmq::names::Names;
use crate::adapters::system::SystemClock;
use crate::app::cli::BadConfiguration;
use crate::app::configuration::Configuration;
use crate::app::feed::Feed;
use crate::app::http;
use crate::app::logs;
use crate::app::office::{Kept, Office};
use crate::app::submit::client;
use crate::app::wiring::wire;
use crate::domain::event::{Event, EventKind, Subject};
use crate::observe::Chain;
use crate::pipeline::estate::HostEstate;
use crate::pipeline::lease::TeamLeases;
use crate::pipeline::runner::Runner;
use crate::ports::clock::Clock;
use crate::ports::messages::EventSink;
use crate::wire::event::encode_event;
use crate::wire::job::parse_job;
use crate::worker::dispatcher::{PLACEMENT_WAIT, Voice};
use crate::worker::hosts::Hosts;
use crate::worker::lanes::{LaneLoad, LanesConfig};
use crate::worker::supervisor::Supervisor;

/// How long running jobs may take to end after SIGTERM: most do within it, and
/// service managers commonly wait a minute and a half.
const DRAIN_GRACE: Duration = Duration::from_secs(60);

/// How long the drain waits for its event to be told.
const LEAVING_TOLD_MAX: Duration = Duration::from_secs(1);

/// Runs the worker until it is told to stop.
///
/// # Errors
/// The configuration, the state directory or the broker's topology is not fit
/// for it; everything else is waited for.
pub async fn run(configuration: Configuration) -> anyhow::Result<ExitCode> {
    let traces = logs::of_worker(&configuration)?;
    let names = Names::new(&configuration.file.amqp.prefix)
        .context("`amqp.prefix` is not a name")
        .context(BadConfiguration)?;
    let settings = &configuration.settings;
    let clock = Arc::new(SystemClock);
    let observer = Arc::new(observer::MetricsObserver::default());
    let broker = RabbitBroker::new(
        &configuration.amqp_urls,
        names,
        settings.host.clone(),
        clock.clone(),
        observer.clone(),
    )
    .context(BadConfiguration)?;
    let broker = Arc::new(broker);
    // Everything that this worker tells goes by the page's board.
    let events = Arc::new(Feed::new(broker.events(), clock.new_id().simple().to_string()));
    let wired = wire(&configuration, events.clone()).await?;
    observer.use_metrics(Arc::clone(&wired.ports.metrics));
    let version = env!("CARGO_PKG_VERSION");
    info!(host = %settings.host, instance = %settings.instance, version, "worker begins");
    wait_for_docker_note(&wired.ports).await;
    if let Err(failure) = wired.preparation.ensure_rules(&wired.ports).await {
        warn!(code = failure.code.as_str(), "the host's firewall rules could not be set");
    }

    let (asked, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    tasks.spawn(signals(asked.clone()));
    let leases = Arc::new(TeamLeases::default());
    let runner = Runner::new(wired.ports.clone(), Arc::clone(&wired.preparation));
    let runner = Arc::new(runner.with_leases(Arc::clone(&leases)));
    let load = Arc::new(LaneLoad::default());
    // The records' directory is held, so this one, above it, is as well.
    let known = Arc::new(FileKnownHosts::new(&settings.state_dir));
    let cluster = &configuration.cluster;
    let hosts =
        Arc::new(Hosts::new(settings.host.clone(), &cluster.hosts, cluster.lost_after, known));
    hosts.remember().await;
    let state = Supervisor::state();
    let (listing, listed) = watch::channel(None);
    let monitor = Arc::clone(runner.monitor());
    let office = Arc::new(Office {
        ports: wired.ports.clone(),
        monitor: Arc::clone(&monitor),
        feed: Arc::clone(&events),
        client: client(&configuration)?,
        hosts: Arc::clone(&hosts),
        load: Arc::clone(&load),
        broker: state.subscribe(),
        shutdown: shutdown.clone(),
        listing: listed,
        audit: FileAudit::new(&settings.state_dir),
        kept: Kept::default(),
    });
    let (listen, http) = (configuration.http.listen, configuration.http.clone());
    let gate = http::Gate::open(&http, &settings.state_dir).context(BadConfiguration)?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (`http.listen`)"))?;
    let served = CancellationToken::new();
    info!(page = %format!("http://{listen}/"), token = gate.place(), "the operator page is served");
    tasks.spawn(remember(Arc::clone(&office), served.clone()));
    tasks.spawn(http::serve(listener, office, gate, http.hosts, served.clone()));
    tasks.spawn(gauges::keep(wired.ports.clone(), monitor, listing, served.clone()));
    tasks.spawn(tunnels::count(wired.ports.clone(), served.clone()));
    let (preparation, ports) = (Arc::clone(&wired.preparation), wired.ports.clone());
    let until = served.clone();
    tasks.spawn(async move { preparation.keep_policy(&ports, until).await });
    tasks.spawn(Arc::clone(&runner).tend(served.clone()));
    tasks.spawn(Arc::clone(&runner).follow_agents(served.clone()));
    tasks.spawn(Arc::clone(&runner).follow_syncs(served.clone()));
    let mut connected = state.subscribe();
    let told = {
        let (events, host) = (events.clone(), settings.host.clone());
        let (clock, runner, end) = (clock.clone(), Arc::clone(&runner), served.clone());
        async move {
            // Told once, by the first session.
            let up = crate::ports::broker::Phase::Connected;
            if connected.wait_for(|s| s.phase == up).await.is_ok() {
                let kind = EventKind::HostUp { host: host.clone(), version: version.to_owned() };
                tell_host(&*events, &*clock, &host, kind).await;
                let found = end.run_until_cancelled(runner.reconciled()).await.flatten();
                if let Some(found) = found {
                    let kind = EventKind::HostReconciled { host: host.clone(), found };
                    tell_host(&*events, &*clock, &host, kind).await;
                }
            }
        }
    };
    tasks.spawn(told);
    let leaving = {
        let (events, host) = (events.clone(), settings.host.clone());
        let (clock, asked, shutdown) = (clock.clone(), asked.clone(), shutdown.clone());
        async move {
            asked.cancelled().await;
            let kind = EventKind::HostDraining { host: host.clone() };
            // First, because an idle worker's session ends with the drain's begin.
            let told = tell_host(&*events, &*clock, &host, kind);
            if tokio::time::timeout(LEAVING_TOLD_MAX, told).await.is_err() {
                warn!("the drain was not told; the broker does not answer");
            }
            shutdown.cancel();
        }
    };
    tasks.spawn(leaving);
    let supervisor = Supervisor {
        broker,
        host: settings.host.clone(),
        parse: parse_job,
        runner,
        leases,
        estate: Arc::new(HostEstate::new(wired.ports.clone())),
        hosts,
        voice: Voice { host: settings.host.clone(), events: events.clone(), clock: clock.clone() },
        placement_wait: PLACEMENT_WAIT,
        lanes: LanesConfig::default(),
        load,
        drain_grace: DRAIN_GRACE,
        clock,
        observer,
        state,
    };
    let result = supervisor.run(shutdown.clone()).await;
    asked.cancel();
    served.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.is_err() {
        warn!("something did not end within five seconds of the drain");
    }
    traces.end().await;
    info!("worker ends");
    result.context(BadConfiguration)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts what the records know of earlier jobs on the page's board.
async fn remember(office: Arc<Office>, end: CancellationToken) {
    let teams = match office.ports.records.teams().await {
        Ok(teams) => teams,
        Err(error) => return warn!(%error, "the page begins without earlier jobs"),
    };
    for team in teams {
        if end.is_cancelled() {
            return;
        }
        if let Ok(Some(record)) = office.ports.records.load(&team).await {
            office.feed.board().remember(&record);
        }
    }
}

/// Says in the log whether Docker answers; a worker that waits for it is alive.
async fn wait_for_docker_note(ports: &crate::pipeline::Ports) {
    match ports.engine.version().await {
        Ok(version) => info!(version = version.version, api = version.api, "Docker answers"),
        Err(error) => warn!(error = %Chain(&error), "Docker does not answer yet; jobs will wait"),
    }
}

/// Publishes an event about this host; what cannot be told is logged.
async fn tell_host(
    events: &dyn EventSink,
    clock: &dyn Clock,
    host: &crate::domain::ids::HostId,
    kind: EventKind,
) {
    let event = Event {
        id: clock.new_id().to_string(),
        subject: Subject::Host(host.clone()),
        host: host.clone(),
        time_unix_ms: clock.unix_millis(),
        sequence: None,
        sequence_previous: None,
        job: None,
        kind,
    };
    if let Err(over) = events.publish(&encode_event(&event)).await {
        warn!(reason = over.reason, "an event about this host was not told");
    }
}

/// Cancels on SIGTERM or SIGINT.
async fn signals(asked: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be listened to; the worker will not drain");
        return;
    };
    tokio::select! {
        _ = term.recv() => info!("SIGTERM: draining"),
        _ = int.recv() => info!("SIGINT: draining"),
        () = asked.cancelled() => {}
    }
    asked.cancel();
}
