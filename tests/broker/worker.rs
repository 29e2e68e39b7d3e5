//! A worker whose runner only writes down what it is asked, on a host that has
//! what the test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use covibes::adapters::rabbitmq::RabbitEvents;
use covibes::domain::control::{Holding, Room};
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::{HostId, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::pipeline::estate::Estate;
use covibes::pipeline::interrupt::{Interrupt, Reason};
use covibes::pipeline::job_runner::{Finished, JobRunner};
use covibes::pipeline::lease::TeamLease;
use covibes::ports::broker::{BrokerState, OpenError, Phase};
use covibes::ports::ctl::KnownHosts;
use covibes::ports::messages::{DeadLetter, EventSink as _, SessionOver};
use covibes::worker::dispatcher::{PLACEMENT_WAIT, Voice};
use covibes::worker::hosts::Hosts;
use covibes::worker::lanes::{LaneLoad, LanesConfig};
use covibes::worker::supervisor::Supervisor;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::place::{Place, TestClock, event, parse, soon};

/// What a host has. `None`: Docker does not answer.
pub(crate) struct TestEstate {
    pub(crate) teams: Mutex<Option<BTreeMap<TeamId, bool>>>,
    pub(crate) vacated: watch::Sender<Vec<String>>,
    pub(crate) known: Mutex<Vec<HostId>>,
}

impl Default for TestEstate {
    fn default() -> Self {
        let teams = Mutex::new(Some(BTreeMap::new()));
        Self { teams, vacated: watch::Sender::default(), known: Mutex::default() }
    }
}

impl TestEstate {
    /// A host that runs these teams.
    pub(crate) fn of(teams: &[&str]) -> Arc<Self> {
        let estate = Self::default();
        for team in teams {
            estate.set(team, Some(true));
        }
        Arc::new(estate)
    }

    /// `Some(true)`: it runs; `Some(false)`: a workspace is left; `None`: nothing.
    pub(crate) fn set(&self, team: &str, is: Option<bool>) {
        let team = TeamId::parse(team).unwrap();
        let mut teams = self.teams.lock().unwrap();
        let teams = teams.get_or_insert_default();
        match is {
            Some(runs) => teams.insert(team, runs),
            None => teams.remove(&team),
        };
    }
}

impl TestEstate {
    fn runs(&self, team: &TeamId) -> bool {
        self.teams.lock().unwrap().as_ref().is_some_and(|teams| teams.get(team) == Some(&true))
    }
}

#[async_trait]
impl Estate for TestEstate {
    async fn room(&self) -> Option<Room> {
        let teams = self.teams.lock().unwrap().as_ref()?.len();
        Some(Room {
            teams: 100 - i64::try_from(teams).unwrap(),
            memory_bytes: 1 << 40,
            cpu_millis: 1_000_000,
            disk_is_low: false,
            jobs: 0,
            waiting: 0,
        })
    }

    async fn inventory(&self) -> Option<Vec<Holding>> {
        let teams = self.teams.lock().unwrap().clone()?;
        let holding = |(team, runs)| Holding { team, runs, sequence: 1 };
        Some(teams.into_iter().map(holding).collect())
    }

    async fn has(&self, team: &TeamId) -> Option<bool> {
        Some(self.teams.lock().unwrap().as_ref()?.contains_key(team))
    }

    async fn vacate(&self, lease: TeamLease) -> Result<(), Failure> {
        self.set(lease.team().as_str(), Some(false));
        self.vacated.send_modify(|vacated| vacated.push(lease.team().to_string()));
        Ok(())
    }
}

#[async_trait]
impl KnownHosts for TestEstate {
    async fn load(&self) -> Result<Vec<HostId>, Failure> {
        Ok(self.known.lock().unwrap().clone())
    }

    async fn save(&self, hosts: &[HostId]) -> Result<(), Failure> {
        *self.known.lock().unwrap() = hosts.to_vec();
        Ok(())
    }
}

/// Whatever runs a job of this team panics.
pub(crate) const PANICS: &str = "panics";

/// Holds restarts until `held` is false; publishes an event per run; a start
/// leaves a team on the host and a destroy takes it away.
pub(crate) struct Script {
    estate: Arc<TestEstate>,
    leaves_nothing: AtomicBool,
    pub(crate) log: watch::Sender<Vec<String>>,
    pub(crate) held: watch::Sender<bool>,
    events: Arc<RabbitEvents>,
}

impl Script {
    /// From now on, as if every start failed and was undone.
    pub(crate) fn starts_leave_nothing(&self) {
        self.leaves_nothing.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl JobRunner for Script {
    async fn snapshot(&self, team: Option<&TeamId>) -> Result<(), SessionOver> {
        let of = team.map_or("all", TeamId::as_str);
        self.log.send_modify(|log| log.push(format!("snapshot {of}")));
        Ok(())
    }

    async fn accepted(&self, _: &Job, _: u32) -> Result<(), SessionOver> {
        Ok(())
    }

    async fn run(
        &self,
        _: TeamLease,
        job: &Job,
        mut interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let n = job.id.0.as_u128();
        self.log.send_modify(|log| log.push(format!("run {n}")));
        assert!(job.team.as_str() != PANICS, "a bug in the run of {n}");
        if let Action::Restart { .. } = job.action {
            let mut held = self.held.subscribe();
            tokio::select! {
                _ = held.wait_for(|held| !held) => {}
                reason = interrupt.wait() => {
                    assert_eq!(reason, Reason::Abandon);
                    self.log.send_modify(|log| log.push(format!("abandoned {n}")));
                    return Err(SessionOver { reason: "abandoned".to_owned() });
                }
            }
        }
        match job.action {
            Action::Start(_) if self.leaves_nothing.load(Ordering::Relaxed) => {}
            Action::Start(_) => self.estate.set(job.team.as_str(), Some(true)),
            Action::Destroy => self.estate.set(job.team.as_str(), None),
            Action::Stop if self.estate.runs(&job.team) => {
                self.estate.set(job.team.as_str(), Some(false));
            }
            Action::Stop | Action::Restart { .. } | Action::Sync | Action::Status => {}
        }
        self.events.publish(&event(u32::try_from(n).unwrap_or(0), job.team.as_str())).await?;
        self.log.send_modify(|log| log.push(format!("done {n}")));
        Ok(Finished::Done)
    }

    async fn depart(&self, lease: &TeamLease) -> Result<String, Failure> {
        if self.estate.runs(lease.team()) {
            return Err(Failure::new(Code::TeamRunning, "it has containers"));
        }
        let jobs = self.log.borrow().iter().filter(|line| line.starts_with("done")).count();
        Ok(format!("{} after {jobs}", lease.team()))
    }

    async fn arrive(&self, lease: &TeamLease, record: &str) -> Result<(), Failure> {
        // Its workspace keeps its place.
        self.estate.set(lease.team().as_str(), Some(false));
        self.log.send_modify(|log| log.push(format!("arrived {record}")));
        Ok(())
    }

    async fn leave(&self, lease: &TeamLease) -> Result<(), Failure> {
        self.estate.set(lease.team().as_str(), None);
        self.log.send_modify(|log| log.push(format!("left {}", lease.team())));
        Ok(())
    }

    async fn knows(&self, _: &TeamId) -> bool {
        true
    }

    async fn skip(&self, _: &Job, _: &Reason) -> Result<Finished, SessionOver> {
        Ok(Finished::Done)
    }

    async fn status(&self, _: &Job) -> Result<Finished, SessionOver> {
        Ok(Finished::Done)
    }

    async fn rejected(
        &self,
        team: Option<&TeamId>,
        _: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        let team = team.map_or("nobody", TeamId::as_str);
        self.log.send_modify(|log| log.push(format!("rejected {team}: {}", failure.code)));
        Ok(Finished::Dead(DeadLetter {
            reason: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
            attempts: 1,
            step: None,
        }))
    }
}

pub(crate) struct Worker {
    pub(crate) script: Arc<Script>,
    pub(crate) state: watch::Receiver<BrokerState>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), OpenError>>,
}

impl Worker {
    /// A worker on the place's own host that has nothing yet.
    pub(crate) fn start(place: &Place, address: &str) -> Self {
        Self::start_on(place, address, &place.host, &Arc::default())
    }

    /// A worker on `host`, which has `estate`.
    pub(crate) fn start_on(
        place: &Place,
        address: &str,
        host: &HostId,
        estate: &Arc<TestEstate>,
    ) -> Self {
        Self::start_with(place, &[address.to_owned()], host, estate)
    }

    /// A worker on the place's own host, for a broker with several addresses.
    pub(crate) fn start_at(place: &Place, addresses: &[String]) -> Self {
        Self::start_with(place, addresses, &place.host, &Arc::default())
    }

    fn start_with(
        place: &Place,
        addresses: &[String],
        host: &HostId,
        estate: &Arc<TestEstate>,
    ) -> Self {
        let broker = place.broker_on(addresses, host);
        let hosts = Arc::new(Hosts::new(
            host.clone(),
            &[],
            Duration::from_secs(30),
            Arc::clone(estate) as Arc<dyn KnownHosts>,
        ));
        let voice =
            Voice { host: host.clone(), events: broker.events(), clock: Arc::new(TestClock) };
        let script = Arc::new(Script {
            estate: Arc::clone(estate),
            leaves_nothing: AtomicBool::new(false),
            log: watch::Sender::default(),
            held: watch::Sender::new(true),
            events: broker.events(),
        });
        let state = Supervisor::state();
        let watching = state.subscribe();
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor {
            broker: Arc::new(broker),
            host: host.clone(),
            parse,
            runner: Arc::clone(&script) as Arc<dyn JobRunner>,
            leases: Arc::default(),
            estate: Arc::clone(estate) as Arc<dyn Estate>,
            hosts,
            voice,
            placement_wait: PLACEMENT_WAIT,
            lanes: LanesConfig::default(),
            load: Arc::new(LaneLoad::default()),
            drain_grace: Duration::from_secs(20),
            clock: Arc::new(TestClock),
            observer: Arc::clone(&place.facts) as _,
            state,
        };
        let token = shutdown.clone();
        let running = tokio::spawn(async move {
            supervisor.hosts.remember().await;
            supervisor.run(token).await
        });
        Self { script, state: watching, shutdown, running }
    }

    pub(crate) async fn is_in(&mut self, phase: Phase) -> BrokerState {
        let reached = self.state.wait_for(|state| state.phase == phase);
        soon(phase.as_str(), reached).await.unwrap().clone()
    }

    pub(crate) async fn until(&self, line: &str, times: usize) {
        let mut log = self.script.log.subscribe();
        let seen = |log: &Vec<String>| log.iter().filter(|l| *l == line).count() >= times;
        soon(line, log.wait_for(seen)).await.unwrap();
    }

    pub(crate) async fn until_like(&self, beginning: &str) {
        let mut log = self.script.log.subscribe();
        let seen = |log: &Vec<String>| log.iter().any(|line| line.starts_with(beginning));
        soon(beginning, log.wait_for(seen)).await.unwrap();
    }

    pub(crate) async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        soon("the drain", self.running).await.unwrap().unwrap();
        self.script.log.borrow().clone()
    }
}
