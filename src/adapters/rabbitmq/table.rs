//! The placement table: bindings of the route exchange, written and asked on the
//! dispatcher's channel.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use uuid::Uuid;

use super::dispatch::Dispatch;
use super::link::{CALL_MAX, Publish, Publisher, SessionEnd, Stored, within};
use super::mailbox::{Kept, OpenChannel, Settling};
use super::message;
use super::names::{Names, TABLE_MARKER};
use super::topology;
use super::waves::Waves;
use crate::domain::control::HostOrder;
use crate::domain::ids::{HostId, TeamId};
use crate::ports::broker::{DispatchQueue, Forwarded};
use crate::ports::messages::SessionOver;
use crate::ports::table::PlacementTable;

/// One message of an evicted host at a time: its order is all that counts.
const DRAIN_PREFETCH: u16 = 1;

/// The dispatcher's writes.
pub(super) struct Table {
    pub(super) names: Names,
    waves: Arc<Waves>,
    settling: Settling,
    publisher: Publisher,
    /// Mailboxes that are emptied: their consumers live until the queue or the
    /// channel ends, never less.
    drained: Mutex<Vec<Arc<OpenChannel>>>,
}

impl Table {
    pub(super) fn new(
        names: Names,
        publisher: Publisher,
        waves: Arc<Waves>,
        settling: Settling,
    ) -> Arc<Self> {
        Arc::new(Self { names, waves, settling, publisher, drained: Mutex::default() })
    }

    /// Publishes to wherever the team is.
    pub(super) async fn route(
        &self,
        team: &TeamId,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Forwarded, SessionOver> {
        let exchange = self.names.route();
        self.publish(&exchange, team.as_str(), body, properties).await
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Forwarded, SessionOver> {
        let publish = Publish { exchange, key, body, properties };
        Ok(match self.waves.publish(publish).await? {
            Stored::Yes => Forwarded::Stored,
            Stored::Unroutable => Forwarded::Unplaced,
            Stored::Refused => Forwarded::Refused,
        })
    }

    async fn bind(&self, queue: &str, key: &str) -> Result<(), SessionOver> {
        let bind = self.publisher.channel().queue_bind(
            queue.into(),
            self.names.route().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        self.call(&format!("{key} could not be bound"), bind).await
    }

    async fn call<T>(
        &self,
        failed: &str,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, SessionOver> {
        let answered = tokio::select! {
            reason = self.end().ended() => return Err(SessionOver { reason }),
            answered = within(CALL_MAX, call) => answered,
        };
        answered.map_err(|error| self.end().end(format!("{failed}: {error}")))
    }

    fn end(&self) -> &SessionEnd {
        &self.settling.end
    }
}

#[async_trait]
impl PlacementTable for Arc<Table> {
    async fn place(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        self.bind(&self.names.mailbox(host), team.as_str()).await
    }

    async fn release(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        let unbind = self.publisher.channel().queue_unbind(
            self.names.mailbox(host).into(),
            self.names.route().into(),
            team.as_str().into(),
            FieldTable::default(),
        );
        self.call(&format!("{team} could not be unbound"), unbind).await
    }

    async fn is_marked(&self) -> Result<bool, SessionOver> {
        // The marker leads to the dispatch queue, so the question comes back to
        // whoever asked. A queue that is full is one that is there.
        let exchange = self.names.route();
        let asked = self.publish(&exchange, TABLE_MARKER, b"", message::order()).await?;
        Ok(asked != Forwarded::Unplaced)
    }

    async fn mark(&self) -> Result<(), SessionOver> {
        self.bind(&self.names.dispatch(), TABLE_MARKER).await
    }

    async fn fence(&self, team: &TeamId, nonce: Uuid) -> Result<Forwarded, SessionOver> {
        let order = HostOrder::Fence { team: team.clone(), nonce };
        let (body, properties) = message::encode_host_order(&order);
        self.route(team, body.as_bytes(), properties).await
    }

    async fn depart(
        &self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
    ) -> Result<Forwarded, SessionOver> {
        let order = HostOrder::Depart { team: team.clone(), to: to.clone(), nonce };
        let (body, properties) = message::encode_host_order(&order);
        self.route(team, body.as_bytes(), properties).await
    }

    async fn leave(
        &self,
        team: &TeamId,
        host: &HostId,
        nonce: Uuid,
    ) -> Result<Forwarded, SessionOver> {
        let order = HostOrder::Leave { team: team.clone(), nonce };
        let (body, properties) = message::encode_host_order(&order);
        self.publish("", &self.names.mailbox(host), body.as_bytes(), properties).await
    }

    async fn readers(&self, host: &HostId) -> Result<u32, SessionOver> {
        let queue = topology::mailbox(&self.names, host);
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declare = self.publisher.channel().queue_declare(
            queue.name.as_str().into(),
            options,
            topology::table(&queue.arguments),
        );
        let declared =
            self.call(&format!("{} could not be looked at", queue.name), declare).await?;
        Ok(declared.consumer_count())
    }

    async fn vacate(&self, host: &HostId, nonce: Uuid) -> Result<Forwarded, SessionOver> {
        let (body, properties) = message::encode_host_order(&HostOrder::Vacate { nonce });
        self.publish("", &self.names.mailbox(host), body.as_bytes(), properties).await
    }

    async fn drain(&self, host: &HostId) -> Result<Box<dyn DispatchQueue>, SessionOver> {
        let mailbox = self.names.mailbox(host);
        let tag = format!("evicted {host} {}", self.settling.clock.new_id());
        let consume = Kept::consume(self.publisher.channel(), &mailbox, &tag, DRAIN_PREFETCH);
        let consumer = self.call(&format!("{mailbox} could not be emptied"), consume).await?;
        self.drained.lock().unwrap_or_else(PoisonError::into_inner).push(consumer.channel());
        Ok(Box::new(Dispatch {
            consumer,
            table: Arc::clone(self),
            settling: self.settling.clone(),
            is_mailbox: true,
        }))
    }

    async fn renew_mailbox(&self, host: &HostId) -> Result<(), SessionOver> {
        let mailbox = self.names.mailbox(host);
        let delete = self
            .publisher
            .channel()
            .queue_delete(mailbox.as_str().into(), QueueDeleteOptions::default());
        self.call(&format!("{mailbox} could not be deleted"), delete).await?;
        self.readers(host).await.map(|_| ())
    }
}
