//! A worker process over the world in memory: lanes, runner and a broker that
//! keeps what was not settled. A process is a runtime of its own, so that a
//! death is a drop: nothing of it goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::{JobId, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::domain::message::Rejected;
use covibes::pipeline::job_runner::JobRunner;
use covibes::ports::messages::{Acknowledge, DeadLetter, SessionOver, Settle};
use covibes::worker::lanes::{LaneLoad, Lanes, LanesConfig};
use tokio::sync::watch;
use uuid::Uuid;

use crate::pipeline::spec;
use crate::world::World;

/// Virtual time after which a test that waits has failed.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Done,
    Dead(DeadLetter),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    settled: Vec<Option<Settled>>,
    /// Copies among the dead letters, also those whose ack never came.
    dead_letters: Vec<(JobId, DeadLetter)>,
}

/// Jobs in their order, each until it is settled.
#[derive(Clone)]
pub(crate) struct Broker {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<watch::Sender<usize>>,
    world: World,
}

struct Ack(Broker, usize);

#[async_trait]
impl Acknowledge for Ack {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        self.0.world.moment("ack").await;
        self.0.settle(self.1, Settled::Done);
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        self.0.world.moment("dead letter").await;
        {
            let mut queue = self.0.queue.lock().unwrap();
            let id = queue.jobs[self.1].id;
            queue.dead_letters.push((id, why.clone()));
        }
        self.0.world.moment("ack").await;
        self.0.settle(self.1, Settled::Dead(why));
        Ok(())
    }
}

impl Broker {
    pub(crate) fn new(world: &World) -> Self {
        let changed = Arc::new(watch::Sender::new(0));
        Self { queue: Arc::default(), changed, world: world.clone() }
    }

    pub(crate) fn publish(&self, job: Job) -> usize {
        let mut queue = self.queue.lock().unwrap();
        queue.jobs.push(job);
        queue.settled.push(None);
        queue.jobs.len() - 1
    }

    fn settle(&self, index: usize, how: Settled) {
        self.queue.lock().unwrap().settled[index] = Some(how);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn settled(&self, index: usize) -> Option<Settled> {
        self.queue.lock().unwrap().settled[index].clone()
    }

    pub(crate) fn dead_letters(&self) -> Vec<(JobId, DeadLetter)> {
        self.queue.lock().unwrap().dead_letters.clone()
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().unwrap().settled.iter().all(Option::is_some)
    }

    /// Hands everything out that is not settled, in order.
    fn deliver(&self, lanes: &Lanes) {
        let jobs: Vec<_> = {
            let queue = self.queue.lock().unwrap();
            let all = queue.jobs.iter().cloned().enumerate();
            all.filter(|(index, _)| queue.settled[*index].is_none()).collect()
        };
        for (index, job) in jobs {
            lanes.submit(Settle::new(Box::new(Ack(self.clone(), index))), job);
        }
    }

    pub(crate) async fn until_settled(&self, index: usize) -> Settled {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(settled) = self.settled(index) {
                    return settled;
                }
                changed.changed().await.unwrap();
            }
        };
        let settled = tokio::time::timeout(WAIT_MAX, wait).await;
        settled.unwrap_or_else(|_| panic!("message {index} is never settled"))
    }

    /// Runs processes, one after the death of the other, until every message
    /// is settled.
    pub(crate) fn run_to_the_end(&self) {
        assert!(!self.run_until_deaths(200), "the worker dies for ever");
    }

    /// The same, until `deaths` processes died; says whether they did.
    pub(crate) fn run_until_deaths(&self, deaths: u32) -> bool {
        for _ in 0..deaths {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let died = runtime.block_on(async {
                let lanes = lanes(&self.world).await;
                self.deliver(&lanes);
                let mut changed = self.changed.subscribe();
                let all = async {
                    while !self.is_empty() {
                        changed.changed().await.unwrap();
                    }
                };
                tokio::select! {
                    biased;
                    () = self.world.death() => true,
                    all = tokio::time::timeout(WAIT_MAX, all) => {
                        all.expect("something is never settled");
                        lanes.drain(Duration::from_secs(60)).await;
                        false
                    }
                }
            });
            if !died {
                return false;
            }
        }
        true
    }
}

/// The lanes of a new process over the world.
pub(crate) async fn lanes(world: &World) -> Lanes {
    let runner: Arc<dyn JobRunner> = Arc::new(world.runner().await);
    Lanes::new(runner, Arc::default(), LanesConfig::default(), Arc::new(LaneLoad::default()))
}

/// Lanes with a broker that delivers at once.
pub(crate) struct Process {
    pub(crate) broker: Broker,
    pub(crate) lanes: Lanes,
}

impl Process {
    pub(crate) async fn new(world: &World) -> Self {
        Self { broker: Broker::new(world), lanes: lanes(world).await }
    }

    pub(crate) fn submit(&self, job: &Job) -> usize {
        let index = self.broker.publish(job.clone());
        let settle = Settle::new(Box::new(Ack(self.broker.clone(), index)));
        self.lanes.submit(settle, job.clone());
        index
    }

    /// A message of the job's team that is no job.
    pub(crate) fn refuse(&self, job: &Job) -> usize {
        let index = self.broker.publish(job.clone());
        let settle = Settle::new(Box::new(Ack(self.broker.clone(), index)));
        let rejected = Rejected {
            failure: Failure::new(Code::MessageSchema, "no job"),
            team: Some(job.team.clone()),
            job_id: Some(job.id.to_string()),
        };
        self.lanes.refuse(settle, rejected);
        index
    }

    pub(crate) async fn end(self) {
        self.lanes.drain(WAIT_MAX).await;
    }
}

pub(crate) fn job_of(team: &str, action: Action) -> Job {
    Job {
        id: JobId(Uuid::now_v7()),
        team: TeamId::parse(team).unwrap(),
        action,
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    }
}

pub(crate) fn start_of(team: &str) -> Job {
    job_of(team, Action::Start(Box::new(spec(&["main"]))))
}
