//! What a worker can show of itself, gathered for the operator page and `/api`
//! alike: the board of events, the last listing of Docker, the broker's queues,
//! and the hosts.
//!
//! Nothing here waits long: what does not answer in time is shown as unknown.

mod actions;
mod letters;
mod teams;
pub mod views;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::actions::{Caller, Deed, NotDone, describe};
use self::views::{
    Amount, Deeds, FailureCount, HostLine, Overview, QueueLine, StepTimes, Trouble, Unit,
};
use crate::adapters::audit::FileAudit;
use crate::adapters::rabbitmq::RabbitClient;
use crate::adapters::rabbitmq::client::Found;
use crate::app::feed::Feed;
use crate::domain::step::StepId;
use crate::observe::Listing;
use crate::pipeline::Ports;
use crate::pipeline::converge::is_side_name;
use crate::pipeline::monitor::Monitor;
use crate::ports::broker::{BrokerState, Phase};
use crate::ports::engine::{Filter, ObservedContainer, label};
use crate::worker::hosts::Hosts;
use crate::worker::lanes::LaneLoad;

/// How old a listing of Docker may be: the page is to show the truth within a
/// second, and a listing of hundreds of containers takes a tenth of one.
const LISTING_BELIEVED: Duration = Duration::from_millis(500);

/// How long a listing of Docker may take before the last one is shown.
const LISTING_MAX: Duration = Duration::from_secs(3);

/// The broker is asked for its queues less often: each takes a channel.
const QUEUES_BELIEVED: Duration = Duration::from_secs(3);

/// How long the broker may take before its queues are shown as unknown.
const QUEUES_MAX: Duration = Duration::from_secs(2);

/// Lines of what operators did.
const DEEDS_MAX: usize = 20;

/// What is gathered from.
pub struct Office {
    /// Docker, records, clock.
    pub ports: Ports,
    /// How teams are, part by part.
    pub monitor: Arc<Monitor>,
    /// The board and its listeners.
    pub feed: Arc<Feed>,
    /// The broker's errands.
    pub client: RabbitClient,
    /// The hosts that there are.
    pub hosts: Arc<Hosts>,
    /// How much the lanes hold.
    pub load: Arc<LaneLoad>,
    /// How the worker stands with the broker.
    pub broker: watch::Receiver<BrokerState>,
    /// Cancelled when the worker drains.
    pub shutdown: CancellationToken,
    /// What the last listing of the host showed.
    pub listing: watch::Receiver<Option<Listing>>,
    /// What operators did.
    pub audit: FileAudit,
    /// What was asked for a moment ago.
    pub kept: Kept,
}

/// What was asked for a moment ago.
#[derive(Default)]
pub struct Kept {
    containers: tokio::sync::Mutex<Option<(Instant, Containers)>>,
    queues: tokio::sync::Mutex<Option<(Instant, Option<Vec<QueueLine>>)>>,
    docker: Mutex<Option<String>>,
    letters: tokio::sync::Mutex<Vec<letters::Look>>,
}

/// Containers by team.
pub type Containers = Arc<BTreeMap<String, Vec<ObservedContainer>>>;

impl Office {
    /// The time by the host's clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.ports.clock.unix_millis()
    }

    /// This instance's containers by team, and why they may be old.
    pub async fn containers(&self) -> (Containers, Option<String>) {
        let mut kept = self.kept.containers.lock().await;
        if let Some((at, containers)) = &*kept
            && at.elapsed() < LISTING_BELIEVED
        {
            return (Arc::clone(containers), self.docker_trouble());
        }
        let filter = Filter { instance: self.ports.settings.instance.clone(), team: None };
        let listed = tokio::time::timeout(LISTING_MAX, self.ports.engine.list(&filter)).await;
        let trouble = match listed {
            Ok(Ok(observed)) => {
                let mut teams: BTreeMap<String, Vec<ObservedContainer>> = BTreeMap::new();
                for container in observed.containers {
                    if let Some(team) = container.labels.get(label::TEAM)
                        && !is_side_name(&container.name)
                    {
                        teams.entry(team.clone()).or_default().push(container);
                    }
                }
                *kept = Some((Instant::now(), Arc::new(teams)));
                None
            }
            Ok(Err(_)) => Some("The Docker daemon does not answer".to_owned()),
            Err(_) => Some("The Docker daemon is slow".to_owned()),
        };
        self.set_docker_trouble(trouble.clone());
        let last = kept.as_mut().map(|(at, containers)| {
            // A daemon that hangs is not asked by every page.
            *at = Instant::now();
            Arc::clone(containers)
        });
        if last.is_none() {
            *kept = Some((Instant::now(), Arc::default()));
        }
        (last.unwrap_or_default(), trouble)
    }

    fn docker_trouble(&self) -> Option<String> {
        self.kept.docker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_docker_trouble(&self, trouble: Option<String>) {
        *self.kept.docker.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The broker's queues; nothing if it does not say.
    pub async fn queues(&self) -> Option<Vec<QueueLine>> {
        let mut kept = self.kept.queues.lock().await;
        if let Some((at, queues)) = &*kept
            && at.elapsed() < QUEUES_BELIEVED
        {
            return queues.clone();
        }
        let asked = tokio::time::timeout(QUEUES_MAX, self.client.check(Some(self.hosts.own())));
        let queues = match asked.await {
            Ok(Ok(items)) => {
                let lines = items.into_iter().filter_map(|item| match item.found {
                    Found::Queue { messages, consumers } => {
                        Some(QueueLine { name: item.name, messages, consumers })
                    }
                    Found::Exchange | Found::Missing | Found::Wrong { .. } => None,
                });
                Some(lines.collect())
            }
            Ok(Err(_)) | Err(_) => None,
        };
        *kept = Some((Instant::now(), queues.clone()));
        queues
    }

    /// The host at one glance.
    pub async fn overview(&self) -> Overview {
        let (queues, (containers, docker)) = tokio::join!(self.queues(), self.containers());
        let broker = self.broker.borrow().clone();
        let listing = self.listing.borrow().clone();
        let now = self.now();
        let (dispatches, waits_for) = self.hosts.dispatching();
        let board = self.feed.board();
        let mut teams: BTreeMap<String, usize> = BTreeMap::new();
        for team in board.teams().values().filter(|team| !team.state.is_empty()) {
            *teams.entry(team.state.clone()).or_default() += 1;
        }
        let steps = StepId::ALL.map(StepId::as_str).into_iter().filter_map(|step| {
            let (p50_ms, p95_ms, count) = board.quantiles(step)?;
            Some(StepTimes { step: step.to_owned(), p50_ms, p95_ms, count })
        });
        let failures = board.failures().into_iter().take(6);
        let mut troubles = Vec::new();
        if self.shutdown.is_cancelled() {
            troubles.push(Trouble::new("warn", "The worker drains: it ends what runs and leaves"));
        }
        if broker.phase != Phase::Connected {
            let why = broker.last_error.clone().unwrap_or_default();
            let text = format!("The broker: {}. {why}", broker.phase.as_str());
            troubles.push(Trouble { level: "bad", text, runbook: Some("BrokerDisconnected") });
        }
        if let Some(text) = docker.clone() {
            troubles.push(Trouble { level: "bad", text, runbook: Some("DockerUnavailable") });
        }
        if let Some(listing) = &listing
            && listing.disk_used > listing.disk_used_max
        {
            let text = "The disk below the workspaces is full: starts are refused".to_owned();
            troubles.push(Trouble { level: "bad", text, runbook: Some("DiskLow") });
        }
        Overview {
            host: self.hosts.own().to_string(),
            instance: self.ports.settings.instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("COVIBES_REVISION").unwrap_or("unknown").to_owned(),
            draining: self.shutdown.is_cancelled(),
            broker: broker.phase.as_str().to_owned(),
            docker: docker.is_none(),
            docker_ms: self.monitor.engine().millis,
            dispatches,
            waits_for: waits_for.iter().map(ToString::to_string).collect(),
            running: self.load.running(),
            waiting: self.load.waiting(),
            containers: containers.values().map(Vec::len).sum(),
            teams,
            minutes: board.minutes(now),
            steps: steps.collect(),
            failures: failures.map(|(code, count)| FailureCount { code, count }).collect(),
            queues,
            capacity: listing.as_ref().map(capacity).unwrap_or_default(),
            troubles,
            events: board.events(),
            now_unix_ms: now,
        }
    }

    /// What operators did here, the newest first.
    pub async fn deeds(&self) -> Deeds {
        match self.audit.last(DEEDS_MAX).await {
            Ok(lines) => {
                Deeds(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
            }
            Err(error) => {
                tracing::warn!(%error, "what operators did cannot be read");
                Deeds::default()
            }
        }
    }

    /// All hosts on this broker.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostLine> {
        let own = self.hosts.own().clone();
        let lines = self.hosts.view().into_iter().map(|view| {
            let heartbeat = view.heartbeat.as_ref();
            let room = heartbeat.and_then(|heartbeat| heartbeat.room);
            let state = match (view.lost, heartbeat, room) {
                (true, _, _) => "lost",
                (_, None, _) => "silent",
                (_, Some(heartbeat), _) if heartbeat.draining => "draining",
                (_, Some(_), None) => "no docker",
                (_, _, Some(room)) if room.disk_is_low => "disk low",
                (_, _, Some(_)) => "up",
            };
            HostLine {
                own: view.host == own,
                host: view.host.to_string(),
                state,
                dispatches: heartbeat.is_some_and(|heartbeat| heartbeat.dispatches),
                silent_ms: u64::try_from(view.silent.as_millis()).unwrap_or(u64::MAX),
                teams_free: room.map(|room| room.teams),
                memory_free_bytes: room.map(|room| room.memory_bytes),
                cpu_free_millis: room.map(|room| room.cpu_millis),
                jobs: room.map(|room| room.jobs),
                waiting_free: room.map(|room| room.waiting),
            }
        });
        lines.collect()
    }
}

/// What the host has promised against what it has.
fn capacity(listing: &Listing) -> Vec<Amount> {
    let amount = |name, used: f64, limit: f64, unit| Amount { name, used, limit, unit };
    let whole =
        |name, (used, limit): (i64, i64)| amount(name, used as f64, limit as f64, Unit::Count);
    let (reserved, capacity) = (&listing.reserved, &listing.capacity);
    let (used, limit) = (listing.disk_used, listing.disk_used_max);
    vec![
        whole("Teams", (reserved.teams, capacity.teams)),
        amount(
            "Memory set aside",
            reserved.memory_bytes as f64,
            capacity.memory_bytes as f64,
            Unit::Bytes,
        ),
        amount("CPUs set aside", reserved.cpus, capacity.cpus, Unit::Count),
        whole("Preview ports", (listing.ports_in_use, listing.ports_limit)),
        whole("Inotify watches", listing.watches),
        whole("Inotify instances", listing.instances),
        amount("Disk, up to its limit", used, limit, Unit::Share),
    ]
}
