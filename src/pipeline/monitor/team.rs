//! One team as the monitor knows it: its parts, what is missing, how it is
//! altogether, and when it ends by itself. Pure: somebody else looks and tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::part::{ABSENT, Now, PAUSED, Part};
use super::wanted::{Wanted, WantedPart};
use crate::domain::event::{EventKind, TeamState};
use crate::domain::health::{EndReason, PartHealth, TeamPicture};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::domain::settings::Settings;
use crate::policy::mending::Mending;
use crate::ports::engine::{Observed, ObservedContainer, label};
use crate::ports::host::Trace;

/// A team is told to be worse only when it stays so: Docker starts most parts
/// again within this.
const WORSE_FOR: Duration = Duration::from_secs(1);

/// How long before its end a team is warned, the first that fits its life and
/// each one after it.
const WARNINGS: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(60)];

/// One team.
#[derive(Debug, Clone)]
pub(super) struct Team {
    pub(super) id: TeamId,
    pub(super) wanted: Wanted,
    pub(super) parts: BTreeMap<ContainerName, Part>,
    /// Runs that are at work on it.
    pub(super) busy: usize,
    /// What is found at the next listing is taken over without a word: a run, or
    /// the process before this one, told of it.
    pub(super) is_quiet: bool,
    pub(super) missing: Vec<String>,
    /// Directories behind volumes that are gone. Nothing is made over them: what was
    /// in them is a person's to bring back.
    pub(super) lost: Vec<String>,
    /// Why its workspace is too large, if it is. Nothing of it is removed.
    pub(super) too_large: Option<String>,
    missing_mending: Mending,
    told: TeamState,
    told_unix_ms: i64,
    cause: String,
    worse_since: Option<Instant>,
    /// When something happened in it last, for `idle_stop`.
    active: Instant,
    /// What its files showed at the last look, and when that was.
    trace: Option<(Trace, Instant)>,
    /// When its `ttl` is over, for the start that the record names: the host's
    /// clock may be set meanwhile.
    ttl_end: Option<(i64, Duration, Instant)>,
    warned: BTreeSet<(EndReason, Duration)>,
}

impl Team {
    pub(super) fn new(id: TeamId, wanted: Wanted, now: Now) -> Self {
        let told = wanted.state;
        let mut team = Self {
            id,
            wanted: Wanted { parts: Vec::new(), ..wanted.clone() },
            parts: BTreeMap::new(),
            busy: 0,
            is_quiet: true,
            missing: Vec::new(),
            lost: Vec::new(),
            too_large: None,
            missing_mending: Mending::default(),
            told,
            told_unix_ms: now.unix_ms,
            cause: String::new(),
            worse_since: None,
            active: now.at,
            trace: None,
            ttl_end: None,
            warned: BTreeSet::new(),
        };
        team.want(wanted, now);
        team
    }

    /// Takes what should be there, as the record says now.
    pub(super) fn want(&mut self, wanted: Wanted, now: Now) {
        if wanted.state != self.wanted.state || wanted.up != self.wanted.up {
            self.told = wanted.state;
            self.told_unix_ms = now.unix_ms;
            self.cause = String::new();
        }
        for part in &wanted.parts {
            let known = self.parts.entry(part.name.clone());
            let known = known.or_insert_with(|| Part::new(part.clone(), true, now));
            known.what = part.clone();
        }
        let is_listed = |name: &ContainerName| wanted.parts.iter().any(|part| part.name == *name);
        for (name, part) in &mut self.parts {
            part.is_wanted = is_listed(name) || (wanted.parts.is_empty() && wanted.up);
        }
        self.parts.retain(|_, part| part.is_wanted || part.state != ABSENT);
        let is_same_life = |(started, ttl, _): &(i64, Duration, Instant)| {
            Some(*started) == wanted.started_unix_ms && Some(*ttl) == wanted.ttl
        };
        if !self.ttl_end.as_ref().is_some_and(is_same_life) {
            let end = wanted.started_unix_ms.zip(wanted.ttl).map(|(started, ttl)| {
                let passed = now.unix_ms.saturating_sub(started).max(0);
                let passed = Duration::from_millis(u64::try_from(passed).unwrap_or(0));
                (started, ttl, now.at + ttl.saturating_sub(passed))
            });
            self.ttl_end = end;
            self.warned.clear();
            self.active = now.at;
        }
        self.wanted = wanted;
    }

    /// Somebody else told how it is.
    pub(super) fn state_was_told(&mut self, state: TeamState, now: Now) {
        if self.told != state {
            (self.told, self.told_unix_ms, self.cause) = (state, now.unix_ms, String::new());
        }
    }

    /// Takes a listing of the team; gives what is to be told.
    pub(super) fn listed(
        &mut self,
        settings: &Settings,
        observed: &Observed,
        now: Now,
    ) -> Vec<EventKind> {
        let quiet = std::mem::take(&mut self.is_quiet);
        let mut tell = Vec::new();
        for container in &observed.containers {
            if let Some(part) = part_of(container) {
                let is_wanted = self.wanted.up && self.wanted.parts.is_empty();
                let known = self.parts.entry(container.name.clone());
                known.or_insert_with(|| Part::new(part, is_wanted, now));
            }
        }
        for (name, part) in &mut self.parts {
            let found = observed.containers.iter().find(|found| found.name == *name);
            let Some(found) = found else {
                let told = part.ended(ABSENT, None, now);
                part.id.clear();
                if quiet {
                    // Of a team that came up whole, each part has run once.
                    part.ran |=
                        matches!(self.wanted.state, TeamState::Running | TeamState::Starting);
                } else {
                    tell.extend(told);
                }
                continue;
            };
            let is_other = part.id != found.id;
            if is_other {
                part.id = found.id.clone();
                (part.pid, part.told_at) = (None, None);
            }
            if found.state == "running" && !is_other && part.is_ahead_of_docker(now) {
                continue;
            }
            if found.state == "running" {
                if !part.runs() {
                    match quiet || (is_other && !part.ran) {
                        true => part.adopt_running(now),
                        false => tell.extend(part.began(now)),
                    }
                }
                part.address = found.addresses.first().copied();
                let network = Wanted::network_of(settings, &self.id, part.what.role);
                part.detached = network.is_some_and(|network| !found.networks.contains(&network));
            } else if found.state == PAUSED {
                // A process that began just now does not know the hand, but sees it.
                let told = part.paused_by_hand(now);
                if !quiet {
                    tell.extend(told);
                }
            } else {
                let told = part.ended(&found.state, None, now);
                // One that was only made and never ran has its start's story.
                part.ran |= found.state != "created";
                if !quiet {
                    tell.extend(told);
                }
            }
        }
        self.parts.retain(|_, part| part.is_wanted || part.state != ABSENT);
        let has = |name: &String| observed.networks.iter().any(|n| n.name.as_str() == name);
        let gone = |kind: &str, name: &String| format!("the {kind} {name} is gone");
        let networks = self.wanted.networks.iter().filter(|name| !has(name));
        let mut missing: Vec<_> = networks.map(|name| gone("network", name)).collect();
        let has = |name: &String| observed.volumes.iter().any(|v| v.name.as_str() == name);
        let volumes = self.wanted.volumes.iter().filter(|name| !has(name));
        missing.extend(volumes.map(|name| gone("volume", name)));
        self.missing = if self.wanted.up { missing } else { Vec::new() };
        tell
    }

    /// How it is altogether, and why.
    fn state_now(&self) -> (TeamState, String) {
        if !self.wanted.up {
            return (self.wanted.state, String::new());
        }
        let wanted: Vec<_> = self.parts.values().filter(|part| part.is_wanted).collect();
        let bad: Vec<_> = wanted.iter().filter(|part| !part.health().is_well()).collect();
        let name = |part: &Part| match &part.what.part {
            Some(name) => format!("{} {name}", part.what.role.as_str()),
            None => part.what.role.as_str().to_owned(),
        };
        let causes = bad.iter().map(|part| {
            let cause = match part.detached {
                true => "it is not on its network",
                false => part.cause.as_deref().unwrap_or("it does not run"),
            };
            format!("{}: {cause}", name(part))
        });
        let missing = self.missing.iter().chain(&self.lost).chain(&self.too_large).cloned();
        let causes: Vec<_> = causes.chain(missing).take(3).collect();
        if causes.is_empty() {
            // What was told to be bad is not told to be good on a mere beginning.
            let begins = wanted.iter().find(|part| matches!(part.health(), PartHealth::Starting));
            return match (self.told, begins) {
                (TeamState::Degraded | TeamState::Failed, Some(part)) => {
                    (self.told, format!("{}: it has just been started", name(part)))
                }
                _ => (TeamState::Running, "every part is well".to_owned()),
            };
        }
        let serves = wanted.iter().any(|part| part.health().is_well());
        (if serves { TeamState::Degraded } else { TeamState::Failed }, causes.join("; "))
    }

    /// Deaths that turned out to be no stops by hand.
    pub(super) fn held(&mut self, now: Now) -> Vec<EventKind> {
        self.parts.values_mut().filter_map(|part| part.take_held(now)).collect()
    }

    /// What is to be told of it altogether.
    pub(super) fn settle(&mut self, now: Now) -> Option<EventKind> {
        if self.busy > 0 || self.is_quiet || !self.wanted.up {
            self.worse_since = None;
            return None;
        }
        let (state, cause) = self.state_now();
        if state == self.told {
            self.worse_since = None;
            self.cause = cause;
            return None;
        }
        let is_better = state == TeamState::Running;
        let since = *self.worse_since.get_or_insert(now.at);
        if !is_better && now.at - since < WORSE_FOR {
            return None;
        }
        self.worse_since = None;
        (self.told, self.told_unix_ms, self.cause) = (state, now.unix_ms, cause.clone());
        let links = match is_better {
            true => self.links(),
            false => BTreeMap::new(),
        };
        Some(EventKind::Team { state, cause, links })
    }

    fn links(&self) -> BTreeMap<PartName, String> {
        let parts = self.wanted.parts.iter();
        parts.filter_map(|part| Some((part.part.clone()?, part.url.clone()?))).collect()
    }

    /// Why something of it should be started again now, if it should.
    pub(super) fn what_to_mend(&mut self, again: Duration, now: Now) -> Option<String> {
        if self.busy > 0 || self.is_quiet || !self.wanted.up {
            return None;
        }
        let mut causes = Vec::new();
        for part in self.parts.values_mut() {
            if part.wants_mending(now) {
                let cause = part.cause.as_deref().unwrap_or("it does not run");
                causes.push(format!("{}: {cause}", part.what.name));
            }
        }
        if self.missing.is_empty() {
            self.missing_mending.runs();
        } else if self.missing_mending.next().is_none() {
            self.missing_mending.died(now.at, now.random);
        } else if self.missing_mending.is_due(now.at) {
            causes.extend(self.missing.iter().cloned());
        }
        if causes.is_empty() {
            return None;
        }
        for part in self.parts.values_mut().filter(|part| part.mending.is_due(now.at)) {
            part.mending.tried(now.at, again);
        }
        if self.missing_mending.is_due(now.at) {
            self.missing_mending.tried(now.at, again);
        }
        causes.truncate(3);
        Some(causes.join("; "))
    }

    /// Notes that something happened in it.
    pub(super) fn is_active(&mut self, now: Now) {
        self.active = now.at;
        self.warned.retain(|(reason, _)| *reason != EndReason::Idle);
    }

    /// Takes a trace of its files. The first one shows nothing of what was before it, which
    /// counts as something.
    pub(super) fn traced(&mut self, trace: Trace, now: Now) {
        let before = self.trace.replace((trace, now.at));
        if before.is_none_or(|(before, _)| before != trace) {
            self.is_active(now);
        }
    }

    /// Whether it is known up to a moment what happened in it: files are looked at now and
    /// then, and what changed since may be all that is needed to go on.
    fn is_known_until(&self, reason: EndReason, moment: Instant) -> bool {
        reason != EndReason::Idle || self.trace.is_some_and(|(_, at)| at >= moment)
    }

    /// When it ends by itself, and after how long a life.
    fn ends(&self) -> impl Iterator<Item = (EndReason, Instant, Duration)> {
        let ttl = self.ttl_end.map(|(_, ttl, end)| (EndReason::Ttl, end, ttl));
        let has_work = self.parts.values().any(|part| part.tasks_open.is_some_and(|n| n > 0));
        let idle = self.wanted.idle_stop.filter(|_| !has_work);
        let idle = idle.map(|idle| (EndReason::Idle, self.active + idle, idle));
        ttl.into_iter().chain(idle)
    }

    /// Why it is to be stopped now.
    pub(super) fn is_over(&self, now: Now) -> Option<EndReason> {
        let is_up = self.wanted.up;
        let is_over = |(reason, end, _): &(EndReason, Instant, Duration)| {
            is_up && *end <= now.at && self.is_known_until(*reason, *end)
        };
        self.ends().find(is_over).map(|(reason, ..)| reason)
    }

    /// Warnings that are due.
    pub(super) fn warnings(&mut self, now: Now) -> Vec<EventKind> {
        if !self.wanted.up || self.busy > 0 {
            return Vec::new();
        }
        let mut tell = Vec::new();
        for (reason, end, life) in self.ends().collect::<Vec<_>>() {
            let left = end.saturating_duration_since(now.at);
            // The last one comes in every life, however short.
            let mut marks = WARNINGS.map(|mark| mark.min(life / 2));
            marks.sort();
            let due = marks.iter().find(|mark| left <= **mark).copied();
            if let Some(mark) = due.filter(|_| !left.is_zero())
                && self.is_known_until(reason, end - mark)
                && self.warned.insert((reason, mark))
            {
                tell.push(EventKind::TeamExpiring { reason, left });
            }
        }
        tell
    }

    pub(super) fn picture(&self, now: Now) -> TeamPicture {
        let end = |wanted: EndReason| {
            let (_, end, _) = self.ends().find(|(reason, ..)| *reason == wanted)?;
            let left = end.saturating_duration_since(now.at).as_millis();
            Some(now.unix_ms.saturating_add(i64::try_from(left).ok()?))
        };
        let (state, cause) = match self.busy {
            0 => self.state_now(),
            _ => (self.told, self.cause.clone()),
        };
        let is_up = self.wanted.up;
        TeamPicture {
            team: self.id.clone(),
            state,
            since_unix_ms: match state == self.told {
                true => self.told_unix_ms,
                false => now.unix_ms,
            },
            cause,
            wanted: is_up,
            busy: self.busy > 0,
            generation: self.wanted.generation,
            parts: self.parts.values().map(|part| part.picture(now)).collect(),
            missing: self.missing.iter().chain(&self.lost).cloned().collect(),
            ttl_ends_unix_ms: end(EndReason::Ttl).filter(|_| is_up),
            idle_ends_unix_ms: end(EndReason::Idle).filter(|_| is_up),
            observed_unix_ms: now.unix_ms,
        }
    }

    /// Whether all of it runs as it should.
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
            && self.parts.values().filter(|p| p.is_wanted).all(|p| p.health() != PartHealth::Down)
    }
}

/// What a container is to a team, if it is one of its lasting parts.
pub(super) fn part_of(container: &ObservedContainer) -> Option<WantedPart> {
    let role = container.labels.get(label::ROLE).and_then(|role| Role::parse(role))?;
    let is_lasting = match role {
        Role::Agent | Role::Preview | Role::Sync => true,
        Role::Oneshot | Role::Egress => false,
    };
    let is_aside = crate::pipeline::converge::is_side_name(&container.name);
    let part = container.labels.get(label::NAME).and_then(|name| PartName::parse(name).ok());
    (is_lasting && !is_aside).then(|| WantedPart {
        name: container.name.clone(),
        role,
        part,
        port: container.host_ports.first().copied(),
        url: None,
    })
}
