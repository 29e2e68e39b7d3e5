//! Covibes itself: the runner with the real adapters, and a watch on its steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use covibes::adapters::system::SystemClock;
use covibes::app::configuration::{self, Configuration};
use covibes::app::wiring::{Wired, wire};
use covibes::config::layout::Layout;
use covibes::domain::event::EncodedEvent;
use covibes::domain::ids::{JobId, PartName, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::domain::record::TeamRecord;
use covibes::domain::spec::{
    AgentSpec, LimitsWish, PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource,
};
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::{Finished, JobRunner};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::ports::clock::Clock;
use covibes::ports::messages::{EventSink, SessionOver};

/// The index of the team's subnets: far from where others begin to count.
const SLOT: u16 = 1_900;

/// The team's first preview port, for the same reason.
const PORT: u16 = 8_900;

/// What one job took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Took {
    /// From the job's arrival to its final event.
    pub(crate) job: Duration,
    /// Each step, from its first event to its last.
    pub(crate) steps: BTreeMap<String, Duration>,
    /// From the beginning of the start step to the end of the health step.
    pub(crate) healthy: Duration,
}

impl Took {
    pub(crate) fn step(&self, name: &str) -> Duration {
        self.steps.get(name).copied().unwrap_or_default()
    }
}

/// Keeps every event with its moment.
#[derive(Debug, Default)]
struct Watch(Mutex<Vec<(Instant, EncodedEvent)>>);

#[async_trait]
impl EventSink for Watch {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        let moment = (Instant::now(), event.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
        Ok(())
    }
}

impl Watch {
    fn take(&self) -> Vec<(Instant, EncodedEvent)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The configuration of an instance of the benchmark's own. Directories and
/// policy stay the host's: the egress proxy is shared.
pub(crate) fn configuration(instance: &str, binaries: &Path) -> anyhow::Result<Configuration> {
    let own = [
        ("COVIBES_HOST_INSTANCE".to_owned(), instance.to_owned()),
        ("COVIBES_IMAGES_BINARIES".to_owned(), binaries.display().to_string()),
    ];
    configuration::load(None, std::env::vars().chain(own))
}

/// A team of four containers and the runner that serves it.
pub(crate) struct Product {
    wired: Wired,
    watch: Arc<Watch>,
    runner: Runner,
    leases: TeamLeases,
    team: TeamId,
    project: PathBuf,
}

impl Product {
    /// Wires Covibes up for the team of `project`, a directory.
    pub(crate) async fn wire(
        configuration: &Configuration,
        project: &Path,
    ) -> anyhow::Result<Self> {
        let watch = Arc::new(Watch::default());
        let wired = wire(configuration, Arc::<Watch>::clone(&watch)).await?;
        let runner = Runner::new(wired.ports.clone(), Arc::clone(&wired.preparation));
        let mut product = Self {
            wired,
            watch,
            runner,
            leases: TeamLeases::default(),
            team: TeamId::parse("four")?,
            project: project.to_owned(),
        };
        product.forget().await?;
        Ok(product)
    }

    /// Makes the team new again: no record but where it would like to be.
    pub(crate) async fn forget(&mut self) -> anyhow::Result<()> {
        let mut record = TeamRecord::new(self.team.clone());
        record.workspace_path = Some(self.project.display().to_string());
        record.slot = Some(SLOT);
        record.ports = previews()?.into_iter().map(|p| p.name).zip(PORT..).collect();
        self.wired.ports.records.save(&record).await?;
        self.runner = Runner::new(self.wired.ports.clone(), Arc::clone(&self.wired.preparation));
        Ok(())
    }

    pub(crate) async fn start(&self) -> anyhow::Result<Took> {
        self.run(Action::Start(Box::new(spec()?))).await
    }

    pub(crate) async fn destroy(&self) -> anyhow::Result<Took> {
        self.run(Action::Destroy).await
    }

    /// The compose file as Covibes rendered it.
    pub(crate) fn rendered(&self) -> anyhow::Result<String> {
        let path = Layout::new(&self.wired.ports.settings, &self.team).compose();
        std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
    }

    /// How long it takes to see that the host is prepared, which a start does
    /// when nobody has looked for a minute.
    pub(crate) async fn prepare(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.wired
            .preparation
            .ensure(&self.wired.ports, &|_| {})
            .await
            .map_err(|failure| anyhow::anyhow!("{failure}"))?;
        Ok(started.elapsed())
    }

    async fn run(&self, action: Action) -> anyhow::Result<Took> {
        let clock = SystemClock;
        let job = Job {
            id: JobId(clock.new_id()),
            team: self.team.clone(),
            action,
            issued_at: covibes::wire::job::timestamp_text(clock.unix_millis()),
            deadline_unix_ms: None,
            attempt: 1,
            traceparent: None,
            tracestate: None,
        };
        let lease = self.leases.acquire(&self.team).await;
        let (_interrupter, interrupt) = interrupt::pair();
        self.watch.take();
        let started = Instant::now();
        let finished = self.runner.run(lease, &job, interrupt).await;
        let took = started.elapsed();
        let events = self.watch.take();
        match finished {
            Ok(Finished::Done) => took_of(took, &events),
            Ok(Finished::Dead(letter)) => {
                let last = events.last().map(|(_, e)| e.body.clone()).unwrap_or_default();
                anyhow::bail!("the job failed: {letter:?}\n{last}")
            }
            Err(over) => Err(over.into()),
        }
    }
}

fn took_of(job: Duration, events: &[(Instant, EncodedEvent)]) -> anyhow::Result<Took> {
    let mut took = Took { job, ..Took::default() };
    let mut began = BTreeMap::new();
    for (at, event) in events {
        let is = |kind: &str| event.routing_key.ends_with(kind);
        if !is("step.started") && !is("step.finished") {
            continue;
        }
        let body: serde_json::Value = serde_json::from_str(&event.body)?;
        let step = body["data"]["step"].as_str().context("a step event without a step")?;
        if is("step.started") {
            began.insert(step.to_owned(), *at);
        } else if let Some(began) = began.get(step) {
            took.steps.insert(step.to_owned(), *at - *began);
            if step == "health"
                && let Some(start) = began_of(events, "start")
            {
                took.healthy = *at - start;
            }
        }
    }
    Ok(took)
}

fn began_of(events: &[(Instant, EncodedEvent)], step: &str) -> Option<Instant> {
    let step = format!("\"step\":\"{step}\"");
    let is_it =
        |e: &EncodedEvent| e.routing_key.ends_with("step.started") && e.body.contains(&step);
    events.iter().find(|(_, event)| is_it(event)).map(|(at, _)| *at)
}

fn previews() -> anyhow::Result<Vec<PreviewSpec>> {
    ["main", "second"]
        .into_iter()
        .map(|name| Ok(PreviewSpec { name: PartName::parse(name)?, branch: None, ttl: None }))
        .collect()
}

fn spec() -> anyhow::Result<Spec> {
    Ok(Spec {
        workspace: WorkspaceSource::Local,
        agents: vec![AgentSpec {
            name: PartName::parse("agent-1")?,
            secrets: BTreeMap::new(),
            env: BTreeMap::new(),
            limits: LimitsWish::default(),
            prompt: None,
        }],
        previews: previews()?,
        sync_interval: SYNC_INTERVAL_DEFAULT,
        ttl: None,
        idle_stop: None,
    })
}
