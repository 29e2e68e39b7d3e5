//! Who comes next: the interval's cycle, a cycle that somebody asked for, a
//! commit or a push. One at a time, because all of them use one repository.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::board::Outcome;
use super::commits::{self, Committed, Pushed, Refusal, Request};
use super::cycle::{Memory, run_cycle};
use super::strategy::Wish;
use super::{Done, Shared};
use crate::service::system::chance;

/// A remote that is away for long is asked this often.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The pause doubles this many times at most, which is beyond any `PAUSE_MAX`.
const DOUBLINGS_MAX: u32 = 16;

/// A pause is longer or shorter by up to this share, so that the teams of a host,
/// which begin together, do not ask their server together for ever.
const JITTER: f64 = 0.15;

/// What somebody asks for.
#[derive(Debug)]
pub(super) enum Order {
    /// A cycle that begins after the order.
    Cycle { wish: Option<Wish>, done: Done },
    /// A commit.
    Commit { request: Request, answer: oneshot::Sender<Result<Committed, Refusal>> },
    /// A push of an agent's branch.
    Push { agent: String, answer: oneshot::Sender<Result<Pushed, Refusal>> },
}

/// Runs cycles at the interval, and whatever is asked for at once.
pub(super) async fn take_turns(shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut memory = Memory::default();
    let mut failures = 0;
    let mut waiting: Vec<Done> = Vec::new();
    let mut wish: Option<Wish> = None;
    // An order that did not fit into the last turn.
    let mut held = None;
    loop {
        let cycle = run_cycle(&shared, &mut memory, wish.take().as_ref()).await;
        if shared.scope.is_stopping() {
            return;
        }
        failures = match cycle.outcome {
            Outcome::Failed(_) => DOUBLINGS_MAX.min(failures + 1),
            Outcome::NoRepository
            | Outcome::LocalOnly
            | Outcome::UpToDate
            | Outcome::FastForwarded
            | Outcome::Joined { .. }
            | Outcome::Mended(_)
            | Outcome::Conflict(_)
            | Outcome::Skipped(_) => 0,
        };
        shared.metrics.cycled(&cycle);
        shared.board.cycled(cycle);
        for done in waiting.drain(..) {
            // The caller may have gone.
            let _ = done.send(());
        }
        let due = Instant::now() + pause(shared.settings.interval, failures, chance());
        loop {
            let order = match held.take() {
                Some(order) => order,
                None => tokio::select! {
                    () = shared.scope.stopping() => return,
                    () = tokio::time::sleep_until(due) => break,
                    order = orders.recv() => match order {
                        Some(order) => order,
                        None => return,
                    },
                },
            };
            match order {
                Order::Cycle { wish: wanted, done } => {
                    wish = wanted;
                    waiting.push(done);
                    break;
                }
                Order::Commit { request, answer } => {
                    let result = commits::commit(&shared, &request).await;
                    shared.metrics.committed(&result);
                    let _ = answer.send(result);
                }
                Order::Push { agent, answer } => {
                    let result = commits::push(&shared, &agent).await;
                    shared.metrics.pushed(&result);
                    let _ = answer.send(result);
                }
            }
        }
        // Whoever asked for a plain cycle before it begins is answered by it.
        while wish.is_none() {
            match orders.try_recv() {
                Ok(Order::Cycle { wish: None, done }) => waiting.push(done),
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// How long to wait for the next cycle; `chance` is from 0 up to 1.
fn pause(interval: Duration, failures: u32, chance: f64) -> Duration {
    let pause = (interval * 2_u32.pow(failures)).min(PAUSE_MAX.max(interval));
    pause.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_up_to_a_bound_and_are_spread() {
        let seconds = |failures, chance| {
            pause(Duration::from_secs(30), failures, chance).as_secs_f64().round() as u64
        };
        assert_eq!((seconds(0, 0.5), seconds(1, 0.5), seconds(3, 0.5)), (30, 60, 240));
        assert_eq!(seconds(DOUBLINGS_MAX, 0.5), 600);
        assert_eq!((seconds(3, 0.0), seconds(3, 0.999_999)), (204, 276));
        let long = pause(Duration::from_secs(86_400), 5, 0.5);
        assert_eq!(long, Duration::from_secs(86_400));
    }
}
