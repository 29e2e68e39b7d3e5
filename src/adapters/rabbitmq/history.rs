//! The last number of each team's events, read from the log.
//!
//! A worker asks when it has no record of a team, or gave the team away since:
//! another host, or a lost disk, told the events before. A stream has no index,
//! so that one reading serves all who asked before it began, and each goes on
//! where the last one ended. Nor does it say where it ends: a reader repeats an
//! event with a mark and reads until it meets it. Whoever reads the log knows
//! the event by its id already.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{ClientError, RabbitClient};
use super::follow::{FollowedEvent, ReplayFrom};
use crate::domain::ids::TeamId;
use crate::wire::event_reader::decode_event;

/// How far back the first reading goes: the bound of its time. Numbers follow
/// the clock, so that only a team whose last host ran ahead of it could be told
/// a lower number, and only if its last event lies further back.
const EVENTS_BACK_MAX: u64 = 100_000;

/// Teams whose numbers are kept.
const TEAMS_MAX: usize = 100_000;

/// How long one reading may take: some 20,000 events a second are read.
const READING_MAX: Duration = Duration::from_secs(30);

/// The log is empty if it gives nothing for so long. A session's first event is
/// about its host, so that this is seldom waited for.
const EMPTY_AFTER: Duration = Duration::from_secs(2);

/// Without a mark, the log ends where it gives nothing for so long.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// What was read so far.
#[derive(Default)]
struct Known {
    sequences: HashMap<TeamId, u64>,
    next_offset: Option<u64>,
    /// When the last reading began.
    began_at: Option<Instant>,
}

/// Reads the log of events for its numbers.
pub(super) struct History {
    client: RabbitClient,
    known: Mutex<Known>,
}

impl History {
    pub(super) fn new(client: RabbitClient) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The number of the team's last event, if it is not too far back. `mark`
    /// puts something into the log by which its end is known; it says whether it
    /// could.
    pub(super) async fn last_sequence(
        &self,
        team: &TeamId,
        mark: impl AsyncFnOnce(&str) -> Result<bool, ClientError>,
    ) -> Result<Option<u64>, ClientError> {
        let asked_at = Instant::now();
        let mut known = self.known.lock().await;
        // Whoever told the team's events before has lost it by the time of the
        // asking, so that a reading that began later has them all.
        let is_read = known.began_at.is_some_and(|began_at| began_at >= asked_at);
        if !is_read {
            let began_at = Instant::now();
            // The next reading goes on where this one ended, so that many that
            // take too long come to the end as well.
            let reading = tokio::time::timeout(READING_MAX, self.read_on(&mut known, mark)).await;
            reading.unwrap_or_else(|_| Err(unreadable("reading it takes too long")))?;
            known.began_at = Some(began_at);
        }
        Ok(known.sequences.get(team).copied())
    }

    async fn read_on(
        &self,
        known: &mut Known,
        mark: impl AsyncFnOnce(&str) -> Result<bool, ClientError>,
    ) -> Result<(), ClientError> {
        let from = match known.next_offset {
            Some(next) => next,
            None => self.end().await?.unwrap_or(0).saturating_sub(EVENTS_BACK_MAX),
        };
        let mut events = self.client.replay(ReplayFrom::Offset(from), None).await?;
        let id = Uuid::new_v4().to_string();
        let is_marked = mark(&id).await?;
        let patience = if is_marked { READING_MAX } else { QUIET_AFTER };
        while let Ok(next) = tokio::time::timeout(patience, events.next()).await {
            let event = next?.ok_or_else(|| unreadable("the broker ended the reading"))?;
            known.take(&event);
            if event.mark.as_deref() == Some(&id) {
                break;
            }
        }
        Ok(())
    }

    /// Where the last chunk of the log begins; nothing, if it is empty.
    async fn end(&self) -> Result<Option<u64>, ClientError> {
        let mut last = self.client.replay(ReplayFrom::Last, None).await?;
        let first = tokio::time::timeout(EMPTY_AFTER, last.next()).await;
        Ok(first.unwrap_or(Ok(None))?.and_then(|event| event.offset))
    }
}

fn unreadable(reason: &str) -> ClientError {
    ClientError::Unreachable { reason: format!("the log of events: {reason}") }
}

impl Known {
    fn take(&mut self, event: &FollowedEvent) {
        if let Some(offset) = event.offset {
            self.next_offset = Some(offset + 1);
        }
        let Ok(read) = decode_event(&event.body) else { return };
        let (Ok(team), Some(sequence)) = (TeamId::parse(&read.subject), read.sequence) else {
            return;
        };
        if self.sequences.len() < TEAMS_MAX || self.sequences.contains_key(&team) {
            let last = self.sequences.entry(team).or_default();
            *last = sequence.max(*last);
        }
    }
}
