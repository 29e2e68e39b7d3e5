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
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::board::{Board, Exit};
use super::mirror;
use super::settings::RunSettings;
use super::system;
use super::watching::{RAN_OUT, Watching};
use crate::service::Scope;
use crate::service::lines::{Cutter, Line};
use crate::service::mirror::MirrorState;
use crate::service::process::{self, Group, Ladder};
use crate::service::watch::{COALESCE, Watch, WatchOptions, next_changes};

/// A dev server that has not closed its files within this will not.
const STOP: &Ladder = &[(Signal::TERM, Duration::from_secs(5))];

/// After this many ends in a row nobody tries again until a file changes: the
/// same files end the same way.
const CRASHES_MAX: u32 = 5;

/// A server that lived this long does not crash in a loop.
const LASTING: Duration = Duration::from_secs(60);

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
    if let Some(copy) = settings.mirror.clone() {
        let (state, mut told) = watch::channel(MirrorState::Starting);
        let following = mirror::follow(scope.clone(), settings.clone(), copy, board.clone(), state);
        scope.spawn(following);
        if mirror::first_copy(&scope, &board, &mut told).await.is_none() {
            return;
        }
    }
    let mut watching = {
        let (dir, force) = (settings.dir.clone(), settings.force_polling);
        let looked = scope.block(move || Watching::of(&dir, force)).await;
        looked.unwrap_or(Watching::Inotify)
    };
    let mut crashes = 0;
    loop {
        board.watches_by(watching.clone());
        let began = Instant::now();
        let exit = match run_once(&scope, &settings, &board, &watching).await {
            Ended::OnPurpose => return,
            Ended::OutOfWatches => {
                tracing::warn!("{RAN_OUT}; the dev server is started again and polls");
                watching = Watching::Polling { reason: RAN_OUT.to_owned() };
                continue;
            }
            Ended::By(exit) => exit,
        };
        tracing::warn!(exit = ?exit, "the dev server ended; a changed file starts it again");
        crashes = if began.elapsed() >= LASTING { 1 } else { crashes + 1 };
        board.failed(exit);
        let rest = async {
            if crashes >= CRASHES_MAX {
                tracing::warn!(crashes, "only a changed file starts the dev server again");
                board.gave_up();
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(settings.retry_pause).await;
        };
        tokio::select! {
            () = scope.stopping() => return,
            () = changed(&scope, &settings) => {
                tracing::info!("a file changed: starting the dev server again");
                crashes = 0;
            }
            () = rest => tracing::info!("it rested: starting the dev server again"),
        }
    }
}

/// How a run of the server ended.
enum Ended {
    /// The supervisor is to end.
    OnPurpose,
    /// It said that it has no watches left, and was ended for it.
    OutOfWatches,
    /// By itself.
    By(Exit),
}

/// Runs the server once.
async fn run_once(
    scope: &Scope,
    settings: &RunSettings,
    board: &Arc<Board>,
    watching: &Watching,
) -> Ended {
    let mut command = Command::new(&settings.program);
    // What the project says for itself counts more.
    let switches = watching.variables().iter().filter(|(name, _)| !system::has_variable(name));
    command.envs(switches.copied());
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
            return Ended::By(Exit::NotStarted(format!("cannot start it: {error}")));
        }
    };
    board.started(group.id());
    let mark = group.mark();
    let outputs = [
        group.stdout().map(|out| scope.spawn(pass_on(out, tokio::io::stdout(), board.clone()))),
        group.stderr().map(|err| scope.spawn(pass_on(err, tokio::io::stderr(), board.clone()))),
    ];
    // Asked once: a server that polls and still says so would never come up.
    let out_of_watches = async {
        board.out_of_watches().await;
        if watching.is_polling() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = group.wait() => {
            Ended::By(ended.map_or_else(|error| Exit::NotStarted(error.to_string()), Exit::from))
        }
        () = scope.stopping() => {
            let _ = group.end(STOP).await;
            Ended::OnPurpose
        }
        () = out_of_watches => {
            let _ = group.end(STOP).await;
            Ended::OutOfWatches
        }
        () = look(board) => unreachable!("looking has no end"),
    };
    scope.block(move || process::sweep(&mark)).await;
    for output in outputs.into_iter().flatten() {
        finish(output).await;
    }
    match ended {
        // It ended by itself before its last words were read.
        Ended::By(_) if !watching.is_polling() && board.ran_out_of_watches() => Ended::OutOfWatches,
        ended => ended,
    }
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
        coalesce: COALESCE,
        force_polling: settings.force_polling,
    };
    let watch = Watch::start(scope, options).await;
    let mut batches = watch.subscribe();
    if next_changes(&mut batches).await.is_none() {
        // The watch ends before its reader only when the service stops.
        std::future::pending().await
    }
}
