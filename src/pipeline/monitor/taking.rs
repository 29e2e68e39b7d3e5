//! What the monitor takes in: listings, the daemon's events, looks at containers,
//! answers to probes, the kernel's figures.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::part::{self, Now, Part};
use super::team::Team;
use super::{Due, FIRST_PROBE, Monitor, Todo};
use crate::domain::event::EventKind;
use crate::domain::ids::TeamId;
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::pipeline::preview_board::PreviewLook;
use crate::policy::wellness::Look;
use crate::ports::engine::{
    ContainerState, EngineContainerFact, EngineEvent, EngineFact, EngineMoment, Observed, label,
};
use crate::ports::host::Usage;

#[cfg(test)]
mod tests;

/// Events of the daemon that are known again.
const SEEN_MAX: usize = 4096;

/// How often a probe that went well is repeated.
const PREVIEW_EVERY: Duration = Duration::from_secs(15);
const SERVICE_EVERY: Duration = Duration::from_secs(30);

/// How soon one that went badly is.
const DOUBT_EVERY: Duration = Duration::from_secs(5);

/// What is older than the last word by more than this comes from a clock that was set
/// back: what came out of order is younger.
const STEPPED_NANOS: i64 = 60 * 1_000_000_000;

impl Monitor {
    /// Takes a listing of the whole host, or of one team. `took` is how long the
    /// daemon needed.
    pub(in crate::pipeline) fn listed(
        &self,
        of: Option<&TeamId>,
        observed: &BTreeMap<TeamId, Observed>,
        took: Duration,
    ) -> Vec<Todo> {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.engine.is_up = true;
        inner.engine.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let nothing = Observed::default();
        let mut todo = Vec::new();
        for (id, team) in &mut inner.teams {
            if of.is_some_and(|of| of != id) || team.busy > 0 {
                continue;
            }
            let found = observed.get(id).unwrap_or(&nothing);
            let tell = team.listed(&self.settings, found, now);
            todo.extend(loops(team, now));
            if !tell.is_empty() {
                inner.outbox.entry(id.clone()).or_default().extend(tell);
            }
            todo.extend(team.parts.values().filter(|part| part.runs() && part.pid.is_none()).map(
                |part| Todo::Inspect {
                    team: id.clone(),
                    name: part.what.name.clone(),
                    version: part.version,
                },
            ));
        }
        inner.listings += u64::from(of.is_none());
        self.to_tell.notify_one();
        todo
    }

    /// Takes an event of the daemon.
    pub(in crate::pipeline) fn happened(&self, event: &EngineEvent) -> Vec<Todo> {
        let EngineEvent { at, fact } = event;
        let (id, labels, name, fact) = match fact {
            EngineFact::Container { id, name, labels, fact } => (id, labels, name, fact),
            EngineFact::Network { name } | EngineFact::Volume { name } => {
                let inner = self.lock();
                let mut wanted = inner
                    .teams
                    .values()
                    .filter(|team| team.wanted.up)
                    .flat_map(|team| team.wanted.networks.iter().chain(&team.wanted.volumes));
                return wanted.any(|w| w == name).then_some(Todo::List).into_iter().collect();
            }
        };
        let own = labels.get(label::INSTANCE).map(String::as_str);
        if own != Some(self.settings.instance.as_str()) || !self.is_new(*at, id, *fact) {
            return Vec::new();
        }
        let Some(team_id) = labels.get(label::TEAM).and_then(|raw| TeamId::parse(raw).ok()) else {
            return Vec::new();
        };
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(team) = inner.teams.get_mut(&team_id).filter(|team| team.busy == 0) else {
            return Vec::new();
        };
        if !team.parts.contains_key(name) {
            // Somebody made it past the worker, or a run did that has just ended.
            let is_part = labels.get(label::ROLE).is_some_and(|role| role != "oneshot");
            return is_part.then_some(Todo::List).into_iter().collect();
        }
        let (mut todo, mut tell) = (Vec::new(), Vec::new());
        if let Some(part) = team.parts.get_mut(name) {
            tell.extend(take(part, id, *at, *fact, now));
            let looks = !matches!(
                fact,
                EngineContainerFact::Signalled { .. } | EngineContainerFact::OutOfMemory
            );
            let (name, version) = (name.clone(), part.version);
            if looks {
                todo.push(Todo::Inspect { team: team_id.clone(), name, version });
            } else if let Some(pid) = part.killed_process(now) {
                todo.push(Todo::SeeEnd { team: team_id.clone(), name, version, pid });
            }
        }
        todo.extend(loops(team, now));
        if !tell.is_empty() {
            inner.outbox.entry(team_id).or_default().extend(tell);
            self.to_tell.notify_one();
        }
        todo
    }

    /// Whether an event was not taken before.
    fn is_new(&self, at: EngineMoment, id: &str, fact: EngineContainerFact) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (at, id, fact).hash(&mut hasher);
        let key = hasher.finish();
        let mut inner = self.lock();
        let (order, known) = &mut inner.seen;
        if !known.insert(key) {
            return false;
        }
        order.push_back(key);
        if order.len() > SEEN_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        true
    }

    /// Takes that the process of a killed part is gone.
    pub(in crate::pipeline) fn was_killed(&self, id: &TeamId, name: &ContainerName, version: u64) {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let team = inner.teams.get_mut(id).filter(|team| team.busy == 0);
        let part = team.and_then(|team| team.parts.get_mut(name));
        let Some(part) = part.filter(|part| part.version == version) else { return };
        // What else follows from a death does so at Docker's own word.
        if let Some(tell) = part.was_killed(now) {
            inner.outbox.entry(id.clone()).or_default().push_back(tell);
            self.to_tell.notify_one();
        }
    }

    /// Takes a look at a container.
    pub(in crate::pipeline) fn inspected(
        &self,
        id: &TeamId,
        name: &ContainerName,
        version: u64,
        found: Option<&ContainerState>,
    ) -> Vec<Todo> {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(team) = inner.teams.get_mut(id).filter(|team| team.busy == 0) else {
            return Vec::new();
        };
        let Some(part) = team.parts.get_mut(name).filter(|part| part.version == version) else {
            return Vec::new();
        };
        let (mut todo, mut tell) = (Vec::new(), Vec::new());
        match found {
            None => tell.extend(part.ended(part::ABSENT, None, now)),
            Some(state) if state.running && part.is_ahead_of_docker(now) => {}
            Some(state) if state.running => {
                tell.extend(part.began(now));
                part.address = state.address;
                if part.pid != state.pid
                    && let Some(pid) = state.pid
                {
                    part.pid = Some(pid);
                    let (team, role) = (id.clone(), part.what.role);
                    todo.push(Todo::Limit { team, role, pid });
                }
            }
            Some(state) if state.status == part::PAUSED => tell.extend(part.paused_by_hand(now)),
            Some(state) => {
                tell.extend(part.ended(&state.status, state.exit_code, now));
            }
        }
        todo.extend(loops(team, now));
        if !tell.is_empty() {
            inner.outbox.entry(id.clone()).or_default().extend(tell);
            self.to_tell.notify_one();
        }
        todo
    }

    /// Parts that are to be probed now; each is so until its answer comes.
    pub(in crate::pipeline) fn due_probes(&self, at_most: usize) -> Vec<Due> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut inner = self.lock();
        for (id, team) in inner.teams.iter_mut().filter(|(_, team)| team.busy == 0) {
            for part in team.parts.values_mut() {
                let is_due = part.runs() && !part.is_probed && part.next_probe <= now;
                if let (true, Some(address)) = (is_due && due.len() < at_most, part.address) {
                    part.is_probed = true;
                    due.push(Due {
                        team: id.clone(),
                        name: part.what.name.clone(),
                        role: part.what.role,
                        part: part.what.part.clone(),
                        address,
                        id: part.id.clone(),
                    });
                }
            }
        }
        due
    }

    /// Takes the answer to a probe; says whether the preview does something else now.
    pub(in crate::pipeline) fn probed(
        &self,
        due: &Due,
        look: &Look,
        preview: Option<&PreviewLook>,
        took: Duration,
    ) -> bool {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(team) = inner.teams.get_mut(&due.team) else { return false };
        let busy = team.busy > 0;
        let Some(part) = team.parts.get_mut(&due.name) else { return false };
        part.is_probed = false;
        if part.id != due.id {
            return false;
        }
        part.probe_millis = u64::try_from(took.as_millis()).ok();
        if let Some(preview) = preview {
            let now_shown = (Some(preview.fact), preview.error.clone());
            part.is_untold |= (part.preview, part.error.clone()) != now_shown;
            (part.preview, part.error) = now_shown;
        }
        let tell = if busy { None } else { part.probed(look, now) };
        let every = match (part.wellness.is_in_doubt(), part.what.role) {
            (true, _) => DOUBT_EVERY,
            (false, Role::Preview) => PREVIEW_EVERY,
            (false, _) => SERVICE_EVERY,
        };
        let is_news = !busy && std::mem::take(&mut part.is_untold);
        // Jittered, so that what began together is not asked together for ever.
        part.next_probe = now.at + every.mul_f64(0.9 + now.random / 5.0);
        if let Some(tell) = tell {
            inner.outbox.entry(due.team.clone()).or_default().push_back(tell);
            self.to_tell.notify_one();
        }
        // What changes while a run is at work is told at the first look after it.
        is_news
    }

    /// The main processes of parts that run.
    pub(in crate::pipeline) fn pids(&self) -> Vec<(TeamId, ContainerName, u32)> {
        let inner = self.lock();
        let parts = inner
            .teams
            .iter()
            .flat_map(|(id, team)| team.parts.values().map(move |part| (id, part)));
        let running = parts.filter_map(|(id, part)| {
            Some((id.clone(), part.what.name.clone(), part.pid.filter(|_| part.runs())?))
        });
        running.collect()
    }

    /// Takes what parts use; gives role, bytes of memory, and CPU time since the
    /// last look, for the host's own sums.
    pub(in crate::pipeline) fn used(
        &self,
        found: Vec<((TeamId, ContainerName, u32), Usage)>,
    ) -> Vec<(Role, u64, Duration)> {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut sums = Vec::with_capacity(found.len());
        for ((id, name, pid), usage) in found {
            let Some(team) = inner.teams.get_mut(&id) else { continue };
            let busy = team.busy > 0;
            let Some(part) = team.parts.get_mut(&name).filter(|part| part.pid == Some(pid)) else {
                continue;
            };
            sums.push((part.what.role, usage.memory_bytes, part.spent_since(&usage)));
            if let Some(tell) = part.used(usage, now).filter(|_| !busy) {
                inner.outbox.entry(id).or_default().push_back(tell);
                self.to_tell.notify_one();
            }
        }
        sums
    }
}

/// Parts that have just begun to end again and again.
fn loops(team: &mut Team, now: Now) -> Vec<Todo> {
    let id = team.id.clone();
    let parts = team.parts.values_mut();
    let new = parts.filter_map(|part| {
        part.mending
            .take_loop(now.at)
            .then(|| Todo::TellLoop { team: id.clone(), name: part.what.name.clone() })
    });
    new.collect()
}

/// Takes an event about a part; gives what is to be told.
fn take(
    part: &mut Part,
    id: &str,
    at: EngineMoment,
    fact: EngineContainerFact,
    now: Now,
) -> Option<EventKind> {
    if fact == EngineContainerFact::OutOfMemory {
        return part.oom_told(now);
    }
    let is_older = part.told_at.is_some_and(|told| at < told && told.0 - at.0 < STEPPED_NANOS);
    let is_late = is_older || (part.id != id && part.runs());
    if is_late && fact != EngineContainerFact::Started {
        return None;
    }
    if !is_late {
        part.told_at = Some(at);
    }
    part.version += 1;
    match fact {
        EngineContainerFact::Started if is_late => None,
        EngineContainerFact::Started => {
            part.id = id.to_owned();
            part.pid = None;
            let told = part.began(now);
            part.next_probe = now.at + FIRST_PROBE;
            told
        }
        EngineContainerFact::Signalled { signal } => {
            part.signalled(signal, now);
            None
        }
        EngineContainerFact::Died { exit_code } => {
            part.docker_follows();
            // What a stop by hand is told as comes with `stop`, at once.
            let waits = part.may_be_a_stop(now);
            match part.ended("exited", Some(exit_code), now) {
                Some(told) if waits => {
                    part.hold(told, now);
                    None
                }
                told => told,
            }
        }
        EngineContainerFact::Stopped => part.stopped_by_hand(now),
        EngineContainerFact::Paused => part.paused_by_hand(now),
        EngineContainerFact::Unpaused => part.began(now),
        EngineContainerFact::Removed => {
            let told = part.ended(part::ABSENT, None, now);
            part.by_hand = None;
            part.id.clear();
            told
        }
        EngineContainerFact::OutOfMemory => None,
    }
}
