//! Talking to the agent services in their containers.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::domain::agent_task::{AgentTask, AgentTaskFact};
use crate::domain::ids::PartName;

/// Where an agent is asked, and with which word.
#[derive(Clone)]
pub struct AgentDoor {
    /// Which agent.
    pub agent: PartName,
    /// The container's own address.
    pub address: SocketAddr,
    /// The agent's token.
    pub token: String,
}

// Never derived: the token must not reach a log through `{:?}`.
impl std::fmt::Debug for AgentDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgentDoor({} at {})", self.agent, self.address)
    }
}

/// Why an agent did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// It does not answer, or not in time.
    #[error("the agent does not answer: {reason}")]
    Unreachable {
        /// What the transport said.
        reason: String,
    },
    /// It answered something else.
    #[error("the agent answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
}

/// A task as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTask {
    /// The task.
    pub task: AgentTask,
    /// Whether the CLI ever began.
    pub began: bool,
    /// What the agent knows to have been told of it.
    pub told: Option<AgentTaskFact>,
}

/// A task that an agent took on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTask {
    /// Its id.
    pub id: Uuid,
    /// Whether the same key had asked for it before.
    pub known: bool,
}

/// The agents of this host.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Shows every task, and each one again whenever it changes, until the
    /// agent ends or falls silent.
    async fn follow(&self, door: &AgentDoor) -> Result<BoxStream<'static, SeenTask>, AgentError>;

    /// Asks for a task, once for each key.
    async fn add_task(
        &self,
        door: &AgentDoor,
        key: &str,
        prompt: &str,
    ) -> Result<AddedTask, AgentError>;

    /// Notes with the agent that a fact was told; a task that it has forgotten
    /// is fine.
    async fn note_told(
        &self,
        door: &AgentDoor,
        task: Uuid,
        fact: AgentTaskFact,
    ) -> Result<(), AgentError>;
}
