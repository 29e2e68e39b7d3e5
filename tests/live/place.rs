//! A place of a test's own on this machine: an instance, a broker prefix,
//! directories, and the processes it started.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use covibes::adapters::rabbitmq::topology::Topology;
use covibes::adapters::rabbitmq::{Names, RabbitClient};
use covibes::domain::ids::HostId;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};

use crate::docker;
use crate::events::Events;

/// The binary under test.
pub(crate) const COVIBES: &str = env!("CARGO_BIN_EXE_covibes");

/// How long a whole command may take: a first start with images on a busy host.
pub(crate) const COMMAND_MAX: Duration = Duration::from_secs(240);

/// How long any other state may take to be reached.
pub(crate) const STATE_MAX: Duration = Duration::from_secs(60);

/// Between two looks at a state.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits for a state, but not for ever.
pub(crate) async fn until<T>(
    what: &str,
    at_most: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(at_most, looking).await {
        Ok(found) => found,
        Err(_) => panic!("never within {at_most:?}: {what}"),
    }
}

/// Whether the long form was asked for; says so if not.
pub(crate) fn is_full(test: &str) -> bool {
    let full = std::env::var("COVIBES_TEST_FULL").is_ok_and(|v| v == "1");
    if !full {
        eprintln!("{test}: not run, because COVIBES_TEST_FULL is not 1");
    }
    full
}

/// The broker's address.
pub(crate) fn broker_address() -> String {
    std::env::var("COVIBES_AMQP_URL")
        .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// Everything a test made is found by this place's name.
pub(crate) struct Place {
    pub(crate) instance: String,
    /// A directory that others may read: a copy of it is made by uid 1000.
    pub(crate) dir: PathBuf,
    variables: BTreeMap<String, String>,
    children: Mutex<Vec<std::sync::Arc<Mutex<Child>>>>,
    outputs: AtomicU32,
}

impl Place {
    /// A place on a host that is prepared.
    pub(crate) async fn new() -> Self {
        let place = Self::unprepared();
        place.prepare().await;
        place
    }

    pub(crate) fn unprepared() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("t-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("covibes-{instance}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let variables = [
            ("COVIBES_HOST_INSTANCE", instance.clone()),
            ("COVIBES_HOST_ID", instance.clone()),
            ("COVIBES_AMQP_PREFIX", instance.clone()),
            ("COVIBES_AMQP_URL", broker_address()),
            ("COVIBES_HTTP_LISTEN", format!("127.0.0.1:{port}")),
            // Whoever runs the tests decides how full the disk may be.
            ("COVIBES_CAPACITY_DISK_USED_MAX", "0.99".to_owned()),
        ];
        let variables = variables.into_iter().chain(crate::policy::variables());
        let variables = variables.map(|(k, v)| (k.to_owned(), v)).collect();
        let (children, outputs) = (Mutex::default(), AtomicU32::new(0));
        Self { instance, dir, variables, children, outputs }
    }

    /// Sets a variable for every command that is started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// The worker's HTTP.
    pub(crate) fn http(&self) -> std::net::SocketAddr {
        self.variables["COVIBES_HTTP_LISTEN"].parse().unwrap()
    }

    /// Where this instance's workspaces, caches and worktrees are.
    pub(crate) fn data(&self) -> PathBuf {
        Path::new("/var/covibes/instances").join(&self.instance)
    }

    /// A client of the real broker, below this place's prefix.
    pub(crate) fn client(&self) -> RabbitClient {
        let names =
            Names::new(&self.variables["COVIBES_AMQP_PREFIX"]).expect("the prefix is valid");
        RabbitClient::new(&broker_address(), names).expect("the address is valid")
    }

    /// Images, proxy and rules, once per process and by one process at a time:
    /// two that build the same image would take twice as long.
    async fn prepare(&self) {
        static DONE: OnceLock<tokio::sync::Mutex<bool>> = OnceLock::new();
        let mut done = DONE.get_or_init(Default::default).lock().await;
        if *done {
            return;
        }
        let lock = File::create(std::env::temp_dir().join("covibes-live-prepare.lock")).unwrap();
        until("the host is free to be prepared", COMMAND_MAX, async || {
            let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            rustix::fs::flock(&lock, how).ok()
        })
        .await;
        sweep();
        let ended = self.run(&["host", "prepare"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        *done = true;
    }

    /// Starts a command; it ends with this place at the latest.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.start_program(Path::new(COVIBES), arguments)
    }

    /// Starts any program, with the same variables and the same end.
    pub(crate) fn start_program(&self, program: &Path, arguments: &[&str]) -> Process {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let out = self.dir.join(format!(".out-{number}"));
        let err = self.dir.join(format!(".err-{number}"));
        let child = Command::new(program)
            .args(arguments)
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let child = std::sync::Arc::new(Mutex::new(child));
        self.children.lock().unwrap().push(std::sync::Arc::clone(&child));
        Process { child, out, err }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end().await
    }

    /// Runs a command that prints events, and holds that it ended well.
    pub(crate) async fn done(&self, arguments: &[&str]) -> Events {
        let ended = self.run(arguments).await;
        let events = ended.events();
        let last = events.0.last();
        assert_eq!(ended.code, Some(0), "{arguments:?}: {:?} {last:?}", events.kinds());
        events
    }

    /// A directory of the user's, with mode 755, below which nothing is mounted.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A copy of one of the example projects.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        copy_tree(&from, &path);
        path
    }

    /// Puts files where a `local` job finds them as the team's workspace.
    pub(crate) fn workspace(&self, team: &str, from: &Path) -> PathBuf {
        let path = self.data().join("workspaces").join(team);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        copy_tree(from, &path);
        path
    }

    /// Whether nothing of a team is left in Docker.
    pub(crate) async fn is_gone(&self, team: &str) -> bool {
        docker::of_team(&self.instance, team).await.is_empty()
    }

    /// Holds that nothing of a team is left: by label, by directory, by mount.
    pub(crate) async fn assert_gone(&self, team: &str) {
        let left = docker::of_team(&self.instance, team).await;
        assert_eq!(left, docker::Things::default(), "{team} left something in Docker");
        self.assert_no_mounts();
        for kind in ["workspaces", "worktrees", "cache"] {
            let path = self.data().join(kind).join(team);
            assert!(!path.exists(), "{} is left", path.display());
        }
        let marker = self.data().join("workspaces/.covibes").join(team);
        assert!(!marker.exists(), "the marker {} is left", marker.display());
    }

    pub(crate) fn assert_no_mounts(&self) {
        let mounts = mounts_below(&self.data());
        assert_eq!(mounts, [""; 0], "mounts are left");
    }

    /// Ends what this test started, then removes what it made.
    fn clear(&self) {
        for child in self.children.lock().unwrap().drain(..) {
            let mut child = child.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_instance(&self.instance);
        // Another place's part of the broker, if this is a host beside it.
        let names = self.variables.get("COVIBES_AMQP_PREFIX").and_then(|raw| Names::new(raw));
        if let (Some(names), Ok(host)) = (names, HostId::parse(&self.instance)) {
            clear_broker(names, host);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_errors();
        }
        if std::env::var_os("COVIBES_TEST_KEEP").is_none() {
            self.clear();
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

impl Place {
    /// What the processes of a failed test said last.
    fn show_errors(&self) {
        for number in 0..self.outputs.load(Ordering::Relaxed) {
            let path = self.dir.join(format!(".err-{number}"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(40).collect();
            for line in lines.into_iter().rev() {
                eprintln!("[{} {number}] {line}", self.instance);
            }
        }
    }
}

/// A command that runs, or ran.
pub(crate) struct Process {
    child: std::sync::Arc<Mutex<Child>>,
    out: PathBuf,
    err: PathBuf,
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn events(&self) -> Events {
        Events::read(&self.stdout)
    }
}

impl Process {
    fn status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status().is_none()
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    pub(crate) async fn end(self) -> Ended {
        let status = until("the command ends", COMMAND_MAX, async || self.status()).await;
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.lock().unwrap().id()).unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// A port of this machine that nothing listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    // Modes and links as they are; owners are the test's to set.
    let mut copy = Command::new("cp");
    copy.args(["-r", "--no-dereference", "--preserve=mode", "--"]);
    let status = copy.arg(from).arg(to).status().unwrap();
    assert!(status.success(), "copying {} failed", from.display());
}

pub(crate) fn mounts_below(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|mount| Path::new(mount).starts_with(path))
        .map(str::to_owned)
        .collect();
    found.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
    found
}

/// Removes an instance by its label and its directories. Never panics: it runs
/// while a test fails.
fn remove_instance(instance: &str) {
    docker::remove_instance(instance);
    // What it allowed on the host ends with it.
    let policy = format!("/var/covibes/host/egress/policies/{instance}.txt");
    let _ = std::fs::remove_file(policy);
    for parent in ["/var/covibes/instances", "/var/lib/covibes/instances"] {
        let path = Path::new(parent).join(instance);
        for mount in mounts_below(&path) {
            let _ = Command::new("umount").arg("--").arg(mount).status();
        }
        let _ = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(path).status();
    }
}

/// Removes what tests left that were ended before they could: instances that
/// carry the id of a process that is gone.
fn sweep() {
    let names = ["/var/covibes/instances", "/var/lib/covibes/instances"]
        .into_iter()
        .filter_map(|parent| std::fs::read_dir(parent).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: std::collections::BTreeSet<String> = names.collect();
    names.extend(docker::instances());
    for name in names {
        let mut parts = name.split('-');
        let is_ours = parts.next() == Some("t");
        let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        if let (true, Some(pid)) = (is_ours, pid)
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            eprintln!("removing what {name} left");
            remove_instance(&name);
        }
    }
}

/// Removes every exchange and queue below a prefix, on a thread of its own: the
/// test's runtime may be the one that is unwinding.
fn clear_broker(names: Names, host: HostId) {
    let cleared = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(&broker_address(), properties).await.ok()?;
            let topology = Topology::new(&names, Some(&host));
            for queue in topology.queues {
                let channel = connection.create_channel().await.ok()?;
                let options = QueueDeleteOptions::default();
                let _ = channel.queue_delete(queue.name.into(), options).await;
            }
            for exchange in topology.exchanges {
                let channel = connection.create_channel().await.ok()?;
                let options = ExchangeDeleteOptions::default();
                let _ = channel.exchange_delete(exchange.name.into(), options).await;
            }
            connection.close(200, "done".into()).await.ok()
        })
    });
    let _ = cleared.join();
}
