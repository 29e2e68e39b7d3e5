//! The worker of `docker-compose.dev.yml`, started by Compose from that file
//! with the image built from the programs under test, does its job: all that it
//! may do is in the file, and it is enough.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::docker;
use crate::net::{get, until_page_holds};
use crate::place::{COMMAND_MAX, COVIBES, Place, STATE_MAX, until};
use crate::policy;
use crate::projects;
use crate::worker::{Follower, Message};

/// Where set-up keeps Compose v2, which Debian 12 does not have.
pub(crate) const TOOLS: &str = "/var/cache/covibes";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compose on the development file, as a project of the test's own. What a
/// failed test leaves is removed with its place, by the project's name.
struct Development<'a> {
    place: &'a Place,
    program: PathBuf,
    image: String,
    /// `COVIBES_DATA`; a mount of its own, which Docker and the worker share.
    data: PathBuf,
    variables: Vec<(&'static str, OsString)>,
}

impl<'a> Development<'a> {
    async fn new(place: &'a Place) -> Self {
        let program = fetched(TOOLS).await;
        let image = build(place).await;
        let data = place.data().join("compose");
        std::fs::create_dir_all(&data).unwrap();
        // Hosts without systemd share no mount; the file wants one that is.
        run("mount", &[Path::new("--bind"), &data, &data]).await;
        run("mount", &[Path::new("--make-rshared"), &data]).await;

        let (state, etc) = (place.directory("state"), place.directory("etc"));
        let own = format!("host.id = \"{}\"\ncapacity.disk_used_max = 0.99\n", place.instance);
        std::fs::write(etc.join("covibes.toml"), own + &policy::toml()).unwrap();
        std::fs::create_dir(etc.join("secrets")).unwrap();
        let npmrc = registries(place, "npmrc", &["/etc/npmrc", "/usr/etc/npmrc"], ".npmrc");
        let variables = vec![
            ("COVIBES_WORKER_IMAGE", image.clone().into()),
            ("COVIBES_HOST_INSTANCE", place.instance.clone().into()),
            ("COVIBES_AMQP_PREFIX", place.instance.clone().into()),
            ("COVIBES_AMQP_URL", crate::place::broker_address().into()),
            ("COVIBES_HTTP_LISTEN", place.http().to_string().into()),
            ("COVIBES_DATA", data.clone().into()),
            ("COVIBES_STATE", state.into()),
            ("COVIBES_ETC", etc.into()),
            ("CA_BUNDLE", policy::ca_bundle().into()),
            ("NPMRC", npmrc.into()),
            ("PIP_CONF", existing("/etc/pip.conf").into()),
        ];
        Self { place, program, image, data, variables }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--project-name", &self.place.instance, "--file"])
            .arg(root().join("docker-compose.dev.yml"))
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    async fn compose(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().await.unwrap();
        said(&format!("docker-compose {arguments:?}"), &output)
    }

    /// Starts the worker as the file's head tells people to.
    async fn up(&self) {
        self.compose(&["up", "--detach", "--no-deps", "worker"]).await;
    }

    /// The worker's service, as Compose reads it from the file.
    async fn service(&self) -> Value {
        let text = self.compose(&["config", "--format", "json"]).await;
        let file: Value = serde_json::from_str(&text).unwrap();
        file["services"]["worker"].clone()
    }

    async fn container(&self) -> Value {
        docker::inspect(&format!("{}-worker-1", self.place.instance)).await
    }

    async fn until_ready(&self) {
        until("the worker in the container is ready", STATE_MAX, async || {
            let ready = get(self.place.http(), "localhost", "/readyz?verbose=1").await;
            if let Some(answer) = ready.filter(|answer| answer.status == 200) {
                return Some(answer);
            }
            let container = self.container().await;
            if container["State"]["Running"] != true || container["RestartCount"] != 0 {
                let log = self.compose(&["logs", "worker"]).await;
                panic!("the worker ended: {}\n{log}", container["State"]);
            }
            None
        })
        .await;
    }

    /// Puts files where the container's worker finds them as a workspace.
    fn workspace(&self, team: &str, from: &Path) -> PathBuf {
        let path = self.data.join("instances").join(&self.place.instance).join("workspaces");
        std::fs::create_dir_all(&path).unwrap();
        crate::place::copy_tree(from, &path.join(team));
        path.join(team)
    }
}

/// Compose v2, which set-up has fetched; if not, it is fetched now.
pub(crate) async fn fetched(directory: &str) -> PathBuf {
    let script = root().join("ops/compose-v2.sh");
    let output = Command::new(&script).arg(directory).output().await.unwrap();
    let path = said("ops/compose-v2.sh, without which this cannot be tested,", &output);
    PathBuf::from(path.trim())
}

/// The worker's image, from the programs under test.
async fn build(place: &Place) -> String {
    let image = docker::worker_image(&place.instance);
    let programs = Path::new(COVIBES).parent().unwrap();
    let script = root().join("ops/images/worker/build.sh");
    let building = Command::new(script).arg(programs).arg(&image).output();
    let output = tokio::time::timeout(COMMAND_MAX, building).await.expect("a bounded build");
    said("ops/images/worker/build.sh", &output.unwrap());
    image
}

pub(crate) async fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    said(&format!("{program} {arguments:?}"), &output);
}

pub(crate) fn said(what: &str, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn existing(path: &str) -> &str {
    if Path::new(path).exists() { path } else { "/dev/null" }
}

/// One file with what this host's npm is told, so that the worker in the
/// container finds the images that the tests have built.
fn registries(place: &Place, name: &str, system: &[&str], home: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(|directory| PathBuf::from(directory).join(home));
    let files = system.iter().map(PathBuf::from).chain(home);
    let lines: String = files
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.trim().starts_with("registry"))
        .map(|line| line + "\n")
        .collect();
    let path = place.dir.join(name);
    std::fs::write(&path, lines).unwrap();
    path
}

fn words(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter().map(|word| word.as_str().unwrap().trim_start_matches("CAP_").to_owned()).collect()
}

/// Holds that Docker gave the container what the file says, and no more.
fn assert_as_in_the_file(service: &Value, container: &Value) {
    let host = &container["HostConfig"];
    assert_eq!(words(&host["CapAdd"]), words(&service["cap_add"]));
    assert_eq!(words(&host["CapDrop"]), words(&service["cap_drop"]));
    // Docker adds a word for SELinux to every container in the host's processes.
    let mut options = words(&host["SecurityOpt"]);
    options.remove("label=disable");
    assert_eq!(options, words(&service["security_opt"]));
    let devices = words(&service["device_cgroup_rules"]);
    assert_eq!(words(&host["DeviceCgroupRules"]), devices);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["ReadonlyRootfs"], service["read_only"]);
    assert_eq!(host["NetworkMode"], service["network_mode"]);
    assert_eq!(host["PidMode"], service["pid"]);
    assert_eq!(host["CgroupnsMode"], service["cgroup"]);
    assert_eq!(host["Memory"].to_string(), service["mem_limit"].as_str().unwrap());
    assert_eq!(host["PidsLimit"], service["pids_limit"]);
    assert_eq!(host["RestartPolicy"]["Name"], service["restart"]);
    assert_eq!(host["LogConfig"]["Config"], service["logging"]["options"]);
    assert_eq!(host["PortBindings"], json!({}));
    assert_eq!(container["Config"]["StopTimeout"], 90);

    let mount =
        |target: &Value, source: &Value, writable: bool| format!("{source}{target}{writable}");
    let given: BTreeSet<String> = container["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| mount(&m["Destination"], &m["Source"], m["RW"] == true))
        .collect();
    let asked: BTreeSet<String> = service["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| mount(&m["target"], &m["source"], m["read_only"] != true))
        .collect();
    assert_eq!(given, asked);
}

/// Holds that the kernel gives the process exactly those rights.
fn assert_as_in_the_kernel(service: &Value, container: &Value) {
    let bit = |name: &str| match name {
        "CHOWN" => 0,
        "DAC_OVERRIDE" => 1,
        "FOWNER" => 3,
        "KILL" => 5,
        "NET_ADMIN" => 12,
        "NET_RAW" => 13,
        "SYS_PTRACE" => 19,
        "SYS_ADMIN" => 21,
        other => panic!("{other} is new in the file; add its bit here"),
    };
    let mask = words(&service["cap_add"]).iter().fold(0_u64, |mask, name| mask | 1 << bit(name));
    let status = format!("/proc/{}/status", container["State"]["Pid"]);
    let status = std::fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in\n{status}")).to_owned()
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), mask, "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
}

#[tokio::test]
async fn the_worker_of_the_development_file_serves_a_page_and_drains() {
    let place = Place::new().await;
    let development = Development::new(&place).await;
    development.up().await;
    development.until_ready().await;
    let service = development.service().await;
    let container = development.container().await;
    assert_eq!(container["Config"]["Image"], development.image.as_str());
    assert_as_in_the_file(&service, &container);
    assert_as_in_the_kernel(&service, &container);

    // SIGTERM comes in the middle of a job, which is brought to its end.
    let mut events = Follower::new(&place).await;
    let workspace = development.workspace("blue", &projects::gated(&place, "app"));
    let mut job = Message::start("blue", &["main"]);
    job.body["spec"]["agents"] = json!([{"name": "agent-1"}]);
    job.publish(&place).await;
    events.step_of(&job.id, "build").await;
    let mut stop = development.command(&["stop", "worker"]).spawn().unwrap();
    until("the worker drains", STATE_MAX, async || {
        let answer = get(place.http(), "localhost", "/readyz?verbose=1").await?;
        let said: Value = serde_json::from_str(&answer.body).ok()?;
        (said["checks"]["draining"]["ok"] == false).then_some(())
    })
    .await;
    projects::open_gate(&workspace);
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let stopped = tokio::time::timeout(STATE_MAX, stop.wait()).await.expect("it ends in time");
    assert!(stopped.unwrap().success());
    let state = &development.container().await["State"];
    assert_eq!((&state["ExitCode"], &state["OOMKilled"]), (&json!(0), &json!(false)), "{state}");

    // Caches of their own size were mounted by the worker and seen by Docker.
    let mounts = crate::place::mounts_below(&development.data).len();
    assert_eq!(mounts > 1, Path::new("/dev/loop-control").exists(), "{mounts} mounts");

    // The team runs on without it, with the rights of a whole team.
    let link = events.seen().of_job(&job.id).link("main");
    until_page_holds(&link, "/", "<h1>served</h1>").await;
    let parts = docker::ids(&place.instance, "blue").await;
    assert_eq!(parts.len(), 3, "{parts:?}");

    // The next one takes over what it finds, and removes it.
    development.up().await;
    development.until_ready().await;
    let mut again = Message::new("blue", "start");
    again.body["spec"] = job.body["spec"].clone();
    again.publish(&place).await;
    let end = events.end_of(&again.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    assert_eq!(docker::ids(&place.instance, "blue").await, parts, "it was made anew");
    let destroy = Message::new("blue", "destroy");
    destroy.publish(&place).await;
    let end = events.end_of(&destroy.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    assert!(place.is_gone("blue").await);
    assert_eq!(crate::place::mounts_below(&development.data).len(), 1, "a mount is left");

    development.compose(&["down", "--timeout", "90"]).await;
    let filter = format!("--filter=label=com.docker.compose.project={}", place.instance);
    assert_eq!(docker::docker(&["ps", "--all", "--quiet", &filter]).await, "");
}
