//! `covibes.ctl` and the orders that workers put into the dispatch queue.
//!
//! Each worker hears through an exclusive queue that goes with its session. It
//! is short and drops its oldest: what is said here is said again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

use super::link::{CALL_MAX, Publish, Publisher, SessionEnd, Stored, within};
use super::message;
use super::names::Names;
use crate::domain::control::{CtlMessage, HostOrder, Order};
use crate::domain::ids::HostId;
use crate::policy::backoff::Backoff;
use crate::ports::broker::{BrokerFact, BrokerObserver, Forwarded};
use crate::ports::clock::Clock;
use crate::ports::ctl::{CtlSink, CtlSource};
use crate::ports::messages::SessionOver;
use crate::ports::table::OrderSink;
use crate::wire::control;

/// Messages that wait to be heard.
const LENGTH_MAX: i64 = 1000;

/// Bytes that do: a few inventories.
const BYTES_MAX: i64 = 16 << 20;

/// Messages on their way to this worker. They need no acknowledgement, so this
/// only bounds what a client without one would be sent at once.
const PREFETCH: u16 = 100;

/// First and longest wait for room in the dispatch queue, and how long in all.
const ROOM_DELAYS: [u64; 3] = [1, 10, 300];

/// Makes this worker's queue and begins to hear.
pub(super) async fn hear(channel: &Channel, names: &Names) -> lapin::Result<Consumer> {
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-max-length", LENGTH_MAX), ("x-max-length-bytes", BYTES_MAX)] {
        arguments.insert(name.into(), AMQPValue::LongLongInt(value));
    }
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let declare = channel.queue_declare("".into(), options, arguments);
    let queue = within(CALL_MAX, declare).await?.name().clone();
    let bind = channel.queue_bind(
        queue.clone(),
        names.ctl().into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    within(CALL_MAX, bind).await?;
    within(CALL_MAX, channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consume = channel.basic_consume(queue, "ctl".into(), options, FieldTable::default());
    within(CALL_MAX, consume).await
}

/// What workers say.
pub(super) struct Heard {
    pub(super) consumer: Consumer,
    pub(super) observer: Arc<dyn BrokerObserver>,
    pub(super) end: SessionEnd,
}

#[async_trait]
impl CtlSource for Heard {
    async fn next(&mut self) -> Option<CtlMessage> {
        loop {
            let next = tokio::select! {
                _ = self.end.ended() => return None,
                next = self.consumer.next() => next,
            };
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    self.end.end(format!("what workers say ended: {error}"));
                    return None;
                }
                None => {
                    self.end.end("the broker took away what workers say");
                    return None;
                }
            };
            match control::parse_ctl(delivery.routing_key.as_str(), &delivery.data) {
                Ok(message) => return Some(message),
                Err(malformed) => {
                    let reason = malformed.to_string();
                    self.observer.observe(BrokerFact::CtlIgnored { reason });
                }
            }
        }
    }
}

/// Says something to all workers, and gives orders to the dispatcher.
pub(super) struct Said {
    pub(super) publisher: Publisher,
    pub(super) names: Names,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) end: SessionEnd,
}

#[async_trait]
impl CtlSink for Said {
    async fn say(&self, message: &CtlMessage) -> Result<(), SessionOver> {
        let (key, body) = control::encode_ctl(message);
        let publish = Publish {
            exchange: &self.names.ctl(),
            key,
            body: body.as_bytes(),
            properties: message::ctl(),
        };
        // Whether anybody hears it is nobody's business here.
        self.publisher.publish(publish).await.map(|_| ())
    }
}

#[async_trait]
impl OrderSink for Said {
    async fn send(&self, order: &Order) -> Result<(), SessionOver> {
        let body = control::encode_order(order);
        let [first, max, budget] = ROOM_DELAYS.map(Duration::from_secs);
        let mut backoff = Backoff::new(first, max).with_budget(budget);
        let began = tokio::time::Instant::now();
        loop {
            // Past the producers' exchange: that is what makes it an order.
            let publish = Publish {
                exchange: "",
                key: &self.names.dispatch(),
                body: body.as_bytes(),
                properties: message::order(),
            };
            match self.publisher.publish(publish).await? {
                Stored::Yes => return Ok(()),
                Stored::Unroutable => return Err(self.end.end("the dispatch queue is gone")),
                // Jobs wait in it, so somebody has it, and a nudge is no news.
                Stored::Refused if *order == Order::Nudge => return Ok(()),
                Stored::Refused => {}
            }
            let Some(delay) = backoff.delay(self.clock.random(), began.elapsed()) else {
                return Err(self.end.end("the dispatch queue is full"));
            };
            tokio::select! {
                reason = self.end.ended() => return Err(SessionOver { reason }),
                () = self.clock.sleep(delay) => {}
            }
        }
    }

    async fn hand(&self, host: &HostId, order: &HostOrder) -> Result<Forwarded, SessionOver> {
        let (body, properties) = message::encode_host_order(order);
        let mailbox = self.names.mailbox(host);
        let publish = Publish { exchange: "", key: &mailbox, body: body.as_bytes(), properties };
        Ok(match self.publisher.publish(publish).await? {
            Stored::Yes => Forwarded::Stored,
            Stored::Unroutable => Forwarded::Unplaced,
            Stored::Refused => Forwarded::Refused,
        })
    }
}
