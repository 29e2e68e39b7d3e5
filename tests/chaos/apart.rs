//! A world apart: every run happens in network, process and mount namespaces of
//! its own.
//!
//! So ports, addresses and firewall rules belong to the run alone, and nothing
//! it starts can outlive it: when the first process of the namespace ends, the
//! kernel ends the rest, also when the run itself was killed.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Set for the run inside; its value is the run's directory.
const INSIDE: &str = "COVIBES_CHAOS_DIR";

/// What the directories of runs begin with; the rest is the process that owns it.
const PREFIX: &str = "covibes-chaos-";

/// The first process of the namespace: a shell, which takes leave of children
/// that are not its own. A containerd whose dockerd was killed would stay there
/// as a dead one, and the next dockerd would wait for it in vain.
const FIRST: &str = r#""$@"; exit $?"#;

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_cgroups(&self.0);
        if std::env::var_os("COVIBES_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Runs `inside` in a world apart; `test` is the calling test's full name.
///
/// The test's own process starts itself once more inside and waits for it.
pub(crate) fn run(test: &str, inside: impl AsyncFnOnce(&Path)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success(), "the loopback of the namespace does not come up");
        // Daemons of the run's own find no trace of the machine's.
        let run = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status().unwrap();
        assert!(run.success(), "the namespace gets no /run of its own");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(inside(Path::new(&dir)));
        return;
    }
    // Two at once would share a directory and fight for two cores.
    static BEFORE: Mutex<u32> = Mutex::new(0);
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    sweep();
    let name = format!("{PREFIX}{}.{before}", std::process::id());
    *before += 1;
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    let scratch = Scratch(dir);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "--", "sh", "-c", FIRST, "sh"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    // Panics inside are told once, without their stacks.
    command.env("RUST_BACKTRACE", "0");
    let status = command.env(INSIDE, &scratch.0).stdin(Stdio::null()).status();
    let status = status.expect("setpriv and unshare of util-linux are there");
    assert!(status.success(), "{test} failed inside its namespace; its output is above");
}

/// Removes the directories of runs that are gone.
fn sweep() {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u32>().ok());
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner.to_string()).exists()
        {
            remove_cgroups(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The parent of all cgroups of a run, by any path in its directory.
pub(crate) fn cgroup(path: &Path) -> String {
    let names = path.components().map(|part| part.as_os_str().to_string_lossy());
    let run = names.into_iter().find(|name| name.starts_with(PREFIX));
    format!("/{}", run.expect("the path is in the directory of a run"))
}

/// Removes the cgroups of a run whose processes are gone: a killed daemon
/// cannot.
fn remove_cgroups(run: &Path) {
    for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove_cgroup(&controller.path().join(cgroup(run).trim_start_matches('/')));
    }
}

fn remove_cgroup(group: &Path) {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for child in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&child.path());
    }
    let _ = std::fs::remove_dir(group);
}

/// A command whose process group is its own, so that all of it can be ended,
/// with output in a file.
pub(crate) fn command(program: &str, output: &Path) -> Command {
    let file = std::fs::File::options().create(true).append(true).open(output).unwrap();
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    command.process_group(0);
    command
}
