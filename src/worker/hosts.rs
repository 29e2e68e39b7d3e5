//! The hosts that this worker has heard of: how much room each has, which are
//! lost, and who must answer before a lost table is believed again.
//!
//! Every worker keeps this, so that whoever becomes the dispatcher knows the
//! others already. Only a dispatcher acts on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::control::{Heartbeat, Holding};
use crate::domain::ids::HostId;
use crate::policy::placement::{self, Candidate, Demand, Placed};
use crate::ports::ctl::KnownHosts;

/// A host that was silent for this long gets no new teams: two heartbeats and
/// a half.
const FRESH: Duration = Duration::from_millis(12_500);

/// Hosts at most: whoever may write to `covibes.ctl` could name any number.
const HOSTS_MAX: usize = 1000;

/// All hosts.
pub struct Hosts {
    own: HostId,
    lost_after: Duration,
    store: Arc<dyn KnownHosts>,
    table: Mutex<Table>,
    /// Counts changes of the answers to the running question.
    answered: watch::Sender<u64>,
    hurry: Notify,
}

#[derive(Default)]
struct Table {
    hosts: BTreeMap<HostId, Seen>,
    question: Option<Question>,
    /// Whoever waits for word of a move.
    moves: BTreeMap<Uuid, oneshot::Sender<Word>>,
    dispatches: bool,
    draining: bool,
    /// When some other host last said that it dispatches.
    dispatcher_heard: Option<Instant>,
}

struct Seen {
    heartbeat: Option<Heartbeat>,
    /// When it last spoke, or when this worker began to listen.
    heard: Instant,
    lost: bool,
    placed: Placed,
}

/// What a host says of a move: where the team was, and why it stays, if so.
pub type Word = (HostId, Option<String>);

/// Word of a move that somebody waits for, until it is dropped.
pub struct ExpectedMove<'a> {
    hosts: &'a Hosts,
    nonce: Uuid,
    word: oneshot::Receiver<Word>,
}

impl ExpectedMove<'_> {
    /// The first word.
    pub async fn said(mut self) -> Word {
        match (&mut self.word).await {
            Ok(word) => word,
            // Another who waits for the same has taken its place.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for ExpectedMove<'_> {
    fn drop(&mut self) {
        self.hosts.table().moves.remove(&self.nonce);
    }
}

struct Question {
    nonce: Uuid,
    answers: BTreeMap<HostId, Vec<Holding>>,
}

/// A host for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Which.
    pub host: HostId,
    /// What it last said.
    pub heartbeat: Option<Heartbeat>,
    /// How long ago.
    pub silent: Duration,
    /// Whether that is too long.
    pub lost: bool,
}

impl Hosts {
    /// The own host and those of the operator's list; call [`Self::remember`]
    /// for those of earlier times.
    #[must_use]
    pub fn new(
        own: HostId,
        configured: &[HostId],
        lost_after: Duration,
        store: Arc<dyn KnownHosts>,
    ) -> Self {
        let mut table = Table::default();
        for host in configured.iter().chain([&own]) {
            table.hosts.insert(host.clone(), Seen::silent());
        }
        let answered = watch::Sender::new(0);
        let (table, hurry) = (Mutex::new(table), Notify::new());
        Self { own, lost_after, store, table, answered, hurry }
    }

    /// Reads which hosts were known before. What cannot be read is logged: the
    /// hosts that live say so themselves.
    pub async fn remember(&self) {
        match self.store.load().await {
            Ok(hosts) => {
                let mut table = self.table();
                for host in hosts.into_iter().take(HOSTS_MAX) {
                    table.hosts.entry(host).or_insert_with(Seen::silent);
                }
            }
            Err(failure) => {
                tracing::error!(%failure, "the list of known hosts cannot be read");
            }
        }
    }

    /// This host.
    #[must_use]
    pub fn own(&self) -> &HostId {
        &self.own
    }

    /// Takes note of a heartbeat, and on disk of a host that is new.
    pub async fn heard(&self, heartbeat: Heartbeat) {
        let is_new = {
            let mut table = self.table();
            if heartbeat.dispatches && heartbeat.host != self.own {
                table.dispatcher_heard = Some(Instant::now());
            }
            let is_new = !table.hosts.contains_key(&heartbeat.host);
            if is_new && table.hosts.len() >= HOSTS_MAX {
                return;
            }
            let seen = table.hosts.entry(heartbeat.host.clone()).or_insert_with(Seen::silent);
            seen.heard = Instant::now();
            seen.placed = Placed::default();
            seen.heartbeat = Some(heartbeat);
            is_new
        };
        if is_new {
            self.save().await;
        }
    }

    /// Forgets a host that is gone for good. The own one stays.
    pub async fn forget(&self, host: &HostId) {
        let was_known = *host != self.own && self.table().hosts.remove(host).is_some();
        if was_known {
            self.answered.send_modify(|changes| *changes += 1);
            self.save().await;
        }
    }

    async fn save(&self) {
        let hosts: Vec<_> = self.table().hosts.keys().cloned().collect();
        if let Err(failure) = self.store.save(&hosts).await {
            // It is heard again in seconds; only a crash right now would lose it.
            tracing::error!(%failure, "the list of known hosts cannot be written");
        }
    }

    /// Chooses a host for a new team and counts the team against it.
    #[must_use]
    pub fn choose(&self, demand: Demand) -> Option<HostId> {
        let mut table = self.table();
        let candidates: Vec<_> = table
            .hosts
            .iter()
            .filter(|(host, seen)| seen.takes_teams(**host == self.own))
            .map(|(host, seen)| Candidate {
                host: host.clone(),
                room: seen.heartbeat.as_ref().and_then(|heartbeat| heartbeat.room),
                placed: seen.placed,
            })
            .collect();
        let host = placement::choose(&candidates, demand)?.clone();
        if let Some(seen) = table.hosts.get_mut(&host) {
            seen.placed.add(demand);
        }
        Some(host)
    }

    /// Whether a host takes a team that is meant for it; why not, for people.
    /// What the team needs is the host's own to judge.
    ///
    /// # Errors
    /// It is unknown, silent, or leaves.
    pub fn can_take_a_team(&self, host: &HostId) -> Result<(), String> {
        let table = self.table();
        let Some(seen) = table.hosts.get(host) else {
            let known: Vec<_> = table.hosts.keys().map(HostId::as_str).collect();
            return Err(format!("there is no host {host}, only {}", known.join(", ")));
        };
        let is_own = *host == self.own;
        if !is_own && !seen.is_fresh() {
            let silent = seen.heard.elapsed().as_secs();
            return Err(format!("{host} has been silent for {silent} s"));
        }
        match &seen.heartbeat {
            Some(heartbeat) if heartbeat.draining => Err(format!("{host} is draining")),
            Some(Heartbeat { room: None, .. }) => Err(format!("Docker does not answer on {host}")),
            Some(Heartbeat { room: Some(room), .. }) if room.disk_is_low => {
                Err(format!("{host} has too little disk left (host.disk_low)"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Begins to wait for word of a move.
    pub fn expect_move(&self, nonce: Uuid) -> ExpectedMove<'_> {
        let (said, word) = oneshot::channel();
        self.table().moves.insert(nonce, said);
        ExpectedMove { hosts: self, nonce, word }
    }

    /// Takes word of a move; one that nobody waits for counts for nothing.
    pub fn moving(&self, nonce: Uuid, from: HostId, refusal: Option<String>) {
        if let Some(said) = self.table().moves.remove(&nonce) {
            // Nobody waits any more: the move was given up this instant.
            let _ = said.send((from, refusal));
        }
    }

    /// Hosts that were silent for too long since the last call, and how many
    /// are known and lost. Nobody is lost while this worker does not even hear
    /// itself: then it is the broker that is silent.
    pub fn newly_lost(&self) -> (Vec<HostId>, usize, usize) {
        let mut table = self.table();
        let hears_itself = table.hosts.get(&self.own).is_some_and(|own| own.is_fresh());
        let mut newly = Vec::new();
        let mut lost = 0;
        for (host, seen) in &mut table.hosts {
            let is_lost = seen.heard.elapsed() >= self.lost_after;
            if is_lost && !seen.lost && hears_itself {
                newly.push(host.clone());
                seen.lost = true;
            } else if !is_lost {
                seen.lost = false;
            }
            lost += usize::from(seen.lost);
        }
        (newly, table.hosts.len(), lost)
    }

    /// How long a host has been silent.
    #[must_use]
    pub fn silent_for(&self, host: &HostId) -> Duration {
        self.table().hosts.get(host).map(|seen| seen.heard.elapsed()).unwrap_or_default()
    }

    /// Everything that is known, for people.
    #[must_use]
    pub fn view(&self) -> Vec<HostView> {
        let table = self.table();
        let view = table.hosts.iter().map(|(host, seen)| HostView {
            host: host.clone(),
            heartbeat: seen.heartbeat.clone(),
            silent: seen.heard.elapsed(),
            lost: seen.heard.elapsed() >= self.lost_after,
        });
        view.collect()
    }

    /// The next heartbeat is to come at once.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Resolves when somebody is in a hurry.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Whether this worker has the one queue of all jobs.
    pub fn set_dispatches(&self, dispatches: bool) {
        self.table().dispatches = dispatches;
        self.hurry();
    }

    /// Whether this worker leaves.
    pub fn set_draining(&self, draining: bool) {
        self.table().draining = draining;
        self.hurry();
    }

    /// What to say of oneself besides the room.
    #[must_use]
    pub fn own_state(&self) -> (bool, bool) {
        let table = self.table();
        (table.dispatches, table.draining)
    }

    /// Whether nobody said within `time` that it dispatches.
    #[must_use]
    pub fn misses_a_dispatcher(&self, time: Duration) -> bool {
        let table = self.table();
        let heard = |at: Instant| at.elapsed() < time;
        !table.dispatches && !table.dispatcher_heard.is_some_and(heard)
    }

    /// Begins to collect answers to a question.
    pub fn begin_inventory(&self, nonce: Uuid) {
        self.table().question = Some(Question { nonce, answers: BTreeMap::new() });
    }

    /// Ends it.
    pub fn end_inventory(&self) {
        self.table().question = None;
    }

    /// Takes an answer; one to another question counts for nothing.
    pub fn inventory(&self, nonce: Uuid, host: HostId, teams: Vec<Holding>) {
        let mut table = self.table();
        let hosts_known = table.hosts.len();
        if let Some(question) = table.question.as_mut().filter(|asked| asked.nonce == nonce)
            && question.answers.len() < hosts_known.max(HOSTS_MAX)
        {
            question.answers.insert(host, teams);
            drop(table);
            self.answered.send_modify(|changes| *changes += 1);
        }
    }

    /// Who has not answered, and all answers so far.
    #[must_use]
    pub fn answers(&self) -> (Vec<HostId>, BTreeMap<HostId, Vec<Holding>>) {
        let table = self.table();
        let answers =
            table.question.as_ref().map(|asked| asked.answers.clone()).unwrap_or_default();
        let silent = table.hosts.keys().filter(|host| !answers.contains_key(*host)).cloned();
        (silent.collect(), answers)
    }

    /// Whether this worker dispatches, and whom it waits for before it places a
    /// team; for `/readyz`.
    #[must_use]
    pub fn dispatching(&self) -> (bool, Vec<HostId>) {
        let table = self.table();
        let awaited = table.question.as_ref().map(|asked| {
            table.hosts.keys().filter(|host| !asked.answers.contains_key(*host)).cloned().collect()
        });
        (table.dispatches, awaited.unwrap_or_default())
    }

    /// Told when an answer came or a host was forgotten.
    #[must_use]
    pub fn answered(&self) -> watch::Receiver<u64> {
        self.answered.subscribe()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn silent() -> Self {
        let (heartbeat, heard) = (None, Instant::now());
        Self { heartbeat, heard, lost: false, placed: Placed::default() }
    }

    fn is_fresh(&self) -> bool {
        self.heartbeat.is_some() && self.heard.elapsed() < FRESH
    }

    fn takes_teams(&self, is_own: bool) -> bool {
        let leaves = self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.draining);
        // One knows oneself without hearing oneself.
        (is_own || self.is_fresh()) && !leaves
    }
}

#[cfg(test)]
mod tests;
