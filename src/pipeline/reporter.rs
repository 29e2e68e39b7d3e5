//! Tells what happens to one team, in order, and keeps its record.
//!
//! The next event waits for the confirm of the last, so order holds without
//! numbers on the wire; the numbers are for those who missed something.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, MutexGuard, OnceCell};
use uuid::Uuid;

use super::Ports;
use super::preview_board::PreviewLook;
use crate::domain::agent_task::AgentTaskFact;
use crate::domain::event::{EncodedEvent, Event, EventKind, Subject, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, PartName, TeamId};
use crate::domain::record::TeamRecord;
use crate::ports::messages::SessionOver;
use crate::wire::event::encode_event;
use crate::wire::event_reader::decode_event;

/// Sequence numbers set aside on disk whenever the record is written: a minute
/// of microseconds. Every process starts above them, whatever the clock says,
/// and only an event beyond them needs a disk write of its own.
const SEQUENCE_RESERVE: u64 = 60 * 1_000_000;

/// Teams whose memory is kept although nobody uses it right now.
const MEMORIES_KEPT: usize = 256;

/// What this process knows of one team. Shared by everybody who speaks for it:
/// the run in its lane, and the answers given beside the lane.
#[derive(Default)]
struct Memory {
    /// Read when it is first needed; other teams do not wait meanwhile.
    record: OnceCell<Mutex<TeamRecord>>,
    /// Held from numbering to confirm, so that events leave in their order. Holds
    /// the final event that may not be confirmed: it goes before any other, or a
    /// dashboard would take it for an old one.
    telling: Mutex<Option<Kept>>,
    /// The sequence that the record has on disk: no process after this one goes
    /// below it. Held while the record is written, so that an older one never
    /// replaces a newer.
    reserved: Mutex<u64>,
    /// What was last told of each preview.
    previews: std::sync::Mutex<BTreeMap<PartName, PreviewLook>>,
    /// The state of the team that was told last.
    state: std::sync::Mutex<Option<TeamState>>,
}

/// A final event that stands in the record.
struct Kept {
    event: EncodedEvent,
    /// What to write before it may be told; nothing, if it is on disk.
    unsaved: Option<Save>,
}

/// How a record is written.
#[derive(Clone, Copy)]
enum Save {
    /// With numbers set aside for the events to come.
    WithReserve,
    /// With none: the job that ends was the last for now.
    Final,
}

impl Memory {
    /// Goes on above the numbers that another host gave to the team's events,
    /// if one may have had the team.
    async fn catch_up(&self, ports: &Ports, team: &TeamId) -> Result<(), Failure> {
        let Some(record) = self.record.get() else { return Ok(()) };
        if record.lock().await.given_away {
            let last = last_in_log(ports, team).await?;
            let mut record = record.lock().await;
            record.sequence = record.sequence.max(last);
            record.given_away = false;
        }
        Ok(())
    }
}

/// The number of the team's last event in the log, 0 if there is none. Without an
/// answer nothing may be told: it could get a lower number.
async fn last_in_log(ports: &Ports, team: &TeamId) -> Result<u64, Failure> {
    let last = ports.events.last_sequence(team).await;
    let last = last.map_err(|over| Failure::new(Code::BrokerUnreachable, over.reason))?;
    Ok(last.unwrap_or(0))
}

/// The memories of all teams.
#[derive(Default)]
pub struct Memories {
    teams: std::sync::Mutex<HashMap<TeamId, Arc<Memory>>>,
}

impl Memories {
    fn teams(&self) -> std::sync::MutexGuard<'_, HashMap<TeamId, Arc<Memory>>> {
        self.teams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn of(&self, ports: &Ports, team: &TeamId) -> Result<Arc<Memory>, Failure> {
        let memory = {
            let mut teams = self.teams();
            if teams.len() >= MEMORIES_KEPT && !teams.contains_key(team) {
                teams.retain(|_, memory| Arc::strong_count(memory) > 1);
            }
            Arc::clone(teams.entry(team.clone()).or_default())
        };
        let read = async || {
            let (record, on_disk) = load(ports, team).await?;
            // Told twice, it is the same event.
            let kept = last_final_event(&record).map(|event| Kept { event, unsaved: None });
            *memory.telling.lock().await = kept;
            *memory.reserved.lock().await = on_disk;
            Ok::<_, Failure>(Mutex::new(record))
        };
        memory.record.get_or_try_init(read).await?;
        memory.catch_up(ports, team).await?;
        Ok(memory)
    }

    /// A copy of what is known of a team, without a voice: nothing is asked of the log,
    /// and what another host may have told stays open. Nothing, if there is no record.
    pub async fn peek(&self, ports: &Ports, team: &TeamId) -> Option<TeamRecord> {
        let memory = self.teams().get(team).cloned();
        match memory.as_ref().and_then(|memory| memory.record.get()) {
            Some(record) => Some(record.lock().await.clone()),
            // A bad one was logged where it was read.
            None => ports.records.load(team).await.ok().flatten(),
        }
    }

    /// The state of a team that this process told last, if it told any.
    #[must_use]
    pub fn state_told(&self, team: &TeamId) -> Option<TeamState> {
        let memory = self.teams().get(team).cloned()?;
        *memory.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a team that nobody speaks for right now; says whether it did.
    pub fn forget(&self, team: &TeamId) -> bool {
        let mut teams = self.teams();
        match teams.get(team) {
            Some(memory) if Arc::strong_count(memory) > 1 => false,
            _ => {
                teams.remove(team);
                true
            }
        }
    }
}

/// A team's record, and the sequence that it has on disk. Without one, the
/// numbers of its events go on above those that the log still holds: another
/// host, or a lost disk, told them.
async fn load(ports: &Ports, team: &TeamId) -> Result<(TeamRecord, u64), Failure> {
    if let Some(record) = ports.records.load(team).await? {
        let on_disk = record.sequence;
        return Ok((record, on_disk));
    }
    let sequence = last_in_log(ports, team).await?;
    let record = TeamRecord { sequence, ..TeamRecord::new(team.clone()) };
    Ok((record, 0))
}

/// One job's voice, with its team's memory.
pub struct Reporter {
    ports: Ports,
    team: TeamId,
    job: Option<JobId>,
    attempt: u32,
    memory: Arc<Memory>,
    /// How often each fact was told, so that ids stay distinct and repeatable.
    told: std::sync::Mutex<HashMap<String, u32>>,
}

impl Reporter {
    /// Takes up a team's record.
    ///
    /// # Errors
    /// The record cannot be read, or there is none and the log of events, which
    /// knows the team's last number, does not answer.
    pub async fn open(
        ports: &Ports,
        memories: &Memories,
        team: &TeamId,
        job: Option<JobId>,
        attempt: u32,
    ) -> Result<Self, Failure> {
        Ok(Self {
            ports: ports.clone(),
            team: team.clone(),
            job,
            attempt,
            memory: memories.of(ports, team).await?,
            told: std::sync::Mutex::default(),
        })
    }

    async fn lock(&self) -> MutexGuard<'_, TeamRecord> {
        self.memory.record.get().expect("a reporter opens with its record").lock().await
    }

    /// A copy of the record.
    pub async fn record(&self) -> TeamRecord {
        self.lock().await.clone()
    }

    /// Looks something up in the record.
    pub async fn read<R>(&self, look: impl FnOnce(&TeamRecord) -> R) -> R {
        look(&*self.lock().await)
    }

    /// Changes the record in memory.
    pub async fn update<R>(&self, change: impl FnOnce(&mut TeamRecord) -> R) -> R {
        change(&mut *self.lock().await)
    }

    /// Writes the record to disk, with room for the events to come.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn save(&self) -> Result<(), Failure> {
        let ahead = self.record().await.sequence.max(self.now_sequence()) + SEQUENCE_RESERVE;
        self.write(ahead).await
    }

    /// Writes the record to disk at the end of a job; what was set aside stays
    /// so, for what is told until the next one begins.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn save_final(&self) -> Result<(), Failure> {
        self.write(0).await
    }

    async fn write(&self, sequence_min: u64) -> Result<(), Failure> {
        let mut reserved = self.memory.reserved.lock().await;
        let mut record = self.record().await;
        record.sequence = record.sequence.max(sequence_min).max(*reserved);
        self.ports.records.save(&record).await?;
        *reserved = record.sequence;
        Ok(())
    }

    fn now_sequence(&self) -> u64 {
        u64::try_from(self.ports.clock.unix_millis()).unwrap_or(0) * 1000
    }

    /// Makes an event and counts it, without publishing. Its number is set aside
    /// on disk when it leaves.
    ///
    /// # Errors
    /// The disk refuses: a number that a later process could give again must
    /// not be told.
    async fn encode(&self, kind: EventKind) -> Result<EncodedEvent, SessionOver> {
        let id = self.event_id(&kind);
        let (previous, sequence) = {
            let mut record = self.lock().await;
            let previous = record.sequence;
            record.sequence = self.now_sequence().max(previous + 1);
            (previous, record.sequence)
        };
        let is_reserved = sequence <= *self.memory.reserved.lock().await;
        if !is_reserved && let Err(error) = self.save().await {
            return Err(self.not_written(&error));
        }
        let event = self.envelope(id, sequence, (previous > 0).then_some(previous), kind);
        Ok(encode_event(&event))
    }

    fn not_written(&self, error: &Failure) -> SessionOver {
        tracing::error!(team.id = %self.team, %error, "the record cannot be written");
        SessionOver { reason: "the record cannot be written".to_owned() }
    }

    /// An id that a repeat of the job's attempt gives again.
    fn event_id(&self, kind: &EventKind) -> String {
        let fact = fact_of(kind);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = told.entry(fact.clone()).or_insert(0);
        *nth += 1;
        let name = match self.job {
            // Told from what the agent remembers, perhaps by a later process.
            _ if is_of_task(kind) => format!("{}/{fact}", self.team),
            Some(job) => format!("{job}/{}/{fact}/{nth}", self.attempt),
            // What belongs to no job happens once.
            None => format!("{}/{fact}/{nth}", self.ports.clock.new_id()),
        };
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    fn envelope(
        &self,
        id: String,
        sequence: u64,
        sequence_previous: Option<u64>,
        kind: EventKind,
    ) -> Event {
        Event {
            id,
            subject: Subject::Team(self.team.clone()),
            host: self.ports.settings.host.clone(),
            time_unix_ms: self.ports.clock.unix_millis(),
            sequence: Some(sequence),
            sequence_previous,
            job: self.job,
            kind,
        }
    }

    /// Publishes an event and waits for its confirm.
    ///
    /// # Errors
    /// The broker's session is over.
    pub async fn tell(&self, kind: EventKind) -> Result<(), SessionOver> {
        let mut kept = self.memory.telling.lock().await;
        self.tell_unconfirmed(&mut kept).await?;
        let look = match &kind {
            EventKind::Preview { fact, preview, error, .. } => {
                Some((preview.clone(), PreviewLook::of(*fact, error.clone())))
            }
            _ => None,
        };
        let state = match &kind {
            EventKind::Team { state, .. } => Some(*state),
            _ => None,
        };
        let event = self.encode(kind).await?;
        self.publish(&event).await?;
        self.previews_told().extend(look);
        if state.is_some() {
            *self.memory.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        }
        Ok(())
    }

    /// What was last told of each preview by this process.
    #[must_use]
    pub fn previews(&self) -> BTreeMap<PartName, PreviewLook> {
        self.previews_told().clone()
    }

    fn previews_told(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartName, PreviewLook>> {
        self.memory.previews.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a final event that the record kept.
    ///
    /// # Errors
    /// It cannot be stored, or the broker's session is over.
    pub async fn tell_again(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        let mut kept = self.memory.telling.lock().await;
        let is_kept = kept.as_ref().is_some_and(|kept| kept.event.id == event.id);
        self.tell_unconfirmed(&mut kept).await?;
        if is_kept { Ok(()) } else { self.publish(event).await }
    }

    async fn tell_unconfirmed(&self, kept: &mut Option<Kept>) -> Result<(), SessionOver> {
        let Some(Kept { event, unsaved }) = kept.as_mut() else { return Ok(()) };
        let saved = match *unsaved {
            None => Ok(()),
            Some(Save::WithReserve) => self.save().await,
            Some(Save::Final) => self.save_final().await,
        };
        // Without the record a repeat would do the work again, which is safe;
        // telling a final event and forgetting it would not be.
        saved.map_err(|error| self.not_written(&error))?;
        *unsaved = None;
        self.publish(event).await?;
        *kept = None;
        Ok(())
    }

    /// Makes an event, hands it to `keep`, which stores it durably, and only
    /// then publishes it.
    ///
    /// # Errors
    /// It cannot be stored, or the broker's session is over.
    ///
    /// # Cancellation
    /// Once the record holds the event, whoever tells something of the team next
    /// stores and publishes it first.
    pub async fn tell_kept(
        &self,
        kind: EventKind,
        change: impl FnOnce(&mut TeamRecord, EncodedEvent) + Send,
        is_end_of_run: bool,
    ) -> Result<(), SessionOver> {
        let mut kept = self.memory.telling.lock().await;
        self.tell_unconfirmed(&mut kept).await?;
        let event = self.encode(kind).await?;
        change(&mut *self.lock().await, event.clone());
        let save = if is_end_of_run { Save::Final } else { Save::WithReserve };
        *kept = Some(Kept { event, unsaved: Some(save) });
        self.tell_unconfirmed(&mut kept).await
    }

    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        let result = self.ports.events.publish(event).await;
        if result.is_err() {
            self.ports.metrics.event_failed(event.short_type());
        }
        result
    }
}

/// The final event that was told last, or was about to be. Whether it was
/// confirmed is not on disk; told twice, it is the same event.
fn last_final_event(record: &TeamRecord) -> Option<EncodedEvent> {
    let sequence = |event: &&EncodedEvent| decode_event(&event.body).ok().and_then(|e| e.sequence);
    record.jobs.iter().filter_map(|job| job.final_event.as_ref()).max_by_key(sequence).cloned()
}

/// Whether a fact happens once to a task, whoever tells it.
fn is_of_task(kind: &EventKind) -> bool {
    match kind {
        EventKind::AgentTask { fact, .. } => match fact {
            AgentTaskFact::Started | AgentTaskFact::Finished => true,
            AgentTaskFact::Progress => false,
        },
        _ => false,
    }
}

/// What tells one fact of a job from another.
fn fact_of(kind: &EventKind) -> String {
    let type_name = kind.type_name();
    match kind {
        EventKind::StepStarted { step }
        | EventKind::StepProgress { step, .. }
        | EventKind::StepFinished { step, .. }
        | EventKind::StepFailed { step, .. } => format!("{type_name}/{}", step.as_str()),
        EventKind::Container { role, part, .. } => {
            let part = part.as_ref().map_or("", |p| p.as_str());
            format!("{type_name}/{}/{part}", role.as_str())
        }
        EventKind::Preview { preview, .. } => format!("{type_name}/{preview}"),
        EventKind::AgentTask { task, .. } => format!("{type_name}/{}/{}", task.agent, task.id),
        // Told again, with what it waits for.
        EventKind::JobAccepted { short: Some(_), .. } => format!("{type_name}/waits"),
        _ => type_name,
    }
}
