//! The one queue of all jobs, the placement table and the forwarding, on one
//! channel: when the broker drops it, whatever a dead dispatcher still sends
//! dies with it.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::message::Delivery as Amqp;

use super::mailbox::{AmqpSettle, Kept, Settling};
use super::message;
use super::names::{Names, TABLE_MARKER};
use super::table::Table;
use crate::domain::ids::TeamId;
use crate::domain::message::RawMessage;
use crate::ports::broker::{DispatchQueue, Forwarded, Incoming, Parcel};
use crate::ports::messages::{SessionOver, Settle};
use crate::wire::control;

/// Deliveries from the dispatch queue, or from a mailbox that is emptied.
pub(super) struct Dispatch {
    pub(super) consumer: Kept,
    pub(super) table: Arc<Table>,
    pub(super) settling: Settling,
    /// Whether what comes was forwarded before.
    pub(super) is_mailbox: bool,
}

#[async_trait]
impl DispatchQueue for Dispatch {
    async fn next(&mut self) -> Option<Box<dyn Incoming>> {
        let what = if self.is_mailbox { "an evicted host's mailbox" } else { "the dispatch queue" };
        let amqp = self.consumer.next(&self.settling.end, what).await?;
        let message = message::raw_message(&amqp, self.is_mailbox);
        let parcel = if self.is_mailbox {
            message::host_order(&amqp).map_or(Parcel::Job, Parcel::HostOrder)
        } else {
            parcel(&self.table.names, &amqp)
        };
        Some(Box::new(Dispatched {
            settle: AmqpSettle::new(amqp, message.routing_key.clone(), self.settling.clone()),
            message,
            parcel,
            table: Arc::clone(&self.table),
        }))
    }
}

/// What came to the dispatch queue. Orders come past the producers' exchange,
/// which only workers may do; what is no order after all is refused as a job.
fn parcel(names: &Names, amqp: &Amqp) -> Parcel {
    if amqp.exchange.as_str() == names.route() && amqp.routing_key.as_str() == TABLE_MARKER {
        return Parcel::Marker;
    }
    if amqp.exchange.as_str().is_empty()
        && let Ok(order) = control::parse_order(&amqp.data)
    {
        return Parcel::Order(order);
    }
    Parcel::Job
}

struct Dispatched {
    message: RawMessage,
    parcel: Parcel,
    table: Arc<Table>,
    settle: AmqpSettle,
}

#[async_trait]
impl Incoming for Dispatched {
    fn parcel(&self) -> &Parcel {
        &self.parcel
    }

    fn message(&self) -> &RawMessage {
        &self.message
    }

    async fn forward(&self, team: &TeamId) -> Result<Forwarded, SessionOver> {
        let amqp = &self.settle.amqp;
        let properties = message::forwarded(&amqp.properties, &self.settle.routing_key);
        self.table.route(team, &amqp.data, properties).await
    }

    fn settle(self: Box<Self>) -> Settle {
        Settle::new(Box::new(self.settle))
    }
}
