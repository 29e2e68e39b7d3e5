//! Jobs and events within one process, for `covibes up` and for tests.
//!
//! The same ports as the broker's, bounded in the same way, and nothing that
//! outlives the process: a job whose settle is dropped is told so to whoever
//! sent it, and is not handed out again.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::domain::event::EncodedEvent;
use crate::domain::message::RawMessage;
use crate::ports::messages::{
    Acknowledge, DeadLetter, Delivery, EventSink, JobSource, SessionOver, Settle,
};

/// How a job in memory ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It was acknowledged.
    Done,
    /// It was put aside.
    Dead(DeadLetter),
    /// Nobody settled it.
    Abandoned,
}

/// Sends jobs into the queue.
#[derive(Debug, Clone)]
pub struct MemoryJobs(mpsc::Sender<(RawMessage, oneshot::Sender<Settled>)>);

/// Gives jobs out of the queue. It ends when every [`MemoryJobs`] is gone.
#[derive(Debug)]
pub struct MemorySource(mpsc::Receiver<(RawMessage, oneshot::Sender<Settled>)>);

/// Resolves when its job was settled.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Settled>);

impl Receipt {
    /// Waits for the job's end.
    pub async fn settled(self) -> Settled {
        self.0.await.unwrap_or(Settled::Abandoned)
    }
}

/// A queue for at most `size` jobs that nobody has taken yet.
#[must_use]
pub fn queue(size: usize) -> (MemoryJobs, MemorySource) {
    let (sender, receiver) = mpsc::channel(size.max(1));
    (MemoryJobs(sender), MemorySource(receiver))
}

impl MemoryJobs {
    /// Sends a job, waiting for room.
    ///
    /// # Errors
    /// Nobody takes jobs any more.
    pub async fn send(&self, message: RawMessage) -> Result<Receipt, SessionOver> {
        let (settled, receipt) = oneshot::channel();
        self.0
            .send((message, settled))
            .await
            .map_err(|_| SessionOver { reason: "the queue in memory is closed".to_owned() })?;
        Ok(Receipt(receipt))
    }
}

#[async_trait]
impl JobSource for MemorySource {
    async fn next(&mut self) -> Option<Delivery> {
        let (message, settled) = self.0.recv().await?;
        let settle = Settle::new(Box::new(MemoryAck(settled)));
        Some(Delivery { message, settle, order: None })
    }
}

struct MemoryAck(oneshot::Sender<Settled>);

#[async_trait]
impl Acknowledge for MemoryAck {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        // The sender need not be interested.
        let _ = self.0.send(Settled::Done);
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        let _ = self.0.send(Settled::Dead(why));
        Ok(())
    }
}

/// Events to whoever listens. One who falls more than `size` behind loses the
/// oldest and is told how many.
#[derive(Debug, Clone)]
pub struct MemoryEvents(broadcast::Sender<Arc<EncodedEvent>>);

impl MemoryEvents {
    /// A sink that keeps `size` events for slow listeners.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(broadcast::Sender::new(size.max(1)))
    }

    /// Listens to every event from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EncodedEvent>> {
        self.0.subscribe()
    }
}

#[async_trait]
impl EventSink for MemoryEvents {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        // Without a listener there is nobody to tell, which is no fault.
        let _ = self.0.send(Arc::new(event.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str) -> RawMessage {
        RawMessage { routing_key: key.to_owned(), attempt: 1, ..RawMessage::default() }
    }

    #[tokio::test]
    async fn jobs_come_in_order_and_their_end_is_told() {
        let (jobs, mut source) = queue(4);
        let first = jobs.send(message("team.a.start")).await.unwrap();
        let second = jobs.send(message("team.a.stop")).await.unwrap();
        let third = jobs.send(message("team.a.sync")).await.unwrap();
        drop(jobs);

        source.next().await.unwrap().settle.ack().await.unwrap();
        let delivery = source.next().await.unwrap();
        assert_eq!(delivery.message.routing_key, "team.a.stop");
        let why =
            DeadLetter { reason: "x".to_owned(), message: "y".to_owned(), attempts: 1, step: None };
        delivery.settle.dead_letter(why.clone()).await.unwrap();
        drop(source.next().await.unwrap());

        assert_eq!(first.settled().await, Settled::Done);
        assert_eq!(second.settled().await, Settled::Dead(why));
        assert_eq!(third.settled().await, Settled::Abandoned);
        assert!(source.next().await.is_none());
    }

    #[tokio::test]
    async fn every_listener_hears_every_event() {
        let events = MemoryEvents::new(8);
        let event = EncodedEvent {
            id: "1".to_owned(),
            routing_key: "team.a.job.accepted".to_owned(),
            body: "{}".to_owned(),
        };
        events.publish(&event).await.unwrap();
        let (mut one, mut two) = (events.subscribe(), events.subscribe());
        events.publish(&event).await.unwrap();
        assert_eq!(one.recv().await.unwrap().id, "1");
        assert_eq!(two.recv().await.unwrap().id, "1");
        assert!(one.try_recv().is_err());
    }
}
