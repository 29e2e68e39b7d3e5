//! The placement table and the orders that go with it. All of it shares the
//! dispatch queue's channel, so that the broker fences a dead dispatcher by
//! itself.

use async_trait::async_trait;
use uuid::Uuid;

use super::broker::{DispatchQueue, Forwarded};
use super::messages::SessionOver;
use crate::domain::control::{HostOrder, Order};
use crate::domain::ids::{HostId, TeamId};

/// The dispatcher's writes.
#[async_trait]
pub trait PlacementTable: Send + Sync {
    /// Writes that the host has the team.
    ///
    /// # Errors
    /// The session is over.
    async fn place(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver>;

    /// Takes that back. It is no error if it was not so.
    ///
    /// # Errors
    /// The session is over.
    async fn release(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver>;

    /// Whether the marker is there that tells a whole table from a lost one.
    ///
    /// # Errors
    /// The session is over.
    async fn is_marked(&self) -> Result<bool, SessionOver>;

    /// Writes the marker.
    ///
    /// # Errors
    /// The session is over.
    async fn mark(&self) -> Result<(), SessionOver>;

    /// Sends a fence to the team's host, the way its jobs go.
    ///
    /// # Errors
    /// The session is over.
    async fn fence(&self, team: &TeamId, nonce: Uuid) -> Result<Forwarded, SessionOver>;

    /// Asks the team's host, the way its jobs go, to send its record to `to`.
    ///
    /// # Errors
    /// The session is over.
    async fn depart(
        &self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
    ) -> Result<Forwarded, SessionOver>;

    /// Tells a host, whether it has the team or not, that the team has moved.
    ///
    /// # Errors
    /// The session is over.
    async fn leave(
        &self,
        team: &TeamId,
        host: &HostId,
        nonce: Uuid,
    ) -> Result<Forwarded, SessionOver>;

    /// How many consumers a host's mailbox has. Makes the mailbox if it is not
    /// there.
    ///
    /// # Errors
    /// The session is over.
    async fn readers(&self, host: &HostId) -> Result<u32, SessionOver>;

    /// Puts into a host's mailbox that it was evicted.
    ///
    /// # Errors
    /// The session is over.
    async fn vacate(&self, host: &HostId, nonce: Uuid) -> Result<Forwarded, SessionOver>;

    /// Reads a mailbox that has no other reader.
    ///
    /// # Errors
    /// The session is over.
    async fn drain(&self, host: &HostId) -> Result<Box<dyn DispatchQueue>, SessionOver>;

    /// Deletes a mailbox, and with it every place of its host, and makes it
    /// anew.
    ///
    /// # Errors
    /// The session is over.
    async fn renew_mailbox(&self, host: &HostId) -> Result<(), SessionOver>;
}

/// Puts orders into the one queue of all jobs.
#[async_trait]
pub trait OrderSink: Send + Sync {
    /// Resolves when the broker has it.
    ///
    /// # Errors
    /// The session is over.
    async fn send(&self, order: &Order) -> Result<(), SessionOver>;

    /// Puts an order into another host's mailbox, past the dispatcher.
    ///
    /// # Errors
    /// The session is over.
    async fn hand(&self, host: &HostId, order: &HostOrder) -> Result<Forwarded, SessionOver>;
}
