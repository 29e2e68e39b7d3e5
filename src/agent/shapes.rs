//! The JSON of the agent's API. Tasks are shown without anything secret: the
//! output was redacted before it came here.

use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::stream::Progress;
use super::task::{CliExit, Outcome, Task, TaskRequest, TaskState};
use crate::service::http::ApiError;

/// A prompt larger than this belongs in a file.
const PROMPT_BYTES_MAX: usize = 128 * 1024;

/// A list shows how a prompt begins.
const PROMPT_CHARACTERS_SHOWN: usize = 500;

/// Long enough for a large change; an endless task must end some day.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const TIMEOUT_SECONDS_MAX: u64 = 6 * 60 * 60;

const TURNS_MAX: u32 = 1000;
const TOOLS_MAX: usize = 100;
const WORD_BYTES_MAX: usize = 256;

/// The body of `POST /tasks`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskRequestBody {
    prompt: String,
    model: Option<String>,
    #[serde(default)]
    allowed_tools: Vec<String>,
    max_turns: Option<u32>,
    /// In seconds.
    timeout: Option<u64>,
}

impl TryFrom<TaskRequestBody> for TaskRequest {
    type Error = ApiError;

    fn try_from(body: TaskRequestBody) -> Result<Self, ApiError> {
        let refuse = |message: &str| {
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "task.invalid", message))
        };
        if body.prompt.trim().is_empty() || body.prompt.len() > PROMPT_BYTES_MAX {
            return refuse("prompt must hold 1 byte to 128 KiB");
        }
        if body.model.as_deref().is_some_and(|model| !is_model(model)) {
            return refuse("model must be a model's name");
        }
        if body.allowed_tools.len() > TOOLS_MAX || !body.allowed_tools.iter().all(|t| is_tool(t)) {
            return refuse("allowed_tools must be at most 100 tools like Edit or Bash(git:*)");
        }
        if body.max_turns.is_some_and(|turns| !(1..=TURNS_MAX).contains(&turns)) {
            return refuse("max_turns must be 1 to 1000");
        }
        if body.timeout.is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)) {
            return refuse("timeout must be 1 to 21600 seconds");
        }
        Ok(Self {
            prompt: body.prompt,
            model: body.model,
            allowed_tools: body.allowed_tools,
            max_turns: body.max_turns,
            timeout: body.timeout.map_or(TIMEOUT, Duration::from_secs),
        })
    }
}

/// Both stand in arguments of their own; neither may look like an option.
fn is_model(word: &str) -> bool {
    let first = word.starts_with(|first: char| first.is_ascii_alphanumeric());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/[]-".contains(&byte);
    first && word.len() <= WORD_BYTES_MAX && word.bytes().all(rest)
}

fn is_tool(word: &str) -> bool {
    let first = word.starts_with(|first: char| first.is_ascii_alphabetic());
    first && word.len() <= WORD_BYTES_MAX && !word.chars().any(char::is_control)
}

/// A task as `GET /tasks/{id}`, the list and the `end` event show it.
#[derive(Debug, Serialize)]
pub(super) struct TaskBody {
    id: String,
    state: &'static str,
    prompt: String,
    model: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    session_id: Option<String>,
    turns: u64,
    tokens: TokensBody,
    cost_usd: Option<f64>,
    last_message: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<ErrorBody>,
    stderr: Vec<String>,
    events: u64,
    output_bytes: u64,
    truncated: bool,
    cancelling: bool,
}

#[derive(Debug, Serialize)]
struct TokensBody {
    input: u64,
    output: u64,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    code: &'static str,
    message: &'static str,
}

impl TaskBody {
    /// Shows a task.
    pub(super) fn of(task: &Task) -> Self {
        let (started, finished, outcome) = match task.state {
            TaskState::Queued => (None, None, None),
            TaskState::Running { started } => (Some(started), None, None),
            TaskState::Over { started, finished, outcome } => {
                (started, Some(finished), Some(outcome))
            }
        };
        let (exit_code, signal) = match task.exit {
            None => (None, None),
            Some(CliExit::Code(code)) => (Some(code), None),
            Some(CliExit::Signal(signal)) => (None, Some(signal)),
        };
        let Progress { session, turns, input_tokens, output_tokens, cost_usd, .. } = &task.progress;
        let written = *task.written.borrow();
        Self {
            id: task.id.to_string(),
            state: state_name(task.state),
            prompt: task.request.prompt.chars().take(PROMPT_CHARACTERS_SHOWN).collect(),
            model: task.request.model.clone(),
            created_at: task.created.to_string(),
            started_at: started.map(|at| at.to_string()),
            finished_at: finished.map(|at| at.to_string()),
            session_id: session.clone(),
            turns: *turns,
            tokens: TokensBody { input: *input_tokens, output: *output_tokens },
            cost_usd: *cost_usd,
            last_message: task.progress.last_message.clone(),
            exit_code,
            signal,
            error: outcome.and_then(error_of),
            stderr: task.stderr.clone(),
            events: written.lines,
            output_bytes: written.bytes,
            truncated: written.truncated,
            cancelling: task.cancel.is_cancelled() && !task.is_over(),
        }
    }
}

fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Running { .. } => "running",
        TaskState::Over { outcome, .. } => outcome_name(outcome),
    }
}

/// Returns the word for an outcome, in JSON and in metrics.
pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Interrupted => "interrupted",
    }
}

fn error_of(outcome: Outcome) -> Option<ErrorBody> {
    match outcome {
        Outcome::Failed(failure) => {
            let (code, message) = failure.explain();
            Some(ErrorBody { code, message })
        }
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Interrupted => None,
    }
}

/// The body of `GET /tasks`.
#[derive(Debug, Serialize)]
pub(super) struct TaskListBody {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) tasks: Vec<TaskBody>,
}

/// The body of the answer to `POST /tasks`.
#[derive(Debug, Serialize)]
pub(super) struct AcceptedBody {
    pub(super) id: String,
    pub(super) position: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: serde_json::Value, accepted: bool) {
        let parsed = serde_json::from_value::<TaskRequestBody>(body.clone())
            .ok()
            .and_then(|body| TaskRequest::try_from(body).ok());
        assert_eq!(parsed.is_some(), accepted, "{body}");
    }

    #[test]
    fn a_request_cannot_smuggle_options_or_grow_without_bound() {
        check(json!({"prompt": "x"}), true);
        check(json!({"prompt": "--help", "model": "claude-sonnet-4-5", "max_turns": 3}), true);
        check(json!({"prompt": "x", "allowed_tools": ["Edit", "Bash(npm run test:*)"]}), true);
        check(json!({"prompt": "x", "timeout": 21600}), true);
        check(json!({}), false);
        check(json!({"prompt": " "}), false);
        check(json!({"prompt": "x".repeat(PROMPT_BYTES_MAX + 1)}), false);
        check(json!({"prompt": "x", "model": "--dangerously-skip-permissions"}), false);
        check(json!({"prompt": "x", "allowed_tools": ["--mcp-config"]}), false);
        check(json!({"prompt": "x", "allowed_tools": ["Edit\n"]}), false);
        check(json!({"prompt": "x", "max_turns": 0}), false);
        check(json!({"prompt": "x", "timeout": 0}), false);
        check(json!({"prompt": "x", "resume": "later"}), false);
    }
}
