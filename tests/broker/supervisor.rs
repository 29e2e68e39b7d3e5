//! The whole way of a job, with a runner that only writes down what it is asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use covibes::adapters::rabbitmq::RabbitEvents;
use covibes::adapters::rabbitmq::dead_letters::DeadFilter;
use covibes::domain::failure::Failure;
use covibes::domain::ids::TeamId;
use covibes::domain::job::{Action, Job};
use covibes::pipeline::interrupt::{Interrupt, Reason};
use covibes::pipeline::job_runner::{Finished, JobRunner};
use covibes::pipeline::lease::TeamLease;
use covibes::ports::broker::{BrokerState, OpenError, Phase};
use covibes::ports::messages::{DeadLetter, EventSink as _, SessionOver};
use covibes::worker::lanes::{LaneLoad, LanesConfig};
use covibes::worker::supervisor::Supervisor;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::place::{Place, TestClock, address, event, in_place, parse, raw_channel, soon};
use crate::relay::Relay;

/// Holds restarts until `held` is false; publishes an event per run.
pub(crate) struct Script {
    pub(crate) log: watch::Sender<Vec<String>>,
    held: watch::Sender<bool>,
    events: Arc<RabbitEvents>,
}

#[async_trait]
impl JobRunner for Script {
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
        self.events.publish(&event(u32::try_from(n).unwrap_or(0), job.team.as_str())).await?;
        self.log.send_modify(|log| log.push(format!("done {n}")));
        Ok(Finished::Done)
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
    state: watch::Receiver<BrokerState>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), OpenError>>,
}

impl Worker {
    fn start(place: &Place, address: &str) -> Self {
        Self::start_at(place, &[address.to_owned()])
    }

    pub(crate) fn start_at(place: &Place, addresses: &[String]) -> Self {
        let broker = place.broker_at_any(addresses);
        let script = Arc::new(Script {
            log: watch::Sender::default(),
            held: watch::Sender::new(true),
            events: broker.events(),
        });
        let state = Supervisor::state();
        let watching = state.subscribe();
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor {
            broker: Arc::new(broker),
            host: place.host.clone(),
            parse,
            runner: Arc::clone(&script) as Arc<dyn JobRunner>,
            leases: Arc::default(),
            lanes: LanesConfig::default(),
            load: Arc::new(LaneLoad::default()),
            drain_grace: Duration::from_secs(20),
            clock: Arc::new(TestClock),
            observer: Arc::clone(&place.facts) as _,
            state,
        };
        let token = shutdown.clone();
        let running = tokio::spawn(async move { supervisor.run(token).await });
        Self { script, state: watching, shutdown, running }
    }

    pub(crate) async fn is_in(&mut self, phase: Phase) -> BrokerState {
        let reached = self.state.wait_for(|state| state.phase == phase);
        soon(phase.as_str(), reached).await.unwrap().clone()
    }

    async fn until(&self, line: &str, times: usize) {
        let mut log = self.script.log.subscribe();
        let seen = |log: &Vec<String>| log.iter().filter(|l| *l == line).count() >= times;
        soon(line, log.wait_for(seen)).await.unwrap();
    }

    pub(crate) async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        soon("the drain", self.running).await.unwrap().unwrap();
        self.script.log.borrow().clone()
    }
}

#[tokio::test]
async fn a_submitted_job_is_run_once_and_acknowledged_and_its_team_placed_once() {
    in_place(async |place| {
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        for n in 1..=20 {
            place.publish(n, if n % 2 == 0 { "even" } else { "odd" }, "stop").await;
        }
        for n in 1..=20 {
            worker.until(&format!("done {n}"), 1).await;
        }
        let log = worker.stop().await;
        assert_eq!(log.len(), 40, "{log:?}");
        let of_even: Vec<_> = log
            .iter()
            .filter_map(|line| line.strip_prefix("done ")?.parse::<u32>().ok())
            .filter(|n| n % 2 == 0)
            .collect();
        assert!(of_even.is_sorted(), "{of_even:?}");
        assert_eq!((place.facts.count("placed"), place.facts.count("forwarded")), (2, 20));
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_job_is_put_aside_with_its_reason() {
    in_place(async |place| {
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish_raw(1, "team.a.stop", b"bad").await;
        place.publish_raw(2, "team.a.fly", b"{}").await;
        place.publish_raw(3, "team.../x.stop", b"{}").await;
        place.publish_raw(4, "nonsense", b"{}").await;
        place.publish_raw(5, "team.A.stop", b"bad").await;
        place.publish_raw(6, "other.a.stop", b"{}").await;
        place.facts.until("dead_lettered", 6).await;
        let dead = place.client.dead_letters(&DeadFilter::default(), 10).await.unwrap();
        let mut reasons: Vec<_> =
            dead.iter().map(|dead| (dead.routing_key.as_str(), dead.reason.as_str())).collect();
        reasons.sort_unstable();
        let expected = [
            ("nonsense", "message.unknown_action"),
            ("other.a.stop", "message.routing_key"),
            ("team.../x.stop", "message.unknown_action"),
            ("team.A.stop", "message.bad_json"),
            ("team.a.fly", "message.unknown_action"),
            ("team.a.stop", "message.bad_json"),
        ];
        assert_eq!(reasons, expected);
        let log = worker.stop().await;
        assert!(!log.iter().any(|line| line.starts_with("run")), "{log:?}");
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_abandons_the_run_which_comes_again_in_order() {
    in_place(async |place| {
        let relay = Relay::new(&address()).await;
        let mut worker = Worker::start(&place, &relay.address);
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "restart").await;
        place.publish(2, "a", "sync").await;
        worker.until("run 1", 1).await;
        place.facts.until("received", 2).await;
        relay.cut();
        worker.until("abandoned 1", 1).await;
        let state = worker.is_in(Phase::Connecting).await;
        place.facts.until("not_connected", 2).await;
        assert!(state.last_error.is_some(), "{state:?}");
        relay.mend();
        worker.script.held.send_replace(false);
        worker.until("done 2", 1).await;
        assert_eq!(worker.is_in(Phase::Connected).await.last_error, None);
        let log = worker.stop().await;
        let expected = ["run 1", "abandoned 1", "run 1", "done 1", "run 2", "done 2"];
        assert_eq!(log[..6], expected);
        // If the dispatcher's last ack was cut off, it forwarded the last job
        // twice, and only that one: the record would make the second run do
        // nothing.
        assert!(log[6..].iter().all(|line| line.ends_with(" 2")), "{log:?}");
    })
    .await;
}

#[tokio::test]
async fn a_worker_without_a_broker_waits_for_it() {
    in_place(async |place| {
        let relay = Relay::new(&address()).await;
        relay.cut();
        let mut worker = Worker::start(&place, &relay.address);
        place.facts.until("not_connected", 2).await;
        relay.mend();
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "stop").await;
        worker.until("done 1", 1).await;
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_hands_the_rest_back_in_order() {
    in_place(async |place| {
        let mut worker = Worker::start(&place, &address());
        worker.is_in(Phase::Connected).await;
        place.publish(1, "a", "restart").await;
        for n in 2..=5 {
            place.publish(n, "a", "restart").await;
        }
        worker.until("run 1", 1).await;
        place.facts.until("received", 5).await;
        worker.shutdown.cancel();
        worker.is_in(Phase::Draining).await;
        worker.script.held.send_replace(false);
        assert_eq!(worker.stop().await, ["run 1", "done 1"]);

        let mut successor = Worker::start(&place, &address());
        successor.script.held.send_replace(false);
        successor.is_in(Phase::Connected).await;
        successor.until("done 5", 1).await;
        let ran: Vec<_> =
            successor.stop().await.into_iter().filter(|line| line.starts_with("run")).collect();
        assert_eq!(ran, ["run 2", "run 3", "run 4", "run 5"]);
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_ends_the_worker() {
    in_place(async |place| {
        let (_connection, channel) = raw_channel().await;
        let mailbox = place.names.mailbox(&place.host);
        let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        let none = lapin::types::FieldTable::default();
        channel.queue_declare(mailbox.as_str().into(), options, none).await.unwrap();
        let worker = Worker::start(&place, &address());
        let ended = soon("the end", worker.running).await.unwrap();
        assert!(matches!(ended, Err(OpenError::WrongArguments { name, .. }) if name == mailbox));
    })
    .await;
}
