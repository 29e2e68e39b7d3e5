//! The world's agents: they take tasks once for each key, remember what was
//! told, and show their tasks to whoever follows.

use async_trait::async_trait;
use covibes::domain::agent_task::{AgentTask, AgentTaskFact, AgentTaskState};
use covibes::ports::agents::{AddedTask, AgentDoor, AgentError, Agents, SeenTask};
use futures::stream::{self, BoxStream, StreamExt};
use uuid::Uuid;

use super::World;

/// What the agents of a world know.
#[derive(Default)]
pub(crate) struct AgentsInner {
    /// Agent, key and prompt of each task that was new.
    posted: Vec<(String, String, String)>,
    tasks: Vec<SeenTask>,
    changes: tokio::sync::watch::Sender<usize>,
    refuse: bool,
}

impl World {
    /// Agent and prompt of every task that was asked for.
    pub(crate) fn posted(&self) -> Vec<(String, String)> {
        let inner = self.lock();
        inner
            .agents
            .posted
            .iter()
            .map(|(agent, _, prompt)| (agent.clone(), prompt.clone()))
            .collect()
    }

    /// Whether agents refuse tasks.
    pub(crate) fn refuse_tasks(&self, refuse: bool) {
        self.lock().agents.refuse = refuse;
    }

    /// A task of an agent is now like this.
    pub(crate) fn show_task(&self, agent: &str, id: Uuid, state: AgentTaskState, turns: u64) {
        let agent = covibes::domain::ids::PartName::parse(agent).unwrap();
        let task = AgentTask {
            agent,
            id,
            state,
            prompt: "do it".to_owned(),
            turns,
            input_tokens: 0,
            output_tokens: 0,
            cost_micro_usd: None,
            message: None,
            error: None,
            exit_code: None,
        };
        let mut inner = self.lock();
        let agents = &mut inner.agents;
        let began = matches!(
            state,
            AgentTaskState::Running | AgentTaskState::Succeeded | AgentTaskState::Failed
        );
        match agents.tasks.iter_mut().find(|seen| seen.task.id == id) {
            Some(seen) => (seen.task, seen.began) = (task, seen.began || began),
            None => agents.tasks.push(SeenTask { task, began, told: None }),
        }
        agents.changes.send_modify(|count| *count += 1);
    }

    fn shown(&self, agent: &covibes::domain::ids::PartName) -> Vec<SeenTask> {
        let inner = self.lock();
        inner.agents.tasks.iter().filter(|seen| seen.task.agent == *agent).cloned().collect()
    }
}

#[async_trait]
impl Agents for World {
    async fn follow(&self, door: &AgentDoor) -> Result<BoxStream<'static, SeenTask>, AgentError> {
        let (world, agent) = (self.clone(), door.agent.clone());
        let changes = self.lock().agents.changes.subscribe();
        let first = stream::iter(self.shown(&agent));
        let later = stream::unfold((world, agent, changes), |(world, agent, mut changes)| async {
            changes.changed().await.ok()?;
            let shown = world.shown(&agent);
            Some((stream::iter(shown), (world, agent, changes)))
        });
        Ok(first.chain(later.flatten()).boxed())
    }

    async fn add_task(
        &self,
        door: &AgentDoor,
        key: &str,
        prompt: &str,
    ) -> Result<AddedTask, AgentError> {
        let mut inner = self.lock();
        let agents = &mut inner.agents;
        if agents.refuse {
            return Err(AgentError::Refused { status: 429, message: "16 tasks wait".to_owned() });
        }
        let agent = door.agent.to_string();
        let known = agents.posted.iter().any(|(a, k, _)| (a, k.as_str()) == (&agent, key));
        if !known {
            agents.posted.push((agent, key.to_owned(), prompt.to_owned()));
        }
        Ok(AddedTask { id: Uuid::nil(), known })
    }

    async fn note_told(
        &self,
        _: &AgentDoor,
        task: Uuid,
        fact: AgentTaskFact,
    ) -> Result<(), AgentError> {
        let mut inner = self.lock();
        if let Some(seen) = inner.agents.tasks.iter_mut().find(|seen| seen.task.id == task) {
            seen.told = seen.told.max(Some(fact));
        }
        Ok(())
    }
}
