//! A session with the broker as the worker sees it: where jobs are dispatched,
//! where this host's jobs come from, and when it is over.
//!
//! There is no recovery inside a session. Whatever fails ends all of it, and
//! the worker opens a new one: a half-recovered session would run jobs whose
//! deliveries are void.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::ctl::{CtlSink, CtlSource};
use super::messages::{JobSource, SessionOver, Settle};
use super::table::{OrderSink, PlacementTable};
use crate::domain::control::{HostOrder, Order};
use crate::domain::failure::Code;
use crate::domain::ids::{HostId, JobId, TeamId};
use crate::domain::job::ActionKind;
use crate::domain::message::RawMessage;

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The broker did not answer, or is not ready yet. Tried again.
    #[error("the broker cannot be reached: {reason}")]
    Unreachable {
        /// What it or the network said.
        reason: String,
    },
    /// The broker refused the user or its permissions. Tried again, since
    /// somebody may be changing them right now.
    #[error("the broker refuses this user: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// A queue or exchange exists with other arguments. Only a person can
    /// decide what becomes of what is in it.
    #[error("{name} exists with other arguments ({reason}); {fix}")]
    WrongArguments {
        /// Its name.
        name: String,
        /// What the broker said.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// The broker's address cannot be used.
    #[error("the broker's address is not valid: {reason}")]
    Address {
        /// What is wrong with it, without its password.
        reason: String,
    },
}

impl OpenError {
    /// Whether trying again is pointless until somebody changes something
    /// (exit code 78).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::WrongArguments { .. } | Self::Address { .. } => true,
            Self::Unreachable { .. } | Self::Refused { .. } => false,
        }
    }
}

/// What became of a forwarded job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// A mailbox has it.
    Stored,
    /// No host has the team.
    Unplaced,
    /// The mailbox refused it: it is full.
    Refused,
}

/// What a message in a queue of jobs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// A job, or what its producer takes for one.
    Job,
    /// An order for the dispatcher.
    Order(Order),
    /// An order for a host, out of its mailbox.
    HostOrder(HostOrder),
    /// The question whether the marker is there, come back.
    Marker,
}

/// A message in the hands of the dispatcher.
#[async_trait]
pub trait Incoming: Send + Sync {
    /// What it is. Only workers can send orders; whatever comes through the
    /// producers' exchange is a job.
    fn parcel(&self) -> &Parcel;

    /// The message as it came.
    fn message(&self) -> &RawMessage;

    /// Sends the message on to the mailbox of the team's host. Resolves after
    /// the broker has confirmed or refused it.
    ///
    /// # Errors
    /// The session is over; the message may or may not have been forwarded.
    async fn forward(&self, team: &TeamId) -> Result<Forwarded, SessionOver>;

    /// The right to end it, on the dispatcher's own channel.
    fn settle(self: Box<Self>) -> Settle;
}

/// The one queue of all jobs, or a mailbox that the dispatcher empties.
#[async_trait]
pub trait DispatchQueue: Send {
    /// The next message in order; `None` when the session is over.
    ///
    /// # Cancellation
    /// Safe: a message is never lost.
    async fn next(&mut self) -> Option<Box<dyn Incoming>>;
}

/// The session's own life.
#[async_trait]
pub trait SessionLink: Send {
    /// Resolves with the reason once any part of the session is over. Must be
    /// polled all the time: it also carries the news that the broker blocks.
    ///
    /// # Cancellation
    /// Safe.
    async fn ended(&mut self) -> String;

    /// Why the broker blocks publishing, while it does.
    fn blocked(&self) -> watch::Receiver<Option<String>>;

    /// Gives everything that was not settled back to the broker, in order.
    async fn close(self: Box<Self>);
}

/// An open session.
pub struct BrokerSession {
    /// The one queue of all jobs.
    pub dispatch: Box<dyn DispatchQueue>,
    /// The placement table, on the same channel.
    pub table: Arc<dyn PlacementTable>,
    /// Orders to the dispatcher.
    pub orders: Arc<dyn OrderSink>,
    /// This host's jobs.
    pub mailbox: Box<dyn JobSource>,
    /// What workers say.
    pub ctl: Box<dyn CtlSource>,
    /// Says something to all workers.
    pub ctl_sink: Arc<dyn CtlSink>,
    /// The session's own life.
    pub link: Box<dyn SessionLink>,
}

/// Opens sessions.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Connects, declares what is missing, and begins to consume. Bounded in
    /// time.
    ///
    /// # Errors
    /// See [`OpenError`].
    async fn open(&self) -> Result<BrokerSession, OpenError>;
}

/// How the worker stands with the broker, for `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No session; one is being opened.
    Connecting,
    /// Jobs are taken.
    Connected,
    /// Connected, and the broker takes no messages for now.
    Blocked,
    /// What runs is being finished; nothing new is started.
    Draining,
    /// It is over.
    Closed,
}

impl Phase {
    /// The phase's name in `/readyz` and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::Draining => "draining",
            Self::Closed => "closed",
        }
    }
}

/// A phase with the last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerState {
    /// Where it stands.
    pub phase: Phase,
    /// Why the last session ended or could not be opened.
    pub last_error: Option<String>,
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// Their queue has it.
    Stored,
    /// There is no such queue.
    Unroutable,
    /// The queue refused it: it is full.
    Refused,
    /// No confirm came in time; it may be there or not.
    Late,
    /// The queue is one of the installation's own.
    Denied,
}

impl ReplyOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Stored, Self::Unroutable, Self::Refused, Self::Late, Self::Denied];

    /// The outcome's name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Denied => "denied",
        }
    }
}

/// Something worth a log line or a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerFact {
    /// A session was opened.
    Connected,
    /// A session could not be opened; the next attempt comes after `delay`.
    NotConnected {
        /// Why.
        reason: String,
        /// The wait before the next attempt.
        delay: Duration,
    },
    /// A session ended by itself.
    SessionEnded {
        /// Why.
        reason: String,
    },
    /// The broker blocks publishing.
    Blocked {
        /// Why.
        reason: String,
    },
    /// The broker takes messages again.
    Unblocked,
    /// A mailbox delivery came.
    JobReceived {
        /// Whether the broker handed it out before.
        redelivered: bool,
    },
    /// The dispatcher forwarded a job.
    JobForwarded,
    /// This worker got the one queue of all jobs.
    Elected,
    /// The placement table has no marker: the broker lost its definitions, or
    /// never had them.
    TableLost,
    /// The placement table is whole.
    TableKnown,
    /// Hosts that must say which teams they have before the table is whole.
    TableWaits {
        /// Who has not.
        hosts: Vec<HostId>,
    },
    /// Jobs that wait until teams without a place may be placed.
    JobsWaiting {
        /// How many.
        jobs: usize,
    },
    /// The dispatcher gave a team to a host.
    TeamPlaced,
    /// The dispatcher took a team's place away: nothing is left of it.
    TeamReleased,
    /// A fence's answer came after something else was forwarded to the team.
    FenceVoid,
    /// The dispatcher refused a message.
    JobRefused {
        /// Why.
        code: Code,
    },
    /// The dispatcher answered a job of a team that is nowhere.
    JobAnswered {
        /// What it asked for.
        action: ActionKind,
        /// Why it failed, if it did.
        failure: Option<Code>,
    },
    /// A host was silent for too long.
    HostLost {
        /// Which.
        host: HostId,
    },
    /// How many hosts there are.
    Hosts {
        /// Heard once and not evicted.
        known: usize,
        /// Silent for too long.
        lost: usize,
    },
    /// A host was evicted.
    HostEvicted {
        /// Which.
        host: HostId,
        /// Jobs that went elsewhere.
        jobs: usize,
    },
    /// A team has another host than before.
    TeamMoved {
        /// Which.
        team: TeamId,
        /// Where it was.
        from: HostId,
        /// Where it is.
        to: HostId,
    },
    /// A job's final event went to the queue of whoever asked, or did not.
    Replied {
        /// The job.
        job: JobId,
        /// What came of it.
        outcome: ReplyOutcome,
    },
    /// A message between workers was none.
    CtlIgnored {
        /// Why, without its content.
        reason: String,
    },
    /// A message was put among the dead letters.
    DeadLettered {
        /// The failure code.
        reason: String,
    },
    /// The durable log confirmed an event.
    EventStored {
        /// Its type, without `covibes.`.
        kind: String,
        /// From publish to confirm.
        duration: Duration,
    },
    /// Some dashboard's queue refused an event.
    FanOutRefused,
    /// An event was not offered to dashboards, because too many are under way.
    FanOutSkipped,
}

/// Is told what happens with the broker. Called from where it happens: it must
/// not wait.
pub trait BrokerObserver: Send + Sync {
    /// Takes note of a fact.
    fn observe(&self, fact: BrokerFact);
}

/// Takes note of nothing.
impl BrokerObserver for () {
    fn observe(&self, _: BrokerFact) {}
}
