//! Waiting for states, never for a while.

use std::time::Duration;

/// How long any state may take to be reached on a busy machine.
pub(crate) const STATE_MAX: Duration = Duration::from_secs(90);

/// Between two looks at a state.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for a state, but not for ever; `None` if it never comes.
pub(crate) async fn within<T>(
    at_most: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(at_most, looking).await.ok()
}

/// Waits for a state that has to come.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    match within(STATE_MAX, look).await {
        Some(found) => found,
        None => panic!("never within {STATE_MAX:?}: {what}"),
    }
}
