//! Room on the host: whether a start fits, and the share that is set aside for
//! it from then until its run ends.
//!
//! Docker shows what runs, not what was let in a moment ago: two starts that
//! each fit could both be let in where only one does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use tokio::sync::watch;

use super::Runner;
use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure, Fault};
use crate::domain::ids::TeamId;
use crate::domain::job::{Action, Job};
use crate::domain::limits::CONTAINER_UID;
use crate::domain::plan::{AGENT_NETWORKS, Plan, slot_subnet};
use crate::domain::spec::Spec;
use crate::pipeline::admission::{self, Share};
use crate::pipeline::job_runner::{Admitted, Room};
use crate::ports::engine::{Filter, ObservedNetwork, label};

/// What is set aside for one team.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Which of its jobs holds it.
    ticket: u64,
    share: Share,
    slot: u16,
}

/// The shares of all teams that were let in.
#[derive(Debug)]
pub(super) struct Shares {
    held: Mutex<(u64, BTreeMap<TeamId, Held>)>,
    /// Index of the subnets of every team with a record: a stopped team's are
    /// kept for it, and a new one's are not in Docker yet.
    slots: Mutex<BTreeMap<TeamId, u16>>,
    /// Counts the moments at which room may have become free.
    changes: watch::Sender<u64>,
}

impl Default for Shares {
    fn default() -> Self {
        let (held, slots) = (Mutex::default(), Mutex::default());
        Self { held, slots, changes: watch::Sender::new(0) }
    }
}

impl Shares {
    fn held(&self) -> MutexGuard<'_, (u64, BTreeMap<TeamId, Held>)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> BTreeMap<TeamId, Share> {
        self.held().1.iter().map(|(team, held)| (team.clone(), held.share)).collect()
    }

    fn set_aside(&self, team: &TeamId, share: Share, slot: u16) -> u64 {
        let mut held = self.held();
        held.0 += 1;
        let ticket = held.0;
        held.1.insert(team.clone(), Held { ticket, share, slot });
        ticket
    }

    /// The index of the subnets with which a team was let in.
    pub(super) fn slot(&self, team: &TeamId) -> Option<u16> {
        self.held().1.get(team).map(|held| held.slot)
    }

    /// Remembers or forgets which subnets a team has.
    pub(super) fn note_slot(&self, team: &TeamId, slot: Option<u16>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slot {
            Some(slot) => slots.insert(team.clone(), slot),
            None => slots.remove(team),
        };
    }

    /// The subnets of all other teams.
    fn taken(&self, team: &TeamId) -> Vec<Ipv4Net> {
        let held = self.held();
        let held = held.1.iter().map(|(other, held)| (other, held.slot));
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let all = slots.iter().map(|(other, slot)| (other, *slot)).chain(held);
        all.filter(|(other, _)| *other != team)
            .map(|(_, slot)| slot_subnet(AGENT_NETWORKS, slot))
            .collect()
    }

    fn grow(&self, team: &TeamId, share: Share) {
        if let Some(held) = self.held().1.get_mut(team) {
            held.share = share;
        }
    }

    /// Says that something ended that may have held room.
    pub(super) fn note_change(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Gives a team's share back when its run is over.
struct Guard {
    shares: Arc<Shares>,
    team: TeamId,
    ticket: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        if held.1.get(&self.team).is_some_and(|held| held.ticket == self.ticket) {
            held.1.remove(&self.team);
        }
        drop(held);
        self.shares.note_change();
    }
}

impl Runner {
    /// Sets a share aside for a job, if there is room. What cannot be found out
    /// now is left to the run, which retries.
    pub(super) async fn find_room(&self, job: &Job) -> Admitted {
        let Ok(reporter) = self.open(job).await else { return Admitted::Yes(Room::none()) };
        let (known, state, slot) =
            reporter.read(|record| (record.spec.clone(), record.state, record.slot)).await;
        let spec = match &job.action {
            Action::Start(spec) => Some(spec.as_ref().clone()),
            // It starts what is stopped.
            Action::Restart { .. } if state != TeamState::Destroyed => known,
            Action::Restart { .. }
            | Action::Stop
            | Action::Sync
            | Action::Status
            | Action::Destroy => None,
        };
        let Some(spec) = spec else { return Admitted::Yes(Room::none()) };
        let _one = self.choosing.lock().await;
        match self.survey(&job.team, &spec, slot).await {
            Ok(slot) => {
                let share = admission::share_of_spec(&spec);
                let ticket = self.shares.set_aside(&job.team, share, slot);
                let (shares, team) = (Arc::clone(&self.shares), job.team.clone());
                Admitted::Yes(Room::of(Guard { shares, team, ticket }))
            }
            Err(short) if is_short(short.code) => Admitted::No(short),
            Err(_) => Admitted::Yes(Room::none()),
        }
    }

    /// Whether a team fits on the host, and with which subnets. `previous` are
    /// those it had.
    ///
    /// # Errors
    /// `capacity.*` or `host.disk_low`; Docker or the host cannot be asked.
    pub(super) async fn survey(
        &self,
        team: &TeamId,
        spec: &Spec,
        previous: Option<u16>,
    ) -> Result<u16, Failure> {
        let settings = &self.ports.settings;
        admission::admit_previews(settings, spec)?;
        let filter = Filter { instance: settings.instance.clone(), team: None };
        let (observed, all, resources, watches) = tokio::join!(
            self.ports.engine.list(&filter),
            self.ports.engine.all_networks(),
            self.ports.host.resources(),
            self.ports.host.watch_use(CONTAINER_UID),
        );
        let (observed, all, resources) = (observed?, all?, resources?);
        let runs = observed
            .containers
            .iter()
            .any(|c| c.labels.get(label::TEAM).map(String::as_str) == Some(team.as_str()));
        if !runs {
            admission::admit_watches(watches, spec)?;
        }
        let others = admission::claims_of_others(&observed, &self.shares.all(), team);
        admission::admit(settings, &resources, &others, admission::share_of_spec(spec))?;
        let is_own = |labels: &BTreeMap<String, String>| {
            labels.get(label::TEAM).map(String::as_str) == Some(team.as_str())
                && labels.get(label::INSTANCE).map(String::as_str)
                    == Some(settings.instance.as_str())
        };
        let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|n| is_own(&n.labels));
        let subnets = |list: &[&ObservedNetwork]| {
            list.iter().flat_map(|n| n.subnets.clone()).collect::<Vec<_>>()
        };
        // Two teams that were let in and have no networks yet must differ.
        let mut taken = subnets(&others);
        taken.extend(self.shares.taken(team));
        let start = admission::spread(settings.instance.as_str(), team.as_str());
        admission::choose_slot(&subnets(&own), previous, start, &taken)
    }

    /// Holds that what the project itself added to the plan fits too: it must
    /// do so at once.
    ///
    /// # Errors
    /// `capacity.*`; Docker or the host cannot be asked.
    pub(super) async fn admit_plan(
        &self,
        team: &TeamId,
        spec: &Spec,
        plan: &Plan,
    ) -> Result<(), Failure> {
        let share = admission::share_of_plan(plan);
        if !share.exceeds(admission::share_of_spec(spec)) {
            return Ok(());
        }
        let _one = self.choosing.lock().await;
        let settings = &self.ports.settings;
        let filter = Filter { instance: settings.instance.clone(), team: None };
        let (observed, resources) =
            tokio::join!(self.ports.engine.list(&filter), self.ports.host.resources());
        let others = admission::claims_of_others(&observed?, &self.shares.all(), team);
        admission::admit(settings, &resources?, &others, share)?;
        self.shares.grow(team, share);
        Ok(())
    }
}

/// What a start waits for, rather than to fail: that others end.
fn is_short(code: Code) -> bool {
    code.fault() == Fault::Capacity
}
