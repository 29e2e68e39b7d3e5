//! What a daemon tells that was away: which of it was its own doing.
//!
//! A daemon that was killed leaves its containers running. When it comes back it
//! ends them, with the words of a stop by hand, before it answers anybody.

use std::time::Duration;

use tokio::time::Instant;

use crate::ports::engine::{EngineContainerFact, EngineEvent, EngineFact, EngineMoment};

/// What was before comes at once when the stream is opened.
const REPLAY_MAX: Duration = Duration::from_secs(2);

/// A stream of events that was opened again.
#[derive(Debug)]
pub(in crate::pipeline) struct Replay {
    /// The last event before it was cut: a daemon that was there all the time
    /// begins with it, another one has forgotten it.
    seen: Option<EngineMoment>,
    opened: EngineMoment,
    until: Instant,
    is_new_daemon: Option<bool>,
}

impl Replay {
    /// `opened` is when the daemon had answered.
    pub(in crate::pipeline) fn new(seen: Option<EngineMoment>, opened: EngineMoment) -> Self {
        Self { seen, opened, until: Instant::now() + REPLAY_MAX, is_new_daemon: None }
    }

    /// Whether an event tells of a signal or stop that nobody asked for: that the
    /// container ended is told by another.
    pub(in crate::pipeline) fn is_the_daemons(&mut self, event: &EngineEvent) -> bool {
        let is_new = *self.is_new_daemon.get_or_insert(self.seen != Some(event.at));
        let is_before = event.at < self.opened && Instant::now() < self.until;
        let is_word_of_stop = matches!(
            event.fact,
            EngineFact::Container {
                fact: EngineContainerFact::Signalled { .. } | EngineContainerFact::Stopped,
                ..
            }
        );
        is_new && is_before && is_word_of_stop
    }
}
