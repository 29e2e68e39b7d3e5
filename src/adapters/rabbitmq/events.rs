//! Events to the durable log, with a confirm, and to dashboards, as they can.
//!
//! The log's confirm is the one that counts. The fan-out has a channel of its
//! own and nobody waits for it: one dashboard whose queue refuses would
//! otherwise hold up every team.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt as _;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::time::Instant;

use super::client::{ClientError, RabbitClient};
use super::history::History;
use super::link::{CALL_MAX, Publish, Publisher, SessionEnd, Stored, short, within};
use super::message;
use super::names::Names;
use super::replies::{Replies, ReplyChannel};
use crate::domain::event::EncodedEvent;
use crate::domain::ids::TeamId;
use crate::ports::broker::{BrokerFact, BrokerObserver};
use crate::ports::messages::{EventSink, SessionOver};

/// Fan-outs under way at once; beyond it dashboards miss events, which they read
/// again from the log.
const FAN_OUT_MAX: usize = 1024;

const NO_SESSION: &str = "there is no session with the broker";

/// The event sink of all sessions: while there is none, publishing fails.
pub struct RabbitEvents {
    names: Names,
    observer: Arc<dyn BrokerObserver>,
    history: History,
    replies: Arc<Replies>,
    link: Mutex<Option<Arc<EventsLink>>>,
    /// The last event about this host: repeated in the log, it marks its end.
    of_host: Mutex<Option<EncodedEvent>>,
}

/// One session's channels.
pub(super) struct EventsLink {
    log: Publisher,
    fan_out: Channel,
    replies: ReplyChannel,
    /// Confirms of the fan-out, in order.
    under_way: Mutex<VecDeque<PublisherConfirm>>,
    end: SessionEnd,
}

impl RabbitEvents {
    pub(super) fn new(
        names: Names,
        reader: RabbitClient,
        observer: Arc<dyn BrokerObserver>,
    ) -> Self {
        let (replies, link) = (Arc::default(), Mutex::new(None));
        let of_host = Mutex::default();
        Self { names, observer, history: History::new(reader), replies, link, of_host }
    }

    /// Who waits for the end of a job.
    pub(super) fn replies(&self) -> Arc<Replies> {
        Arc::clone(&self.replies)
    }

    pub(super) fn attach(
        &self,
        log: Publisher,
        fan_out: Channel,
        replies: Channel,
        end: SessionEnd,
    ) {
        let replies = ReplyChannel::new(replies, end.clone());
        let link = EventsLink { log, fan_out, replies, under_way: Mutex::default(), end };
        *self.link() = Some(Arc::new(link));
    }

    pub(super) fn detach(&self) {
        *self.link() = None;
    }

    /// Takes note of the fan-outs that the broker has answered.
    pub(super) fn harvest(&self) {
        if let Some(link) = self.link().clone() {
            self.harvest_of(&link);
        }
    }

    fn link(&self) -> MutexGuard<'_, Option<Arc<EventsLink>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many fan-outs are still under way.
    fn harvest_of(&self, link: &EventsLink) -> usize {
        let mut under_way = link.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = under_way.front_mut() {
            match first.now_or_never() {
                Some(Ok(Confirmation::Nack(_))) => {
                    self.observer.observe(BrokerFact::FanOutRefused);
                }
                Some(_) => {}
                None => break,
            }
            under_way.pop_front();
        }
        under_way.len()
    }

    fn of_host(&self) -> MutexGuard<'_, Option<EncodedEvent>> {
        self.of_host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats the last event about this host in the log, with a mark; `false` if
    /// there is none.
    async fn mark(&self, mark: &str) -> Result<bool, ClientError> {
        let (Some(link), Some(event)) = (self.link().clone(), self.of_host().clone()) else {
            return Ok(false);
        };
        let log = self.names.events_log();
        let publish = link.log.publish(Publish {
            exchange: "",
            key: &log,
            body: event.body.as_bytes(),
            properties: message::marked_event(&event, Some(mark)),
        });
        match publish.await {
            Ok(stored) => Ok(matches!(stored, Stored::Yes)),
            Err(over) => Err(ClientError::Unreachable { reason: over.reason }),
        }
    }

    async fn fan_out(&self, link: &EventsLink, event: &EncodedEvent) {
        // An unanswered confirm may not simply be dropped: the client would keep
        // it for ever.
        if self.harvest_of(link) >= FAN_OUT_MAX || link.log.is_blocked() {
            self.observer.observe(BrokerFact::FanOutSkipped);
            return;
        }
        let (exchange, properties) = (self.names.events(), message::event(event));
        let publish = link.fan_out.basic_publish(
            exchange.into(),
            short(&event.routing_key),
            BasicPublishOptions::default(),
            event.body.as_bytes(),
            properties,
        );
        match within(CALL_MAX, publish).await {
            Ok(confirm) => {
                let mut under_way = link.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                under_way.push_back(confirm);
            }
            // A broker that blocks takes it later, or never: the log has it.
            Err(_) if link.log.is_blocked() => self.observer.observe(BrokerFact::FanOutSkipped),
            // The event is stored; that this channel is broken ends the session
            // for the next one.
            Err(error) => {
                link.end.end(format!("an event could not be sent to dashboards: {error}"));
            }
        }
    }
}

#[async_trait]
impl EventSink for RabbitEvents {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        let Some(link) = self.link().clone() else {
            return Err(SessionOver { reason: NO_SESSION.to_owned() });
        };
        let began = Instant::now();
        let stored = link
            .log
            .publish(Publish {
                exchange: "",
                key: &self.names.events_log(),
                body: event.body.as_bytes(),
                properties: message::event(event),
            })
            .await?;
        match stored {
            Stored::Yes => {}
            Stored::Unroutable => return Err(link.end.end("the stream of events is gone")),
            Stored::Refused => return Err(link.end.end("the stream refused an event")),
        }
        let (kind, duration) = (event.short_type().to_owned(), began.elapsed());
        self.observer.observe(BrokerFact::EventStored { kind, duration });
        if event.routing_key.starts_with("host.") {
            *self.of_host() = Some(event.clone());
        }
        self.fan_out(&link, event).await;
        link.replies.send(&self.replies, &self.names, self.observer.as_ref(), event).await;
        Ok(())
    }

    async fn last_sequence(&self, team: &TeamId) -> Result<Option<u64>, SessionOver> {
        let Some(link) = self.link().clone() else {
            return Err(SessionOver { reason: NO_SESSION.to_owned() });
        };
        // A broker that is gone answers no question, and everything that waits for
        // one would hold up the end of its session.
        let asked = tokio::select! {
            asked = self.history.last_sequence(team, async |mark| self.mark(mark).await) => asked,
            reason = link.end.ended() => return Err(SessionOver { reason }),
        };
        // Nor can anything be told that would have to be numbered.
        asked.map_err(|error| link.end.end(format!("the log of events cannot be read: {error}")))
    }
}
