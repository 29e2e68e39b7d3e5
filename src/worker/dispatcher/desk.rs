//! What the dispatcher does with one message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Dispatcher, Handled, team_of_key};
use crate::domain::control::Order;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{HostId, JobId, TeamId};
use crate::domain::job::{Action, ActionKind, Job};
use crate::domain::message::{RawMessage, Rejected};
use crate::observe::spans;
use crate::policy::placement::Demand;
use crate::ports::broker::{BrokerFact, Forwarded, Incoming, Parcel};
use crate::ports::messages::SessionOver;
use crate::ports::table::PlacementTable;

/// A larger body is not worth the copy to a mailbox (DESIGN 3: 256 KiB).
pub(super) const FORWARD_BYTES_MAX: usize = 256 * 1024;

/// One session's dispatcher.
pub(super) struct Desk<'a> {
    pub(super) with: Dispatcher<'a>,
    pub(super) table: &'a dyn PlacementTable,
    pub(super) stop: CancellationToken,
    /// A delivery came: this worker is the one.
    pub(super) elected: CancellationToken,
    /// A returned message means that its team is nowhere, and teams are placed.
    pub(super) ready: CancellationToken,
    /// Counts what was written into a table that is not whole yet.
    pub(super) restored: watch::Sender<u64>,
    /// The fence behind which nothing was forwarded to the team.
    fences: Mutex<HashMap<TeamId, Uuid>>,
    waiting: AtomicUsize,
}

/// Whose fence an answer belongs to.
enum Fence {
    /// The last one, and nothing was forwarded since.
    Valid,
    /// An older one; a newer is under way.
    Overtaken,
    /// One that no longer counts, another dispatcher's, or none.
    Unknown,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        with: Dispatcher<'a>,
        table: &'a dyn PlacementTable,
        stop: CancellationToken,
    ) -> Self {
        Self {
            with,
            table,
            stop,
            elected: CancellationToken::new(),
            ready: CancellationToken::new(),
            restored: watch::Sender::new(0),
            fences: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes note that there was a delivery.
    pub(super) fn elect(&self) {
        self.elected.cancel();
    }

    /// Handles a message to its end, or leaves it unsettled if told to stop
    /// while it waits.
    pub(super) async fn handle(
        &self,
        team: Option<TeamId>,
        incoming: Box<dyn Incoming>,
    ) -> Handled {
        // A job's message bears its id, if its producer keeps to the contract.
        let id = incoming.message().message_id.as_deref().and_then(|id| JobId::parse(id).ok());
        let id = id.map(|id| id.to_string());
        let span = spans::of_message(team.as_ref(), id.as_deref());
        self.handle_one(team, incoming).instrument(span).await
    }

    async fn handle_one(&self, team: Option<TeamId>, incoming: Box<dyn Incoming>) -> Handled {
        match (incoming.parcel(), &team) {
            (Parcel::Job, Some(team)) => self.job(team, incoming).await?,
            (Parcel::Job, None) => {
                let rejected = self.why_not_routable(incoming.message());
                self.refuse(incoming, rejected).await?;
            }
            (Parcel::Order(Order::Fenced { team, host, nonce, is_empty }), _) => {
                let (host, nonce, is_empty) = (host.clone(), *nonce, *is_empty);
                self.fenced(&team.clone(), &host, nonce, is_empty).await?;
                incoming.settle().ack().await?;
            }
            (Parcel::Order(Order::Move { team, to, nonce }), _) => {
                let (team, to, nonce) = (team.clone(), to.clone(), *nonce);
                self.move_team(team, to, nonce, incoming).await?;
            }
            (
                Parcel::Order(Order::Nudge | Order::Evict { .. })
                | Parcel::HostOrder(_)
                | Parcel::Marker,
                _,
            ) => incoming.settle().ack().await?,
        }
        Ok(team)
    }

    /// Sends a job on, or answers it.
    pub(super) async fn job(
        &self,
        team: &TeamId,
        incoming: Box<dyn Incoming>,
    ) -> Result<(), SessionOver> {
        if incoming.message().body.len() > FORWARD_BYTES_MAX
            && let Err(rejected) = (self.with.parse)(incoming.message())
        {
            return self.refuse(incoming, rejected).await;
        }
        // Whatever a fence's answer says now, this came after it.
        self.fences().remove(team);
        let mut placed: Option<HostId> = None;
        let forwarded = loop {
            let forwarded = incoming.forward(team).await?;
            if forwarded != Forwarded::Unplaced {
                break forwarded;
            }
            if placed.is_some() {
                // Somebody else unbound it again, which only a dispatcher may do.
                let reason = format!("team {team} lost its place as soon as it had one");
                return Err(SessionOver { reason });
            }
            if !self.ready.is_cancelled() {
                if !self.wait_for_the_table().await {
                    return Ok(());
                }
                continue;
            }
            let job = match (self.with.parse)(incoming.message()) {
                Ok(job) if job.team == *team => job,
                Ok(_) => {
                    let rejected = self.why_not_routable(incoming.message());
                    return self.refuse(incoming, rejected).await;
                }
                Err(rejected) => return self.refuse(incoming, rejected).await,
            };
            if job.deadline_unix_ms.is_some_and(|at| at <= self.with.voice.clock.unix_millis()) {
                return self.refuse(incoming, too_late(job)).await;
            }
            let Action::Start(spec) = &job.action else {
                return self.nowhere(incoming, &job).await;
            };
            let Some(host) = self.with.hosts.choose(Demand::of_spec(spec)) else {
                break Forwarded::Refused;
            };
            self.table.place(team, &host).await?;
            self.with.observer.observe(BrokerFact::TeamPlaced);
            // Through the binding again: a message that went around it could
            // come after one that did not.
            placed = Some(host);
        };
        if forwarded == Forwarded::Refused {
            if let Some(host) = placed {
                // It has nothing there yet; the next start may go elsewhere.
                self.table.release(team, &host).await?;
            }
            let rejected = self.host_unavailable(incoming.message(), team);
            return self.refuse(incoming, rejected).await;
        }
        self.with.observer.observe(BrokerFact::JobForwarded);
        if is_destroy(&incoming.message().routing_key) {
            // Before the ack: after a crash in between, both come again.
            self.fence(team).await?;
        }
        incoming.settle().ack().await
    }

    /// Asks the team's host to say when nothing is left to do before now.
    pub(super) async fn fence(&self, team: &TeamId) -> Result<(), SessionOver> {
        let nonce = self.with.voice.clock.new_id();
        self.fences().insert(team.clone(), nonce);
        if self.table.fence(team, nonce).await? != Forwarded::Stored {
            // Nowhere already; or its mailbox is full, and the team keeps its
            // place until its next destroy.
            self.fences().remove(team);
        }
        Ok(())
    }

    /// Whatever is asked about the team from now on, earlier answers are void.
    pub(super) fn forget_fence(&self, team: &TeamId) {
        self.fences().remove(team);
    }

    /// Takes a host's word that it has nothing of a team, if that still holds.
    async fn fenced(
        &self,
        team: &TeamId,
        host: &HostId,
        nonce: Uuid,
        is_empty: bool,
    ) -> Result<(), SessionOver> {
        let fence = {
            let mut fences = self.fences();
            match fences.get(team) {
                Some(last) if *last == nonce => {
                    fences.remove(team);
                    Fence::Valid
                }
                Some(_) => Fence::Overtaken,
                None => Fence::Unknown,
            }
        };
        match fence {
            Fence::Valid if is_empty => {
                self.table.release(team, host).await?;
                self.with.observer.observe(BrokerFact::TeamReleased);
                Ok(())
            }
            Fence::Unknown if is_empty => {
                // Something was forwarded since, or the dispatcher that asked is
                // gone, or nobody asked. A fence of one's own decides.
                self.with.observer.observe(BrokerFact::FenceVoid);
                self.fence(team).await
            }
            Fence::Valid | Fence::Overtaken | Fence::Unknown => Ok(()),
        }
    }

    /// `false` if it is time to stop instead.
    async fn wait_for_the_table(&self) -> bool {
        let mut restored = self.restored.subscribe();
        self.note_waiting(1);
        let go_on = tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = self.ready.cancelled() => true,
            // Never closed: the sender is in `self`.
            _ = restored.changed() => true,
        };
        self.note_waiting(-1);
        go_on
    }

    fn note_waiting(&self, change: isize) {
        let before = match change {
            1 => self.waiting.fetch_add(1, Ordering::Relaxed) + 1,
            _ => self.waiting.fetch_sub(1, Ordering::Relaxed).saturating_sub(1),
        };
        self.with.observer.observe(BrokerFact::JobsWaiting { jobs: before });
    }

    async fn nowhere(&self, incoming: Box<dyn Incoming>, job: &Job) -> Result<(), SessionOver> {
        let action: ActionKind = job.action.kind();
        let failure = self.with.voice.nowhere(incoming.settle(), job).await?;
        self.with.observer.observe(BrokerFact::JobAnswered { action, failure });
        Ok(())
    }

    async fn refuse(
        &self,
        incoming: Box<dyn Incoming>,
        rejected: Rejected,
    ) -> Result<(), SessionOver> {
        self.with.observer.observe(BrokerFact::JobRefused { code: rejected.failure.code });
        let attempt = incoming.message().attempt.max(1);
        self.with.voice.refuse(incoming.settle(), rejected, attempt).await
    }

    fn why_not_routable(&self, message: &RawMessage) -> Rejected {
        match (self.with.parse)(message) {
            Err(rejected) => rejected,
            Ok(job) => Rejected {
                failure: Failure::new(
                    Code::MessageRoutingKey,
                    "the routing key does not name the team",
                ),
                team: Some(job.team),
                job_id: Some(job.id.to_string()),
            },
        }
    }

    fn host_unavailable(&self, message: &RawMessage, team: &TeamId) -> Rejected {
        match (self.with.parse)(message) {
            // What is wrong with the message is the better answer.
            Err(rejected) => rejected,
            Ok(job) => Rejected {
                failure: Failure::new(
                    Code::CapacityHostUnavailable,
                    "no host takes more jobs of the team for now",
                ),
                team: Some(team.clone()),
                job_id: Some(job.id.to_string()),
            },
        }
    }

    fn fences(&self) -> MutexGuard<'_, HashMap<TeamId, Uuid>> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a job is refused whose publisher's deadline was over before it had a host.
fn too_late(job: Job) -> Rejected {
    Rejected {
        failure: Failure::new(Code::JobDeadline, "the job's deadline was over before it began"),
        team: Some(job.team),
        job_id: Some(job.id.to_string()),
    }
}

/// Whether the key promises a destroy. The host holds the body to it.
fn is_destroy(routing_key: &str) -> bool {
    team_of_key(routing_key).is_some()
        && routing_key.rsplit('.').next() == Some(ActionKind::Destroy.as_str())
}
