//! The body of events about agents' tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::agent_task::{AgentTaskFact, AgentTaskState};

/// An agent's task began, has come further, or is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AgentTaskChanged {
    /// What happened; the same as in `type`.
    #[schemars(extend("enum" = AgentTaskFact::ALL.map(AgentTaskFact::as_str)))]
    pub fact: String,
    /// Whose task.
    pub agent: String,
    /// Its id in the agent's API.
    #[schemars(extend("format" = "uuid"))]
    pub task: String,
    /// Where it is.
    #[schemars(extend("enum" = AgentTaskState::ALL.map(AgentTaskState::as_str)))]
    pub state: String,
    /// How its prompt begins.
    pub prompt: String,
    /// Answers of the model so far.
    pub turns: u64,
    /// Tokens that the model read.
    pub input_tokens: u64,
    /// Tokens that it wrote.
    pub output_tokens: u64,
    /// What it cost, in millionths of a dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// What the model said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why it failed: a word of the agent's API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the CLI ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}
