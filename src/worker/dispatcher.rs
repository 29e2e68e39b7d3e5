//! The dispatcher: takes the one queue of all jobs in order and sends each on
//! to the mailbox of its team's host.
//!
//! Every worker runs one; the broker lets one of them have the queue. It knows
//! nothing by heart: the bindings of the route exchange are the placement
//! table, and a returned message means that its team has no place.
//!
//! Short for now (DESIGN 3.2 has the rest): one job in flight, a team without a
//! place is given to the dispatcher's own host, nobody is asked for an
//! inventory, no fence releases a team.

use tokio_util::sync::CancellationToken;

use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{HostId, TeamId};
use crate::domain::message::{RawMessage, Rejected};
use crate::pipeline::job_runner::{Finished, JobRunner};
use crate::ports::broker::{BrokerFact, BrokerObserver, DispatchQueue, Forwarded, Incoming};
use crate::ports::messages::{SessionOver, Settle};
use crate::worker::intake::ParseJob;

/// A larger body is not worth the copy to a mailbox (DESIGN 3: 256 KiB).
const FORWARD_BYTES_MAX: usize = 256 * 1024;

/// What the dispatcher works with.
#[derive(Clone, Copy)]
pub struct Dispatcher<'a> {
    /// The host that takes teams without a place.
    pub host: &'a HostId,
    /// Says what is wrong with a message that cannot be forwarded.
    pub parse: ParseJob,
    /// Tells the outside about refused messages.
    pub runner: &'a dyn JobRunner,
    /// Is told what happens.
    pub observer: &'a dyn BrokerObserver,
}

impl Dispatcher<'_> {
    /// Dispatches until told to stop; a job in hand is finished first.
    ///
    /// # Errors
    /// The session is over.
    pub async fn run(
        self,
        queue: &mut dyn DispatchQueue,
        stop: &CancellationToken,
    ) -> Result<(), SessionOver> {
        let mut marked = false;
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                incoming = queue.next() => incoming,
            };
            let Some(incoming) = incoming else {
                return Err(SessionOver { reason: "the dispatch queue ended".to_owned() });
            };
            if !marked {
                // Only the dispatcher writes into the table, and the first
                // delivery is how a worker learns that it is the one.
                queue.mark_table().await?;
                marked = true;
            }
            self.dispatch(queue, incoming).await?;
        }
    }

    async fn dispatch(
        self,
        queue: &dyn DispatchQueue,
        incoming: Box<dyn Incoming>,
    ) -> Result<(), SessionOver> {
        let message = incoming.message();
        let Some(team) = team_of(&message.routing_key) else {
            let rejected = self.why_not_routable(message);
            return self.refuse(incoming.settle(), rejected).await;
        };
        if message.body.len() > FORWARD_BYTES_MAX
            && let Err(rejected) = (self.parse)(message)
        {
            return self.refuse(incoming.settle(), rejected).await;
        }
        match self.forward(queue, incoming.as_ref(), &team).await? {
            Forwarded::Stored => {
                self.observer.observe(BrokerFact::JobForwarded);
                incoming.settle().ack().await
            }
            Forwarded::Refused => {
                let rejected = self.host_unavailable(incoming.message(), team);
                self.refuse(incoming.settle(), rejected).await
            }
            // Somebody else unbound it again, which only a dispatcher may do.
            Forwarded::Unplaced => Err(SessionOver {
                reason: format!("team {team} lost its place as soon as it had one"),
            }),
        }
    }

    async fn forward(
        self,
        queue: &dyn DispatchQueue,
        incoming: &dyn Incoming,
        team: &TeamId,
    ) -> Result<Forwarded, SessionOver> {
        let forwarded = incoming.forward(team).await?;
        if forwarded != Forwarded::Unplaced {
            return Ok(forwarded);
        }
        queue.place(team, self.host).await?;
        self.observer.observe(BrokerFact::TeamPlaced);
        // Through the binding again: a message that went around it could come
        // after one that did not.
        incoming.forward(team).await
    }

    fn why_not_routable(self, message: &RawMessage) -> Rejected {
        match (self.parse)(message) {
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

    fn host_unavailable(self, message: &RawMessage, team: TeamId) -> Rejected {
        let failure = Failure::new(
            Code::CapacityHostUnavailable,
            "the team's host takes no more jobs for now",
        );
        match (self.parse)(message) {
            // What is wrong with the message is the better answer.
            Err(rejected) => rejected,
            Ok(job) => Rejected { failure, team: Some(team), job_id: Some(job.id.to_string()) },
        }
    }

    async fn refuse(self, settle: Settle, rejected: Rejected) -> Result<(), SessionOver> {
        let Rejected { failure, team, job_id } = rejected;
        match self.runner.rejected(team.as_ref(), job_id.as_deref(), &failure).await? {
            Finished::Done => settle.ack().await,
            Finished::Dead(why) => settle.dead_letter(why).await,
        }
    }
}

/// The team that a routing key `team.<team>.<action>` names.
fn team_of(routing_key: &str) -> Option<TeamId> {
    let mut parts = routing_key.split('.');
    let (Some("team"), Some(team), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    TeamId::parse(team).ok()
}

#[cfg(test)]
mod tests;
