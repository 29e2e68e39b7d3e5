//! What a person may do on the page: ask for a job of a team, send dead letters
//! again, drop them. Written down before it is done, with who asked.

use std::net::SocketAddr;

use serde_json::json;

use super::Office;
use crate::adapters::rabbitmq::client::ClientError;
use crate::adapters::rabbitmq::dead_letters::DeadFilter;
use crate::domain::ids::{JobId, TeamId};
use crate::domain::job::{Action, ActionKind, Job};
use crate::wire::job::{encode_job, routing_key, timestamp_text};

/// Who asks, as far as is known.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// What they call themselves; the word that opens is the same for all.
    pub name: String,
    /// From where.
    pub peer: Option<SocketAddr>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A job of a team.
    Team(TeamId, ActionKind),
    /// Dead letters are to be published again.
    Requeue(DeadFilter),
    /// Dead letters are to be dropped for good.
    Drop(DeadFilter),
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// It cannot be written down.
    #[error("what operators do cannot be written down; nothing was done")]
    Audit(#[source] std::io::Error),
    /// There is nothing to start from.
    #[error("the worker has no record of what the team should be; publish a start job")]
    NoSpec,
    /// The broker.
    #[error("the broker did not take it")]
    Broker(#[from] ClientError),
}

impl Deed {
    fn name(&self) -> &'static str {
        match self {
            Self::Team(_, action) => action.as_str(),
            Self::Requeue(_) => "requeue",
            Self::Drop(_) => "drop",
        }
    }

    fn target(&self) -> String {
        match self {
            Self::Team(team, _) => team.to_string(),
            Self::Requeue(filter) | Self::Drop(filter) => describe(filter),
        }
    }
}

/// Which dead letters, for people.
#[must_use]
pub fn describe(filter: &DeadFilter) -> String {
    let mut words = Vec::new();
    if !filter.message_ids.is_empty() {
        words.push(filter.message_ids.join(" "));
    }
    words.extend(filter.team.as_ref().map(|team| format!("team {team}")));
    words.extend(filter.reason.as_ref().map(|reason| format!("reason {reason}")));
    words.extend(filter.action.map(|action| format!("action {}", action.as_str())));
    if words.is_empty() { "all dead letters".to_owned() } else { words.join(", ") }
}

impl Office {
    /// Does it; says what was done.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn act(&self, deed: &Deed, caller: &Caller) -> Result<String, NotDone> {
        let job = match deed {
            Deed::Team(team, action) => Some(self.job(team, *action).await?),
            Deed::Requeue(_) | Deed::Drop(_) => None,
        };
        let id = job.as_ref().map(|job| job.id.to_string());
        self.write_down(deed, caller, id.as_deref()).await?;
        let done = match (deed, job) {
            (Deed::Team(..), Some(job)) => {
                let body = encode_job(&job);
                let id = job.id.to_string();
                self.client.publish_job(body.as_bytes(), &routing_key(&job), &id, &[]).await?;
                id
            }
            (Deed::Requeue(filter), _) => {
                format!("{} sent again", self.settle_letters(filter, true).await?)
            }
            (Deed::Drop(filter), _) => {
                format!("{} dropped", self.settle_letters(filter, false).await?)
            }
            (Deed::Team(..), None) => return Err(NotDone::NoSpec),
        };
        let (name, target) = (deed.name(), deed.target());
        let (by, from) = (caller.name.as_str(), peer(caller));
        tracing::info!(deed = name, target, by, from, done, "an operator acted");
        Ok(done)
    }

    async fn job(&self, team: &TeamId, action: ActionKind) -> Result<Job, NotDone> {
        let action = match action {
            ActionKind::Start => {
                let record = self.ports.records.load(team).await.ok().flatten();
                let spec = record.and_then(|record| record.spec).ok_or(NotDone::NoSpec)?;
                Action::Start(Box::new(spec))
            }
            ActionKind::Stop => Action::Stop,
            ActionKind::Restart => Action::Restart { targets: Vec::new() },
            ActionKind::Sync => Action::Sync,
            ActionKind::Status => Action::Status,
            ActionKind::Destroy => Action::Destroy,
        };
        Ok(Job {
            id: JobId(self.ports.clock.new_id()),
            team: team.clone(),
            action,
            issued_at: timestamp_text(self.now()),
            deadline_unix_ms: None,
            attempt: 1,
            traceparent: None,
            tracestate: None,
        })
    }

    async fn write_down(
        &self,
        deed: &Deed,
        caller: &Caller,
        job: Option<&str>,
    ) -> Result<(), NotDone> {
        let line = json!({
            "time": timestamp_text(self.now()), "by": caller.name, "from": peer(caller),
            "deed": deed.name(), "target": deed.target(), "job": job,
        });
        self.audit.add(line.to_string()).await.map_err(NotDone::Audit)
    }
}

fn peer(caller: &Caller) -> String {
    caller.peer.map(|peer| peer.ip().to_string()).unwrap_or_default()
}
