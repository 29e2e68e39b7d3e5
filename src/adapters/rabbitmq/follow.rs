//! Listening to events: live ones, and those of the last days.
//!
//! A listener's queue is its own, bounded, and drops the oldest: one who is slow
//! holds up nobody, sees a gap in `sequence`, and reads it again from the log.

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};

use super::client::{ClientError, Node, RabbitClient, client_error};
use super::link::{CALL_MAX, within};
use super::message;
use crate::domain::ids::TeamId;

/// Events that the broker keeps for a listener who does not read.
const LISTENER_LENGTH_MAX: i64 = 10_000;

/// Events on their way to a listener at once.
const LISTENER_PREFETCH: u16 = 200;

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedEvent {
    /// The event's id.
    pub id: Option<String>,
    /// CloudEvents 1.0, structured mode.
    pub body: String,
    /// Its place in the log, if it comes from there.
    pub offset: Option<u64>,
    /// By what a reader of the log knows how far it has come.
    pub(super) mark: Option<String>,
}

/// Where a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayFrom {
    /// The oldest event kept.
    First,
    /// An offset that an earlier replay gave.
    Offset(u64),
    /// A moment, in seconds since 1970. Whole chunks are kept, so that some
    /// events before it may come too.
    UnixSeconds(u64),
    /// The last chunk: its beginning tells where the log ends, nearly.
    Last,
}

/// Events, one after the other. Its connection ends with it.
pub struct EventStream {
    // Before the connection, so that it is dropped first.
    consumer: Consumer,
    _channel: Channel,
    _connection: Connection,
    queue: String,
    team: Option<TeamId>,
    /// Taken from the consumer and not acknowledged yet.
    pending: Option<Delivery>,
}

impl RabbitClient {
    /// Listens to the events of one team or of everything. The queue is bound
    /// when this resolves: whatever is published after it is heard.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self, team: Option<&TeamId>) -> Result<EventStream, ClientError> {
        let (connection, channel) = self.at_any_node(Node::listen).await?;
        let exchange = self.names.events();
        let failed = |error: lapin::Error| client_error(&exchange, &error);
        let options =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(LISTENER_LENGTH_MAX));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        let declare = channel.queue_declare("".into(), options, arguments);
        let queue = within(CALL_MAX, declare).await.map_err(failed)?.name().clone();
        let key = team.map_or_else(|| "#".to_owned(), |team| format!("team.{team}.#"));
        let bind = channel.queue_bind(
            queue.clone(),
            exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(CALL_MAX, bind).await.map_err(failed)?;
        let none = FieldTable::default();
        EventStream::open(connection, channel, queue.to_string(), None, none).await
    }

    /// Reads the log from `from` on, and goes on with what is added to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay(
        &self,
        from: ReplayFrom,
        team: Option<&TeamId>,
    ) -> Result<EventStream, ClientError> {
        let (connection, channel) = self.at_any_node(Node::listen).await?;
        let offset = match from {
            ReplayFrom::First => AMQPValue::LongString("first".into()),
            ReplayFrom::Offset(offset) => {
                AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
            }
            ReplayFrom::UnixSeconds(seconds) => AMQPValue::Timestamp(seconds),
            ReplayFrom::Last => AMQPValue::LongString("last".into()),
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), offset);
        let queue = self.names.events_log();
        EventStream::open(connection, channel, queue, team.cloned(), arguments).await
    }
}

impl EventStream {
    async fn open(
        connection: Connection,
        channel: Channel,
        queue: String,
        team: Option<TeamId>,
        arguments: FieldTable,
    ) -> Result<Self, ClientError> {
        let failed = |error: lapin::Error| client_error(&queue, &error);
        // A stream refuses a consumer without a window.
        let window = channel.basic_qos(LISTENER_PREFETCH, BasicQosOptions::default());
        within(CALL_MAX, window).await.map_err(failed)?;
        let consume = channel.basic_consume(
            queue.as_str().into(),
            "follow".into(),
            BasicConsumeOptions::default(),
            arguments,
        );
        let consumer = within(CALL_MAX, consume).await.map_err(failed)?;
        Ok(Self {
            consumer,
            _channel: channel,
            _connection: connection,
            queue,
            team,
            pending: None,
        })
    }

    /// The next event; `None` when the broker ended the listening. Waits for as
    /// long as nothing happens.
    ///
    /// # Errors
    /// See [`ClientError`]; the stream is over then.
    ///
    /// # Cancellation
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Result<Option<FollowedEvent>, ClientError> {
        loop {
            if self.pending.is_none() {
                self.pending = match self.consumer.next().await {
                    Some(Ok(delivery)) => Some(delivery),
                    Some(Err(error)) => return Err(client_error(&self.queue, &error)),
                    None => return Ok(None),
                };
            }
            if let Some(pending) = &self.pending {
                let ack = pending.acker.ack(BasicAckOptions::default());
                within(CALL_MAX, ack).await.map_err(|error| client_error(&self.queue, &error))?;
            }
            if let Some(delivery) = self.pending.take()
                && self.is_wanted(&delivery)
            {
                return Ok(Some(FollowedEvent {
                    id: delivery.properties.message_id().as_ref().map(ToString::to_string),
                    offset: message::number_header(&delivery.properties, "x-stream-offset"),
                    mark: message::text_header(&delivery.properties, message::MARK),
                    body: String::from_utf8_lossy(&delivery.data).into_owned(),
                }));
            }
        }
    }

    /// The log has no bindings: what it holds is told apart by header.
    fn is_wanted(&self, delivery: &Delivery) -> bool {
        let of = || message::text_header(&delivery.properties, message::TEAM);
        self.team.as_ref().is_none_or(|team| of().as_deref() == Some(team.as_str()))
    }
}
