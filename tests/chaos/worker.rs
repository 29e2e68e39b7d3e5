//! Workers: the real binary, several processes, each with a Docker, a way to the
//! broker and directories of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use crate::apart;
use crate::daemon::Daemon;
use crate::engine::FakeEngine;
pub(crate) use crate::engine::Thing;
use crate::relay::Relay;
use crate::wait::until;

/// The binary under test.
const COVIBES: &str = env!("CARGO_BIN_EXE_covibes");

/// A host with its worker.
pub(crate) struct Worker {
    pub(crate) host: String,
    pub(crate) engine: Arc<FakeEngine>,
    /// Stands in the place of `engine` where containers really start.
    daemon: Mutex<Option<Arc<Daemon>>>,
    pub(crate) relay: Relay,
    dir: PathBuf,
    variables: Mutex<BTreeMap<String, String>>,
    child: Mutex<Option<Child>>,
}

impl Worker {
    /// A host whose worker is not started yet.
    pub(crate) async fn new(
        dir: &Path,
        host: &str,
        prefix: &str,
        broker: u16,
        engine: Arc<FakeEngine>,
    ) -> Self {
        let dir = dir.join(host);
        let path = |name: &str| dir.join(name).into_os_string().into_string().unwrap();
        std::fs::create_dir_all(dir.join("binaries")).unwrap();
        std::fs::create_dir_all(dir.join("secrets")).unwrap();
        std::fs::write(dir.join("none"), "").unwrap();
        for name in ["covibes-agent", "covibes-sync", "covibes-preview"] {
            // Only their digests are needed: no image is ever built from them.
            std::fs::write(dir.join("binaries").join(name), name).unwrap();
        }
        engine.listen(&dir.join("docker.sock"));
        let relay = Relay::start(broker).await;
        let http = free_port();
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", relay.port);
        let variables = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())),
            ("COVIBES_HOST_ID", host.to_owned()),
            ("COVIBES_AMQP_PREFIX", prefix.to_owned()),
            ("COVIBES_AMQP_URL", url),
            ("COVIBES_HTTP_LISTEN", format!("127.0.0.1:{http}")),
            ("COVIBES_DOCKER_SOCKET", path("docker.sock")),
            ("COVIBES_PATHS_DATA", path("data")),
            ("COVIBES_PATHS_STATE", path("state")),
            ("COVIBES_PATHS_SECRETS", path("secrets")),
            ("COVIBES_IMAGES_BINARIES", path("binaries")),
            ("COVIBES_IMAGES_CA_BUNDLE", path("none")),
            // Room is not what is tested, and the machine may be small and full.
            ("COVIBES_CAPACITY_DISK_USED_MAX", "1.0".to_owned()),
            ("COVIBES_CAPACITY_TEAMS_MAX", "100000".to_owned()),
            ("COVIBES_CAPACITY_MEMORY_OVERCOMMIT", "1000.0".to_owned()),
            ("COVIBES_CAPACITY_CPU_OVERCOMMIT", "1000.0".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        let (variables, child) = (Mutex::new(variables), Mutex::default());
        let daemon = Mutex::default();
        Self { host: host.to_owned(), engine, daemon, relay, dir, variables, child }
    }

    /// Gives the host a real daemon, from the next start on.
    pub(crate) fn use_daemon(&self, daemon: &Arc<Daemon>) {
        self.set("COVIBES_DOCKER_SOCKET", daemon.socket().to_str().unwrap());
        *self.daemon.lock().unwrap() = Some(Arc::clone(daemon));
    }

    /// All that belongs to teams on this host.
    pub(crate) async fn things(&self) -> Vec<Thing> {
        let daemon = self.daemon.lock().unwrap().clone();
        match daemon {
            Some(daemon) => daemon.things().await,
            None => self.engine.state().things(),
        }
    }

    /// Sets a variable for the next start.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.variables.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    /// Where workspaces and caches are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Makes the workspace that jobs with `local` find.
    pub(crate) fn make_workspace(&self, team: &str) {
        let path = self.dir.join("data/workspaces").join(team);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("index.html"), "<h1>served</h1>").unwrap();
        // Containers write as this user.
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    }

    /// The workspaces that are left of teams.
    pub(crate) fn workspaces(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("data/workspaces"));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        let is_team = |name: &String| !name.starts_with('.');
        names
            .filter(is_team)
            .map(|name| format!("{}: the workspace of {name} is left", self.host))
            .collect()
    }

    /// Starts the process; does not wait for it.
    pub(crate) fn start(&self) {
        let mut command = apart::command(COVIBES, &self.dir.join("output"));
        command.arg("worker").env_clear().envs(&*self.variables.lock().unwrap());
        *self.child.lock().unwrap() = Some(command.spawn().unwrap());
    }

    fn port(&self) -> u16 {
        let address = self.variables.lock().unwrap()["COVIBES_HTTP_LISTEN"].clone();
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Waits until it takes jobs.
    pub(crate) async fn until_ready(&self) {
        until(&format!("{} is ready", self.host), async || {
            if let Some(status) = self.ended() {
                panic!("{} ended by itself with {status}: {}", self.host, self.last_words());
            }
            (crate::http::get(self.port(), "/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// Whether it knows that the broker takes nothing.
    pub(crate) async fn is_blocked(&self) -> bool {
        let metrics = crate::http::get(self.port(), "/metrics").await;
        metrics.is_some_and(|(_, text)| text.lines().any(|l| l == "covibes_broker_blocked 1"))
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().as_mut()?.try_wait().unwrap()
    }

    /// Ends the process as a crash does, and waits until it is gone. One that
    /// has not been started is gone already.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Ends the process as `abort` does, and waits until it is gone.
    pub(crate) fn abort(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::ABORT).unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to end, as a service manager does, and waits for it.
    pub(crate) async fn terminate(&self) -> ExitStatus {
        let pid = self.child.lock().unwrap().as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        until(&format!("{} drains and ends", self.host), async || self.ended()).await
    }

    /// The most memory the process has had, in MiB.
    pub(crate) fn memory_peak_mib(&self) -> u64 {
        let child = self.child.lock().unwrap();
        let Some(id) = child.as_ref().map(Child::id) else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    }

    /// All that it printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(self.dir.join("output")).unwrap_or_default()
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = self.printed();
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().map(|line| format!("[{}] {line}\n", self.host)).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody else takes: the run's network is its own, and this lies
/// below those that the kernel gives to connections, which would take a
/// worker's while it restarts.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
