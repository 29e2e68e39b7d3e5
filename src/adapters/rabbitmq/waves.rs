//! Publishing beside each other, and still knowing which message came back.
//!
//! The broker sends an unroutable message back and then confirms it. The client
//! hands what came back to whichever confirm it completes next, so with several
//! messages under way a returned job could pass for a stored one, and be lost.
//! Messages therefore go in waves: nobody joins a wave once one of its messages
//! is confirmed, and nobody learns the fate of his before all are. By then every
//! return of the wave has been handed to somebody in it, and says itself whose it
//! is (docs/adr/0010).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Confirmation;
use tokio_util::sync::CancellationToken;

use super::link::{Publish, Publisher, SessionEnd, Stored};
use crate::ports::messages::SessionOver;

/// A publisher for messages that are told apart by exchange and key: no two of
/// the same may be under way at once.
pub(super) struct Waves {
    publisher: Publisher,
    current: Mutex<Arc<Wave>>,
    end: SessionEnd,
}

#[derive(Default)]
struct Wave {
    members: Mutex<Members>,
    ended: CancellationToken,
}

#[derive(Default)]
struct Members {
    under_way: usize,
    is_closed: bool,
    returned: HashSet<(String, String)>,
}

impl Waves {
    pub(super) fn new(publisher: Publisher, end: SessionEnd) -> Self {
        Self { publisher, current: Mutex::default(), end }
    }

    /// Publishes, mandatory, and waits for the confirm of the whole wave.
    pub(super) async fn publish(&self, publish: Publish<'_>) -> Result<Stored, SessionOver> {
        let key = (publish.exchange.to_owned(), publish.key.to_owned());
        let wave = self.join().await?;
        let confirmation = self.publisher.confirm(publish).await?;
        let (is_stored, returned) = match confirmation {
            Confirmation::Ack(returned) => (true, returned),
            Confirmation::Nack(returned) => (false, returned),
            Confirmation::NotRequested => {
                return Err(self.end.end("the channel does not confirm what it takes"));
            }
        };
        let returned = returned.map(|message| {
            (message.delivery.exchange.to_string(), message.delivery.routing_key.to_string())
        });
        if wave.leave(returned) {
            *self.current() = Arc::default();
            wave.ended.cancel();
        }
        self.until_ended(&wave).await?;
        Ok(match is_stored {
            _ if wave.members().returned.contains(&key) => Stored::Unroutable,
            true => Stored::Yes,
            false => Stored::Refused,
        })
    }

    async fn join(&self) -> Result<Arc<Wave>, SessionOver> {
        loop {
            let wave = Arc::clone(&*self.current());
            if wave.join() {
                return Ok(wave);
            }
            self.until_ended(&wave).await?;
        }
    }

    async fn until_ended(&self, wave: &Wave) -> Result<(), SessionOver> {
        tokio::select! {
            biased;
            () = wave.ended.cancelled() => Ok(()),
            reason = self.end.ended() => Err(SessionOver { reason }),
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<Wave>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wave {
    fn join(&self) -> bool {
        let mut members = self.members();
        if !members.is_closed {
            members.under_way += 1;
        }
        !members.is_closed
    }

    /// Takes note of a confirm; `true` for the last.
    fn leave(&self, returned: Option<(String, String)>) -> bool {
        let mut members = self.members();
        members.is_closed = true;
        members.under_way -= 1;
        members.returned.extend(returned);
        members.under_way == 0
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(raw: &str) -> (String, String) {
        ("route".to_owned(), raw.to_owned())
    }

    #[test]
    fn a_wave_is_closed_by_its_first_confirm_and_ends_with_its_last() {
        let wave = Wave::default();
        assert!(wave.join() && wave.join());
        // What came back of one is handed to the other.
        assert!(!wave.leave(Some(key("b"))));
        assert!(!wave.join(), "closed");
        assert!(wave.leave(None));
        assert_eq!(wave.members().returned, HashSet::from([key("b")]));
    }
}
