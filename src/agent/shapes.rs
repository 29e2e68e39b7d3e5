//! The JSON of the agent's API. Tasks are shown without anything secret: the
//! output was redacted before it came here.

use std::time::Duration;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stream::Progress;
use super::task::{
    CliExit, Failure, Outcome, PROMPT_CHARACTERS_SHOWN, Task, TaskRequest, TaskState, Told,
};
use crate::service::http::ApiError;

/// A prompt larger than this belongs in a file.
const PROMPT_BYTES_MAX: usize = 128 * 1024;

/// Long enough for a large change; an endless task must end some day.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const TIMEOUT_SECONDS_MAX: u64 = 6 * 60 * 60;

const TURNS_MAX: u32 = 1000;
const TOOLS_MAX: usize = 100;
const WORD_BYTES_MAX: usize = 256;

/// What the CLI is to do.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "TaskRequest")]
#[serde(deny_unknown_fields)]
pub(super) struct TaskRequestBody {
    /// What to do; at most 128 KiB.
    #[schemars(length(min = 1, max = PROMPT_BYTES_MAX), regex(pattern = r"\S"))]
    prompt: String,
    /// The model; the CLI's own choice if absent.
    #[schemars(length(max = WORD_BYTES_MAX), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._:@/\\[\\]-]*$"))]
    model: Option<String>,
    /// Tools that need no permission, as the CLI names them: `Edit`, `Bash(git:*)`.
    #[serde(default)]
    #[schemars(length(max = TOOLS_MAX), inner(length(max = WORD_BYTES_MAX), regex(pattern = "^[A-Za-z][^\\u0000-\\u001f\\u007f-\\u009f]*$")))]
    allowed_tools: Vec<String>,
    /// After how many turns the CLI gives up.
    #[schemars(range(min = 1, max = TURNS_MAX))]
    max_turns: Option<u32>,
    /// After how many seconds the task is ended; an hour if absent.
    #[schemars(range(min = 1, max = TIMEOUT_SECONDS_MAX))]
    timeout: Option<u64>,
    /// The `session_id` of an earlier task, to go on from where it ended.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9-]{7,63}$"))]
    resume: Option<String>,
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
        if body.resume.as_deref().is_some_and(|session| !is_session(session)) {
            return refuse("resume must be the session_id of a task");
        }
        Ok(Self {
            prompt: body.prompt,
            model: body.model,
            allowed_tools: body.allowed_tools,
            max_turns: body.max_turns,
            timeout: body.timeout.map_or(TIMEOUT, Duration::from_secs),
            resume: body.resume,
        })
    }
}

fn is_session(word: &str) -> bool {
    let first = word.starts_with(|first: char| first.is_ascii_alphanumeric());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    first && (8..=64).contains(&word.len()) && word.bytes().all(rest)
}

/// All stand in arguments of their own; none may look like an option.
fn is_model(word: &str) -> bool {
    let first = word.starts_with(|first: char| first.is_ascii_alphanumeric());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/[]-".contains(&byte);
    first && word.len() <= WORD_BYTES_MAX && word.bytes().all(rest)
}

fn is_tool(word: &str) -> bool {
    let first = word.starts_with(|first: char| first.is_ascii_alphabetic());
    first && word.len() <= WORD_BYTES_MAX && !word.chars().any(char::is_control)
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Task")]
pub(super) struct TaskBody {
    /// Its id; ids sort by time.
    #[schemars(extend("format" = "uuid"))]
    id: String,
    /// Where it is in its life.
    #[schemars(extend("enum" = STATES))]
    state: &'static str,
    /// How the prompt begins: 500 characters.
    prompt: String,
    /// The model that was asked for.
    model: Option<String>,
    /// When it was asked for.
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    /// When the CLI began.
    started_at: Option<String>,
    /// When it was over.
    finished_at: Option<String>,
    /// The CLI's session, for `resume`.
    session_id: Option<String>,
    /// Answers of the model so far.
    turns: u64,
    /// Tokens so far.
    tokens: TokensBody,
    /// What the CLI says that it cost.
    cost_usd: Option<f64>,
    /// What the model said last.
    last_message: Option<String>,
    /// How the CLI ended.
    exit_code: Option<i32>,
    /// The signal that ended the CLI.
    signal: Option<i32>,
    /// Why it failed.
    error: Option<FailureBody>,
    /// The last lines of the CLI's error output.
    stderr: Vec<String>,
    /// Lines of output that were kept.
    events: u64,
    /// And their bytes.
    output_bytes: u64,
    /// Whether there was more output than is kept.
    truncated: bool,
    /// Whether it is being ended.
    cancelling: bool,
    /// What the team's events have told of it.
    #[schemars(extend("enum" = ["nothing", "started", "finished"]))]
    told: &'static str,
}

/// Every state of a task.
const STATES: [&str; 6] = ["queued", "running", "succeeded", "failed", "cancelled", "interrupted"];

/// What the model read and wrote.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
struct TokensBody {
    /// Read, from a cache or not.
    input: u64,
    /// Written.
    output: u64,
}

/// Why a task failed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TaskFailure")]
struct FailureBody {
    /// From a closed list.
    #[schemars(extend("enum" = Failure::ALL.map(|failure| failure.explain().0)))]
    code: &'static str,
    /// For people.
    message: &'static str,
}

/// What the team's events have told of a task.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Told")]
#[serde(deny_unknown_fields)]
pub(super) struct ToldBody {
    /// That it started, or also that it finished.
    fact: ToldFact,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ToldFact {
    Started,
    Finished,
}

impl From<ToldBody> for Told {
    fn from(body: ToldBody) -> Self {
        match body.fact {
            ToldFact::Started => Self::Started,
            ToldFact::Finished => Self::Finished,
        }
    }
}

impl TaskBody {
    /// Shows a task.
    pub(super) fn of(task: &Task) -> Self {
        let (started, finished, outcome) = task.state.parts();
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
            told: match task.told {
                Told::Nothing => "nothing",
                Told::Started => "started",
                Told::Finished => "finished",
            },
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

fn error_of(outcome: Outcome) -> Option<FailureBody> {
    match outcome {
        Outcome::Failed(failure) => {
            let (code, message) = failure.explain();
            Some(FailureBody { code, message })
        }
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Interrupted => None,
    }
}

/// All tasks that are known, oldest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TaskList")]
pub(super) struct TaskListBody {
    /// How many run.
    pub(super) running: usize,
    /// How many wait.
    pub(super) waiting: usize,
    /// Each of them.
    pub(super) tasks: Vec<TaskBody>,
}

/// A task was taken on.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Accepted")]
pub(super) struct AcceptedBody {
    /// Its id.
    #[schemars(extend("format" = "uuid"))]
    pub(super) id: String,
    /// How many tasks wait before it.
    pub(super) position: usize,
    /// Whether an earlier request with the same key had asked for it.
    pub(super) known: bool,
}

/// The service ends.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Stopping")]
pub(super) struct StoppingBody {
    /// Always true.
    pub(super) stopping: bool,
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
