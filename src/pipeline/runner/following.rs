//! Follows the services that run here: the tasks of agents, which their teams are
//! told of, and, in `syncs`, the sync services.
//!
//! What was told is noted with the agent, not here: a worker that comes anew
//! asks the agents and goes on, and a fact that is told twice carries the same
//! id (ADR 0040).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Runner;
use super::recovery::team_of;
use crate::domain::agent_task::{AgentTaskFact, AgentTaskState};
use crate::domain::event::EventKind;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::Role;
use crate::observe::spans;
use crate::pipeline::first_tasks::door;
use crate::ports::agents::{AgentDoor, SeenTask};
use crate::ports::engine::{Filter, label};

/// How often agents are looked for besides after each job: Docker may have
/// restarted one, at another address.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How soon an agent is looked for again that ended, or could not be heard.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Progress of one task is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Tasks of which a follower remembers what it has told; the agent knows 67.
const TOLD_MAX: usize = 256;

/// A service that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Here {
    pub(super) team: TeamId,
    /// Which agent, if it is one.
    part: Option<PartName>,
    pub(super) address: Ipv4Addr,
}

/// What one follower knows.
#[derive(Default)]
struct Heard {
    /// Told by this follower; what the agent says may be older.
    told: BTreeMap<Uuid, AgentTaskFact>,
    /// Progress that is not told yet.
    pending: Option<SeenTask>,
    /// When progress was told last.
    progress: Option<Instant>,
    /// Tasks that run or wait.
    open: BTreeSet<Uuid>,
}

/// It cannot go on; somebody looks again.
pub(super) struct GaveUp;

impl Runner {
    /// Follows the agents that run here until `end`.
    pub async fn follow_agents(self: Arc<Self>, end: CancellationToken) {
        self.follow_all(Role::Agent, &end, |here| self.follow_agent(here).boxed()).await;
    }

    /// Follows all services of a role, each once, until `end`.
    pub(super) async fn follow_all<'a>(
        &'a self,
        role: Role,
        end: &CancellationToken,
        follow: impl Fn(Here) -> BoxFuture<'a, Here>,
    ) {
        let mut changes = self.shares.changes();
        let mut followed = BTreeSet::new();
        let mut followers = FuturesUnordered::new();
        loop {
            changes.mark_unchanged();
            for here in self.those_here(role).await {
                if followed.insert(here.clone()) {
                    let span = spans::of_team(&here.team);
                    followers.push(follow(here).instrument(span));
                }
            }
            let mut pause = pin!(self.ports.clock.sleep(LOOK_EVERY).fuse());
            let mut soon = pin!(OptionFuture::default());
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    () = &mut pause => break,
                    Some(()) = &mut soon => break,
                    _ = changes.changed() => break,
                    Some(here) = followers.next() => {
                        followed.remove(&here);
                        soon.set(OptionFuture::from(Some(self.ports.clock.sleep(LOOK_AGAIN))));
                    }
                }
            }
        }
    }

    async fn those_here(&self, role: Role) -> Vec<Here> {
        let filter = Filter { instance: self.ports.settings.instance.clone(), team: None };
        // Without Docker nobody can be followed; it is asked again.
        let Ok(observed) = self.ports.engine.list(&filter).await else { return Vec::new() };
        let wanted = observed.containers.iter().filter(|container| {
            container.labels.get(label::ROLE).map(String::as_str) == Some(role.as_str())
                && container.state == "running"
        });
        let here = wanted.filter_map(|container| {
            let part = container.labels.get(label::NAME);
            let part = part.and_then(|name| PartName::parse(name).ok());
            let (team, address) = (team_of(&container.labels)?, *container.addresses.first()?);
            Some(Here { team, part, address })
        });
        here.collect()
    }

    /// Follows one agent until it ends or cannot be heard.
    async fn follow_agent(&self, here: Here) -> Here {
        let socket = SocketAddr::from((here.address, SERVICE_PORT));
        if let Some(agent) = &here.part
            && let Ok(door) = door(&self.ports, &here.team, agent, socket).await
            && let Ok(mut tasks) = self.ports.agents.follow(&door).await
        {
            let mut heard = Heard::default();
            loop {
                let due = heard.progress.map_or_else(Instant::now, |at| at + PROGRESS_EVERY);
                let next = tokio::select! {
                    seen = tasks.next() => match seen {
                        Some(seen) => self.take_note(&here, &door, &mut heard, seen).await,
                        None => Err(GaveUp),
                    },
                    () = tokio::time::sleep_until(due), if heard.pending.is_some() => {
                        self.tell_progress(&here, &mut heard).await
                    }
                };
                if next.is_err() {
                    break;
                }
            }
            if let Some(agent) = here.part.as_ref().filter(|_| !heard.open.is_empty()) {
                // An agent that ended works on nothing.
                self.monitor.tasks(&here.team, agent, 0);
            }
        }
        here
    }

    /// Tells what is new of a task.
    async fn take_note(
        &self,
        here: &Here,
        door: &AgentDoor,
        heard: &mut Heard,
        seen: SeenTask,
    ) -> Result<(), GaveUp> {
        let id = seen.task.id;
        let told = seen.told.max(heard.told.get(&id).copied());
        let is_over = seen.task.state.is_over();
        match is_over {
            true => heard.open.remove(&id),
            false => heard.open.insert(id),
        };
        if let Some(agent) = &here.part {
            self.monitor.tasks(&here.team, agent, heard.open.len() as u64);
        }
        if seen.began && told.is_none() {
            let mut begun = seen.clone();
            if is_over {
                // Nobody looked while it ran.
                begun.task.state = AgentTaskState::Running;
            }
            self.tell_fact(here, door, heard, begun, AgentTaskFact::Started).await?;
        }
        if is_over {
            if heard.pending.as_ref().is_some_and(|pending| pending.task.id == id) {
                heard.pending = None;
            }
            if told < Some(AgentTaskFact::Finished) {
                self.tell_fact(here, door, heard, seen, AgentTaskFact::Finished).await?;
            }
        } else if seen.began && told.is_some() {
            heard.pending = Some(seen);
        }
        Ok(())
    }

    async fn tell_fact(
        &self,
        here: &Here,
        door: &AgentDoor,
        heard: &mut Heard,
        seen: SeenTask,
        fact: AgentTaskFact,
    ) -> Result<(), GaveUp> {
        let id = seen.task.id;
        self.tell_task(here, seen, fact).await?;
        heard.told.insert(id, fact);
        if heard.told.len() > TOLD_MAX {
            // Ids sort by time.
            heard.told.pop_first();
        }
        self.ports.agents.note_told(door, id, fact).await.map_err(|_| GaveUp)
    }

    async fn tell_progress(&self, here: &Here, heard: &mut Heard) -> Result<(), GaveUp> {
        heard.progress = Some(Instant::now());
        match heard.pending.take() {
            Some(seen) => self.tell_task(here, seen, AgentTaskFact::Progress).await,
            None => Ok(()),
        }
    }

    async fn tell_task(
        &self,
        here: &Here,
        seen: SeenTask,
        fact: AgentTaskFact,
    ) -> Result<(), GaveUp> {
        let kind = EventKind::AgentTask { fact, task: seen.task };
        let reporter = self.open_team(&here.team, None, 1).await.map_err(|_| GaveUp)?;
        reporter.tell(kind).await.map_err(|_| GaveUp)
    }
}
