//! The worker as a process: its memory at rest, the size of its program, and
//! a job that changes nothing when it comes through RabbitMQ.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use covibes::adapters::rabbitmq::Names;
use covibes::adapters::rabbitmq::topology::Topology;
use covibes::domain::ids::HostId;
use covibes::domain::limits::CONTAINER_UID;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use tokio::process::{Child, Command};

/// The goals, in MiB.
const RESIDENT_MAX: f64 = 40.0;
const PROGRAM_MAX: f64 = 25.0;

/// How long a worker has nothing to do before its memory is read: its loops
/// over gauges and heartbeats have run by then.
const REST: Duration = Duration::from_secs(15);

/// Jobs that change nothing.
const UNCHANGED: usize = 10;

/// Measures and prints.
pub(crate) async fn measure(program: &Path, scratch: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(program)?.len();
    let place = Place::new(program, scratch)?;
    let measured = place.measure().await;
    place.clear().await?;
    let Measured { at_rest, after_work, unchanged } = measured?;
    println!("\n| what | measured | goal | |\n|---|---:|---:|---|");
    let row = |what: &str, measured: f64, max: f64| {
        let verdict = if measured <= max { "met" } else { "**not met**" };
        println!("| {what} | {measured:.1} MiB | ≤ {max} MB | {verdict} |");
    };
    row("worker at rest, resident", at_rest, RESIDENT_MAX);
    row("worker after a team and its jobs, resident", after_work, RESIDENT_MAX);
    row("release binary `covibes`", bytes as f64 / f64::from(1 << 20), PROGRAM_MAX);
    println!("| nothing changed, through RabbitMQ, median of the jobs | {unchanged} ms | | |");
    Ok(())
}

struct Measured {
    at_rest: f64,
    after_work: f64,
    unchanged: u64,
}

/// Names and directories of a worker's own.
struct Place {
    program: PathBuf,
    environment: Vec<(String, String)>,
    data: PathBuf,
    prefix: String,
    host: String,
    http: u16,
}

impl Place {
    fn new(program: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let instance = format!("benchw{}", std::process::id() % 100_000);
        let http = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let prefix = format!("covibes-{instance}");
        let environment = [
            ("COVIBES_HOST_INSTANCE", instance.as_str()),
            ("COVIBES_HOST_ID", instance.as_str()),
            ("COVIBES_AMQP_PREFIX", &prefix),
            ("COVIBES_HTTP_LISTEN", &format!("127.0.0.1:{http}")),
            ("COVIBES_PATHS_STATE", &scratch.join("state").display().to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let configuration = covibes::app::configuration::load(
            None,
            std::env::vars().chain(environment.iter().cloned()),
        )?;
        Ok(Self {
            program: program.to_owned(),
            environment: environment.to_vec(),
            data: configuration.settings.data_dir,
            prefix,
            host: instance,
            http,
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command.kill_on_drop(true);
        command
    }

    async fn measure(&self) -> anyhow::Result<Measured> {
        let workspace = self.data.join("workspaces/rest");
        std::fs::create_dir_all(&workspace)?;
        std::fs::write(workspace.join("index.html"), "<!doctype html><title>rest</title>\n")?;
        for path in [&workspace, &workspace.join("index.html")] {
            chown(path, Some(CONTAINER_UID), Some(CONTAINER_UID))?;
        }
        let log = std::fs::File::create(self.data.join("worker.log"))?;
        let mut worker = self.command(&["worker"]).stderr(log.try_clone()?).stdout(log).spawn()?;
        let result = self.with_worker(&worker).await;
        let pid = worker.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        worker.wait().await?;
        if result.is_err() {
            eprintln!("{}", std::fs::read_to_string(self.data.join("worker.log"))?);
        }
        result
    }

    async fn with_worker(&self, worker: &Child) -> anyhow::Result<Measured> {
        let pid = worker.id().context("the worker ended")?;
        let end = Instant::now() + Duration::from_secs(30);
        while !self.is_ready().await {
            anyhow::ensure!(Instant::now() < end, "the worker is not ready after 30 s");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(REST).await;
        let at_rest = resident(pid)?;
        let start = ["start", "--local", "--preview", "main", "--preview", "second"];
        self.submit(&start).await?;
        let mut unchanged = Vec::new();
        for _ in 0..UNCHANGED {
            unchanged.push(self.submit(&start).await?);
        }
        unchanged.sort_unstable();
        self.submit(&["destroy"]).await?;
        tokio::time::sleep(REST).await;
        let after_work = resident(pid)?;
        Ok(Measured { at_rest, after_work, unchanged: unchanged[UNCHANGED / 2] })
    }

    async fn is_ready(&self) -> bool {
        use covibes::ports::probe::{Probe, ProbeAnswer};
        let address = ([127, 0, 0, 1], self.http).into();
        let probe = covibes::adapters::probe::HttpProbe;
        let answer = probe.http(address, "localhost", "/readyz", Duration::from_secs(2)).await;
        matches!(answer, ProbeAnswer::Http { status: 200, .. })
    }

    /// Submits a job, follows it to its end and gives the worker's own figure
    /// for it, in milliseconds.
    async fn submit(&self, words: &[&str]) -> anyhow::Result<u64> {
        let mut command = self.command(&["submit", words[0], "--team", "rest"]);
        let output = command.args(&words[1..]).args(["--follow", "--json"]).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last: serde_json::Value = text
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|event: &serde_json::Value| event["type"] == "covibes.job.succeeded")
            .with_context(|| {
                format!("no success: {text}{}", String::from_utf8_lossy(&output.stderr))
            })?;
        last["data"]["duration_ms"].as_u64().context("a success without a duration")
    }

    /// Removes everything of this worker's from the broker and the disk.
    async fn clear(&self) -> anyhow::Result<()> {
        let names = Names::new(&self.prefix).context("the prefix is not a name")?;
        let host = HostId::parse(&self.host)?;
        let address = std::env::var("COVIBES_AMQP_URL")
            .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
        let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let topology = Topology::new(&names, Some(&host));
        for queue in topology.queues {
            channel.queue_delete(queue.name.into(), QueueDeleteOptions::default()).await?;
        }
        for exchange in topology.exchanges {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange.name.into(), options).await?;
        }
        std::fs::remove_dir_all(&self.data).context("removing the worker's directory")?;
        Ok(())
    }
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kilobytes.parse::<f64>()? / 1024.0)
}
