//! Telling a running job that something later overtook it.

use tokio::sync::watch;

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
pub struct Interrupt(watch::Receiver<Reason>);

/// A new pair, not interrupted.
#[must_use]
pub fn pair() -> (Interrupter, Interrupt) {
    let (sender, receiver) = watch::channel(Reason::None);
    (Interrupter(sender), Interrupt(receiver))
}

impl Interrupter {
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
    /// The reason so far.
    #[must_use]
    pub fn reason(&self) -> Reason {
        *self.0.borrow()
    }

    /// Resolves with the reason once interrupted; never, if the other side is
    /// gone without interrupting.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn wait(&mut self) -> Reason {
        // The guard is not held over the second wait, or no task could wait.
        let reason = self.0.wait_for(|reason| *reason != Reason::None).await.map(|reason| *reason);
        match reason {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    }
}
