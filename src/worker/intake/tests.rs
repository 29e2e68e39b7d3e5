//! What a host says of a team, over a house that only writes down what is said.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::domain::control::{CtlMessage, Holding, Room};
use crate::domain::failure::Failure;
use crate::domain::ids::JobId;
use crate::domain::job::Action;
use crate::pipeline::interrupt::{Interrupt, Reason};
use crate::pipeline::job_runner::Finished;
use crate::pipeline::lease::TeamLease;
use crate::ports::broker::Forwarded;
use crate::ports::messages::{Acknowledge, DeadLetter, Delivery};
use crate::worker::lanes::LanesConfig;

/// Docker's answers, one after the other, and what was told to others.
struct House {
    has: Mutex<VecDeque<Option<bool>>>,
    log: watch::Sender<Vec<String>>,
}

impl House {
    fn note(&self, line: impl Into<String>) {
        self.log.send_modify(|log| log.push(line.into()));
    }

    async fn until(&self, line: &str) {
        let has_it = |log: &Vec<String>| log.iter().any(|one| one == line);
        self.log.subscribe().wait_for(has_it).await.expect("the house lives");
    }
}

#[async_trait]
impl Estate for House {
    async fn room(&self) -> Option<Room> {
        None
    }

    async fn inventory(&self) -> Option<Vec<Holding>> {
        Some(Vec::new())
    }

    async fn has(&self, _: &TeamId) -> Option<bool> {
        let answer = self.has.lock().unwrap().pop_front().flatten();
        self.note(format!("has: {answer:?}"));
        answer
    }

    async fn vacate(&self, _: TeamLease) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl OrderSink for House {
    async fn send(&self, order: &Order) -> Result<(), SessionOver> {
        if let Order::Fenced { is_empty, .. } = order {
            self.note(format!("fenced, empty: {is_empty}"));
        }
        Ok(())
    }

    async fn hand(&self, _: &HostId, _: &HostOrder) -> Result<Forwarded, SessionOver> {
        Ok(Forwarded::Stored)
    }
}

#[async_trait]
impl CtlSink for House {
    async fn say(&self, _: &CtlMessage) -> Result<(), SessionOver> {
        Ok(())
    }
}

#[async_trait]
impl JobRunner for House {
    async fn accepted(&self, _: &Job, _: u32) -> Result<(), SessionOver> {
        Ok(())
    }

    async fn run(&self, _: TeamLease, _: &Job, _: Interrupt) -> Result<Finished, SessionOver> {
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
        _: Option<&TeamId>,
        _: Option<&str>,
        _: &Failure,
    ) -> Result<Finished, SessionOver> {
        Ok(Finished::Done)
    }

    async fn leave(&self, _: &TeamLease) -> Result<(), Failure> {
        self.note("left");
        Ok(())
    }
}

struct Taken;

#[async_trait]
impl Acknowledge for Taken {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, _: DeadLetter) -> Result<(), SessionOver> {
        Ok(())
    }
}

struct Source(mpsc::UnboundedReceiver<Delivery>);

#[async_trait]
impl JobSource for Source {
    async fn next(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }
}

fn team() -> TeamId {
    TeamId::parse("a").unwrap()
}

fn a_restart(_: &RawMessage) -> Result<Job, Rejected> {
    Ok(Job {
        id: JobId(Uuid::from_u128(1)),
        team: team(),
        action: Action::Restart { targets: Vec::new() },
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    })
}

/// Takes a job in, then what follows while Docker says nothing, and has Docker
/// say then that nothing of the team is left.
async fn said_after(follows: Option<HostOrder>) -> Vec<String> {
    let has = Mutex::new([None, Some(false)].into());
    let house = Arc::new(House { has, log: watch::Sender::default() });
    let lanes = Lanes::new(house.clone(), Arc::default(), LanesConfig::default(), Arc::default());
    let (deliveries, source) = mpsc::unbounded_channel();
    let deliver = |order| {
        let settle = Settle::new(Box::new(Taken));
        deliveries.send(Delivery { message: RawMessage::default(), settle, order }).unwrap();
    };
    let (host, leases) = (HostId::parse("here").unwrap(), TeamLeases::default());
    let intake = Intake {
        host: &host,
        parse: a_restart,
        lanes: &lanes,
        leases: &leases,
        estate: &*house,
        orders: &*house,
        runner: &*house,
        ctl: &*house,
    };
    let mut source = Source(source);
    let outside = async {
        deliver(None);
        house.until("has: None").await;
        let has_order = follows.is_some();
        follows.into_iter().for_each(|order| deliver(Some(order)));
        if has_order {
            house.until("left").await;
        }
        house.until("has: Some(false)").await;
        // Whatever is to be said is said before the next question could come.
        tokio::time::sleep(ASK_AGAIN).await;
    };
    tokio::select! {
        over = intake.run(&mut source) => panic!("the session lasts: {over:?}"),
        () = outside => {}
    }
    house.log.borrow().clone()
}

#[tokio::test(start_paused = true)]
async fn a_team_of_which_nothing_is_left_gives_its_place_back() {
    let said = said_after(None).await;
    assert!(said.contains(&"fenced, empty: true".to_owned()), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_team_that_moved_has_no_place_here_to_give_back() {
    let nonce = Uuid::from_u128(2);
    let said = said_after(Some(HostOrder::Leave { team: team(), nonce })).await;
    assert!(!said.iter().any(|line| line.starts_with("fenced")), "{said:?}");
}
