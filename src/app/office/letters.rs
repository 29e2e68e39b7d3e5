//! Dead letters for pages that stay open.
//!
//! A queue can only be read by taking from it and putting back, which counts against
//! the queue's delivery limit, and hides its messages from everybody else meanwhile.
//! So a page that asks again is answered from the last look while nothing shows that
//! there is something new; and looks and deeds of this worker come one after the
//! other, so that a look never hides what a person just ticked.

use std::time::Duration;

use tokio::time::Instant;

use super::Office;
use crate::adapters::rabbitmq::client::ClientError;
use crate::adapters::rabbitmq::dead_letters::{DeadFilter, DeadMessage};

/// How old a look may be while the queue is as long as it was.
const LOOK_BELIEVED: Duration = Duration::from_secs(60);

/// A job's message is put aside a moment after its end was told: a look from before
/// that moment is not believed.
const PUT_ASIDE_WITHIN: Duration = Duration::from_secs(3);

/// Looks that are kept: people with different filters.
const LOOKS_MAX: usize = 8;

/// A look.
pub(super) struct Look {
    at: Instant,
    filter: DeadFilter,
    limit: usize,
    sign: Sign,
    /// Whether the look before it had seen as many failures: else what failed last may
    /// not have been put aside yet.
    settled: bool,
    found: Vec<DeadMessage>,
}

/// What tells without a look that dead letters have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    /// In the queue, if the broker says.
    messages: Option<u32>,
    /// Jobs that failed here.
    failed: u64,
}

impl Office {
    /// Those that match, the oldest first, without their bodies.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn letters(
        &self,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadMessage>, ClientError> {
        let sign = self.letters_sign().await;
        let mut kept = self.kept.letters.lock().await;
        let place = kept.iter().position(|look| (&look.filter, look.limit) == (filter, limit));
        let last = place.map(|place| kept.swap_remove(place));
        if let Some(look) = last.as_ref().filter(|look| look.is_believed(sign)) {
            let found = look.found.clone();
            kept.extend(last);
            return Ok(found);
        }
        let mut found = self.client.dead_letters(filter, limit).await?;
        for letter in &mut found {
            // Two hundred of them may be fifty megabytes.
            letter.body = Vec::new();
        }
        if kept.len() == LOOKS_MAX {
            kept.remove(0);
        }
        kept.push(Look {
            at: Instant::now(),
            filter: filter.clone(),
            limit,
            sign,
            settled: last.is_some_and(|last| last.sign.failed == sign.failed),
            found: found.clone(),
        });
        Ok(found)
    }

    /// Those that match, with what they say.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn letters_whole(
        &self,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadMessage>, ClientError> {
        let _alone = self.kept.letters.lock().await;
        self.client.dead_letters(filter, limit).await
    }

    /// Sends those that match again, or drops them; says how many.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn settle_letters(
        &self,
        filter: &DeadFilter,
        again: bool,
    ) -> Result<usize, ClientError> {
        let mut kept = self.kept.letters.lock().await;
        kept.clear();
        if again {
            self.client.requeue_dead_letters(filter).await
        } else {
            self.client.drop_dead_letters(filter).await
        }
    }

    async fn letters_sign(&self) -> Sign {
        let queues = self.queues().await.unwrap_or_default();
        let queue = queues.into_iter().find(|queue| queue.name.ends_with(".dlq"));
        let failed = self.feed.board().failed_total();
        Sign { messages: queue.map(|queue| queue.messages), failed }
    }
}

impl Look {
    fn is_believed(&self, now: Sign) -> bool {
        // Without the broker's word only the clock is left.
        let long = self.settled && now.messages.is_some();
        let most = if long { LOOK_BELIEVED } else { PUT_ASIDE_WITHIN };
        self.sign == now && self.at.elapsed() < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_is_believed_until_something_shows_that_there_is_more() {
        let sign = |messages, failed| Sign { messages, failed };
        let look = |messages, settled| Look {
            at: Instant::now(),
            filter: DeadFilter::default(),
            limit: 1,
            sign: sign(messages, 5),
            settled,
            found: Vec::new(),
        };
        let (settled, fresh, blind) = (look(Some(2), true), look(Some(2), false), look(None, true));
        assert!(settled.is_believed(sign(Some(2), 5)) && fresh.is_believed(sign(Some(2), 5)));
        assert!(!settled.is_believed(sign(Some(3), 5)));
        // Sent again and failed again: as many as before, and not the same.
        assert!(!settled.is_believed(sign(Some(2), 6)));
        tokio::time::advance(PUT_ASIDE_WITHIN).await;
        assert!(settled.is_believed(sign(Some(2), 5)));
        assert!(!fresh.is_believed(sign(Some(2), 5)), "its message may have come since");
        assert!(!blind.is_believed(sign(None, 5)));
        tokio::time::advance(LOOK_BELIEVED).await;
        assert!(!settled.is_believed(sign(Some(2), 5)));
    }
}
