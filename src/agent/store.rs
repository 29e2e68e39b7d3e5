//! What the service remembers over a restart: one small file per task, beside
//! the task's output, and one with the keys that were used.
//!
//! A file is replaced as a whole, and always by the newest state: whoever writes
//! takes it under one lock. Nothing is flushed to the disk itself: a restart of
//! the container finds what was written, and the loss of the host's power may
//! cost the last task.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::output::{self, Written};
use super::shapes::outcome_name;
use super::stream::Progress;
use super::task::{CliExit, Failure, Outcome, Task, TaskId, TaskRequest, TaskState, Told};
use super::tasks::{Remembered, Tasks};

/// Where the used keys are.
const KEYS_FILE: &str = "keys.json";

/// The writer; one file is written at a time.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    one: Mutex<()>,
}

impl Store {
    /// Keeps everything in `dir`.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, one: Mutex::new(()) }
    }

    /// Writes a task down as it is now; a forgotten one is removed.
    pub(super) async fn keep(&self, tasks: &Tasks, id: TaskId) {
        let _one = self.one.lock().await;
        let path = path(&self.dir, id);
        let kept = match tasks.look(id, StoredTask::of) {
            Some(stored) => self.replace(&path, &stored).await,
            None => tokio::fs::remove_file(&path).await,
        };
        if let Err(error) = kept.or_else(unless_gone) {
            tracing::warn!(task = %id, %error, "a task cannot be written down");
        }
    }

    /// Writes the used keys down.
    pub(super) async fn keep_keys(&self, tasks: &Tasks) {
        let _one = self.one.lock().await;
        let keys: Vec<_> =
            tasks.keys().into_iter().map(|(key, id)| (key, id.to_string())).collect();
        if let Err(error) = self.replace(&self.dir.join(KEYS_FILE), &keys).await {
            tracing::warn!(%error, "the used keys cannot be written down");
        }
    }

    /// Removes the outputs of tasks, and all that belongs to those that are forgotten.
    pub(super) async fn forget(&self, tasks: &Tasks, ids: Vec<TaskId>) {
        for id in ids {
            let output = output::path(&self.dir, id);
            // It may never have begun to write.
            let _ = tokio::fs::remove_file(output).await;
            self.keep(tasks, id).await;
        }
    }

    async fn replace(&self, path: &Path, content: &impl Serialize) -> io::Result<()> {
        let next = self.dir.join("next");
        tokio::fs::write(&next, serde_json::to_vec(content)?).await?;
        tokio::fs::rename(&next, path).await
    }
}

/// A forgotten task may have been cancelled before it was written down.
fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn path(dir: &Path, id: TaskId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Makes the directory, and reads what an earlier process left in it. What ran
/// then is interrupted; what cannot be read is removed.
pub(super) fn recall(dir: &Path, now: Timestamp) -> io::Result<Remembered> {
    std::fs::create_dir_all(dir)?;
    let mut remembered = Remembered::default();
    let mut outputs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = name.strip_suffix(".jsonl") {
            outputs.push((id.to_owned(), path));
        } else if name == KEYS_FILE {
            remembered.keys = read_keys(&path).unwrap_or_default();
        } else {
            let task = read_task(dir, &path, now);
            if task.is_none() {
                tracing::warn!(file = name, "this is no task; it is removed");
                std::fs::remove_file(&path)?;
            }
            remembered.tasks.extend(task);
        }
    }
    for (id, path) in outputs {
        if !remembered.tasks.iter().any(|task| task.id.to_string() == id) {
            std::fs::remove_file(path)?;
        }
    }
    remembered.tasks.sort_by_key(|task| task.id);
    Ok(remembered)
}

fn read_keys(path: &Path) -> Option<Vec<(String, TaskId)>> {
    let keys: Vec<(String, String)> = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    keys.into_iter().map(|(key, id)| Some((key, id.parse().ok()?))).collect()
}

fn read_task(dir: &Path, path: &Path, now: Timestamp) -> Option<Task> {
    let stored: StoredTask = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let truncated = stored.truncated;
    let mut task = stored.into_task(now)?;
    let (lines, bytes) = output::whole_lines(&output::path(dir, task.id)).unwrap_or_default();
    let over = task.is_over();
    task.written = watch::Sender::new(Written { lines, bytes, truncated, over });
    Some(task)
}

/// A task in its file.
#[derive(Debug, Serialize, Deserialize)]
struct StoredTask {
    id: String,
    prompt: String,
    model: Option<String>,
    allowed_tools: Vec<String>,
    max_turns: Option<u32>,
    timeout_seconds: u64,
    resume: Option<String>,
    created: String,
    started: Option<String>,
    finished: Option<String>,
    /// `None` until it is over.
    outcome: Option<String>,
    failure: Option<String>,
    progress: Progress,
    exit_code: Option<i32>,
    signal: Option<i32>,
    stderr: Vec<String>,
    truncated: bool,
    told_started: bool,
    told_finished: bool,
    #[serde(default)]
    is_emptied: bool,
}

impl StoredTask {
    fn of(task: &Task) -> Self {
        let (started, finished, outcome) = task.state.parts();
        let failure = match outcome {
            Some(Outcome::Failed(failure)) => Some(failure.explain().0.to_owned()),
            _ => None,
        };
        let (exit_code, signal) = match task.exit {
            None => (None, None),
            Some(CliExit::Code(code)) => (Some(code), None),
            Some(CliExit::Signal(signal)) => (None, Some(signal)),
        };
        let request = &task.request;
        Self {
            id: task.id.to_string(),
            prompt: request.prompt.clone(),
            model: request.model.clone(),
            allowed_tools: request.allowed_tools.clone(),
            max_turns: request.max_turns,
            timeout_seconds: request.timeout.as_secs(),
            resume: request.resume.clone(),
            created: task.created.to_string(),
            started: started.map(|at| at.to_string()),
            finished: finished.map(|at| at.to_string()),
            outcome: outcome.map(|outcome| outcome_name(outcome).to_owned()),
            failure,
            progress: task.progress.clone(),
            exit_code,
            signal,
            stderr: task.stderr.clone(),
            truncated: task.written.borrow().truncated,
            told_started: task.told >= Told::Started,
            told_finished: task.told == Told::Finished,
            is_emptied: task.is_emptied,
        }
    }

    fn into_task(self, now: Timestamp) -> Option<Task> {
        let time = |text: Option<String>| text.map(|text| text.parse().ok());
        let started: Option<Timestamp> = time(self.started).unwrap_or_default();
        let finished = time(self.finished).unwrap_or_default();
        let state = match (self.outcome.as_deref(), started) {
            (None, None) => TaskState::Queued,
            (None, Some(_)) => {
                TaskState::Over { started, finished: now, outcome: Outcome::Interrupted }
            }
            (Some(name), started) => {
                let failure = Failure::ALL.into_iter().map(Outcome::Failed);
                let failure = failure.filter(|outcome| match outcome {
                    Outcome::Failed(failure) => {
                        Some(failure.explain().0) == self.failure.as_deref()
                    }
                    _ => false,
                });
                let all = [Outcome::Succeeded, Outcome::Cancelled, Outcome::Interrupted];
                let outcome = all.into_iter().chain(failure).find(|o| outcome_name(*o) == name)?;
                TaskState::Over { started, finished: finished?, outcome }
            }
        };
        let exit = match (self.exit_code, self.signal) {
            (Some(code), _) => Some(CliExit::Code(code)),
            (None, Some(signal)) => Some(CliExit::Signal(signal)),
            (None, None) => None,
        };
        Some(Task {
            id: self.id.parse().ok()?,
            request: TaskRequest {
                prompt: self.prompt,
                model: self.model,
                allowed_tools: self.allowed_tools,
                max_turns: self.max_turns,
                timeout: Duration::from_secs(self.timeout_seconds),
                resume: self.resume,
            },
            created: self.created.parse().ok()?,
            state,
            progress: self.progress,
            exit,
            stderr: self.stderr,
            cancel: CancellationToken::new(),
            written: watch::Sender::new(Written::default()),
            told: match (self.told_finished, self.told_started) {
                (true, _) => Told::Finished,
                (false, true) => Told::Started,
                (false, false) => Told::Nothing,
            },
            is_emptied: self.is_emptied,
            version: 1,
        })
    }
}
