//! What Docker itself says, through its own command.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

/// How a command in a container ended.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// What exists under a label, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Things {
    pub(crate) containers: BTreeSet<String>,
    pub(crate) networks: BTreeSet<String>,
    pub(crate) volumes: BTreeSet<String>,
}

impl Things {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Runs `docker` and returns what it printed.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("docker").args(arguments).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

async fn labelled(labels: &[String]) -> Things {
    let filters: Vec<String> = labels.iter().map(|l| format!("--filter=label={l}")).collect();
    let list = async |command: &[&str]| {
        let filters = filters.iter().map(String::as_str);
        let arguments: Vec<&str> = command.iter().copied().chain(filters).collect();
        lines(&docker(&arguments).await)
    };
    Things {
        containers: list(&["ps", "-a", "--format={{.Names}}"]).await,
        networks: list(&["network", "ls", "--format={{.Name}}"]).await,
        volumes: list(&["volume", "ls", "--format={{.Name}}"]).await,
    }
}

/// Everything of a team.
pub(crate) async fn of_team(instance: &str, team: &str) -> Things {
    labelled(&[format!("covibes.instance={instance}"), format!("covibes.team={team}")]).await
}

/// Containers of a team by name, with their ids.
pub(crate) async fn ids(instance: &str, team: &str) -> std::collections::BTreeMap<String, String> {
    let instance = format!("--filter=label=covibes.instance={instance}");
    let team = format!("--filter=label=covibes.team={team}");
    let format = "--format={{.Names}} {{.ID}}";
    let text = docker(&["ps", "-a", "--no-trunc", format, &instance, &team]).await;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
}

/// Names of running one-shot containers of a team.
pub(crate) async fn running_oneshots(instance: &str, team: &str) -> BTreeSet<String> {
    let instance = format!("--filter=label=covibes.instance={instance}");
    let team = format!("--filter=label=covibes.team={team}");
    let role = "--filter=label=covibes.role=oneshot";
    lines(&docker(&["ps", "--format={{.Names}}", &instance, &team, role]).await)
}

/// What `docker inspect` says of a container.
pub(crate) async fn inspect(container: &str) -> Value {
    let text = docker(&["inspect", "--type=container", container]).await;
    let all: Value = serde_json::from_str(&text).unwrap();
    all[0].clone()
}

/// The container's address on its team's network.
pub(crate) fn address(inspected: &Value) -> String {
    let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
    networks.values().next().unwrap()["IPAddress"].as_str().unwrap().to_owned()
}

/// The host's address on the container's network.
pub(crate) fn gateway(inspected: &Value) -> String {
    let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
    let network = networks.values().next().unwrap();
    match network["Gateway"].as_str().unwrap() {
        // An internal network has none; it is the first of the subnet all the same.
        "" => {
            let address: std::net::Ipv4Addr =
                network["IPAddress"].as_str().unwrap().parse().unwrap();
            let length = network["IPPrefixLen"].as_u64().unwrap();
            let mask = u32::MAX << (32 - length);
            std::net::Ipv4Addr::from((u32::from(address) & mask) + 1).to_string()
        }
        gateway => gateway.to_owned(),
    }
}

/// Runs a command in a container, as its own user.
pub(crate) async fn exec(container: &str, command: &[&str]) -> Executed {
    let output = tokio::process::Command::new("docker")
        .args(["exec", container])
        .args(command)
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Executed {
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&text).trim().to_owned(),
    }
}

fn blocking(arguments: &[&str]) -> BTreeSet<String> {
    let output =
        std::process::Command::new("docker").args(arguments).stderr(Stdio::null()).output();
    output.map(|o| lines(&String::from_utf8_lossy(&o.stdout))).unwrap_or_default()
}

/// The image of the worker that Compose runs for an instance.
pub(crate) fn worker_image(instance: &str) -> String {
    format!("covibes/worker:{instance}")
}

/// The name of something that a test puts beside its instance.
pub(crate) fn beside(instance: &str, name: &str) -> String {
    format!("covibes-{instance}-{name}")
}

/// Its label: not the instance's own, or the worker would take it for a part.
pub(crate) fn beside_label(instance: &str) -> String {
    format!("{BESIDE}={instance}")
}

const BESIDE: &str = "covibes-test";

/// The labels by which everything of a test is found. A worker that Compose
/// runs comes first: it would make things anew.
const LABELS: [&str; 3] = ["com.docker.compose.project", BESIDE, "covibes.instance"];

/// Removes everything of an instance. Never panics.
pub(crate) fn remove_instance(instance: &str) {
    for label in LABELS {
        remove(label, instance);
    }
    blocking(&["image", "rm", "-f", &worker_image(instance)]);
}

/// Removes what a test put beside its instance. Never panics.
pub(crate) fn remove_beside(instance: &str) {
    remove(BESIDE, instance);
}

fn remove(label: &str, value: &str) {
    let filter = format!("--filter=label={label}={value}");
    for (list, remove) in [
        (&["ps", "-aq"][..], &["rm", "-fv"][..]),
        (&["network", "ls", "-q"][..], &["network", "rm"][..]),
        (&["volume", "ls", "-q"][..], &["volume", "rm", "-f"][..]),
    ] {
        for id in blocking(&[list, &[&filter]].concat()) {
            blocking(&[remove, &[&id]].concat());
        }
    }
}

/// The instances of tests that have left anything.
pub(crate) fn instances() -> BTreeSet<String> {
    let mut found = blocking(&["image", "ls", "--format={{.Tag}}", "covibes/worker"]);
    for label in LABELS {
        let format = format!("--format={{{{.Label \"{label}\"}}}}");
        let filter = format!("--filter=label={label}");
        for list in [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]] {
            found.extend(blocking(&[list, &[&format, &filter]].concat()));
        }
    }
    found
}
