//! What is known of all teams of this host at this moment.
//!
//! The Engine's events drive it, a listing corrects it, probes and the kernel's
//! figures fill it; who looks, tells and mends is `runner::watching`. Events are
//! hints: each may come late, twice or never, and what is found counts. While a
//! run is at work on a team its steps tell what they see, and nobody else does.
//!
//! It never decides what should be there: that is the record's.

mod part;
mod taking;
mod team;
mod wanted;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::part::Now;
use self::part::Part;
use self::team::Team;
pub use self::wanted::{Wanted, WantedPart};
use crate::domain::event::{ContainerFact, EventKind, TeamState};
use crate::domain::health::{EndReason, EngineLook, Reconciled, TeamPicture};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::domain::settings::Settings;
use crate::ports::clock::Clock;
use crate::ports::host::Trace;

/// Facts of one team that wait to be told; the oldest go, a snapshot tells the rest.
const OUTBOX_MAX: usize = 64;

/// A stop this shortly before the daemon went was the daemon's own.
const DAEMON_GOES: Duration = Duration::from_secs(60);

/// How soon a part is asked that has just begun.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Somebody has to look, or to do something that is no act on the team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    /// At a container; `version` is what was known when it was asked for.
    Inspect { team: TeamId, name: ContainerName, version: u64 },
    /// At everything.
    List,
    /// At the last words of a part that ends again and again, and tell.
    TellLoop { team: TeamId, name: ContainerName },
    /// At the process of a part that was killed, until it is gone.
    SeeEnd { team: TeamId, name: ContainerName, version: u64, pid: u32 },
    /// A process that Docker started needs its limits again.
    Limit { team: TeamId, role: Role, pid: u32 },
}

/// A part that is to be probed.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) team: TeamId,
    pub(super) name: ContainerName,
    pub(super) role: Role,
    pub(super) part: Option<PartName>,
    pub(super) address: Ipv4Addr,
    pub(super) id: String,
}

#[derive(Default)]
struct Inner {
    teams: BTreeMap<TeamId, Team>,
    engine: EngineLook,
    seen: (VecDeque<u64>, HashSet<u64>),
    outbox: BTreeMap<TeamId, VecDeque<EventKind>>,
    held: BTreeMap<TeamId, Instant>,
    busy: BTreeMap<TeamId, usize>,
    reconciled: Option<Reconciled>,
    listings: u64,
    to_list: BTreeSet<TeamId>,
}

/// The teams of this host.
pub struct Monitor {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    to_tell: Notify,
    to_list: Notify,
}

impl Monitor {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, clock: Arc<dyn Clock>) -> Self {
        let (to_tell, to_list) = (Notify::new(), Notify::new());
        Self { settings, clock, inner: Mutex::default(), to_tell, to_list }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let (unix_ms, random) = (self.clock.unix_millis(), self.clock.random());
        Now { at: Instant::now(), unix_ms, random }
    }

    /// Whoever watched before does so no more: its probes have no answer.
    pub(super) fn begin(&self) {
        let mut inner = self.lock();
        let parts = inner.teams.values_mut().flat_map(|team| team.parts.values_mut());
        parts.for_each(|part| part.is_probed = false);
    }

    /// How a team is; nothing, if this host does not have it.
    #[must_use]
    pub fn picture(&self, team: &TeamId) -> Option<TeamPicture> {
        let now = self.now();
        self.lock().teams.get(team).map(|team| team.picture(now))
    }

    /// How all teams are, by name.
    #[must_use]
    pub fn pictures(&self) -> Vec<TeamPicture> {
        let now = self.now();
        self.lock().teams.values().map(|team| team.picture(now)).collect()
    }

    /// How the Docker daemon answers.
    #[must_use]
    pub fn engine(&self) -> EngineLook {
        self.lock().engine
    }

    /// The states of teams that should run, for gauges.
    #[must_use]
    pub fn states(&self) -> BTreeMap<TeamId, TeamState> {
        let now = self.now();
        let inner = self.lock();
        let up = inner.teams.iter().filter(|(_, team)| team.wanted.up && team.busy == 0);
        up.map(|(id, team)| (id.clone(), team.picture(now).state)).collect()
    }

    /// Takes what should be there of a team, and the state that was told of it last: a run
    /// tells it too. One that is nowhere is forgotten.
    pub(super) fn want(&self, id: &TeamId, wanted: Wanted, told: Option<TeamState>) {
        let now = self.now();
        let mut inner = self.lock();
        let busy = inner.busy.get(id).copied().unwrap_or(0);
        if wanted.state == TeamState::Destroyed && busy == 0 {
            inner.teams.remove(id);
            return;
        }
        let team = match inner.teams.entry(id.clone()) {
            Entry::Occupied(known) => {
                let team = known.into_mut();
                team.want(wanted, now);
                team
            }
            Entry::Vacant(place) => {
                let team = place.insert(Team::new(id.clone(), wanted, now));
                team.busy = busy;
                team
            }
        };
        if let Some(told) = told {
            team.state_was_told(told, now);
        }
    }

    /// The team is no more this host's.
    pub(super) fn forget(&self, id: &TeamId) {
        let mut inner = self.lock();
        inner.teams.remove(id);
        inner.outbox.remove(id);
    }

    /// A run begins or ends to be at work on a team.
    pub(super) fn busy(&self, id: &TeamId, begins: bool) {
        let mut inner = self.lock();
        let count = inner.busy.entry(id.clone()).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        let count = *count;
        if count == 0 {
            inner.busy.remove(id);
        }
        if let Some(team) = inner.teams.get_mut(id) {
            team.busy = count;
            team.is_quiet = true;
        }
    }

    /// Whether a run is at work on a team.
    pub(super) fn is_busy(&self, id: &TeamId) -> bool {
        self.lock().busy.contains_key(id)
    }

    /// Asks for a listing of one team now.
    pub(super) fn ask_for_team(&self, id: &TeamId) {
        self.lock().to_list.insert(id.clone());
        self.to_list.notify_one();
    }

    /// The teams that are to be listed.
    pub(super) fn take_teams_to_list(&self) -> BTreeSet<TeamId> {
        std::mem::take(&mut self.lock().to_list)
    }

    /// Whether any part of any team is known to run.
    pub(super) fn knows_running(&self) -> bool {
        let inner = self.lock();
        inner.teams.values().any(|team| team.parts.values().any(Part::runs))
    }

    /// What should be there of a team, and whether nobody is at work on it; nothing,
    /// if it is not known.
    pub(super) fn wanted(&self, id: &TeamId) -> Option<(Wanted, bool)> {
        let inner = self.lock();
        let team = inner.teams.get(id)?;
        Some((team.wanted.clone(), team.busy == 0 && !inner.busy.contains_key(id)))
    }

    /// Asks for a listing now.
    pub(super) fn ask_for_listing(&self) {
        self.to_list.notify_one();
    }

    /// Resolves when somebody asked for a listing.
    pub(super) async fn listing_wanted(&self) {
        self.to_list.notified().await;
    }

    /// Directories behind the volumes of teams that should run.
    pub(super) fn lost(&self, lost: &BTreeMap<TeamId, Vec<String>>) {
        for (id, team) in &mut self.lock().teams {
            team.lost = lost.get(id).filter(|_| team.wanted.up).cloned().unwrap_or_default();
        }
    }

    /// Takes why a team's workspace is too large, if it is.
    pub(super) fn measured(&self, id: &TeamId, too_large: Option<String>) {
        if let Some(team) = self.lock().teams.get_mut(id) {
            team.too_large = too_large;
        }
    }

    /// The daemon did not answer a listing.
    pub(super) fn engine_is_silent(&self) {
        self.lock().engine.is_up = false;
    }

    /// The daemon's stream of events is open, or cut.
    pub(super) fn followed(&self, is_followed: bool) {
        let now = self.now();
        let mut inner = self.lock();
        inner.engine.is_followed = is_followed;
        if !is_followed {
            let parts = inner.teams.values_mut().flat_map(|team| team.parts.values_mut());
            parts.for_each(|part| part.daemon_went(DAEMON_GOES, now));
        }
    }

    /// Has something told of a team.
    pub(super) fn tell(&self, id: &TeamId, kind: EventKind) {
        let mut inner = self.lock();
        let outbox = inner.outbox.entry(id.clone()).or_default();
        outbox.push_back(kind);
        while outbox.len() > OUTBOX_MAX {
            outbox.pop_front();
        }
        self.to_tell.notify_one();
    }

    /// That a part ends again and again, with its last words.
    pub(super) fn crash_loop(
        &self,
        id: &TeamId,
        name: &ContainerName,
        log: Option<Vec<String>>,
    ) -> Option<EventKind> {
        let now = self.now();
        let inner = self.lock();
        let part = inner.teams.get(id)?.parts.get(name)?;
        let next = part.mending.next().map(|next| next.saturating_duration_since(now.at));
        let next = match next {
            Some(wait) => format!("the next try is in {} s", wait.as_secs().max(1)),
            None => "Docker tries again".to_owned(),
        };
        Some(EventKind::Container {
            fact: ContainerFact::Exited,
            role: part.what.role,
            part: part.what.part.clone(),
            cause: format!(
                "it ends again and again: {} times within ten minutes; {next}",
                part.mending.deaths()
            ),
            exit_code: part.last_failure.as_ref().and_then(|failure| failure.exit_code),
            log: log.unwrap_or_default(),
        })
    }

    /// The next fact of a team that is not among `busy`.
    pub(super) fn next_to_tell(&self, busy: &BTreeSet<TeamId>) -> Option<(TeamId, EventKind)> {
        let now = Instant::now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.held.retain(|_, until| *until > now);
        let free = |id: &TeamId| !busy.contains(id) && !inner.held.contains_key(id);
        let (id, kind) = inner
            .outbox
            .iter_mut()
            .filter(|(id, _)| free(id))
            .find_map(|(id, facts)| Some((id.clone(), facts.pop_front()?)))?;
        inner.outbox.retain(|_, facts| !facts.is_empty());
        Some((id, kind))
    }

    /// A fact could not be told: it is told again, after a pause.
    pub(super) fn not_told(&self, id: &TeamId, kind: EventKind, pause: Duration) {
        let mut inner = self.lock();
        inner.held.insert(id.clone(), Instant::now() + pause);
        let outbox = inner.outbox.entry(id.clone()).or_default();
        if outbox.len() < OUTBOX_MAX {
            outbox.push_front(kind);
        }
    }

    /// Resolves when there may be something to tell.
    pub(super) async fn something_to_tell(&self) {
        self.to_tell.notified().await;
    }

    /// Looks at every team: tells what changed of it altogether and what is about
    /// to end, and gives the teams that need something done, with why.
    pub(super) fn settle(&self, again: Duration) -> Vec<(TeamId, Need)> {
        let now = self.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut needs = Vec::new();
        for (id, team) in &mut inner.teams {
            let mut tell = team.held(now);
            tell.extend(team.settle(now));
            tell.extend(team.warnings(now));
            if !tell.is_empty() {
                inner.outbox.entry(id.clone()).or_default().extend(tell);
                self.to_tell.notify_one();
            }
            if team.busy > 0 {
                continue;
            }
            if let Some(reason) = team.is_over(now) {
                needs.push((id.clone(), Need::End(reason)));
            } else if inner.engine.is_up
                && let Some(why) = team.what_to_mend(again, now)
            {
                needs.push((id.clone(), Need::Mend(why)));
            }
        }
        needs
    }

    /// Whether a team is still to be stopped for this reason.
    pub(super) fn is_over(&self, id: &TeamId) -> Option<EndReason> {
        let now = self.now();
        self.lock().teams.get(id).and_then(|team| team.is_over(now))
    }

    /// Parts of a team that run and are to be started anew, and those that are left
    /// alone: somebody stopped them by hand, or no start ever brought them up.
    pub(super) fn ill_and_left_alone(
        &self,
        id: &TeamId,
    ) -> (BTreeSet<ContainerName>, BTreeSet<ContainerName>) {
        let inner = self.lock();
        let Some(team) = inner.teams.get(id) else { return Default::default() };
        let names = |fits: &dyn Fn(&Part) -> bool| {
            team.parts.values().filter(|part| fits(part)).map(|p| p.what.name.clone()).collect()
        };
        let is_ill = |part: &Part| part.runs() && (part.detached || part.wellness.needs_restart());
        (names(&is_ill), names(&|part| part.by_hand.is_some() || !part.ran))
    }

    /// Notes that the worker started a part again.
    pub(super) fn restarted(&self, id: &TeamId, name: &ContainerName) {
        let now = self.now();
        let mut inner = self.lock();
        if let Some(part) = inner.teams.get_mut(id).and_then(|team| team.parts.get_mut(name)) {
            part.restarts += 1;
            part.adopt_running(now);
            part.next_probe = now.at + FIRST_PROBE;
        }
    }

    /// Teams that are stopped when nothing happens in them, for a look at their files.
    pub(super) fn idle_teams(&self) -> Vec<TeamId> {
        let inner = self.lock();
        let idle = inner.teams.values().filter(|t| t.wanted.up && t.wanted.idle_stop.is_some());
        idle.map(|team| team.id.clone()).collect()
    }

    /// Takes a trace of a team's files.
    pub(super) fn traced(&self, id: &TeamId, trace: Trace) {
        let now = self.now();
        if let Some(team) = self.lock().teams.get_mut(id) {
            team.traced(trace, now);
        }
    }

    /// Takes what is in the way of a workspace's being in step with Git.
    pub(super) fn synced(&self, id: &TeamId, in_the_way: Option<String>) {
        let mut inner = self.lock();
        let Some(team) = inner.teams.get_mut(id) else { return };
        if let Some(part) = team.parts.values_mut().find(|part| part.what.role == Role::Sync) {
            part.error = in_the_way;
        }
    }

    /// Takes how many tasks of an agent run or wait: each change is something that
    /// happens.
    pub(super) fn tasks(&self, id: &TeamId, agent: &PartName, open: u64) {
        let now = self.now();
        let mut inner = self.lock();
        let Some(team) = inner.teams.get_mut(id) else { return };
        let is_it = |part: &&mut Part| {
            part.what.role == Role::Agent && part.what.part.as_ref() == Some(agent)
        };
        if let Some(part) = team.parts.values_mut().find(is_it) {
            part.tasks_open = Some(open);
        }
        team.is_active(now);
    }

    /// What was found when the worker came; once, after the first listing.
    pub(super) fn reconcile(&self, orphans: u64) -> Option<Reconciled> {
        let mut inner = self.lock();
        if inner.reconciled.is_some() || inner.listings == 0 {
            return None;
        }
        let mut found = Reconciled { orphans, ..Reconciled::default() };
        for team in inner.teams.values() {
            let count = match (team.wanted.up, team.is_whole()) {
                (false, _) => &mut found.stopped,
                (true, true) => &mut found.adopted,
                (true, false) => &mut found.restarting,
            };
            *count += 1;
        }
        inner.reconciled = Some(found);
        Some(found)
    }
}

/// What is to be done for a team, through its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// Something of it is to be started again.
    Mend(String),
    /// It is to be stopped.
    End(EndReason),
}
