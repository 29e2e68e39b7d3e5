//! A host that is gone for good: its waiting jobs go, in order, to wherever
//! their teams begin anew, and its places go with its mailbox.
//!
//! Nothing else is in hand meanwhile and nothing is taken from the queue, so no
//! newer job of those teams can come before theirs. Whatever fails ends the
//! session with the order unsettled: the next dispatcher begins again, and finds
//! what is left in the mailbox in the same order.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use super::desk::Desk;
use super::{Handled, team_of};
use crate::domain::control::{CtlMessage, HostOrder};
use crate::domain::ids::HostId;
use crate::ports::broker::{BrokerFact, Forwarded, Incoming, Parcel};
use crate::ports::messages::SessionOver;

/// How long the host's own consumer may take to vanish: a broker notices a dead
/// connection after two missed heartbeats (24 s, measured).
const READER_WAIT: Duration = Duration::from_secs(30);

/// How often it is looked for.
const READER_LOOK: Duration = Duration::from_secs(1);

/// How long the next message of a mailbox may take, once nobody else reads it.
const NEXT_MAX: Duration = Duration::from_secs(20);

impl Desk<'_> {
    /// Evicts a host.
    pub(super) async fn evict(
        &self,
        host: HostId,
        nonce: Uuid,
        incoming: Box<dyn Incoming>,
    ) -> Handled {
        let (done, message) = if host == *self.with.hosts.own() {
            (false, format!("{host} dispatches right now, so it is not gone; stop its worker"))
        } else if !self.is_unread(&host).await? {
            if incoming.message().redelivered {
                // It came back in the middle. What is left of its mailbox it
                // does itself; what went elsewhere it must not keep.
                self.table.vacate(&host, nonce).await?;
            }
            (false, format!("{host} is connected; stop its worker, or let it be"))
        } else {
            tokio::select! {
                biased;
                // Left unsettled for the next dispatcher.
                () = self.stop.cancelled() => return Ok(None),
                () = self.ready.cancelled() => {}
            }
            let jobs = self.empty(&host, nonce).await?;
            self.table.renew_mailbox(&host).await?;
            self.table.vacate(&host, nonce).await?;
            self.with.observer.observe(BrokerFact::HostEvicted { host: host.clone(), jobs });
            self.with.hosts.forget(&host).await;
            self.with.ctl.say(&CtlMessage::Forget { host: host.clone() }).await?;
            (true, format!("{host} is evicted; {jobs} waiting jobs went on"))
        };
        self.with.ctl.say(&CtlMessage::Answer { nonce, done, message }).await?;
        incoming.settle().ack().await?;
        Ok(None)
    }

    async fn is_unread(&self, host: &HostId) -> Result<bool, SessionOver> {
        let began = tokio::time::Instant::now();
        while self.table.readers(host).await? > 0 {
            if began.elapsed() >= READER_WAIT || self.stop.is_cancelled() {
                return Ok(false);
            }
            tokio::time::sleep(READER_LOOK).await;
        }
        Ok(true)
    }

    /// Dispatches again what waits in the mailbox; returns how many jobs.
    async fn empty(&self, host: &HostId, nonce: Uuid) -> Result<usize, SessionOver> {
        // The end of what is there now. Nobody puts anything behind it: that
        // would be the dispatcher, who is here.
        let mut has_end = self.table.vacate(host, nonce).await? == Forwarded::Stored;
        let mut mailbox = self.table.drain(host).await?;
        let mut moved = BTreeSet::new();
        let mut jobs = 0;
        loop {
            let next = tokio::time::timeout(NEXT_MAX, mailbox.next()).await;
            let Ok(Some(incoming)) = next else {
                let reason = format!("the mailbox of {host} gives nothing to the dispatcher");
                return Err(SessionOver { reason });
            };
            match incoming.parcel() {
                Parcel::HostOrder(HostOrder::Vacate { nonce: end }) if *end == nonce => {
                    incoming.settle().ack().await?;
                    return Ok(jobs);
                }
                // Of an earlier eviction; or a fence around a place that goes.
                Parcel::HostOrder(_) | Parcel::Order(_) | Parcel::Marker => {
                    incoming.settle().ack().await?;
                }
                Parcel::Job => {
                    jobs += 1;
                    match team_of(incoming.as_ref()) {
                        None => {
                            self.handle(None, incoming).await?;
                        }
                        Some(team) => {
                            if moved.insert(team.clone()) {
                                self.table.release(&team, host).await?;
                            }
                            self.job(&team, incoming).await?;
                        }
                    }
                }
            }
            if !has_end {
                // The mailbox was full.
                has_end = self.table.vacate(host, nonce).await? == Forwarded::Stored;
            }
        }
    }
}
