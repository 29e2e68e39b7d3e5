//! From the answers to a part's probes to what is told of its health.
//!
//! One bad answer is a hiccup: a part is unhealthy after three in a row. It was
//! well once and stays so until then (readiness is sticky). One that goes up
//! and down again and again is held down longer, so that nobody is told of each
//! turn.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::health::PartHealth;

/// Bad answers in a row that make a part unhealthy.
const BAD_MAX: u32 = 3;

/// Good answers in a row that make it healthy again.
const GOOD_MIN: u32 = 2;

/// The same for one that flaps.
const GOOD_MIN_DAMPED: u32 = 10;

/// So many turns for the worse within [`FLAP_WINDOW`] are flapping.
const TURNS_MAX: usize = 3;

/// How long a turn counts.
const FLAP_WINDOW: Duration = Duration::from_secs(600);

/// A part that answers and says that it cannot work is not helped by a restart
/// at once: what it lacks may be outside. After so many bad answers it is tried.
const POOR_MAX: u32 = 20;

/// An answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is well.
    Well,
    /// It answers, and says what is wrong.
    Poor(String),
    /// It answers that what somebody wrote is at fault: a restart does not mend that.
    Faulty(String),
    /// It is not ready: no news of one that was never well, bad news of another.
    Slow(String),
    /// It does not answer.
    Silent(String),
}

/// A change that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// How it is now.
    pub health: PartHealth,
    /// Why, for people.
    pub cause: String,
}

/// What is known of one part's answers since its process began.
#[derive(Debug, Clone, Default)]
pub struct Wellness {
    health: PartHealth,
    bad: u32,
    good: u32,
    silent: u32,
    poor: u32,
    turns: VecDeque<Instant>,
}

impl Wellness {
    /// How the part is.
    #[must_use]
    pub fn health(&self) -> PartHealth {
        self.health
    }

    /// Whether the last answer was a bad one: it is asked again sooner.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.bad > 0 || self.health == PartHealth::Unhealthy
    }

    /// Its process ended.
    pub fn ended(&mut self) {
        *self = Self { health: PartHealth::Down, turns: self.turns.clone(), ..Self::default() };
    }

    /// Its process began.
    pub fn began(&mut self) {
        *self = Self { health: PartHealth::Starting, turns: self.turns.clone(), ..Self::default() };
    }

    /// Takes an answer; gives what is to be told, if something changed.
    pub fn note(&mut self, look: &Look, now: Instant) -> Option<Turn> {
        while self.turns.front().is_some_and(|at| now - *at > FLAP_WINDOW) {
            self.turns.pop_front();
        }
        match look {
            Look::Well => {
                (self.bad, self.silent, self.poor) = (0, 0, 0);
                self.good = self.good.saturating_add(1);
                let needed = match self.health {
                    PartHealth::Unhealthy if self.turns.len() >= TURNS_MAX => GOOD_MIN_DAMPED,
                    PartHealth::Unhealthy => GOOD_MIN,
                    _ => 1,
                };
                if self.health == PartHealth::Healthy || self.good < needed {
                    return None;
                }
                self.health = PartHealth::Healthy;
                let cause = "its probe passes".to_owned();
                Some(Turn { health: PartHealth::Healthy, cause })
            }
            Look::Slow(_) if self.health != PartHealth::Healthy => None,
            Look::Poor(cause) | Look::Faulty(cause) | Look::Slow(cause) | Look::Silent(cause) => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                self.silent = match look {
                    Look::Silent(_) => self.silent.saturating_add(1),
                    Look::Well | Look::Poor(_) | Look::Faulty(_) | Look::Slow(_) => 0,
                };
                self.poor = match look {
                    Look::Well | Look::Faulty(_) => 0,
                    Look::Poor(_) | Look::Slow(_) | Look::Silent(_) => self.poor.saturating_add(1),
                };
                if self.health == PartHealth::Unhealthy || self.bad < BAD_MAX {
                    return None;
                }
                self.health = PartHealth::Unhealthy;
                self.turns.push_back(now);
                let flaps = self.turns.len() >= TURNS_MAX;
                let again = if flaps { "; it comes and goes" } else { "" };
                Some(Turn { health: PartHealth::Unhealthy, cause: format!("{cause}{again}") })
            }
        }
    }

    /// Whether a restart is likely to help.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        self.health == PartHealth::Unhealthy && (self.silent >= BAD_MAX || self.poor >= POOR_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wellness: &mut Wellness, looks: &str, every: Duration, at: &mut Instant) -> String {
        let told = looks.chars().map(|look| {
            *at += every;
            let look = match look {
                'w' => Look::Well,
                'p' => Look::Poor("disk".to_owned()),
                'f' => Look::Faulty("status 500".to_owned()),
                'c' => Look::Slow("it compiles".to_owned()),
                _ => Look::Silent("refused".to_owned()),
            };
            match wellness.note(&look, *at).map(|turn| turn.health) {
                None => '.',
                Some(PartHealth::Healthy) => 'H',
                Some(_) => 'U',
            }
        });
        told.collect()
    }

    fn check(looks: &str, expected: &str) {
        let every = Duration::from_secs(5);
        let mut wellness = Wellness::default();
        wellness.began();
        assert_eq!(told(&mut wellness, looks, every, &mut Instant::now()), expected, "{looks}");
    }

    #[test]
    fn readiness_is_sticky() {
        check("wwsswssw", "H.......");
        check("swss", ".H..");
        check("wsss", "H..U");
        check("wspsww", "H..U.H");
        check("ccccw", "....H");
        check("wccc", "H..U");
        check("ssssww", "..U..H");
    }

    #[test]
    fn what_flaps_is_held_down() {
        let (up, down) = ("ww", "sss");
        let looks = format!("w{down}{up}{down}{up}{down}{}", "w".repeat(10));
        check(&looks, &format!("H..U.H..U.H..U{}H", ".".repeat(9)));
    }

    #[test]
    fn old_turns_are_forgotten() {
        let (mut wellness, mut at) = (Wellness::default(), Instant::now());
        let every = Duration::from_secs(150);
        let told = told(&mut wellness, "wsssww", every, &mut at);
        assert_eq!(told, "H..U.H");
        at += FLAP_WINDOW;
        assert!(wellness.note(&Look::Well, at).is_none() && wellness.turns.is_empty());
    }

    #[test]
    fn who_is_silent_is_restarted_and_who_complains_is_given_time() {
        let mut wellness = Wellness::default();
        let every = Duration::from_secs(5);
        told(&mut wellness, "wsss", every, &mut Instant::now());
        assert!(wellness.needs_restart());
        wellness.began();
        told(&mut wellness, "wppp", every, &mut Instant::now());
        assert!(!wellness.needs_restart() && wellness.is_in_doubt());
        told(&mut wellness, &"p".repeat(17), every, &mut Instant::now());
        assert!(wellness.needs_restart());
        wellness.began();
        told(&mut wellness, &"f".repeat(100), every, &mut Instant::now());
        assert!(!wellness.needs_restart() && wellness.health() == PartHealth::Unhealthy);
        told(&mut wellness, "sss", every, &mut Instant::now());
        assert!(wellness.needs_restart());
    }
}
