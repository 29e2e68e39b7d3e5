//! How the dispatcher tells things: another source than any host's, and no
//! sequence, because only a team's host counts that (DESIGN 3.8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::event::{Event, EventKind, Snapshot, Subject, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{HostId, JobId, TeamId};
use crate::domain::job::{ActionKind, Job};
use crate::domain::message::Rejected;
use crate::ports::clock::Clock;
use crate::ports::messages::{DeadLetter, EventSink, SessionOver, Settle};
use crate::wire::event::encode_event;

/// Tells facts in the name of the dispatcher on one host.
#[derive(Clone)]
pub struct Voice {
    /// The host it runs on.
    pub host: HostId,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// The time that events bear.
    pub clock: Arc<dyn Clock>,
}

impl Voice {
    /// Ends a message that is not a job, or that no host takes.
    pub(super) async fn refuse(
        &self,
        settle: Settle,
        rejected: Rejected,
        attempt: u32,
    ) -> Result<(), SessionOver> {
        let Rejected { failure, team, job_id } = rejected;
        if let Some(team) = team {
            let job = job_id.and_then(|raw| JobId::parse(&raw).ok());
            let kind = EventKind::JobRejected { failure: failure.clone() };
            self.tell(&team, job, attempt, kind).await?;
        }
        settle.dead_letter(dead_letter(&failure, attempt)).await
    }

    /// Ends a job of a team that is nowhere as its host would have: there is
    /// nothing to stop, to remove or to show, and nothing to restart. Returns
    /// why it failed, if it did.
    pub(super) async fn nowhere(
        &self,
        settle: Settle,
        job: &Job,
    ) -> Result<Option<Code>, SessionOver> {
        let action = job.action.kind();
        let (before, message) = match action {
            ActionKind::Stop => (state(TeamState::Stopped), "it was not running"),
            ActionKind::Destroy => (state(TeamState::Destroyed), "there was nothing"),
            ActionKind::Status => {
                (EventKind::TeamSnapshot(Snapshot::of_nothing()), "snapshot published")
            }
            ActionKind::Start | ActionKind::Restart | ActionKind::Sync => {
                let failure = Failure::new(Code::TeamNotFound, "no host has the team");
                let letter = dead_letter(&failure, job.attempt);
                let code = failure.code;
                let kind = EventKind::JobFailed { action, failure, undone: false };
                self.tell(&job.team, Some(job.id), job.attempt, kind).await?;
                settle.dead_letter(letter).await?;
                return Ok(Some(code));
            }
        };
        self.tell(&job.team, Some(job.id), job.attempt, before).await?;
        let done = EventKind::JobSucceeded {
            action,
            changed: false,
            duration: Duration::ZERO,
            links: BTreeMap::new(),
            message: message.to_owned(),
        };
        self.tell(&job.team, Some(job.id), job.attempt, done).await?;
        settle.ack().await?;
        Ok(None)
    }

    /// Tells that a host is silent.
    pub(super) async fn host_lost(
        &self,
        lost: &HostId,
        silent: Duration,
    ) -> Result<(), SessionOver> {
        let kind = EventKind::HostLost { host: lost.clone(), silent };
        let id = self.clock.new_id().to_string();
        self.publish(id, Subject::Host(lost.clone()), None, kind).await
    }

    async fn tell(
        &self,
        team: &TeamId,
        job: Option<JobId>,
        attempt: u32,
        kind: EventKind,
    ) -> Result<(), SessionOver> {
        // A repeat of the job gives the id again; what belongs to none happens once.
        let id = match job {
            Some(job) => {
                let name = format!("{job}/{attempt}/{}/1", kind.type_name());
                Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
            }
            None => self.clock.new_id().to_string(),
        };
        self.publish(id, Subject::Team(team.clone()), job, kind).await
    }

    async fn publish(
        &self,
        id: String,
        subject: Subject,
        job: Option<JobId>,
        kind: EventKind,
    ) -> Result<(), SessionOver> {
        let event = Event {
            id,
            subject,
            host: self.host.clone(),
            time_unix_ms: self.clock.unix_millis(),
            sequence: None,
            sequence_previous: None,
            job,
            kind,
        };
        self.events.publish(&encode_event(&event)).await
    }
}

fn state(state: TeamState) -> EventKind {
    let cause = "no host has the team".to_owned();
    EventKind::Team { state, cause, links: BTreeMap::new() }
}

fn dead_letter(failure: &Failure, attempt: u32) -> DeadLetter {
    DeadLetter {
        reason: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
        attempts: attempt,
        step: None,
    }
}
