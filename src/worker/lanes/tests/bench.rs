//! A runner that only writes down what it is asked, and lanes over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::*;
use super::HOUR;
use crate::domain::ids::{JobId, PartName};
use crate::domain::job::Action;
use crate::domain::spec::{PreviewSpec, Spec, WorkspaceSource};
use crate::pipeline::interrupt::Interrupt;
use crate::pipeline::job_runner::{Admitted, Room, Standing};
use crate::ports::messages::{Acknowledge, DeadLetter};

/// Writes down every call, and holds the runs it is told to hold until they are
/// released or interrupted.
pub(super) struct Script {
    log: watch::Sender<Vec<String>>,
    held: watch::Sender<BTreeSet<u128>>,
    /// Jobs whose end without a run waits until they are released.
    skips_held: Mutex<BTreeSet<u128>>,
    /// Jobs in which the worker died before; `true` if they must be alone.
    suspects: Mutex<BTreeMap<u128, bool>>,
    /// Jobs whose end is recorded.
    decided: Mutex<BTreeSet<u128>>,
    /// Jobs of the host's own that only mend.
    mending: Mutex<BTreeSet<u128>>,
    /// Jobs that the host has no room for.
    too_large: Mutex<BTreeSet<u128>>,
    changes: watch::Sender<u64>,
    /// Jobs with a deadline of their own, and the time that is left.
    left: Mutex<BTreeMap<u128, Duration>>,
}

impl Script {
    pub(super) fn suspect(&self, n: u128, alone: bool) {
        self.suspects.lock().unwrap().insert(n, alone);
    }

    pub(super) fn hold_skip(&self, n: u128) {
        self.skips_held.lock().unwrap().insert(n);
        self.held.send_modify(|held| {
            held.insert(n);
        });
    }

    pub(super) fn decide(&self, n: u128) {
        self.decided.lock().unwrap().insert(n);
    }

    pub(super) fn only_mends(&self, n: u128) {
        self.mending.lock().unwrap().insert(n);
    }

    pub(super) fn has_no_room_for(&self, n: u128) {
        self.too_large.lock().unwrap().insert(n);
    }

    /// There is room, and nobody says so.
    pub(super) fn has_room_unnoticed(&self) {
        self.too_large.lock().unwrap().clear();
    }

    pub(super) fn has_room(&self) {
        self.has_room_unnoticed();
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn leave(&self, n: u128, left: Duration) {
        self.left.lock().unwrap().insert(n, left);
    }

    fn say(&self, line: String) {
        self.log.send_modify(|log| log.push(line));
    }
}

fn number(job: &Job) -> u128 {
    job.id.0.as_u128()
}

fn over(reason: &str) -> SessionOver {
    SessionOver { reason: reason.to_owned() }
}

fn dead(reason: &str) -> Finished {
    let message = "m".to_owned();
    Finished::Dead(DeadLetter { reason: reason.to_owned(), message, attempts: 1, step: None })
}

fn named(reason: Reason) -> String {
    match reason {
        Reason::None => "none".to_owned(),
        Reason::Cancel { by } => format!("cancelled by {}", by.0.as_u128()),
        Reason::Supersede { by } => format!("superseded by {}", by.0.as_u128()),
        Reason::Abandon => "abandoned".to_owned(),
    }
}

#[async_trait]
impl JobRunner for Script {
    fn time_left(&self, job: &Job) -> Option<Duration> {
        self.left.lock().unwrap().get(&number(job)).copied()
    }

    fn may_be_joined(&self, job: &Job) -> bool {
        !self.mending.lock().unwrap().contains(&number(job))
    }

    async fn standing(&self, job: &Job) -> Result<Standing, SessionOver> {
        let n = number(job);
        if self.decided.lock().unwrap().contains(&n) {
            return Ok(Standing::Decided);
        }
        Ok(match self.suspects.lock().unwrap().get(&n) {
            Some(alone) => Standing::Suspect { alone: *alone },
            None => Standing::Fresh,
        })
    }

    async fn room(&self, job: &Job) -> Admitted {
        match self.too_large.lock().unwrap().contains(&number(job)) {
            true => Admitted::No(Failure::new(Code::CapacityMemory, "reserved")),
            false => Admitted::Yes(Room::none()),
        }
    }

    fn room_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn waits(&self, job: &Job, position: u32, short: &Failure) -> Result<(), SessionOver> {
        self.say(format!("waits {} at {position}: {}", number(job), short.code));
        Ok(())
    }

    async fn fail(
        &self,
        lease: Option<TeamLease>,
        job: &Job,
        failure: Failure,
    ) -> Result<Finished, SessionOver> {
        let whose = if lease.is_some() { " with the team" } else { "" };
        self.say(format!("failed {}{whose}: {}", number(job), failure.code));
        Ok(dead(failure.code.as_str()))
    }

    async fn join(&self, job: &Job, with: &Job) -> Result<Finished, SessionOver> {
        self.say(format!("join {} with {}", number(job), number(with)));
        Ok(Finished::Done)
    }

    async fn accepted(&self, job: &Job, position: u32) -> Result<(), SessionOver> {
        self.say(format!("accepted {} at {position}", number(job)));
        Ok(())
    }

    async fn run(
        &self,
        lease: TeamLease,
        job: &Job,
        mut interrupt: Interrupt,
    ) -> Result<Finished, SessionOver> {
        let n = number(job);
        assert_eq!(lease.team(), &job.team);
        if !interrupt.may_speak().await {
            return Err(over("abandoned before it was told"));
        }
        self.say(format!("run {n}"));
        let mut held = self.held.subscribe();
        let reason = tokio::select! {
            biased;
            reason = interrupt.wait() => reason,
            _ = held.wait_for(|held| !held.contains(&n)) => Reason::None,
        };
        match (reason, n) {
            (Reason::Abandon, _) => {
                self.say(format!("abandoned {n}"));
                Err(over("abandoned"))
            }
            (Reason::None, 666) => panic!("a bug in the runner"),
            (Reason::None, 404) => Ok(dead("git.not_found")),
            (Reason::None, 500) => Err(over("the event log is gone")),
            (Reason::None, _) => Ok(Finished::Done),
            (reason, _) => {
                self.say(format!("{n} {}", named(reason)));
                Ok(Finished::Done)
            }
        }
    }

    async fn skip(&self, job: &Job, because: &Reason) -> Result<Finished, SessionOver> {
        let n = number(job);
        if self.skips_held.lock().unwrap().contains(&n) {
            // The sender lives as long as the script.
            let _ = self.held.subscribe().wait_for(|held| !held.contains(&n)).await;
        }
        self.say(format!("skip {n}: {}", named(*because)));
        Ok(Finished::Done)
    }

    async fn status(&self, job: &Job) -> Result<Finished, SessionOver> {
        self.say(format!("status {}", number(job)));
        Ok(Finished::Done)
    }

    async fn rejected(
        &self,
        _: Option<&TeamId>,
        job_id: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        let n = job_id.and_then(|id| Uuid::try_parse(id).ok()).map_or(0, |id| id.as_u128());
        self.say(format!("rejected {n}: {}", failure.code));
        Ok(dead(failure.code.as_str()))
    }
}

struct LoggedAck(Arc<Script>, String);

#[async_trait]
impl Acknowledge for LoggedAck {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        self.0.say(format!("ack {}", self.1));
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        self.0.say(format!("dead {}: {}", self.1, why.reason));
        Ok(())
    }
}

pub(super) struct Bench {
    pub(super) script: Arc<Script>,
    pub(super) lanes: Lanes,
    pub(super) load: Arc<LaneLoad>,
}

impl Bench {
    pub(super) fn new(config: LanesConfig, held: impl IntoIterator<Item = u128>) -> Self {
        let script = Arc::new(Script {
            log: watch::Sender::new(Vec::new()),
            held: watch::Sender::new(held.into_iter().collect()),
            skips_held: Mutex::default(),
            suspects: Mutex::default(),
            decided: Mutex::default(),
            mending: Mutex::default(),
            too_large: Mutex::default(),
            changes: watch::Sender::new(0),
            left: Mutex::default(),
        });
        let (runner, load) = (Arc::clone(&script), Arc::new(LaneLoad::default()));
        let lanes = Lanes::new(runner, Arc::default(), config, Arc::clone(&load));
        Self { script, lanes, load }
    }

    pub(super) fn submit(&self, n: u128, team: &str, action: Action) {
        self.submit_attempt(n, 1, team, action);
    }

    pub(super) fn submit_attempt(&self, n: u128, attempt: u32, team: &str, action: Action) {
        let job = Job {
            id: JobId(Uuid::from_u128(n)),
            team: TeamId::parse(team).unwrap(),
            action,
            issued_at: String::new(),
            deadline_unix_ms: None,
            attempt,
            traceparent: None,
            tracestate: None,
        };
        let ack = LoggedAck(Arc::clone(&self.script), n.to_string());
        self.lanes.submit(Settle::new(Box::new(ack)), job);
    }

    pub(super) fn release(&self, n: u128) {
        self.script.held.send_modify(|held| {
            held.remove(&n);
        });
    }

    pub(super) async fn until(&self, line: &str) {
        self.until_times(line, 1).await;
    }

    pub(super) async fn until_times(&self, line: &str, times: usize) {
        let mut log = self.script.log.subscribe();
        let seen = |log: &Vec<String>| log.iter().filter(|l| *l == line).count() >= times;
        let waited = tokio::time::timeout(HOUR, log.wait_for(seen)).await.is_ok();
        assert!(waited, "never: {line}\n{:#?}", self.log());
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.script.log.borrow().clone()
    }

    /// Lets everything end; the log, without the announcements.
    pub(super) async fn end(self) -> Vec<String> {
        self.lanes.drain(HOUR).await;
        assert_eq!((self.load.running(), self.load.waiting()), (0, 0));
        self.log().into_iter().filter(|line| !line.starts_with("accepted")).collect()
    }
}

pub(super) fn start_of(part: &str) -> Action {
    let preview = PreviewSpec { name: PartName::parse(part).unwrap(), branch: None, ttl: None };
    Action::Start(Box::new(Spec {
        workspace: WorkspaceSource::Local,
        agents: Vec::new(),
        previews: vec![preview],
        sync_interval: Duration::from_secs(30),
        ttl: None,
        idle_stop: None,
    }))
}

pub(super) fn start() -> Action {
    start_of("main")
}
