//! The dispatcher: takes the one queue of all jobs in order and sends each on
//! to the mailbox of its team's host.
//!
//! Every worker runs one; the broker lets one of them have the queue. The
//! bindings of the route exchange are the placement table, and a returned
//! message means that its team has no place. Only what the last deliveries say
//! is known besides: which teams were fenced, and which hosts have room.
//!
//! At most one message of a team is in hand, so that after a crash only
//! neighbours come twice; teams are dispatched beside each other. Whatever
//! concerns a team takes its turn among the team's jobs; whatever concerns all
//! of them waits until nothing else is in hand ([`eviction`]).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::desk::Desk;
use crate::domain::control::Order;
use crate::domain::ids::{HostId, TeamId};
use crate::ports::broker::{BrokerObserver, DispatchQueue, Incoming, Parcel};
use crate::ports::ctl::CtlSink;
use crate::ports::messages::SessionOver;
use crate::ports::table::PlacementTable;
use crate::worker::hosts::Hosts;
use crate::worker::intake::ParseJob;

mod desk;
mod eviction;
mod keeping;
mod moving;
pub mod voice;

#[cfg(test)]
mod tests;

pub use self::voice::Voice;

/// How long a new dispatcher waits before it places a team: heartbeats of all
/// hosts come within it, since it asks for them, and in a cluster of brokers
/// every node sees the last bindings of the dispatcher before.
pub const PLACEMENT_WAIT: Duration = Duration::from_secs(2);

/// What the dispatcher works with.
#[derive(Clone, Copy)]
pub struct Dispatcher<'a> {
    /// Says what is wrong with a message that cannot be forwarded.
    pub parse: ParseJob,
    /// Tells the outside.
    pub voice: &'a Voice,
    /// Who there is.
    pub hosts: &'a Hosts,
    /// Says something to all workers.
    pub ctl: &'a dyn CtlSink,
    /// Is told what happens.
    pub observer: &'a dyn BrokerObserver,
    /// See [`PLACEMENT_WAIT`].
    pub placement_wait: Duration,
}

/// The messages of teams that have one in hand.
#[derive(Default)]
struct Window {
    teams: HashMap<TeamId, VecDeque<Box<dyn Incoming>>>,
}

/// An order that concerns every team.
struct Eviction {
    host: HostId,
    nonce: Uuid,
    incoming: Box<dyn Incoming>,
}

/// The end of handling a message: whose it was.
type Handled = Result<Option<TeamId>, SessionOver>;

impl Dispatcher<'_> {
    /// Dispatches until told to stop; what is in hand is finished first.
    ///
    /// # Errors
    /// The session is over.
    pub async fn run(
        self,
        queue: &mut dyn DispatchQueue,
        table: &dyn PlacementTable,
        stop: &CancellationToken,
    ) -> Result<(), SessionOver> {
        let desk = Desk::new(self, table, stop.clone());
        let mut keeping = desk.keep().boxed();
        let mut window = Window::default();
        let mut in_hand: FuturesUnordered<BoxFuture<'_, Handled>> = FuturesUnordered::new();
        let mut eviction: Option<Eviction> = None;
        let mut is_evicting = false;
        let ended = loop {
            if in_hand.is_empty() {
                is_evicting = false;
                if stop.is_cancelled() {
                    break Ok(());
                }
                if let Some(Eviction { host, nonce, incoming }) = eviction.take() {
                    is_evicting = true;
                    in_hand.push(desk.evict(host, nonce, incoming).boxed());
                }
            }
            let takes = eviction.is_none() && !is_evicting && !stop.is_cancelled();
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled(), if takes => continue,
                over = &mut keeping => break Err(over),
                Some(handled) = in_hand.next() => match handled {
                    Ok(team) => {
                        let next = team.and_then(|team| window.next(team));
                        if let Some((team, incoming)) = next && !stop.is_cancelled() {
                            in_hand.push(desk.handle(Some(team), incoming).boxed());
                        }
                        continue;
                    }
                    Err(over) => break Err(over),
                },
                incoming = queue.next(), if takes => incoming,
            };
            let Some(incoming) = incoming else {
                break Err(SessionOver { reason: "the dispatch queue ended".to_owned() });
            };
            // The first delivery is how a worker learns that it is the one.
            desk.elect();
            if let Parcel::Order(Order::Evict { host, nonce }) = incoming.parcel() {
                let (host, nonce) = (host.clone(), *nonce);
                // What is in hand may wait for nobody but this host's inventory.
                self.hosts.forget(&host).await;
                eviction = Some(Eviction { host, nonce, incoming });
                continue;
            }
            match team_of(incoming.as_ref()) {
                None => in_hand.push(desk.handle(None, incoming).boxed()),
                Some(team) => {
                    if let Some(incoming) = window.admit(&team, incoming) {
                        in_hand.push(desk.handle(Some(team), incoming).boxed());
                    }
                }
            }
        };
        self.hosts.set_dispatches(false);
        ended
    }
}

impl Window {
    /// Keeps a message until its team has nothing in hand; gives it back if
    /// that is now.
    fn admit(&mut self, team: &TeamId, incoming: Box<dyn Incoming>) -> Option<Box<dyn Incoming>> {
        match self.teams.get_mut(team) {
            Some(waiting) => {
                waiting.push_back(incoming);
                None
            }
            None => {
                self.teams.insert(team.clone(), VecDeque::new());
                Some(incoming)
            }
        }
    }

    /// The next message of a team whose last one is done with.
    fn next(&mut self, team: TeamId) -> Option<(TeamId, Box<dyn Incoming>)> {
        let waiting = self.teams.get_mut(&team)?;
        match waiting.pop_front() {
            Some(incoming) => Some((team, incoming)),
            None => {
                self.teams.remove(&team);
                None
            }
        }
    }
}

/// The team whose turn a message takes.
fn team_of(incoming: &dyn Incoming) -> Option<TeamId> {
    match incoming.parcel() {
        Parcel::Job | Parcel::HostOrder(_) => team_of_key(&incoming.message().routing_key),
        Parcel::Order(Order::Fenced { team, .. } | Order::Move { team, .. }) => Some(team.clone()),
        Parcel::Order(Order::Nudge | Order::Evict { .. }) | Parcel::Marker => None,
    }
}

/// The team that a routing key `team.<team>.<action>` names.
fn team_of_key(routing_key: &str) -> Option<TeamId> {
    let mut parts = routing_key.split('.');
    let (Some("team"), Some(team), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    TeamId::parse(team).ok()
}
