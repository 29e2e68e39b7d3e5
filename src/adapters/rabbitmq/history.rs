//! The last number of each team's events, read from the log.
//!
//! A worker asks when it has no record of a team, or gave the team away since:
//! another host, or a lost disk, told the events before. A stream has no index,
//! so that one reading serves all who asked before it began, and each goes on
//! where the last one ended.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

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

/// After a reading that failed, the next one is not tried for so long: a hundred
/// teams would each wait for theirs behind a broker that hangs.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// How long one reading may take.
const READING_MAX: Duration = Duration::from_secs(10);

/// The log is empty if it gives nothing for so long.
const EMPTY_AFTER: Duration = Duration::from_millis(500);

/// Past the place where the log ended when the reading began, this is its end.
const QUIET_AFTER: Duration = Duration::from_millis(100);

/// A log that never falls quiet is left so many events past that place, which is
/// the beginning of its last chunk.
const EVENTS_PAST_END_MAX: u64 = 5_000;

/// What was read so far.
#[derive(Default)]
struct Known {
    sequences: HashMap<TeamId, u64>,
    next_offset: Option<u64>,
    /// When the last reading began.
    began_at: Option<Instant>,
    failed_at: Option<Instant>,
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

    /// The number of the team's last event, if it is not too far back.
    pub(super) async fn last_sequence(&self, team: &TeamId) -> Result<Option<u64>, ClientError> {
        let asked_at = Instant::now();
        let mut known = self.known.lock().await;
        // Whoever told the team's events before has lost it by the time of the
        // asking, so that a reading that began later has them all.
        let is_read = known.began_at.is_some_and(|began_at| began_at >= asked_at);
        let is_paused = known.failed_at.is_some_and(|at| at.elapsed() < FAILED_PAUSE);
        if !is_read && !is_paused {
            known.began_at = Some(Instant::now());
            let reading = tokio::time::timeout(READING_MAX, self.read_on(&mut known)).await;
            known.failed_at = (!matches!(reading, Ok(Ok(())))).then(Instant::now);
            // What was read by then is better than nothing, and the next
            // reading goes on there.
            reading.unwrap_or(Ok(()))?;
        }
        Ok(known.sequences.get(team).copied())
    }

    async fn read_on(&self, known: &mut Known) -> Result<(), ClientError> {
        let Some(end) = self.end().await? else { return Ok(()) };
        let from = known.next_offset.unwrap_or(end.saturating_sub(EVENTS_BACK_MAX));
        let mut events = self.client.replay(ReplayFrom::Offset(from), None).await?;
        loop {
            let is_past_end = known.next_offset.is_some_and(|next| next > end);
            let patience = if is_past_end { QUIET_AFTER } else { READING_MAX };
            let Ok(next) = tokio::time::timeout(patience, events.next()).await else { break };
            let Some(event) = next? else { break };
            known.take(&event);
            if event.offset.is_some_and(|offset| offset > end + EVENTS_PAST_END_MAX) {
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
