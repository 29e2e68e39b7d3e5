//! Histories made up by hand: the checker has to see what is wrong in each, and
//! nothing in the one that is well.

use std::time::{Duration, Instant};

use super::check;
use crate::engine::{Effect, Kind, Verb};
use crate::history::{Dead, History, Job, Told};

/// A history that grows by one thing per millisecond.
struct Made {
    began: Instant,
    now: u64,
    history: History,
}

impl Made {
    fn new() -> Self {
        let effects = vec![("host".to_owned(), Vec::new())];
        let history = History { effects, ..History::default() };
        Self { began: Instant::now(), now: 0, history }
    }

    fn tick(&mut self) -> Instant {
        self.now += 1;
        self.began + Duration::from_millis(self.now)
    }

    fn job(&mut self, id: &str, action: &str) -> &mut Self {
        let asked = self.tick();
        let (team, action) = ("t".to_owned(), action.to_owned());
        self.history.jobs.push(Job {
            id: id.to_owned(),
            team,
            action,
            asked,
            confirmed: Some(asked),
        });
        self
    }

    fn told(&mut self, job: &str, kind: &str) -> &mut Self {
        self.told_by(job, kind, None)
    }

    fn told_by(&mut self, job: &str, kind: &str, by: Option<&str>) -> &mut Self {
        let at = self.tick();
        self.history.told.push(Told {
            at,
            time: 0,
            id: format!("{job}/{kind}"),
            kind: kind.to_owned(),
            team: "t".to_owned(),
            host: "host".to_owned(),
            job: Some(job.to_owned()),
            sequence: Some(self.now),
            previous: None,
            by: by.map(str::to_owned),
        });
        self
    }

    fn did(&mut self, job: &str, verb: Verb, name: &str) -> &mut Self {
        let at = self.tick();
        let (team, job) = (Some("t".to_owned()), Some(job.to_owned()));
        let effect = Effect { at, verb, kind: Kind::Container, name: name.to_owned(), team, job };
        self.history.effects[0].1.push(effect);
        self
    }

    fn dead(&mut self, job: &str) -> &mut Self {
        self.history.dead.push(Dead { job: job.to_owned() });
        self
    }
}

/// Counts of lost, duplicated, inversions, leftovers and sequence faults.
fn counts(made: &Made) -> [usize; 5] {
    let v = check(&made.history);
    [v.lost.len(), v.duplicated.len(), v.inversions.len(), v.leftovers.len(), v.sequence.len()]
}

fn well() -> Made {
    let mut made = Made::new();
    made.job("a", "start").told("a", "job.accepted");
    made.did("a", Verb::Create, "c").did("a", Verb::Start, "c").told("a", "job.succeeded");
    made.job("b", "restart").told("b", "job.failed").dead("b");
    made.job("c", "start").job("d", "stop");
    made.told_by("c", "job.cancelled", Some("d"));
    made.did("a", Verb::Stop, "c").did("a", Verb::Remove, "c").told("d", "job.succeeded");
    made
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    let made = well();
    assert_eq!(counts(&made), [0; 5], "{:?}", check(&made.history));
    let verdict = check(&made.history);
    assert_eq!((verdict.attempted, verdict.acknowledged), (4, 4));
}

#[test]
fn a_confirmed_job_without_an_end_is_lost() {
    let mut made = well();
    made.job("e", "stop").told("e", "job.accepted");
    assert_eq!(counts(&made), [1, 0, 0, 0, 0]);
    made.history.jobs.last_mut().unwrap().confirmed = None;
    assert_eq!(counts(&made), [0; 5], "nobody promised anything about it");
}

#[test]
fn a_failure_without_a_dead_letter_is_lost() {
    let mut made = well();
    made.history.dead.clear();
    assert_eq!(counts(&made), [1, 0, 0, 0, 0]);
}

#[test]
fn a_job_has_one_end() {
    let mut made = well();
    made.told("d", "job.succeeded");
    let first = made.history.told.iter().find(|told| told.id == "d/job.succeeded").unwrap();
    let sequence = first.sequence;
    made.history.told.last_mut().unwrap().sequence = sequence;
    assert_eq!(counts(&made), [0; 5], "the same event again is the same end");
    made.told("d", "job.superseded");
    assert_eq!(counts(&made), [0, 1, 0, 0, 0]);
    made.dead("a");
    assert_eq!(counts(&made), [0, 2, 0, 0, 0], "what succeeded is no dead letter");
}

#[test]
fn an_effect_after_the_end_is_one_too_many() {
    let mut made = well();
    made.did("d", Verb::Remove, "c");
    assert_eq!(counts(&made), [0, 1, 0, 0, 0]);
}

#[test]
fn a_job_makes_a_container_once() {
    let mut made = Made::new();
    made.job("a", "start").did("a", Verb::Create, "c").did("a", Verb::Start, "c");
    made.did("a", Verb::Create, "c").told("a", "job.succeeded");
    assert_eq!(counts(&made), [0, 1, 0, 0, 0]);
}

#[test]
fn turns_come_in_the_order_of_publishing() {
    let mut made = Made::new();
    made.job("a", "stop").job("b", "restart").told("b", "job.succeeded");
    made.told("a", "job.succeeded");
    assert_eq!(counts(&made), [0, 0, 1, 0, 0]);
}

#[test]
fn an_older_job_makes_nothing_after_a_newer_one() {
    let mut made = Made::new();
    made.job("a", "start").job("b", "start");
    made.did("b", Verb::Create, "c").did("a", Verb::Create, "d");
    made.told_by("a", "job.superseded", Some("b")).told("b", "job.succeeded");
    assert_eq!(counts(&made), [0, 0, 1, 0, 0]);
}

#[test]
fn an_older_job_ends_no_newer_one() {
    let mut made = Made::new();
    made.job("a", "start").job("b", "start").told("a", "job.succeeded");
    made.told_by("b", "job.superseded", Some("a"));
    assert_eq!(counts(&made), [0, 0, 1, 0, 0]);
}

#[test]
fn what_is_left_at_the_end_counts() {
    let mut made = well();
    made.history.wrong_at_end.push("volume x of t is left".to_owned());
    assert_eq!(counts(&made), [0, 0, 0, 1, 0]);
}

#[test]
fn sequences_only_grow() {
    let mut made = well();
    made.job("e", "status").told("e", "job.succeeded");
    made.history.told.last_mut().unwrap().sequence = Some(1);
    assert_eq!(counts(&made), [0, 0, 0, 0, 1]);
}
