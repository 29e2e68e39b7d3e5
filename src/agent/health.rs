//! The agent's health: what a task needs, looked at before one needs it.
//!
//! Cheap checks are made when asked. The CLI and the proxy are looked at in the
//! background, so that an answer never waits for either, and so is the API.
//! Memory is looked at more often: the CLI is known to leak.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::memory::{Memory, PERCENT_FULL, PERCENT_HIGH};
use super::settings::AgentSettings;
use super::{Shared, reach, system};
use crate::service::health::{Check, Health, Status};
use crate::service::lines::Lines;
use crate::service::process::{Group, Ladder};
use crate::service::proxy::Proxy;

/// The proxy's answer counts this long.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

/// Node needs about a second for `--version` at one CPU, and many at a quarter.
const VERSION_BOUND: Duration = Duration::from_secs(30);

/// The proxy is on this host.
const CONNECT_BOUND: Duration = Duration::from_secs(3);

/// Less room than one task's output.
const FREE_BYTES_LOW: u64 = 64 * 1024 * 1024;
/// No room to note anything.
const FREE_BYTES_NONE: u64 = 8 * 1024 * 1024;

/// A leak takes minutes to fill what is left.
const MEMORY_PAUSE: Duration = Duration::from_secs(5);

const END: &Ladder = &[(Signal::TERM, Duration::from_millis(200))];

/// What the background look found.
#[derive(Debug, Clone)]
struct Finding {
    at: Instant,
    status: Status,
    detail: String,
}

/// Tells one file from its successor: the CLI's version is asked once for each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    facts: (u64, u64, i64, i64),
}

#[derive(Debug, Default)]
struct Findings {
    cli: Option<Finding>,
    known_cli: Option<Identity>,
    proxy: Option<Finding>,
    api: Option<Finding>,
}

/// Keeps what was found.
#[derive(Debug)]
pub(super) struct Monitor {
    began: Instant,
    findings: Mutex<Findings>,
}

impl Monitor {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), findings: Mutex::default() }
    }

    /// Sums up; touches no network and starts no program.
    pub(super) fn health(&self, settings: &AgentSettings) -> Health {
        let findings = self.findings();
        let checks = vec![
            Check::fresh("process", Status::Ok, format!("up {} s", self.began.elapsed().as_secs())),
            disk(&settings.temp_dir),
            workspace(&settings.workspace),
            found("cli", findings.cli.as_ref()),
            found("proxy", findings.proxy.as_ref()),
            found("api", findings.api.as_ref()),
            memory(Memory::read(&settings.cgroup_dir)),
        ];
        Health::of("covibes-agent", checks)
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the CLI and the proxy again and again.
pub(super) async fn watch(shared: Arc<Shared>) {
    let stopping = shared.scope.stopping();
    let look = async {
        loop {
            let (cli, proxy, api) = tokio::join!(
                look_at_cli(&shared),
                look_at_proxy(shared.settings.proxy.as_ref()),
                look_at_api(&shared.settings)
            );
            {
                let mut findings = shared.monitor.findings();
                findings.cli = cli.or(findings.cli.take());
                findings.proxy = Some(proxy);
                findings.api = Some(api);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::select! {
        () = stopping => {}
        () = look => {}
    }
}

/// Ends what earlier tasks left running when memory is nearly used up.
pub(super) async fn watch_memory(shared: Arc<Shared>) {
    let stopping = shared.scope.stopping();
    let look = async {
        loop {
            let memory = Memory::read(&shared.settings.cgroup_dir);
            if memory.is_some_and(|memory| memory.percent() >= PERCENT_FULL)
                && let Some(ended) = shared.leftovers.end(&shared.scope).await
                && ended > 0
            {
                tracing::warn!(ended, "memory was short: processes of earlier tasks were ended");
                shared.metrics.leftovers.inc_by(ended as u64);
            }
            tokio::time::sleep(MEMORY_PAUSE).await;
        }
    };
    tokio::select! {
        () = stopping => {}
        () = look => {}
    }
}

/// Returns nothing when the CLI is still the one that was found well.
async fn look_at_cli(shared: &Shared) -> Option<Finding> {
    let settings = &shared.settings;
    let finding = |status, detail| Some(Finding { at: Instant::now(), status, detail });
    let Some(path) = settings.environment.find_program(&settings.claude) else {
        return finding(Status::Failed, format!("{} is not installed", settings.claude.display()));
    };
    let identity = identify(&path).ok();
    {
        let mut findings = shared.monitor.findings();
        let known = findings.known_cli.is_some() && findings.known_cli == identity;
        if let Some(cli) = findings.cli.as_mut().filter(|cli| known && cli.status == Status::Ok) {
            cli.at = Instant::now();
            return None;
        }
    }
    match version(&path).await {
        Ok(version) => {
            shared.monitor.findings().known_cli = identity;
            finding(Status::Ok, version)
        }
        Err(error) => finding(Status::Failed, format!("claude --version failed: {error}")),
    }
}

fn identify(path: &Path) -> io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    let facts = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    Ok(Identity { path: path.to_owned(), facts })
}

async fn version(path: &Path) -> io::Result<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = Group::spawn(&mut command)?;
    let output = group.stdout().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut lines = Lines::new(BufReader::new(output), 200);
    let asked = async {
        let first = lines.next().await?;
        while lines.next().await?.is_some() {}
        io::Result::Ok((first, group.wait().await?))
    };
    let answered = tokio::time::timeout(VERSION_BOUND, asked).await;
    match answered {
        Ok(Ok((Some(line), status))) if status.success() => {
            Ok(String::from_utf8_lossy(&line.bytes).into_owned())
        }
        Ok(Ok((_, status))) => Err(io::Error::other(status.to_string())),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            group.end(END).await?;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

async fn look_at_proxy(proxy: Option<&Proxy>) -> Finding {
    let (status, detail) = match proxy {
        None => (Status::Ok, "none configured".to_owned()),
        Some(Proxy { host, port, .. }) => {
            let connected = TcpStream::connect((host.as_str(), *port));
            match tokio::time::timeout(CONNECT_BOUND, connected).await {
                Ok(Ok(_)) => (Status::Ok, format!("{host}:{port} answers")),
                Ok(Err(error)) => (Status::Degraded, format!("{host}:{port}: {}", error.kind())),
                Err(_) => (Status::Degraded, format!("{host}:{port}: no answer")),
            }
        }
    };
    Finding { at: Instant::now(), status, detail }
}

async fn look_at_api(settings: &AgentSettings) -> Finding {
    let api = &settings.api;
    let (status, detail) = match reach::try_api(api, settings.proxy.as_ref()).await {
        Ok(()) => (Status::Ok, format!("{}:{} is reached", api.host, api.port)),
        // Degraded, not failed: an agent that cannot think can still be asked why.
        Err(why) => (Status::Degraded, format!("{}:{}: {why}", api.host, api.port)),
    };
    Finding { at: Instant::now(), status, detail }
}

fn memory(memory: Option<Memory>) -> Check {
    let Some(memory) = memory else {
        return Check::fresh("memory", Status::Ok, "no limit is known");
    };
    let high = memory.percent() >= PERCENT_HIGH;
    let status = if high { Status::Degraded } else { Status::Ok };
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    let (used, limit) = (mebibytes(memory.used), mebibytes(memory.limit));
    Check::fresh("memory", status, format!("{used} of {limit} MiB, {} %", memory.percent()))
}

fn found(name: &'static str, finding: Option<&Finding>) -> Check {
    match finding {
        None => Check::fresh(name, Status::Degraded, "not looked at yet"),
        Some(Finding { at, status, detail }) => Check {
            name,
            status: *status,
            age_seconds: at.elapsed().as_secs_f64(),
            detail: detail.clone(),
        },
    }
}

fn disk(dir: &Path) -> Check {
    let (status, detail) = match system::free_bytes(dir) {
        Ok(free) => {
            let status = match free {
                0..FREE_BYTES_NONE => Status::Failed,
                FREE_BYTES_NONE..FREE_BYTES_LOW => Status::Degraded,
                FREE_BYTES_LOW.. => Status::Ok,
            };
            (status, format!("{} MiB free in {}", free / 1024 / 1024, dir.display()))
        }
        Err(error) => (Status::Failed, format!("{}: {}", dir.display(), error.kind())),
    };
    Check::fresh("disk", status, detail)
}

fn workspace(dir: &Path) -> Check {
    let (status, detail) = match system::check_writable(dir) {
        Ok(()) => (Status::Ok, format!("{} is writable", dir.display())),
        Err(error) => (Status::Failed, format!("{}: {}", dir.display(), error.kind())),
    };
    Check::fresh("workspace", status, detail)
}
