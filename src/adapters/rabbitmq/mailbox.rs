//! This host's queue, and the end of a delivery.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use lapin::message::Delivery as Amqp;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::link::{CALL_MAX, CLOSE_MAX, Publish, SessionEnd, Stored, short, within};
use super::message;
use super::replies::{Replies, ReplyWanted};
use super::waves::Outlet;
use crate::domain::ids::HostId;
use crate::policy::backoff::Backoff;
use crate::ports::broker::{BrokerFact, BrokerObserver};
use crate::ports::clock::Clock;
use crate::ports::messages::{Acknowledge, DeadLetter, Delivery, JobSource, SessionOver, Settle};

/// First and longest wait for room among the dead letters, and how long to wait
/// in all: a full queue there needs a person.
const ROOM_DELAYS: [u64; 3] = [1, 30, 600];

/// A consumer that is never cancelled: a cancel hands later messages to the next
/// consumer before the unacknowledged earlier ones (measured, reference 1.3).
pub(super) struct Kept {
    consumer: Consumer,
    open: Arc<OpenChannel>,
}

/// A channel with its consumer alive. The client cancels when the last clone of
/// a consumer is dropped, so this holds one for as long as the channel is open.
pub(super) struct OpenChannel {
    channel: Channel,
    consumer: Option<Consumer>,
}

impl OpenChannel {
    /// Closes the channel: that alone gives everything back in order.
    pub(super) async fn close(&self) -> lapin::Result<()> {
        within(CLOSE_MAX, self.channel.close(200, "OK".into())).await
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }
}

impl Drop for OpenChannel {
    /// Only a session that was dropped instead of closed comes here with an open
    /// channel: a panic, or an open that failed half-way. Its close cannot be
    /// awaited here, and it must come before the cancel. Merely leaking the
    /// consumer would leave it registered, and jobs would go to nobody.
    fn drop(&mut self) {
        if !self.is_open() {
            return;
        }
        if let (Some(consumer), Ok(runtime)) =
            (self.consumer.take(), tokio::runtime::Handle::try_current())
        {
            let channel = self.channel.clone();
            runtime.spawn(async move {
                // Without an answer the connection is gone, which does the same.
                let _ = within(CLOSE_MAX, channel.close(200, "OK".into())).await;
                drop(consumer);
            });
        }
    }
}

impl Kept {
    /// Consumes `queue` with a window of `prefetch`.
    pub(super) async fn consume(
        channel: &Channel,
        queue: &str,
        tag: &str,
        prefetch: u16,
    ) -> lapin::Result<Self> {
        within(CALL_MAX, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let consume = channel.basic_consume(
            queue.into(),
            short(tag),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = within(CALL_MAX, consume).await?;
        let channel = channel.clone();
        let open = Arc::new(OpenChannel { channel, consumer: Some(consumer.clone()) });
        Ok(Self { consumer, open })
    }

    /// The channel, for whoever closes it.
    pub(super) fn channel(&self) -> Arc<OpenChannel> {
        Arc::clone(&self.open)
    }

    /// The next delivery; `None` when the session is over. A consumer that the
    /// broker cancels ends without an error.
    pub(super) async fn next(&mut self, end: &SessionEnd, what: &str) -> Option<Amqp> {
        let next = tokio::select! {
            _ = end.ended() => return None,
            next = self.consumer.next() => next,
        };
        match next {
            Some(Ok(delivery)) => Some(delivery),
            Some(Err(error)) => {
                end.end(format!("{what} ended: {error}"));
                None
            }
            None => {
                end.end(format!("the broker took {what} away"));
                None
            }
        }
    }
}

/// What the end of a delivery needs.
#[derive(Clone)]
pub(super) struct Settling {
    /// Where copies of dead letters are published.
    pub(super) copies: Outlet,
    pub(super) dead_letter_exchange: Arc<str>,
    pub(super) host: HostId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observer: Arc<dyn BrokerObserver>,
    pub(super) replies: Arc<Replies>,
    pub(super) end: SessionEnd,
}

/// The host's mailbox.
pub(super) struct Mailbox {
    pub(super) consumer: Kept,
    pub(super) settling: Settling,
}

#[async_trait]
impl JobSource for Mailbox {
    async fn next(&mut self) -> Option<Delivery> {
        let amqp = self.consumer.next(&self.settling.end, "the mailbox").await?;
        let message = message::raw_message(&amqp, true);
        let order = message::host_order(&amqp);
        let redelivered = message.redelivered;
        self.settling.observer.observe(BrokerFact::JobReceived { redelivered });
        let routing_key = message.routing_key.clone();
        let settling = self.settling.clone();
        let settle = Settle::new(Box::new(AmqpSettle::new(amqp, routing_key, settling)));
        Some(Delivery { message, settle, order })
    }
}

/// The right to end one delivery.
pub(super) struct AmqpSettle {
    pub(super) amqp: Amqp,
    pub(super) routing_key: String,
    settling: Settling,
    _reply: Option<ReplyWanted>,
}

impl AmqpSettle {
    pub(super) fn new(amqp: Amqp, routing_key: String, settling: Settling) -> Self {
        let reply = settling.replies.note(&amqp);
        Self { amqp, routing_key, settling, _reply: reply }
    }

    async fn store_copy(&self, why: &DeadLetter) -> Result<(), SessionOver> {
        let Settling { copies, dead_letter_exchange, host, clock, end, .. } = &self.settling;
        let dead_at = jiff::Timestamp::from_millisecond(clock.unix_millis())
            .map(|at| at.to_string())
            .unwrap_or_default();
        let properties =
            message::dead(&self.amqp.properties, &self.routing_key, why, host, &dead_at);
        let [first, max, budget] = ROOM_DELAYS.map(std::time::Duration::from_secs);
        let mut backoff = Backoff::new(first, max).with_budget(budget);
        let began = tokio::time::Instant::now();
        loop {
            let publish = Publish {
                exchange: dead_letter_exchange,
                key: &self.routing_key,
                body: &self.amqp.data,
                properties: properties.clone(),
            };
            match copies.publish(publish).await? {
                Stored::Yes => return Ok(()),
                Stored::Unroutable => {
                    return Err(end.end("no queue takes dead letters; the topology is damaged"));
                }
                Stored::Refused => {}
            }
            let Some(delay) = backoff.delay(clock.random(), began.elapsed()) else {
                return Err(end.end("the dead-letter queue is full"));
            };
            tokio::select! {
                reason = end.ended() => return Err(SessionOver { reason }),
                () = clock.sleep(delay) => {}
            }
        }
    }
}

#[async_trait]
impl Acknowledge for AmqpSettle {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        let end = &self.settling.end;
        match within(CALL_MAX, self.amqp.acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            // Not an error for the client: the channel is gone.
            Ok(false) => Err(end.end("a message could not be acknowledged: its channel is gone")),
            Err(error) => Err(end.end(format!("a message could not be acknowledged: {error}"))),
        }
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        self.store_copy(&why).await?;
        let observer = Arc::clone(&self.settling.observer);
        self.ack().await?;
        observer.observe(BrokerFact::DeadLettered { reason: why.reason });
        Ok(())
    }
}
