//! Decides from a history alone what went wrong in it. It knows nothing of the
//! product but its contract, so that a history made up for a test shows whether
//! it can see.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::engine::{Effect, Kind, Verb};
use crate::history::{History, Job, Told};

/// Events that are shown before one that came out of order.
const STORY: usize = 12;

/// What is wrong, each fault in a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) attempted: usize,
    pub(crate) acknowledged: usize,
    /// Confirmed jobs that never ended, and ends without their dead letter.
    pub(crate) lost: Vec<String>,
    /// Jobs that ended in two ways or had an effect after their end.
    pub(crate) duplicated: Vec<String>,
    /// Ends and effects of one team against the order of its jobs.
    pub(crate) inversions: Vec<String>,
    /// What exists at the end and should not, or should and does not.
    pub(crate) leftovers: Vec<String>,
    /// Sequence numbers that do not increase.
    pub(crate) sequence: Vec<String>,
}

impl Verdict {
    pub(crate) fn faults(&self) -> Vec<&String> {
        [&self.lost, &self.duplicated, &self.inversions, &self.leftovers, &self.sequence]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Looks at a history.
pub(crate) fn check(history: &History) -> Verdict {
    let jobs: HashMap<&str, (usize, &Job)> =
        history.jobs.iter().enumerate().map(|(n, job)| (job.id.as_str(), (n, job))).collect();
    let mut ends: HashMap<&str, Vec<&Told>> = HashMap::new();
    for told in history.told.iter().filter(|told| told.is_final()) {
        if let Some(job) = &told.job {
            ends.entry(job).or_default().push(told);
        }
    }
    let mut verdict = Verdict {
        attempted: history.jobs.len(),
        acknowledged: history.jobs.iter().filter(|job| job.confirmed.is_some()).count(),
        leftovers: history.wrong_at_end.clone(),
        ..Verdict::default()
    };
    lost(history, &ends, &mut verdict);
    two_ends(&ends, &mut verdict);
    order_of_ends(history, &jobs, &ends, &mut verdict);
    overtaken_by_older(history, &jobs, &mut verdict);
    for (host, effects) in &history.effects {
        order_of_effects(host, effects, &jobs, &mut verdict);
        late_effects(host, effects, history, &ends, &mut verdict);
        repeated_effects(host, effects, &mut verdict);
    }
    sequences(history, &mut verdict);
    verdict
}

fn name(job: &Job) -> String {
    format!("{} {} {}", job.team, job.action, &job.id[job.id.len().saturating_sub(6)..])
}

/// More than one copy of a dead letter is none too many: each crash between copy
/// and ack makes one, with the same message id.
fn lost(history: &History, ends: &HashMap<&str, Vec<&Told>>, verdict: &mut Verdict) {
    let dead: HashSet<&str> = history.dead.iter().map(|dead| dead.job.as_str()).collect();
    for job in history.jobs.iter().filter(|job| job.confirmed.is_some()) {
        match ends.get(job.id.as_str()).and_then(|ends| ends.first()) {
            None => verdict.lost.push(format!("{} never ended", name(job))),
            Some(end) if end.is_dead() && !dead.contains(job.id.as_str()) => {
                verdict.lost.push(format!("{} failed without a dead letter", name(job)));
            }
            Some(end) if !end.is_dead() && dead.contains(job.id.as_str()) => {
                verdict.duplicated.push(format!("{} is {} and dead", name(job), end.kind));
            }
            Some(_) => {}
        }
    }
}

/// A job may be told ended twice, but only by the same event.
fn two_ends(ends: &HashMap<&str, Vec<&Told>>, verdict: &mut Verdict) {
    for (job, ends) in ends {
        let different: HashSet<_> = ends.iter().map(|told| (&told.id, &told.kind)).collect();
        if different.len() > 1 {
            let kinds: Vec<_> = ends.iter().map(|told| told.kind.as_str()).collect();
            verdict.duplicated.push(format!("{job} ended as {kinds:?}"));
        }
    }
}

fn order_of_ends(
    history: &History,
    jobs: &HashMap<&str, (usize, &Job)>,
    ends: &HashMap<&str, Vec<&Told>>,
    verdict: &mut Verdict,
) {
    let mut last: HashMap<&str, (usize, &Job)> = HashMap::new();
    for told in history.told.iter().filter(|told| told.is_end_of_turn()) {
        let Some((number, job)) = told.job.as_deref().and_then(|id| jobs.get(id)) else { continue };
        // Only a job's first end counts; `status` is answered beside the lane.
        let is_first =
            ends[job.id.as_str()].first().is_some_and(|first| std::ptr::eq(*first, told));
        if !is_first || job.action == "status" {
            continue;
        }
        if let Some((before, other)) = last.get(job.team.as_str())
            && before > number
        {
            let ends = story(history, jobs, &job.team, told);
            let (job, other) = (name(job), name(other));
            verdict.inversions.push(format!("{job} ended after {other}: {ends}"));
        }
        let newest = last.entry(&job.team).or_insert((*number, job));
        if *number > newest.0 {
            *newest = (*number, job);
        }
    }
}

/// What was told of a team's jobs shortly before, for whoever looks for the cause.
fn story(
    history: &History,
    jobs: &HashMap<&str, (usize, &Job)>,
    team: &str,
    until: &Told,
) -> String {
    let is_of_job = |told: &&Told| {
        let whole = ["job.", "step.started"].iter().any(|kind| told.kind.starts_with(kind));
        told.team == team && whole
    };
    let before: Vec<_> = history.told.iter().filter(is_of_job).collect();
    let end = before.iter().position(|told| std::ptr::eq(*told, until)).unwrap_or(0);
    let shown = before[end.saturating_sub(STORY)..=end].iter().map(|told| {
        let job = told.job.as_deref().and_then(|id| jobs.get(id));
        let job =
            job.map_or_else(|| "?".to_owned(), |(number, job)| format!("{number} {}", name(job)));
        format!("[{} {} of {job} by {}]", told.time, told.kind, told.host)
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Only a later job ends an earlier one.
fn overtaken_by_older(
    history: &History,
    jobs: &HashMap<&str, (usize, &Job)>,
    verdict: &mut Verdict,
) {
    for told in history.told.iter().filter(|told| told.is_final()) {
        let find = |id: &Option<String>| id.as_deref().and_then(|id| jobs.get(id));
        if let (Some((number, job)), Some((by, other))) = (find(&told.job), find(&told.by))
            && by < number
        {
            let (kind, job, other) = (&told.kind, name(job), name(other));
            verdict.inversions.push(format!("{job} ended as {kind} because of the older {other}"));
        }
    }
}

/// What is created carries its job: an older job's after a newer one's means
/// that the older ran last.
fn order_of_effects(
    host: &str,
    effects: &[Effect],
    jobs: &HashMap<&str, (usize, &Job)>,
    verdict: &mut Verdict,
) {
    let mut last: HashMap<&str, (usize, &Job)> = HashMap::new();
    for effect in effects.iter().filter(|effect| effect.verb == Verb::Create) {
        let Some((number, job)) = effect.job.as_deref().and_then(|id| jobs.get(id)) else {
            continue;
        };
        let newest = last.entry(&job.team).or_insert((*number, job));
        if *number < newest.0 {
            let (old, new) = (name(job), name(newest.1));
            verdict.inversions.push(format!("{host}: {old} made {} after {new}", effect.name));
        } else {
            *newest = (*number, job);
        }
    }
}

/// A job of a host's own is known by what is told of it, which begins after it did.
const TOLD_LATE: Duration = Duration::from_secs(10);

/// When each job of a host's own was at work, and on which team. One that its worker's
/// death cut off has no end.
fn own_jobs(history: &History) -> Vec<(&str, Instant, Option<Instant>)> {
    let asked: HashSet<&str> = history.jobs.iter().map(|job| job.id.as_str()).collect();
    let mut own: HashMap<&str, (&str, Instant, Option<Instant>)> = HashMap::new();
    for told in &history.told {
        let Some(id) = told.job.as_deref().filter(|id| !asked.contains(id)) else { continue };
        let entry = own.entry(id).or_insert((&told.team, told.at, None));
        if told.is_final() {
            entry.2 = Some(told.at);
        }
    }
    own.into_values().collect()
}

/// Nothing happens to a team of which no job is open. An event is read after
/// it was stored, so what is found here was late indeed.
fn late_effects(
    host: &str,
    effects: &[Effect],
    history: &History,
    ends: &HashMap<&str, Vec<&Told>>,
    verdict: &mut Verdict,
) {
    let mut open: HashMap<&str, Vec<(&Job, Option<&Told>)>> = HashMap::new();
    for job in &history.jobs {
        let end = ends.get(job.id.as_str()).and_then(|ends| ends.first()).copied();
        open.entry(&job.team).or_default().push((job, end));
    }
    let own = own_jobs(history);
    for effect in effects {
        let Some(team) = effect.team.as_deref() else { continue };
        let is_covered = open.get(team).is_some_and(|jobs| {
            jobs.iter().any(|(job, end)| {
                job.asked <= effect.at && end.is_none_or(|end| effect.at <= end.at)
            })
        });
        // A move looks into a workspace, and clears away what it leaves behind
        // when its host is there again.
        let is_of_a_move = (effect.name.contains("_look_") || effect.kind == Kind::Volume)
            && history.moves.iter().any(|(moved, at)| moved == team && *at <= effect.at);
        let is_of_the_host = own.iter().any(|(of, from, to)| {
            *of == team && effect.at + TOLD_LATE >= *from && to.is_none_or(|to| effect.at <= to)
        });
        if !is_covered && !is_of_a_move && !is_of_the_host {
            let what = format!("{:?} {:?} {}", effect.verb, effect.kind, effect.name);
            verdict.duplicated.push(format!("{host}: {what} while no job was open"));
        }
    }
}

/// A container that one job made and started is not made by it once more,
/// unless something took it away: an undo, or a later part of the same job.
fn repeated_effects(host: &str, effects: &[Effect], verdict: &mut Verdict) {
    let mut started: HashSet<(&str, &str)> = HashSet::new();
    for effect in effects.iter().filter(|effect| effect.kind == Kind::Container) {
        let Some(job) = effect.job.as_deref() else { continue };
        let key = (effect.name.as_str(), job);
        match effect.verb {
            Verb::Start => {
                started.insert(key);
            }
            Verb::Remove | Verb::Rename => {
                started.remove(&key);
            }
            Verb::Create if started.contains(&key) => {
                verdict.duplicated.push(format!("{host}: {job} made {} twice", effect.name));
            }
            Verb::Create | Verb::Stop | Verb::Restart => {}
        }
    }
}

fn sequences(history: &History, verdict: &mut Verdict) {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for told in &history.told {
        // A repeat carries the id and the number of the first.
        let (true, Some(sequence)) = (seen.insert(&told.id), told.sequence) else { continue };
        let newest = last.entry(&told.team).or_insert(0);
        if sequence <= *newest {
            let (kind, team) = (&told.kind, &told.team);
            verdict.sequence.push(format!("{team}: {kind} has {sequence} after {newest}"));
        }
        *newest = sequence.max(*newest);
    }
}

#[cfg(test)]
mod tests;
