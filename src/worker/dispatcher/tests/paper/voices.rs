//! What the broker of paper takes from others than the dispatcher's table: acks,
//! words between workers, events; and its clock.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Paper, host};
use crate::domain::control::CtlMessage;
use crate::domain::event::EncodedEvent;
use crate::ports::clock::Clock;
use crate::ports::ctl::CtlSink;
use crate::ports::messages::{Acknowledge, DeadLetter, EventSink, SessionOver};

/// Settles a letter.
pub(super) struct PaperAck {
    pub(super) paper: Paper,
    pub(super) number: u128,
}

impl PaperAck {
    fn settle(&self, line: String) {
        self.paper.change(|state| {
            state.log.push(line);
            state.taken.retain(|letter| letter.number != self.number);
            state.settled += 1;
        });
    }
}

#[async_trait]
impl Acknowledge for PaperAck {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        self.settle(format!("ack {}", self.number));
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        self.settle(format!("dead {}: {}", self.number, why.reason));
        Ok(())
    }
}

#[async_trait]
impl CtlSink for Paper {
    async fn say(&self, message: &CtlMessage) -> Result<(), SessionOver> {
        self.change(|state| state.said.push(message.clone()));
        if let CtlMessage::InventoryAsk { nonce } = message {
            let inventories = self.state().inventories.clone();
            for (name, teams) in inventories {
                self.hosts.inventory(*nonce, host(&name), teams);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl EventSink for Paper {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        self.change(|state| state.events.push(event.clone()));
        Ok(())
    }
}

#[async_trait]
impl Clock for Paper {
    fn unix_millis(&self) -> i64 {
        1_795_435_200_000
    }

    fn new_id(&self) -> Uuid {
        self.change(|state| {
            state.next_id += 1;
            Uuid::from_u128(state.next_id)
        })
    }

    fn new_secret(&self) -> String {
        String::new()
    }

    fn random(&self) -> f64 {
        0.0
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
