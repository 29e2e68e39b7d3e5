//! Runs the dev server, again and again.
//!
//! After a failure a changed file starts it at once: a person who fixes a typo
//! should not wait. Files are watched only while the server is down, since every
//! watch counts against one budget for all teams of a host.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::board::{Board, Exit};
use super::settings::RunSettings;
use crate::service::Scope;
use crate::service::lines::{Cutter, Line};
use crate::service::process::{self, Group, Ladder};
use crate::service::watch::{Watch, WatchOptions, next_changes};

/// A dev server that has not closed its files within this will not.
const STOP: &Ladder = &[(Signal::TERM, Duration::from_secs(5))];

/// While starting, soon enough not to add to the time until a page is served.
const LOOK_STARTING: Duration = Duration::from_millis(100);

/// Once running, only `since` depends on it: every question looks by itself.
const LOOK_RUNNING: Duration = Duration::from_secs(5);

/// The pipes are closed when every process is dead; no need to wait for more.
const OUTPUT_BOUND: Duration = Duration::from_millis(500);

/// Longer lines are cut in the log that is kept; the output itself is not.
const LOG_LINE_BYTES_MAX: usize = 2048;

/// Directories that tools write and nobody edits.
const IGNORED: &[&str] = &[
    "node_modules",
    ".git",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".astro",
    ".cache",
    ".turbo",
    ".venv",
    "__pycache__",
    "dist",
    "build",
    "coverage",
    "target",
];

/// Keeps the server running until the scope stops.
pub(super) async fn supervise(scope: Scope, settings: RunSettings, board: Arc<Board>) {
    while let Some(exit) = run_once(&scope, &settings, &board).await {
        tracing::warn!(exit = ?exit, "the dev server ended; a changed file starts it again");
        board.failed(exit);
        let why = tokio::select! {
            () = scope.stopping() => return,
            () = changed(&scope, &settings) => "a file changed",
            () = tokio::time::sleep(settings.retry_pause) => "it rested",
        };
        tracing::info!(why, "starting the dev server again");
    }
}

/// Runs the server once; returns nothing when it was ended on purpose.
async fn run_once(scope: &Scope, settings: &RunSettings, board: &Arc<Board>) -> Option<Exit> {
    let mut command = Command::new(&settings.program);
    command
        .args(&settings.arguments)
        .current_dir(&settings.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = match Group::spawn(&mut command) {
        Ok(group) => group,
        Err(error) => {
            board.started(None);
            return Some(Exit::NotStarted(format!("cannot start it: {error}")));
        }
    };
    board.started(group.id());
    let mark = group.mark();
    let outputs = [
        group.stdout().map(|out| scope.spawn(pass_on(out, tokio::io::stdout(), board.clone()))),
        group.stderr().map(|err| scope.spawn(pass_on(err, tokio::io::stderr(), board.clone()))),
    ];
    let (ended, on_purpose) = tokio::select! {
        ended = group.wait() => (ended, false),
        () = scope.stopping() => (group.end(STOP).await, true),
        () = look(board) => unreachable!("looking has no end"),
    };
    scope.block(move || process::sweep(&mark)).await;
    for output in outputs.into_iter().flatten() {
        finish(output).await;
    }
    let exit = ended.map_or_else(|error| Exit::NotStarted(error.to_string()), Exit::from);
    (!on_purpose).then_some(exit)
}

/// Keeps the board's state fresh while a server lives.
async fn look(board: &Board) {
    loop {
        let pause = if board.observe() { LOOK_RUNNING } else { LOOK_STARTING };
        tokio::time::sleep(pause).await;
    }
}

/// Copies output unchanged and keeps its last lines.
async fn pass_on<R, W>(mut from: R, mut to: W, board: Arc<Board>)
where
    R: AsyncRead + Unpin + Send,
    W: tokio::io::AsyncWrite + Unpin + Send,
{
    let mut cutter = Cutter::new(LOG_LINE_BYTES_MAX);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut chunk = &buffer[..length];
        // A reader of our output that went away must not end the server.
        let _ = to.write_all(chunk).await;
        let _ = to.flush().await;
        while !chunk.is_empty() {
            let (used, line) = cutter.push(chunk);
            chunk = &chunk[used..];
            line.into_iter().for_each(|line| board.log(text(&line)));
        }
    }
    cutter.finish().into_iter().for_each(|line| board.log(text(&line)));
}

fn text(line: &Line) -> String {
    String::from_utf8_lossy(&line.bytes).trim_end_matches('\r').to_owned()
}

async fn finish(output: JoinHandle<()>) {
    let abort = output.abort_handle();
    if tokio::time::timeout(OUTPUT_BOUND, output).await.is_err() {
        abort.abort();
    }
}

/// Resolves at the first change of a file.
async fn changed(scope: &Scope, settings: &RunSettings) {
    let options = WatchOptions {
        root: settings.dir.clone(),
        ignored: IGNORED,
        force_polling: settings.force_polling,
    };
    let watch = Watch::start(scope, options).await;
    let mut batches = watch.subscribe();
    if next_changes(&mut batches).await.is_none() {
        // The watch ends before its reader only when the service stops.
        std::future::pending().await
    }
}
