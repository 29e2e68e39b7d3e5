//! Jobs in, events out.

use async_trait::async_trait;

use crate::domain::control::HostOrder;
use crate::domain::event::EncodedEvent;
use crate::domain::ids::TeamId;
use crate::domain::message::RawMessage;

/// The broker did not do what was asked; the session is over.
#[derive(Debug, thiserror::Error)]
#[error("the broker session is over: {reason}")]
pub struct SessionOver {
    /// What ended it.
    pub reason: String,
}

/// Why a message is put aside, for its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The failure code.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Which attempt it was.
    pub attempts: u32,
    /// The last step, if one began.
    pub step: Option<String>,
}

/// Ends a delivery. Implemented by each job source.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Tells the source that the message is done.
    async fn ack(self: Box<Self>) -> Result<(), SessionOver>;

    /// Stores a copy among the dead letters, waits for its confirm, then acks.
    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver>;
}

/// The right to end one delivery, once. Dropping it leaves the message with
/// the broker, which hands it out again.
pub struct Settle(Box<dyn Acknowledge>);

impl Settle {
    /// Wraps a source's own acknowledgement.
    #[must_use]
    pub fn new(inner: Box<dyn Acknowledge>) -> Self {
        Self(inner)
    }

    /// For a job of the host's own, which no message asked for.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self(Box::new(Nothing))
    }

    /// Ends the delivery as done.
    ///
    /// # Errors
    /// The session ended first; the message comes again.
    pub async fn ack(self) -> Result<(), SessionOver> {
        self.0.ack().await
    }

    /// Ends the delivery as dead; the copy is confirmed before the ack.
    ///
    /// # Errors
    /// The session ended first; the message comes again.
    pub async fn dead_letter(self, why: DeadLetter) -> Result<(), SessionOver> {
        self.0.dead_letter(why).await
    }
}

/// No message: its end is told by events alone.
struct Nothing;

#[async_trait]
impl Acknowledge for Nothing {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, _: DeadLetter) -> Result<(), SessionOver> {
        Ok(())
    }
}

impl std::fmt::Debug for Settle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settle")
    }
}

/// A message with the right to end it.
#[derive(Debug)]
pub struct Delivery {
    /// What came.
    pub message: RawMessage,
    /// The right to end it.
    pub settle: Settle,
    /// What the dispatcher asks of this host, if it is not a job.
    pub order: Option<HostOrder>,
}

/// Where jobs come from.
#[async_trait]
pub trait JobSource: Send {
    /// The next delivery, in order; `None` when the session or queue is over.
    ///
    /// # Cancellation
    /// Safe: a delivery is never lost.
    async fn next(&mut self) -> Option<Delivery>;
}

/// Where events go.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Resolves only after the durable log has confirmed the event.
    ///
    /// # Errors
    /// The session is over; the event may or may not have been stored.
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver>;

    /// The sequence of the team's last event in the durable log, if there is a
    /// log and the event is not too far back in it. Bounded in time.
    ///
    /// # Errors
    /// The log cannot be read now.
    async fn last_sequence(&self, _team: &TeamId) -> Result<Option<u64>, SessionOver> {
        Ok(None)
    }
}
