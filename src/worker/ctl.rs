//! This worker's voice and ear among the workers: it says every few seconds how
//! it is, hears the others, and answers their questions and the dashboards'.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::hosts::Hosts;
use super::lanes::LaneLoad;
use crate::domain::control::{CtlMessage, Heartbeat, Order, Room};
use crate::domain::ids::TeamId;
use crate::pipeline::estate::Estate;
use crate::pipeline::job_runner::JobRunner;
use crate::ports::broker::{BrokerFact, BrokerObserver};
use crate::ports::ctl::{CtlSink, CtlSource};
use crate::ports::messages::SessionOver;
use crate::ports::table::OrderSink;

/// Between two heartbeats (DESIGN 3).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Heartbeats on request come no closer than this, whoever asks how often.
const HURRY_INTERVAL: Duration = Duration::from_millis(200);

/// How long Docker may take to say how much room there is. A heartbeat without
/// is better than none.
const ROOM_MAX: Duration = Duration::from_secs(3);

/// How long an answer to a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Questions that are answered at once: each lists containers.
const ANSWERS_MAX: usize = 4;

/// Nobody has said for this long that it dispatches: a nudge wakes whoever the
/// broker has chosen. Without jobs it would not know, and would miss nobody.
const NUDGE_AFTER: Duration = Duration::from_secs(15);

/// Speaks and listens for one session.
#[derive(Clone, Copy)]
pub struct Ctl<'a> {
    /// Who there is.
    pub hosts: &'a Hosts,
    /// What this host has.
    pub estate: &'a dyn Estate,
    /// Tells snapshots.
    pub runner: &'a dyn JobRunner,
    /// How much the lanes hold.
    pub load: &'a LaneLoad,
    /// How much may wait in them.
    pub waiting_max: usize,
    /// Says something to all.
    pub sink: &'a dyn CtlSink,
    /// Orders to the dispatcher.
    pub orders: &'a dyn OrderSink,
    /// Is told what happens.
    pub observer: &'a dyn BrokerObserver,
}

impl Ctl<'_> {
    /// Speaks and listens until the session is over.
    pub async fn run(self, source: &mut dyn CtlSource) -> String {
        let over = tokio::select! {
            over = self.speak() => over,
            over = self.listen(source) => over,
        };
        match over {
            Ok(()) => "nobody is heard any more".to_owned(),
            Err(over) => over.reason,
        }
    }

    async fn speak(self) -> Result<(), SessionOver> {
        let mut nudged: Option<Instant> = None;
        loop {
            let room = tokio::time::timeout(ROOM_MAX, self.room()).await.ok().flatten();
            let (dispatches, draining) = self.hosts.own_state();
            let host = self.hosts.own().clone();
            let heartbeat = Heartbeat { host, dispatches, draining, room };
            self.sink.say(&CtlMessage::Heartbeat(heartbeat)).await?;
            if self.hosts.misses_a_dispatcher(NUDGE_AFTER)
                && nudged.is_none_or(|at| at.elapsed() >= NUDGE_AFTER)
            {
                nudged = Some(Instant::now());
                self.orders.send(&Order::Nudge).await?;
            }
            let spoken = Instant::now();
            tokio::select! {
                () = self.hosts.hurried() => {}
                () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
            }
            tokio::time::sleep_until(spoken + HURRY_INTERVAL).await;
        }
    }

    async fn room(self) -> Option<Room> {
        let (jobs, waiting) = (self.load.running() + self.load.waiting(), self.load.waiting());
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let waiting = narrow(self.waiting_max.saturating_sub(waiting));
        Some(Room { jobs: narrow(jobs), waiting, ..self.estate.room().await? })
    }

    async fn listen(self, source: &mut dyn CtlSource) -> Result<(), SessionOver> {
        let mut answers: FuturesUnordered<BoxFuture<'_, Result<(), SessionOver>>> =
            FuturesUnordered::new();
        loop {
            let message = tokio::select! {
                Some(answered) = answers.next() => {
                    answered?;
                    continue;
                }
                message = source.next() => message,
            };
            let answer = match message {
                None => return Ok(()),
                Some(CtlMessage::Heartbeat(heartbeat)) => {
                    self.hosts.heard(heartbeat).await;
                    continue;
                }
                Some(CtlMessage::Ask) => {
                    self.hosts.hurry();
                    continue;
                }
                Some(CtlMessage::Inventory { nonce, host, teams }) => {
                    self.hosts.inventory(nonce, host, teams);
                    continue;
                }
                Some(CtlMessage::Forget { host }) => {
                    self.hosts.forget(&host).await;
                    continue;
                }
                Some(CtlMessage::Moving { nonce, from, refusal }) => {
                    self.hosts.moving(nonce, from, refusal);
                    continue;
                }
                // For whoever gave an order.
                Some(CtlMessage::Answer { .. }) => continue,
                Some(CtlMessage::InventoryAsk { nonce }) => self.tell_inventory(nonce).boxed(),
                Some(CtlMessage::Snapshot { team }) => self.tell_snapshot(team).boxed(),
            };
            if answers.len() < ANSWERS_MAX {
                answers.push(answer);
            } else {
                let reason = "too many questions at once".to_owned();
                self.observer.observe(BrokerFact::CtlIgnored { reason });
            }
        }
    }

    async fn tell_inventory(self, nonce: uuid::Uuid) -> Result<(), SessionOver> {
        let asked = tokio::time::timeout(ANSWER_MAX, self.estate.inventory()).await;
        // Without an answer of Docker's there is none of ours: the question
        // comes again, and "nothing" would be believed.
        let Ok(Some(teams)) = asked else { return Ok(()) };
        let host = self.hosts.own().clone();
        self.sink.say(&CtlMessage::Inventory { nonce, host, teams }).await
    }

    async fn tell_snapshot(self, team: Option<TeamId>) -> Result<(), SessionOver> {
        self.runner.snapshot(team.as_ref()).await
    }
}
