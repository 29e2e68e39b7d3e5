//! Calls that make things, and whoever looks for what they made.
//!
//! A run that is interrupted drops its calls, but the daemon goes on with them. An undo that had
//! looked by then would leave behind what comes to be a moment later: on a real daemon a network
//! for each seventy starts that were stopped in the middle. So such a call goes on in a task of
//! its own, and a listing waits for the calls that began before it. They are bounded in time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::RwLock;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::domain::ids::TeamId;
use crate::ports::engine::EngineError;

/// Calls hold it for reading, a listing takes it for writing.
type Gate = Arc<RwLock<()>>;

/// The calls under way, by team; those without one are together.
#[derive(Debug, Clone, Default)]
pub(super) struct Making {
    gates: Arc<Mutex<HashMap<Option<TeamId>, Gate>>>,
    tasks: TaskTracker,
}

impl Making {
    fn gate(&self, team: Option<&TeamId>) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = Arc::clone(gates.entry(team.cloned()).or_default());
        // Every other one that is in nobody's hands.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gate
    }

    /// Runs a call to its end, also if this future is dropped.
    ///
    /// # Errors
    /// The call's own, or the process ends.
    pub(super) async fn through<T: Send + 'static>(
        &self,
        team: Option<&TeamId>,
        call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let under_way = self.gate(team).read_owned().await;
        let made = async move {
            let result = call.await;
            drop(under_way);
            result
        };
        let task = self.tasks.spawn(made.in_current_span());
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(EngineError::Unreachable { source: Box::new(error) }),
        }
    }

    /// Waits for the calls of a team that have begun, and for those without a team.
    pub(super) async fn settled(&self, team: Option<&TeamId>) {
        for team in [team, None] {
            drop(self.gate(team).write_owned().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_looks_waits_for_a_call_that_was_dropped() {
        let (making, answer) = (Making::default(), Arc::new(Notify::new()));
        let [team, other] = ["a", "b"].map(|name| TeamId::parse(name).unwrap());
        let answered = Arc::clone(&answer);
        let call = async move {
            answered.notified().await;
            Ok(())
        };
        // It has begun, and whoever asked for it is gone.
        assert!(making.through(Some(&team), call).now_or_never().is_none());
        let mut settled = making.settled(Some(&team)).boxed();
        assert!((&mut settled).now_or_never().is_none());
        // Nobody else waits.
        making.settled(Some(&other)).now_or_never().unwrap();
        answer.notify_one();
        settled.await;
        assert!(making.gates.lock().unwrap().len() <= 1);
    }
}
