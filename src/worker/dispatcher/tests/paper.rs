//! A broker of paper: queues, bindings and a marker in memory, with a log of
//! what the dispatcher did.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::watch;

use super::super::*;
use crate::domain::control::{CtlMessage, Heartbeat, Holding, HostOrder, Room};
use crate::domain::event::EncodedEvent;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::JobId;
use crate::domain::job::{Action, Job};
use crate::domain::message::{RawMessage, Rejected};
use crate::domain::spec::Spec;
use crate::ports::broker::Forwarded;
use crate::ports::messages::Settle;

mod voices;

use self::voices::PaperAck;

pub(super) fn team(raw: &str) -> TeamId {
    TeamId::parse(raw).unwrap()
}

pub(super) fn host(raw: &str) -> HostId {
    HostId::parse(raw).unwrap()
}

pub(super) fn heartbeat(name: &str, teams: i64, waiting: u32) -> Heartbeat {
    let room = Room {
        teams,
        memory_bytes: 1 << 40,
        cpu_millis: 1_000_000,
        disk_is_low: false,
        jobs: 0,
        waiting,
    };
    Heartbeat { host: host(name), dispatches: false, draining: false, room: Some(room) }
}

/// A message in a queue of paper.
#[derive(Clone)]
pub(super) struct Letter {
    number: u128,
    parcel: Parcel,
    message: RawMessage,
}

impl Letter {
    pub(super) fn job(number: u128, routing_key: &str, body: Vec<u8>) -> Self {
        let message_id = Some(Uuid::from_u128(number).to_string());
        let routing_key = routing_key.to_owned();
        let message = RawMessage { body, routing_key, message_id, ..RawMessage::default() };
        Self { number, parcel: Parcel::Job, message }
    }

    fn of(number: u128, parcel: Parcel) -> Self {
        Self { number, parcel, message: RawMessage::default() }
    }

    pub(super) fn evict(number: u128, name: &str) -> Self {
        let (host, nonce) = (host(name), Uuid::from_u128(number));
        Self::of(number, Parcel::Order(Order::Evict { host, nonce }))
    }

    pub(super) fn move_team(number: u128, name: &str, to: &str) -> Self {
        let (team, to, nonce) = (team(name), host(to), Uuid::from_u128(number));
        Self::of(number, Parcel::Order(Order::Move { team, to, nonce }))
    }

    pub(super) fn again(mut self) -> Self {
        self.message.redelivered = true;
        self
    }

    pub(super) fn nudge(number: u128) -> Self {
        Self::of(number, Parcel::Order(Order::Nudge))
    }

    pub(super) fn fence(number: u128, name: &str) -> Self {
        let (team, nonce) = (team(name), Uuid::from_u128(number));
        let mut letter = Self::of(number, Parcel::HostOrder(HostOrder::Fence { team, nonce }));
        letter.message.routing_key = format!("team.{name}.fence");
        letter
    }
}

/// Body: the team that a job names, or `bad`.
pub(super) fn job(number: u128, name: &str, action: &str) -> Letter {
    Letter::job(number, &format!("team.{name}.{action}"), name.as_bytes().to_vec())
}

/// A host's answer to the fence of that number.
pub(super) fn order(name: &str, from: &str, fence: u128, is_empty: bool) -> Letter {
    let (team, host, nonce) = (team(name), host(from), Uuid::from_u128(fence));
    Letter::of(900 + fence, Parcel::Order(Order::Fenced { team, host, nonce, is_empty }))
}

pub(super) fn parse(message: &RawMessage) -> Result<Job, Rejected> {
    let refuse =
        |code| Err(Rejected { failure: Failure::new(code, "x"), team: None, job_id: None });
    if message.body.len() > 100 {
        return refuse(Code::MessageTooLarge);
    }
    let Some(named) = std::str::from_utf8(&message.body).ok().filter(|name| *name != "bad") else {
        return refuse(Code::MessageInvalidTeamId);
    };
    let action = match message.routing_key.rsplit('.').next().unwrap() {
        "start" => Action::Start(Box::new(spec())),
        "destroy" => Action::Destroy,
        "status" => Action::Status,
        "restart" => Action::Restart { targets: Vec::new() },
        "sync" => Action::Sync,
        _ => Action::Stop,
    };
    Ok(Job {
        id: JobId(Uuid::try_parse(message.message_id.as_deref().unwrap()).unwrap()),
        team: team(named),
        action,
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    })
}

fn spec() -> Spec {
    Spec {
        workspace: crate::domain::spec::WorkspaceSource::Local,
        agents: Vec::new(),
        previews: Vec::new(),
        sync_interval: Duration::from_secs(30),
        ttl: None,
        idle_stop: None,
    }
}

#[derive(Default)]
pub(super) struct State {
    log: Vec<String>,
    pub(super) queue: VecDeque<Letter>,
    /// Taken and not settled, in order: they go back when the dispatcher stops.
    pub(super) taken: Vec<Letter>,
    settled: usize,
    places: BTreeMap<String, String>,
    pub(super) is_marked: bool,
    full: BTreeSet<String>,
    held: BTreeSet<String>,
    waiting_for: BTreeSet<String>,
    mailboxes: BTreeMap<String, VecDeque<Letter>>,
    readers: BTreeSet<String>,
    said: Vec<CtlMessage>,
    inventories: BTreeMap<String, Vec<Holding>>,
    events: Vec<EncodedEvent>,
    next_id: u128,
    answers: Option<(Vec<Letter>, bool)>,
    /// What hosts say to the next orders to let a team go.
    pub(super) words: VecDeque<(String, Option<String>)>,
}

/// The broker.
#[derive(Clone)]
pub(super) struct Paper {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) changed: Arc<watch::Sender<u64>>,
    pub(super) hosts: Arc<Hosts>,
}

impl Paper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state());
        self.changed.send_modify(|changes| *changes += 1);
        done
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_so(&self.state()) {
            changed.changed().await.unwrap();
        }
    }

    pub(super) fn publish(&self, letters: Vec<Letter>) {
        self.change(|state| state.queue.extend(letters));
    }

    pub(super) fn put(&self, name: &str, letters: Vec<Letter>) {
        self.change(|state| state.mailboxes.entry(name.to_owned()).or_default().extend(letters));
    }

    pub(super) fn place(&self, name: &str, on: &str) {
        self.change(|state| state.places.insert(name.to_owned(), on.to_owned()));
    }

    pub(super) fn displace(&self, name: &str) {
        self.change(|state| state.places.remove(name));
    }

    pub(super) fn place_of(&self, name: &str) -> Option<String> {
        self.state().places.get(name).cloned()
    }

    pub(super) fn hold(&self, name: &str) {
        self.change(|state| state.held.insert(name.to_owned()));
    }

    pub(super) fn let_go(&self, name: &str) {
        self.change(|state| state.held.remove(name));
    }

    pub(super) fn is_waiting_for(&self, name: &str) -> bool {
        self.state().waiting_for.contains(name)
    }

    pub(super) fn fill(&self, name: &str) {
        self.change(|state| state.full.insert(name.to_owned()));
    }

    pub(super) fn read_by_its_host(&self, name: &str) {
        self.change(|state| state.readers.insert(name.to_owned()));
    }

    pub(super) fn lose_the_table(&self) {
        self.change(|state| state.is_marked = false);
    }

    pub(super) fn is_marked(&self) -> bool {
        self.state().is_marked
    }

    pub(super) fn inventory(&self, name: &str, teams: Vec<Holding>) {
        self.change(|state| state.inventories.insert(name.to_owned(), teams));
    }

    /// From now on the first fence is answered, behind `before`; any other one
    /// says that something is left.
    pub(super) fn answer_fences(&self, before: Vec<Letter>, is_empty: bool) {
        self.change(|state| state.answers = Some((before, is_empty)));
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    pub(super) fn said(&self) -> Vec<CtlMessage> {
        self.state().said.clone()
    }

    /// How often hosts were asked for inventories.
    pub(super) fn asked(&self) -> usize {
        let is_question = |said: &&CtlMessage| matches!(said, CtlMessage::InventoryAsk { .. });
        self.state().said.iter().filter(is_question).count()
    }

    pub(super) fn settled(&self) -> usize {
        self.state().settled
    }

    /// Whether everything that was published is settled.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state();
        state.settled > 0 && state.queue.is_empty() && state.taken.is_empty()
    }

    pub(super) fn events(&self) -> Vec<String> {
        self.state().events.iter().map(|event| event.body.clone()).collect()
    }

    pub(super) fn event_ids(&self) -> Vec<String> {
        self.state().events.iter().map(|event| event.id.clone()).collect()
    }

    /// What a mailbox holds: a job by its number, an order by its kind.
    pub(super) fn mailbox(&self, name: &str) -> Vec<String> {
        let state = self.state();
        let letters = state.mailboxes.get(name).into_iter().flatten();
        let shown = letters.map(|letter| match &letter.parcel {
            Parcel::HostOrder(HostOrder::Fence { .. }) => format!("fence {}", letter.number),
            Parcel::HostOrder(HostOrder::Vacate { .. }) => format!("vacate {}", letter.number),
            _ => letter.number.to_string(),
        });
        shown.collect()
    }

    async fn forward(&self, name: &str, letter: &Letter) -> Forwarded {
        if self.state().held.contains(name) {
            self.change(|state| state.waiting_for.insert(name.to_owned()));
            self.until(|state| !state.held.contains(name)).await;
        }
        self.change(|state| {
            let place = state.places.get(name).cloned();
            let (shown, forwarded) = match place {
                None => ("nowhere".to_owned(), Forwarded::Unplaced),
                Some(on) if state.full.contains(&on) => ("full".to_owned(), Forwarded::Refused),
                Some(on) => {
                    state.mailboxes.entry(on.clone()).or_default().push_back(letter.clone());
                    (on, Forwarded::Stored)
                }
            };
            if letter.parcel == Parcel::Job {
                state.log.push(format!("forward {} of {name}: {shown}", letter.number));
            }
            forwarded
        })
    }
}

pub(super) struct PaperQueue {
    pub(super) paper: Paper,
    /// A mailbox, if it is not the one queue of all jobs.
    pub(super) mailbox: Option<String>,
}

struct PaperWork {
    paper: Paper,
    letter: Letter,
}

#[async_trait]
impl Incoming for PaperWork {
    fn parcel(&self) -> &Parcel {
        &self.letter.parcel
    }

    fn message(&self) -> &RawMessage {
        &self.letter.message
    }

    async fn forward(&self, team: &TeamId) -> Result<Forwarded, SessionOver> {
        Ok(self.paper.forward(team.as_str(), &self.letter).await)
    }

    fn settle(self: Box<Self>) -> Settle {
        Settle::new(Box::new(PaperAck { paper: self.paper, number: self.letter.number }))
    }
}

#[async_trait]
impl DispatchQueue for PaperQueue {
    async fn next(&mut self) -> Option<Box<dyn Incoming>> {
        let take = |state: &mut State| match &self.mailbox {
            None => {
                let letter = state.queue.pop_front()?;
                state.taken.push(letter.clone());
                Some(letter)
            }
            Some(name) => state.mailboxes.get_mut(name)?.pop_front(),
        };
        let mut changed = self.paper.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let letter = take(&mut self.paper.state());
            if let Some(letter) = letter {
                return Some(Box::new(PaperWork { paper: self.paper.clone(), letter }));
            }
            changed.changed().await.unwrap();
        }
    }
}

#[async_trait]
impl PlacementTable for Paper {
    async fn place(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        self.change(|state| {
            state.log.push(format!("place {team} on {host}"));
            state.places.insert(team.to_string(), host.to_string());
        });
        Ok(())
    }

    async fn release(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        self.change(|state| {
            state.log.push(format!("release {team} from {host}"));
            if state.places.get(team.as_str()).is_some_and(|on| on == host.as_str()) {
                state.places.remove(team.as_str());
            }
        });
        Ok(())
    }

    async fn is_marked(&self) -> Result<bool, SessionOver> {
        Ok(self.state().is_marked)
    }

    async fn mark(&self) -> Result<(), SessionOver> {
        self.change(|state| state.is_marked = true);
        Ok(())
    }

    async fn fence(&self, team: &TeamId, nonce: Uuid) -> Result<Forwarded, SessionOver> {
        let letter =
            Letter { number: nonce.as_u128(), ..Letter::fence(nonce.as_u128(), team.as_str()) };
        let forwarded = self.forward(team.as_str(), &letter).await;
        if forwarded == Forwarded::Stored {
            self.change(|state| {
                let on = state.places[team.as_str()].clone();
                if let Some((before, is_empty)) = state.answers.as_mut() {
                    let before = std::mem::take(before);
                    let said = std::mem::replace(is_empty, false);
                    state.queue.extend(before);
                    state.queue.push_back(order(team.as_str(), &on, nonce.as_u128(), said));
                }
            });
        }
        Ok(forwarded)
    }

    async fn depart(
        &self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
    ) -> Result<Forwarded, SessionOver> {
        self.change(|state| state.log.push(format!("depart {team} to {to}")));
        let letter = Letter::of(nonce.as_u128(), Parcel::Marker);
        let forwarded = self.forward(team.as_str(), &letter).await;
        let word = self.change(|state| state.words.pop_front());
        if let (Forwarded::Stored, Some((from, refusal))) = (forwarded, word) {
            self.hosts.moving(nonce, host(&from), refusal);
        }
        Ok(forwarded)
    }

    async fn leave(&self, team: &TeamId, host: &HostId, _: Uuid) -> Result<Forwarded, SessionOver> {
        self.change(|state| state.log.push(format!("leave {team} at {host}")));
        Ok(Forwarded::Stored)
    }

    async fn readers(&self, host: &HostId) -> Result<u32, SessionOver> {
        Ok(u32::from(self.state().readers.contains(host.as_str())))
    }

    async fn vacate(&self, host: &HostId, nonce: Uuid) -> Result<Forwarded, SessionOver> {
        let letter = Letter::of(nonce.as_u128(), Parcel::HostOrder(HostOrder::Vacate { nonce }));
        self.put(host.as_str(), vec![letter]);
        Ok(Forwarded::Stored)
    }

    async fn drain(&self, host: &HostId) -> Result<Box<dyn DispatchQueue>, SessionOver> {
        Ok(Box::new(PaperQueue { paper: self.clone(), mailbox: Some(host.to_string()) }))
    }

    async fn renew_mailbox(&self, host: &HostId) -> Result<(), SessionOver> {
        self.change(|state| {
            state.log.push(format!("renew {host}"));
            state.mailboxes.remove(host.as_str());
            state.places.retain(|_, on| on != host.as_str());
        });
        Ok(())
    }
}
