//! Every event of this worker, on its way to the broker: the board takes it, and
//! whoever listens to `/events` is told.
//!
//! A listener costs a number: its place in one ring that all share. Who is slow
//! loses the oldest and is told that there is a gap; who does not read at all
//! costs nothing more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::app::board::Board;
use crate::domain::event::EncodedEvent;
use crate::domain::ids::TeamId;
use crate::ports::messages::{EventSink, SessionOver};

/// Events that a listener may be behind, and their bytes.
const RING_EVENTS_MAX: usize = 1024;
const RING_BYTES_MAX: usize = 4 << 20;

/// An event as listeners get it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its place among all events of this process.
    pub place: u64,
    /// `team.<team>.…` or `host.<host>.…`.
    pub routing_key: String,
    /// CloudEvents 1.0, structured mode, on one line.
    pub body: String,
}

#[derive(Default)]
struct Ring {
    next: u64,
    bytes: usize,
    events: VecDeque<Arc<Told>>,
}

/// What listeners find behind a place.
#[derive(Debug, Default)]
pub struct Behind {
    /// Whether events before these are gone.
    pub gap: bool,
    /// The events, the oldest first.
    pub events: Vec<Arc<Told>>,
    /// Where to look next.
    pub next: u64,
}

/// Passes events on and shows them.
pub struct Feed {
    to: Arc<dyn EventSink>,
    boot: String,
    board: Mutex<Board>,
    ring: Mutex<Ring>,
    changed: watch::Sender<u64>,
}

impl Feed {
    /// Passes on to `to`. `boot` tells this process's places from others'.
    #[must_use]
    pub fn new(to: Arc<dyn EventSink>, boot: String) -> Self {
        let changed = watch::Sender::new(0);
        Self { to, boot, board: Mutex::default(), ring: Mutex::default(), changed }
    }

    /// Tells this process's places from others'.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// What events have said so far.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told when there is something new; its value is the next place.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What came at `from` and later, at most `limit`.
    #[must_use]
    pub fn behind(&self, from: u64, limit: usize) -> Behind {
        let ring = self.ring();
        let first = ring.events.front().map_or(ring.next, |told| told.place);
        let gap = from < first || from > ring.next;
        let begin = if gap { first } else { from };
        let skip = usize::try_from(begin - first).unwrap_or(usize::MAX);
        let events: Vec<_> = ring.events.iter().skip(skip).take(limit).cloned().collect();
        let next = begin + events.len() as u64;
        Behind { gap, events, next }
    }

    /// The place of the next event.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.ring().next
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, event: &EncodedEvent) {
        self.board().take(&event.body);
        let next = {
            let mut ring = self.ring();
            let place = ring.next;
            ring.next += 1;
            ring.bytes += event.body.len();
            ring.events.push_back(Arc::new(Told {
                place,
                routing_key: event.routing_key.clone(),
                body: event.body.clone(),
            }));
            while ring.events.len() > RING_EVENTS_MAX || ring.bytes > RING_BYTES_MAX {
                let Some(oldest) = ring.events.pop_front() else { break };
                ring.bytes -= oldest.body.len();
            }
            ring.next
        };
        self.changed.send_replace(next);
    }
}

#[async_trait]
impl EventSink for Feed {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        self.to.publish(event).await?;
        // Only what the log has: a listener never knows more than it.
        self.keep(event);
        Ok(())
    }

    async fn last_sequence(&self, team: &TeamId) -> Result<Option<u64>, SessionOver> {
        self.to.last_sequence(team).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait]
    impl EventSink for Nowhere {
        async fn publish(&self, _: &EncodedEvent) -> Result<(), SessionOver> {
            Ok(())
        }

        async fn last_sequence(&self, _: &TeamId) -> Result<Option<u64>, SessionOver> {
            Ok(None)
        }
    }

    fn event(number: usize, bytes: usize) -> EncodedEvent {
        let id = number.to_string();
        EncodedEvent { id, routing_key: "team.a.x".to_owned(), body: "x".repeat(bytes) }
    }

    async fn feed(events: usize, bytes: usize) -> Feed {
        let feed = Feed::new(Arc::new(Nowhere), "boot".to_owned());
        for number in 0..events {
            feed.publish(&event(number, bytes)).await.unwrap();
        }
        feed
    }

    #[tokio::test]
    async fn a_listener_gets_each_event_once_and_in_order() {
        let feed = feed(5, 1).await;
        let first = feed.behind(1, 2);
        let places: Vec<_> = first.events.iter().map(|told| told.place).collect();
        assert_eq!((first.gap, places, first.next), (false, vec![1, 2], 3));
        let rest = feed.behind(first.next, 100);
        assert_eq!((rest.gap, rest.events.len(), rest.next), (false, 2, 5));
        let nothing = feed.behind(rest.next, 100);
        assert_eq!((nothing.gap, nothing.events.len(), nothing.next), (false, 0, 5));
    }

    #[tokio::test]
    async fn who_is_too_slow_or_from_another_time_is_told_of_a_gap() {
        let slow = feed(RING_EVENTS_MAX + 10, 1).await.behind(3, 1);
        assert_eq!((slow.gap, slow.events[0].place, slow.next), (true, 10, 11));
        let other = feed(3, 1).await.behind(99, 10);
        assert_eq!((other.gap, other.events.len(), other.next), (true, 3, 3));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_bytes() {
        let feed = feed(20, 1 << 20).await;
        assert!(feed.behind(0, 100).events.len() <= RING_BYTES_MAX >> 20);
    }
}
