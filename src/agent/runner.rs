//! Runs tasks, one after the other, each in a process group of its own.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Shared;
use super::observe::AgentEvent;
use super::output::{self, LINE_BYTES_MAX, OutputWriter};
use super::secrets::Secrets;
use super::stream::Verdict;
use super::task::{CliExit, Failure, Outcome, Task, TaskId, TaskRequest};
use super::tasks::Turn;
use crate::service::Scope;
use crate::service::auth::TOKEN_FILE;
use crate::service::lines::{Line, Lines};
use crate::service::process::{self, Group, Ladder};
use crate::service::system::now;

/// A cancelled task is over within 5 s: 2 + 1.5, and the rest for its last output.
const CANCEL: &Ladder =
    &[(Signal::INT, Duration::from_secs(2)), (Signal::TERM, Duration::from_millis(1500))];

/// The service itself ends within 2 s.
const SHUTDOWN: &Ladder =
    &[(Signal::INT, Duration::from_millis(600)), (Signal::TERM, Duration::from_millis(400))];

/// What is still in the pipes of a task that ended by itself.
const OUTPUT_BOUND: Duration = Duration::from_secs(10);
/// And of one that was ended.
const OUTPUT_BOUND_ENDED: Duration = Duration::from_millis(500);

/// Enough of stderr to see why the CLI did not start.
const STDERR_LINES_MAX: usize = 20;
const STDERR_LINE_BYTES_MAX: usize = 1024;

/// Tasks whose processes are looked for when memory is short.
const MARKS_MAX: usize = 256;

/// What earlier tasks may have left running.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Held while a task runs: what runs then is no leftover.
    running: tokio::sync::Mutex<()>,
    marks: Mutex<VecDeque<String>>,
}

impl Leftovers {
    fn add(&self, mark: String) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.push_back(mark);
        let excess = marks.len().saturating_sub(MARKS_MAX);
        marks.drain(..excess);
    }

    /// Ends what earlier tasks left; returns how many processes, or nothing when
    /// a task runs.
    pub(super) async fn end(&self, scope: &Scope) -> Option<usize> {
        let _idle = self.running.try_lock().ok()?;
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        scope.block(move || process::sweep_all(marks.iter())).await
    }
}

/// How the wait for the CLI ended.
enum Ended {
    Itself(std::io::Result<ExitStatus>),
    Timeout,
    Cancelled,
    Stopping,
}

/// Runs tasks until the service stops.
pub(super) async fn run_tasks(shared: Arc<Shared>) {
    loop {
        let turn = tokio::select! {
            // Looked at first: what waits when the service ends must not begin.
            biased;
            () = shared.scope.stopping() => return,
            turn = shared.tasks.next(now) => turn,
        };
        let id = turn.id;
        let _running = shared.leftovers.running.lock().await;
        let began = Instant::now();
        AgentEvent::Started { id }.emit(&shared.metrics);
        let outcome = run_task(&shared, turn).await.unwrap_or_else(Outcome::Failed);
        let duration = began.elapsed();
        AgentEvent::Finished { id, outcome, duration }.emit(&shared.metrics);
        let forgotten = shared.tasks.finish(id, outcome, now());
        shared.store.keep(&shared.tasks, id).await;
        shared.store.forget(&shared.tasks, forgotten).await;
    }
}

async fn run_task(shared: &Arc<Shared>, turn: Turn) -> Result<Outcome, Failure> {
    let Turn { id, request, cancel } = turn;
    // First of all: a service that dies from here on must not run it again.
    shared.store.keep(&shared.tasks, id).await;
    let secrets_dir = shared.settings.secrets_dir.clone();
    let read = shared.scope.block(move || Secrets::read(&secrets_dir)).await;
    let secrets = match read {
        Some(Ok(secrets)) => Arc::new(secrets),
        Some(Err(error)) => {
            tracing::error!(error = %crate::service::logs::Chain(&error), "cannot read secrets");
            return Err(Failure::Secrets);
        }
        None => return Ok(Outcome::Interrupted),
    };
    let written = shared.tasks.look(id, |task| task.written.clone()).ok_or(Failure::Output)?;
    let path = output::path(&shared.settings.output_dir(), id);
    let writer = OutputWriter::create(&path, written).await.map_err(|_| Failure::Output)?;

    let mut group = match Group::spawn(&mut command(shared, id, &request, &secrets)) {
        Ok(group) => group,
        Err(error) => {
            let reason = format!("cannot start {}: {error}", shared.settings.claude.display());
            shared.tasks.update(id, |task| task.stderr = vec![reason]);
            return Err(Failure::CliMissing);
        }
    };
    let has_key = secrets.hold_a_key();
    let mark = group.mark();
    shared.leftovers.add(mark.clone());
    let feeding = group.stdin().map(|stdin| shared.scope.spawn(feed(stdin, request.prompt)));
    let reading = [
        group.stdout().map(|stdout| {
            let (shared, secrets) = (shared.clone(), secrets.clone());
            shared.clone().scope.spawn(read_stdout(shared, id, stdout, writer, secrets))
        }),
        group.stderr().map(|stderr| {
            let shared = shared.clone();
            shared.clone().scope.spawn(read_stderr(shared, id, stderr, secrets))
        }),
    ];

    let ended = tokio::select! {
        status = group.wait() => Ended::Itself(status),
        () = cancel.cancelled() => Ended::Cancelled,
        () = shared.scope.stopping() => Ended::Stopping,
        () = tokio::time::sleep(request.timeout) => Ended::Timeout,
    };
    let (ended_as, status, bound) = match ended {
        Ended::Itself(status) => (None, status, OUTPUT_BOUND),
        Ended::Cancelled => (Some(Outcome::Cancelled), group.end(CANCEL).await, OUTPUT_BOUND_ENDED),
        Ended::Stopping => {
            (Some(Outcome::Interrupted), group.end(SHUTDOWN).await, OUTPUT_BOUND_ENDED)
        }
        Ended::Timeout => {
            let outcome = Outcome::Failed(Failure::Timeout);
            (Some(outcome), group.end(CANCEL).await, OUTPUT_BOUND_ENDED)
        }
    };
    shared.scope.block(move || process::sweep(&mark)).await;
    feeding.inspect(JoinHandle::abort);
    let deadline = Instant::now() + bound;
    for reader in reading.into_iter().flatten() {
        finish(reader, deadline).await;
    }
    let exit = status.as_ref().ok().and_then(|status| exit_of(*status));
    shared.tasks.update(id, |task| task.exit = exit);
    Ok(ended_as.unwrap_or_else(|| judge(shared, id, exit, has_key)))
}

/// The CLI inherits the container's environment without the service's own
/// secrets, and gets the agent's on top.
fn command(shared: &Shared, id: TaskId, request: &TaskRequest, secrets: &Secrets) -> Command {
    let settings = &shared.settings;
    let mut command = Command::new(&settings.claude);
    command
        .args(["-p", "--output-format", "stream-json", "--verbose"])
        .args(["--permission-mode", &settings.permission_mode]);
    if let Some(model) = &request.model {
        command.args(["--model", model]);
    }
    if !request.allowed_tools.is_empty() {
        command.arg("--allowedTools").args(&request.allowed_tools);
    }
    if let Some(session) = &request.resume {
        command.args(["--resume", session]);
    }
    if let Some(turns) = request.max_turns {
        command.args(["--max-turns", &turns.to_string()]);
    }
    command
        .current_dir(&settings.workspace)
        .env_clear()
        .envs(settings.environment.pairs())
        .env_remove(TOKEN_FILE)
        .env_remove("COVIBES_SECRETS_DIR")
        .env("COVIBES_TASK", id.to_string())
        .env("CLAUDE_CONFIG_DIR", settings.claude_dir())
        .envs(secrets.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A large prompt does not fit the pipe at once.
async fn feed(mut stdin: ChildStdin, prompt: String) {
    // A CLI that ends without reading says so by its exit.
    let _ = stdin.write_all(prompt.as_bytes()).await;
    let _ = stdin.shutdown().await;
}

async fn read_stdout(
    shared: Arc<Shared>,
    id: TaskId,
    stdout: ChildStdout,
    mut writer: OutputWriter,
    secrets: Arc<Secrets>,
) {
    let reader = BufReader::with_capacity(64 * 1024, stdout);
    let mut lines = Lines::new(reader, LINE_BYTES_MAX);
    while let Ok(Some(line)) = lines.next().await {
        shared.metrics.output_bytes.inc_by(line.bytes.len() as u64 + line.dropped + 1);
        let line = as_event(&shared, id, &line, &secrets);
        // The CLI must not block on a full disk: what cannot be kept is thrown away.
        let kept = writer.write(&line).await;
        if kept.is_err() || lines.is_drained() {
            let _ = writer.flush().await;
        }
    }
    let _ = writer.flush().await;
}

/// Makes one line of JSON of whatever the CLI printed, without secrets.
fn as_event(shared: &Shared, id: TaskId, line: &Line, secrets: &Secrets) -> String {
    if line.dropped > 0 {
        let bytes = line.bytes.len() as u64 + line.dropped;
        return json!({"type": "covibes.line_too_long", "bytes": bytes}).to_string();
    }
    let text = secrets.redact(String::from_utf8_lossy(&line.bytes).into_owned());
    let mut understood = false;
    shared.tasks.update(id, |task| understood = task.progress.learn(&text));
    if understood { text } else { json!({"type": "covibes.text", "text": text}).to_string() }
}

async fn read_stderr(shared: Arc<Shared>, id: TaskId, stderr: ChildStderr, secrets: Arc<Secrets>) {
    let mut lines = Lines::new(BufReader::new(stderr), STDERR_LINE_BYTES_MAX);
    while let Ok(Some(line)) = lines.next().await {
        let text = secrets.redact(String::from_utf8_lossy(&line.bytes).into_owned());
        shared.tasks.update(id, |task| {
            if task.stderr.len() == STDERR_LINES_MAX {
                task.stderr.remove(0);
            }
            task.stderr.push(text);
        });
    }
}

async fn finish(reader: JoinHandle<()>, deadline: Instant) {
    let abort = reader.abort_handle();
    if tokio::time::timeout_at(deadline, reader).await.is_err() {
        abort.abort();
    }
}

fn exit_of(status: ExitStatus) -> Option<CliExit> {
    status.code().map(CliExit::Code).or_else(|| status.signal().map(CliExit::Signal))
}

/// The CLI's word counts only together with its exit status.
fn judge(shared: &Shared, id: TaskId, exit: Option<CliExit>, has_key: bool) -> Outcome {
    let progress = |task: &Task| {
        let asks = task.progress.last_message.as_ref().is_some_and(|said| said.contains("/login"));
        (task.progress.verdict.clone(), asks)
    };
    let (verdict, asks_for_login) = shared.tasks.look(id, progress).unwrap_or_default();
    if asks_for_login && !has_key && exit != Some(CliExit::Code(0)) {
        return Outcome::Failed(Failure::NoKey);
    }
    let outcome = match (verdict, exit) {
        (Some(Verdict::Error { subtype }), _) => {
            tracing::warn!(task = %id, subtype, "the CLI reported an error");
            Err(Failure::CliError)
        }
        (Some(Verdict::Success), Some(CliExit::Code(0))) => Ok(Outcome::Succeeded),
        (None, Some(CliExit::Code(0))) => Err(Failure::NoResult),
        (Some(Verdict::Success) | None, Some(CliExit::Code(_) | CliExit::Signal(_)) | None) => {
            Err(Failure::CliFailed)
        }
    };
    outcome.unwrap_or_else(Outcome::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::is_gone;

    #[tokio::test]
    async fn leftovers_are_ended_only_while_no_task_runs() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new();
        let mut shell = Command::new("sh");
        let script =
            "setsid sh -c 'echo $$ > stray; exec sleep 600' & while ! [ -s stray ]; do :; done";
        shell.args(["-c", script]).current_dir(dir.path()).stdin(Stdio::null());
        let mut group = Group::spawn(&mut shell).unwrap();
        assert!(group.wait().await.unwrap().success());
        let leftovers = Leftovers::default();
        leftovers.add(group.mark());
        let running = leftovers.running.lock().await;
        assert_eq!(leftovers.end(&scope).await, None);
        drop(running);
        assert!(leftovers.end(&scope).await.is_some_and(|ended| ended > 0));
        is_gone(&dir.path().join("stray")).await;
        assert_eq!(leftovers.end(&scope).await, Some(0));
    }
}
