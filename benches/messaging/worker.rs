//! The real worker, as a process of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use covibes::adapters::rabbitmq::Names;
use covibes::adapters::rabbitmq::topology::Topology;
use covibes::domain::ids::HostId;
use tokio::process::{Child, Command};

use crate::docker::Docker;
use crate::load::{address, connection, team};

const HOST: &str = "bench";

/// A start may first set the host's firewall rules.
const READY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Worker {
    child: Child,
    dir: tempfile::TempDir,
}

impl Worker {
    /// Starts it and waits until it takes jobs.
    pub(crate) async fn start(prefix: &str, docker: &Docker) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(env!("CARGO_BIN_EXE_covibes"))
            .arg("worker")
            .env("COVIBES_HOST_ID", HOST)
            .env("COVIBES_HOST_INSTANCE", "bench")
            .env("COVIBES_AMQP_PREFIX", prefix)
            .env("COVIBES_AMQP_URL", address())
            .env("COVIBES_HTTP_LISTEN", format!("127.0.0.1:{port}"))
            .env("COVIBES_DOCKER_SOCKET", docker.socket())
            .env("COVIBES_PATHS_DATA", path("data"))
            .env("COVIBES_PATHS_STATE", path("state"))
            .env("COVIBES_PATHS_SECRETS", path("secrets"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let mut worker = Self { child, dir };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err()
            || !worker.log().contains("session with the broker begins")
        {
            if worker.child.try_wait()?.is_some() || began.elapsed() > READY_MAX {
                bail!("the worker does not begin: {}", worker.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(worker)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The end of its log, for what went wrong.
    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The most memory it ever had.
    pub(crate) fn peak_megabytes(&self) -> anyhow::Result<f64> {
        let pid = self.child.id().context("the worker lives")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kilobytes.context("the kernel tells VmHWM")?.parse::<f64>()? / 1000.0)
    }

    /// Ends it; what it declared stays.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        tokio::time::timeout(READY_MAX, self.child.wait()).await.context("it does not end")??;
        Ok(())
    }

    /// Ends it and removes what it declared.
    pub(crate) async fn stop(self, names: &Names) -> anyhow::Result<()> {
        self.end().await?;
        remove(names).await
    }
}

pub(crate) fn topology(names: &Names) -> anyhow::Result<Topology> {
    Ok(Topology::new(names, Some(&HostId::parse(HOST)?)))
}

/// Places teams on the host, as their starts did: the dispatcher itself answers a
/// stop of a team that is nowhere.
pub(crate) async fn place(names: &Names, teams: usize) -> anyhow::Result<()> {
    let connection = connection().await?;
    let channel = connection.create_channel().await?;
    let mailbox = topology(names)?.queues.pop().context("the mailbox is declared")?.name;
    for team in (0..teams).map(team) {
        let (queue, exchange) = (mailbox.as_str().into(), names.route().into());
        let (options, arguments) = Default::default();
        channel.queue_bind(queue, exchange, team.into(), options, arguments).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Removes everything below the prefix.
pub(crate) async fn remove(names: &Names) -> anyhow::Result<()> {
    let connection = connection().await?;
    let channel = connection.create_channel().await?;
    let topology = topology(names)?;
    for queue in topology.queues {
        channel.queue_delete(queue.name.into(), Default::default()).await?;
    }
    for exchange in topology.exchanges {
        channel.exchange_delete(exchange.name.into(), Default::default()).await?;
    }
    let _ = connection.close(200, "done".into()).await;
    Ok(())
}
