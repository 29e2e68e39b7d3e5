//! What a lane tells a run: when it may speak, and that something overtook it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::ids::JobId;

/// Why a run should end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// Go on.
    #[default]
    None,
    /// A later stop, restart or destroy: end the step, undo the run.
    Cancel {
        /// The later job.
        by: JobId,
    },
    /// A later start: end the step and leave what exists to it.
    Supersede {
        /// The later job.
        by: JobId,
    },
    /// The session with the broker is over, or the worker was told to go: end
    /// at once and leave everything to whoever gets the job next.
    Abandon,
}

/// The side that interrupts.
#[derive(Debug, Clone)]
pub struct Interrupter(watch::Sender<Reason>);

/// The side that is interrupted.
#[derive(Debug, Clone)]
pub struct Interrupt {
    reason: watch::Receiver<Reason>,
    deadline: Option<Instant>,
    /// When the job was delivered.
    delivered: Option<Instant>,
    /// Becomes true when the job's first event is told; `None` if nobody tells one.
    accepted: Option<watch::Receiver<bool>>,
}

/// A new pair, not interrupted.
#[must_use]
pub fn pair() -> (Interrupter, Interrupt) {
    let (sender, receiver) = watch::channel(Reason::None);
    (
        Interrupter(sender),
        Interrupt { reason: receiver, deadline: None, delivered: None, accepted: None },
    )
}

impl Interrupter {
    /// The reason so far.
    #[must_use]
    pub fn reason(&self) -> Reason {
        *self.0.borrow()
    }

    /// Interrupts. The first cancel stays; only `Abandon` overrides it.
    pub fn interrupt(&self, reason: Reason) {
        self.0.send_if_modified(|current| {
            let stronger = match (*current, reason) {
                (_, Reason::Abandon) => *current != Reason::Abandon,
                (Reason::None, _) => true,
                (Reason::Supersede { .. }, Reason::Cancel { .. }) => true,
                _ => false,
            };
            if stronger {
                *current = reason;
            }
            stronger
        });
    }
}

impl Interrupt {
    /// The same, for a job that must end before `deadline`: it counts from the
    /// delivery, which the run has not seen.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The same, for a job that was delivered then and has waited since.
    #[must_use]
    pub fn with_delivery(self, delivered: Instant) -> Self {
        Self { delivered: Some(delivered), ..self }
    }

    /// How long the job has waited since its delivery; nothing, if nobody said when
    /// that was.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.delivered.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// The same, for a job whose first event is told when `accepted` becomes true:
    /// its run may work before that, but tell nothing.
    #[must_use]
    pub fn with_accepted(self, accepted: watch::Receiver<bool>) -> Self {
        Self { accepted: Some(accepted), ..self }
    }

    /// Waits until the run may tell its events; `false` if the session ended before.
    /// A reason other than the session's end does not end the wait: that the job
    /// was taken on is told of every job.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn may_speak(&mut self) -> bool {
        let Some(accepted) = &mut self.accepted else { return true };
        tokio::select! {
            told = accepted.wait_for(|told| *told) => told.is_ok(),
            Ok(_) = self.reason.wait_for(|reason| *reason == Reason::Abandon) => false,
        }
    }

    /// When the job's time is over, if whoever delivered it said so.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The reason so far.
    #[must_use]
    pub fn reason(&self) -> Reason {
        *self.reason.borrow()
    }

    /// Resolves with the reason once interrupted; never, if the other side is
    /// gone without interrupting.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn wait(&mut self) -> Reason {
        // The guard is not held over the second wait, or no task could wait.
        let reason =
            self.reason.wait_for(|reason| *reason != Reason::None).await.map(|reason| *reason);
        match reason {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    }
}
