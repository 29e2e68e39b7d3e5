//! The one queue of all jobs, the placement table and the forwarding, on one
//! channel: when the broker drops it, whatever a dead dispatcher still sends
//! dies with it.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;

use super::link::{CALL_MAX, Publish, Publisher, SessionEnd, Stored, within};
use super::mailbox::{AmqpSettle, Kept, Settling};
use super::message;
use super::names::{Names, TABLE_MARKER};
use crate::domain::ids::{HostId, TeamId};
use crate::domain::message::RawMessage;
use crate::ports::broker::{DispatchQueue, Forwarded, Incoming};
use crate::ports::messages::{SessionOver, Settle};

/// The dispatcher's side of the broker.
pub(super) struct Dispatch {
    pub(super) consumer: Kept,
    pub(super) publisher: Publisher,
    pub(super) names: Names,
    pub(super) settling: Settling,
}

impl Dispatch {
    async fn bind(&self, queue: &str, key: &str) -> Result<(), SessionOver> {
        let bind = self.publisher.channel().queue_bind(
            queue.into(),
            self.names.route().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let bound = tokio::select! {
            reason = self.end().ended() => return Err(SessionOver { reason }),
            bound = within(CALL_MAX, bind) => bound,
        };
        bound.map_err(|error| self.end().end(format!("{key} could not be bound: {error}")))
    }

    fn end(&self) -> &SessionEnd {
        &self.settling.end
    }
}

#[async_trait]
impl DispatchQueue for Dispatch {
    async fn next(&mut self) -> Option<Box<dyn Incoming>> {
        let amqp = self.consumer.next(&self.settling.end, "the dispatch queue").await?;
        let message = message::raw_message(&amqp, false);
        Some(Box::new(Dispatched {
            message,
            route: self.names.route().into(),
            publisher: self.publisher.clone(),
            settle: AmqpSettle {
                routing_key: amqp.routing_key.to_string(),
                amqp,
                settling: self.settling.clone(),
            },
        }))
    }

    async fn place(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        self.bind(&self.names.mailbox(host), team.as_str()).await
    }

    async fn mark_table(&self) -> Result<(), SessionOver> {
        // To the dispatch queue: a question whether the marker is there is a
        // publish, and comes back to the dispatcher who asked.
        self.bind(&self.names.dispatch(), TABLE_MARKER).await
    }
}

struct Dispatched {
    message: RawMessage,
    route: Arc<str>,
    publisher: Publisher,
    settle: AmqpSettle,
}

#[async_trait]
impl Incoming for Dispatched {
    fn message(&self) -> &RawMessage {
        &self.message
    }

    async fn forward(&self, team: &TeamId) -> Result<Forwarded, SessionOver> {
        let amqp = &self.settle.amqp;
        let publish = Publish {
            exchange: &self.route,
            key: team.as_str(),
            body: &amqp.data,
            properties: message::forwarded(&amqp.properties, &self.settle.routing_key),
        };
        Ok(match self.publisher.publish(publish).await? {
            Stored::Yes => Forwarded::Stored,
            Stored::Unroutable => Forwarded::Unplaced,
            Stored::Refused => Forwarded::Refused,
        })
    }

    fn settle(self: Box<Self>) -> Settle {
        Settle::new(Box::new(self.settle))
    }
}
