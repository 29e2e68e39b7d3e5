//! A RabbitMQ node of the run's own, from Debian's package, that may be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::apart;
use crate::wait::until;

/// Debian's programs without its wrappers, which insist on the system's node.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// A node.
pub(crate) struct Broker {
    name: &'static str,
    dir: PathBuf,
    pub(crate) port: u16,
    child: std::sync::Mutex<Option<Child>>,
}

impl Broker {
    /// Starts a node and waits until it answers.
    pub(crate) async fn start(dir: &Path, name: &'static str, port: u16) -> Self {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("plugins"), "[].").unwrap();
        let broker = Self { name, dir, port, child: std::sync::Mutex::default() };
        broker.run();
        broker.until_answers().await;
        broker
    }

    fn environment(&self, command: &mut Command) {
        let path = |name: &str| self.dir.join(name).into_os_string();
        let node = format!("{}@localhost", self.name);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            // The cookie is made here.
            .env("HOME", &self.dir)
            .env("RABBITMQ_NODENAME", node)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", (self.port + 20_000).to_string())
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_CONFIG_FILE", path("none"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", path("pid"))
            // Schedulers that spin would take the cores from what is tested.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none");
    }

    /// Starts the node again after its end; does not wait for it.
    pub(crate) fn run(&self) {
        let _ = std::fs::remove_file(self.dir.join("pid"));
        let program = format!("{PROGRAMS}/rabbitmq-server");
        let mut command = apart::command(&program, &self.dir.join("output"));
        self.environment(&mut command);
        *self.child.lock().unwrap() = Some(command.spawn().expect("rabbitmq-server is installed"));
    }

    /// Whether its port takes connections.
    pub(crate) async fn answers(&self) -> bool {
        tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
    }

    pub(crate) async fn until_answers(&self) {
        until(&format!("the broker {} answers", self.name), async || {
            self.answers().await.then_some(())
        })
        .await;
    }

    /// Ends it as a crash does, and waits until its port is closed: the script that
    /// started the node is gone before the node is.
    pub(crate) async fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        child.wait().unwrap();
        until("the killed broker's port is closed", async || (!self.answers().await).then_some(()))
            .await;
    }

    /// Ends it as a service manager does, and waits for its end.
    pub(crate) async fn stop(&self) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        until("the broker ends", async || child.try_wait().unwrap()).await;
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn control(&self, arguments: &[&str]) {
        let mut command =
            apart::command(&format!("{PROGRAMS}/rabbitmqctl"), &self.dir.join("control"));
        self.environment(&mut command);
        command.args(["-n", &format!("{}@localhost", self.name)]).args(arguments);
        let status = tokio::process::Command::from(command).status().await.unwrap();
        assert!(status.success(), "rabbitmqctl {arguments:?} failed");
    }
}
