//! The session's own life: what ends it, what blocks it, and closing it without
//! breaking the order of what is given back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use lapin::{Connection, Event};
use tokio::sync::watch;

use super::events::RabbitEvents;
use super::link::{CLOSE_MAX, SessionEnd, within};
use super::mailbox::OpenChannel;
use crate::ports::broker::SessionLink;

/// How often connections are looked at besides their own news: some of their
/// ends come without any.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection, the channel on it that consumes, and whether it is blocked.
pub(super) struct Held {
    connection: Connection,
    consuming: Option<Arc<OpenChannel>>,
    blocked: watch::Sender<bool>,
}

impl Held {
    pub(super) fn new(
        connection: Connection,
        consuming: Option<Arc<OpenChannel>>,
        blocked: watch::Sender<bool>,
    ) -> Self {
        Self { connection, consuming, blocked }
    }
}

/// All of a session's connections.
pub(super) struct Link {
    held: Vec<Held>,
    news: SelectAll<BoxStream<'static, (usize, Event)>>,
    blocked: watch::Sender<Option<String>>,
    end: SessionEnd,
    events: Arc<RabbitEvents>,
}

impl Link {
    pub(super) fn new(held: Vec<Held>, end: SessionEnd, events: Arc<RabbitEvents>) -> Self {
        let news = held
            .iter()
            .enumerate()
            .map(|(index, held)| {
                held.connection.events_listener().map(move |event| (index, event)).boxed()
            })
            .collect();
        Self { held, news, blocked: watch::Sender::new(None), end, events }
    }

    fn on_news(&self, index: usize, event: Event) {
        let set = |blocked: bool| {
            if let Some(held) = self.held.get(index) {
                held.blocked.send_replace(blocked);
            }
        };
        match event {
            Event::ConnectionBlocked(reason) => {
                set(true);
                self.blocked.send_replace(Some(reason));
            }
            Event::ConnectionUnblocked => {
                set(false);
                if !self.held.iter().any(|held| *held.blocked.borrow()) {
                    self.blocked.send_replace(None);
                }
            }
            Event::Error(error) => {
                self.end.end(format!("the connection failed: {error}"));
            }
            // `Event` may grow; what is not an end is not ours.
            _ => {}
        }
    }

    fn look(&self) {
        self.events.harvest();
        for held in &self.held {
            let channel_is_open = held.consuming.as_ref().is_none_or(|channel| channel.is_open());
            if !held.connection.status().connected() || !channel_is_open {
                self.end.end("a connection to the broker is gone");
            }
        }
    }
}

#[async_trait]
impl SessionLink for Link {
    async fn ended(&mut self) -> String {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                reason = self.end.ended() => return reason,
                Some((index, event)) = self.news.next() => self.on_news(index, event),
                _ = look.tick() => self.look(),
            }
        }
    }

    fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.subscribe()
    }

    async fn close(self: Box<Self>) {
        // Whoever still publishes gets an error instead of a half-closed channel.
        self.end.end("the session was closed");
        self.events.detach();
        for held in self.held {
            if let Some(channel) = held.consuming {
                // A failure is a connection that is gone, which does the same.
                let _ = channel.close().await;
            }
            let _ = within(CLOSE_MAX, held.connection.close(200, "OK".into())).await;
        }
    }
}
