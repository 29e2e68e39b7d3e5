//! A Docker daemon of the run's own, with containers that really start.
//!
//! Its images are made from nothing but the two services and their libraries,
//! under the names that a worker looks for, so that no image is ever built.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::apart;
use crate::wait::until;
use crate::worker::Thing;

/// What a container needs of this machine besides the services.
const FILES: [(&str, &str); 6] = [
    ("/lib/x86_64-linux-gnu/libgcc_s.so.1", "lib/x86_64-linux-gnu/libgcc_s.so.1"),
    ("/lib/x86_64-linux-gnu/libm.so.6", "lib/x86_64-linux-gnu/libm.so.6"),
    ("/lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
    ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("/bin/dash", "bin/sh"),
    ("/bin/sleep", "bin/sleep"),
];

/// Programs that are only looked for. The harness has the proxy's port.
const SCRIPTS: [(&str, &str); 3] = [
    ("squid", "#!/bin/sh\nexec sleep infinity\n"),
    ("claude", "#!/bin/sh\necho none\n"),
    ("git", "#!/bin/sh\n"),
];

/// The daemon.
pub(crate) struct Daemon {
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    pub(crate) async fn start(dir: &Path) -> Self {
        let dir = dir.join("docker");
        std::fs::create_dir(&dir).unwrap();
        let daemon = Self { dir, child: Mutex::default() };
        daemon.run();
        daemon.until_answers().await;
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Starts it; does not wait for it.
    pub(crate) fn run(&self) {
        let path = |name: &str| self.dir.join(name).into_os_string().into_string().unwrap();
        let mut command = apart::command("dockerd", &self.dir.join("output"));
        command.args(["--data-root", &path("root"), "--exec-root", &path("exec")]);
        command.args(["--pidfile", &path("pid"), "-H", &format!("unix://{}", path("docker.sock"))]);
        command.args(["--bip", "10.213.0.1/24", "--cgroup-parent", &apart::cgroup(&self.dir)]);
        *self.child.lock().unwrap() = Some(command.spawn().expect("dockerd is installed"));
    }

    pub(crate) async fn until_answers(&self) {
        until("the own Docker daemon answers", async || self.docker(&["version"]).await.map(drop))
            .await;
    }

    /// Starts it after a stop. Says whether it had to be mended as the runbook
    /// says: Docker 20.10, stopped while it makes a network, keeps that network
    /// without addresses and panics over it at each start.
    pub(crate) async fn run_again(&self) -> bool {
        let mut is_mended = false;
        self.run();
        until("the own Docker daemon answers", async || {
            if self.docker(&["version"]).await.is_some() {
                return Some(());
            }
            let child = self.child.lock().unwrap().as_mut().map(Child::try_wait);
            if !is_mended && matches!(child, Some(Ok(Some(_)))) {
                std::fs::remove_file(self.dir.join("root/network/files/local-kv.db")).unwrap();
                is_mended = true;
                self.run();
            }
            None
        })
        .await;
        is_mended
    }

    /// Ends it as a service manager does: containers stop with it.
    pub(crate) async fn stop(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        until("the Docker daemon ends", async || child.try_wait().unwrap()).await;
    }

    /// Ends it as a kernel without memory does: it says goodbye to nobody, and
    /// what it ran goes on until it is back.
    pub(crate) async fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        // Its pid file names a process that has to be gone.
        until("the Docker daemon is gone", async || child.try_wait().unwrap()).await;
    }

    /// Makes it hang, or go on.
    pub(crate) fn hang(&self, hangs: bool) {
        let id = self.child.lock().unwrap().as_ref().expect("it runs").id();
        let group = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        let signal = if hangs { Signal::STOP } else { Signal::CONT };
        kill_process_group(group, signal).unwrap();
    }

    /// What a `docker` command prints; `None` if it fails.
    async fn docker(&self, arguments: &[&str]) -> Option<String> {
        let mut command = tokio::process::Command::new("docker");
        command.args(["-H", &format!("unix://{}", self.socket().display())]).args(arguments);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the light image under each of these names.
    pub(crate) async fn make_images(&self, names: &[String]) {
        let root = self.dir.join("image");
        let binaries = Path::new(env!("CARGO_BIN_EXE_covibes")).parent().unwrap();
        let services = ["covibes-agent", "covibes-sync", "covibes-preview"]
            .map(|name| (binaries.join(name), format!("usr/local/bin/{name}")));
        let files = FILES.map(|(from, to)| (PathBuf::from(from), to.to_owned()));
        for (from, to) in services.into_iter().chain(files) {
            let to = root.join(to);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&from, &to).unwrap();
        }
        for (name, text) in SCRIPTS {
            let path = root.join("bin").join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tar = self.dir.join("image.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.unwrap().success());
        let from = tar.to_str().unwrap();
        self.docker(&["import", from, "light:1"]).await.expect("the image is taken");
        for name in names {
            self.docker(&["tag", "light:1", name]).await.expect("the name is taken");
        }
    }

    /// Everything that belongs to a team.
    pub(crate) async fn things(&self) -> Vec<Thing> {
        let mut things = Vec::new();
        let label = "--filter=label=covibes.team";
        let lists = [
            ("container", &["ps", "-a"][..], "{{.Names}} {{.Label \"covibes.team\"}} {{.State}}"),
            ("network", &["network", "ls"], "{{.Name}} {{.Label \"covibes.team\"}} -"),
            ("volume", &["volume", "ls"], "{{.Name}} {{.Label \"covibes.team\"}} -"),
        ];
        for (kind, command, format) in lists {
            let format = format!("--format={format}");
            let arguments = [command, &[label, &format]].concat();
            let text = until("Docker lists its things", async || self.docker(&arguments).await);
            for line in text.await.lines() {
                let words: Vec<_> = line.split(' ').collect();
                let [name, team, state] = words[..] else { panic!("three words: {line}") };
                let (name, team) = (name.to_owned(), team.to_owned());
                things.push(Thing { kind, name, team, runs: state == "running" });
            }
        }
        things
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The namespace ends what is left; cgroups are the machine's.
        if let Some(child) = self.child.lock().unwrap().take() {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        }
    }
}
