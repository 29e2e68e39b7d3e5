//! How long to wait before the next attempt: exponential with full jitter,
//! capped, within a budget.
//!
//! Delays only. Nobody waits in here and no clock is read: the caller gives the
//! random number and the time that has passed, so that paused time and tests
//! reach both. The only place with the `backoff` crate.

use std::time::Duration;

use ::backoff::SystemClock;
use ::backoff::backoff::Backoff as _;
use ::backoff::exponential::{ExponentialBackoff, ExponentialBackoffBuilder};

/// The delays of one series of attempts.
#[derive(Debug)]
pub struct Backoff {
    intervals: ExponentialBackoff<SystemClock>,
    budget: Option<Duration>,
}

impl Backoff {
    /// A series whose delays are drawn from `0..first`, then from twice that,
    /// and so on up to `0..max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        let intervals = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_max_interval(max)
            .with_multiplier(2.0)
            // The crate's own jitter draws from its own generator; ours is
            // applied in `delay`, from a number that tests can choose.
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { intervals, budget: None }
    }

    /// The same series, which ends once `budget` would be passed.
    #[must_use]
    pub fn with_budget(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The next delay, given a number in 0..1 and the time since the series
    /// began; `None` once the budget is spent.
    pub fn delay(&mut self, random: f64, elapsed: Duration) -> Option<Duration> {
        let interval = self.intervals.next_backoff()?;
        let delay = interval.mul_f64(random.clamp(0.0, 1.0));
        match self.budget {
            Some(budget) if elapsed.saturating_add(delay) >= budget => None,
            _ => Some(delay),
        }
    }

    /// Begins the series again, after something worked.
    pub fn reset(&mut self) {
        self.intervals.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_double_up_to_the_cap_and_begin_again() {
        let mut backoff = Backoff::new(200 * MS, 5000 * MS);
        let mut next = || backoff.delay(1.0, Duration::ZERO).unwrap().as_millis();
        let delays: Vec<_> = (0..7).map(|_| next()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.delay(1.0, Duration::ZERO), Some(200 * MS));
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(200 * MS, 5000 * MS);
        assert_eq!(backoff.delay(0.0, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(backoff.delay(0.25, Duration::ZERO), Some(100 * MS));
    }

    #[test]
    fn a_delay_that_would_pass_the_budget_ends_the_series() {
        let mut backoff = Backoff::new(200 * MS, 5000 * MS).with_budget(Duration::from_secs(600));
        assert!(backoff.delay(1.0, Duration::from_secs(10)).is_some());
        assert_eq!(backoff.delay(1.0, Duration::from_millis(599_900)), None);
        assert_eq!(backoff.delay(0.0, Duration::from_secs(600)), None);
    }
}
