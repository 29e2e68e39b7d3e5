//! When a part that ended is started again: Docker does the first restarts, the
//! worker takes over when Docker gave up, the exit was 0 or the daemon went; one
//! count of deaths covers both.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The wait after the first death.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait: what is broken for hours costs a start every five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long a death counts.
const WINDOW: Duration = Duration::from_secs(600);

/// So many deaths within [`WINDOW`] are a crash loop.
const LOOP_DEATHS: usize = 5;

/// Deaths that are remembered.
const DEATHS_MAX: usize = 32;

/// The deaths of one part.
#[derive(Debug, Clone, Default)]
pub struct Mending {
    deaths: VecDeque<Instant>,
    next: Option<Instant>,
    told_loop: bool,
}

impl Mending {
    /// Notes a death. `random` is a number in 0..1: parts that died together are not
    /// started together.
    pub fn died(&mut self, now: Instant, random: f64) {
        self.forget(now);
        self.deaths.push_back(now);
        if self.deaths.len() > DEATHS_MAX {
            self.deaths.pop_front();
        }
        let doublings = u32::try_from(self.deaths.len() - 1).unwrap_or(u32::MAX).min(16);
        let wait = (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT);
        self.next = Some(now + wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0));
    }

    /// Notes that somebody is at it: nobody else is before `wait` has passed.
    pub fn tried(&mut self, now: Instant, wait: Duration) {
        self.next = Some(now + wait);
    }

    /// Notes that it runs.
    pub fn runs(&mut self) {
        self.next = None;
    }

    /// When it is to be started again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it may be started now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Whether it ends again and again.
    #[must_use]
    pub fn is_loop(&self, now: Instant) -> bool {
        self.deaths.iter().filter(|at| now - **at <= WINDOW).count() >= LOOP_DEATHS
    }

    /// Deaths that count.
    #[must_use]
    pub fn deaths(&self) -> usize {
        self.deaths.len()
    }

    /// Whether a crash loop has begun that nobody was told of. Says so once.
    pub fn take_loop(&mut self, now: Instant) -> bool {
        let is_new = self.is_loop(now) && !self.told_loop;
        self.told_loop |= is_new;
        is_new
    }

    /// Forgets deaths that are long over, and with the last of them the loop.
    pub fn forget(&mut self, now: Instant) {
        while self.deaths.front().is_some_and(|at| now - *at > WINDOW) {
            self.deaths.pop_front();
        }
        self.told_loop &= !self.deaths.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_after(deaths: usize, random: f64) -> Duration {
        let (mut mending, now) = (Mending::default(), Instant::now());
        for _ in 0..deaths {
            mending.died(now, random);
        }
        mending.next().unwrap() - now
    }

    #[test]
    fn waits_grow_and_end_at_five_minutes() {
        let seconds: Vec<u64> = (1..=10).map(|n| wait_after(n, 1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(wait_after(40, 0.0), LONGEST_WAIT / 2);
    }

    #[test]
    fn a_crash_loop_is_told_once_until_it_is_over() {
        let (mut mending, mut now) = (Mending::default(), Instant::now());
        let mut told = 0;
        for _ in 0..20 {
            mending.died(now, 0.5);
            told += usize::from(mending.take_loop(now));
            now += Duration::from_secs(60);
        }
        assert_eq!(told, 1);
        now += WINDOW;
        mending.forget(now);
        assert!(!mending.is_loop(now) && mending.deaths() == 0);
        for _ in 0..LOOP_DEATHS {
            mending.died(now, 0.5);
        }
        assert!(mending.take_loop(now), "a later loop is another one");
    }

    #[test]
    fn nobody_tries_while_somebody_does() {
        let (mut mending, now) = (Mending::default(), Instant::now());
        assert!(!mending.is_due(now));
        mending.died(now, 0.0);
        assert!(!mending.is_due(now) && mending.is_due(now + FIRST_WAIT));
        mending.tried(now, Duration::from_secs(30));
        assert!(!mending.is_due(now + Duration::from_secs(29)));
        mending.runs();
        assert!(mending.next().is_none());
    }
}
