//! The same dev server without Covibes: a container with the same image, mounts and limits that
//! runs the command itself.

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters as query;
use serde_json::{Value, json};

use crate::docker::{docker, inspect};

/// What starts it, taken from a preview that runs.
pub(crate) struct Plain {
    docker: Docker,
    name: String,
    body: Value,
    network: String,
}

impl Plain {
    /// Takes everything over from a preview but its supervisor.
    pub(crate) async fn like(preview: &str) -> Self {
        let seen = inspect(preview).await;
        let config = &seen["Config"];
        let env = config["Env"].as_array().expect("there are variables");
        let value = |name: &str| {
            let mut values = env.iter().filter_map(Value::as_str);
            values.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let command = value("COVIBES_COMMAND").expect("a preview knows its command");
        let mut host = seen["HostConfig"].clone();
        host["RestartPolicy"] = json!({"Name": ""});
        let network = seen["NetworkSettings"]["Networks"].as_object().expect("it has a network");
        let network = network.keys().next().expect("it has a network").clone();
        let body = json!({
            "Image": config["Image"], "Env": config["Env"], "User": config["User"],
            "Cmd": ["/bin/sh", "-c", command], "WorkingDir": "/workspace",
            "ExposedPorts": config["ExposedPorts"], "HostConfig": host,
        });
        let docker = Docker::connect_with_local_defaults().expect("Docker is there");
        Self { docker, name: format!("covibes-bench-{}", std::process::id()), body, network }
    }

    /// Creates and starts it, as `docker run` does.
    pub(crate) async fn start(&self, network: Option<&str>) {
        let mut body = self.body.clone();
        let network = network.unwrap_or(&self.network);
        body["HostConfig"]["NetworkMode"] = network.into();
        let body: ContainerCreateBody = serde_json::from_value(body).expect("Docker's own words");
        let options =
            query::CreateContainerOptions { name: Some(self.name.clone()), ..Default::default() };
        self.docker.create_container(Some(options), body).await.expect("it can be created");
        let none = None::<query::StartContainerOptions>;
        self.docker.start_container(&self.name, none).await.expect("it starts");
    }

    pub(crate) async fn remove(&self) {
        docker(&["rm", "--force", &self.name]).await;
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let mut remove = std::process::Command::new("docker");
        remove.args(["rm", "--force", &self.name]).stderr(std::process::Stdio::null());
        let _ = remove.stdout(std::process::Stdio::null()).status();
    }
}

/// What the supervisor holds for itself: its share of memory, not the dev server's.
pub(crate) async fn supervisor_mebibytes(preview: &str) -> f64 {
    let processes = docker(&["top", preview, "-eo", "pid,comm"]).await;
    let mut kibibytes = 0.0;
    for line in processes.lines().filter(|line| line.contains("covibes-preview")) {
        let pid = line.split_whitespace().next().expect("a process has a number");
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .expect("the supervisor runs");
        let share = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
        let share: f64 = share.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes += share;
    }
    assert!(kibibytes > 0.0, "no supervisor in {preview}: {processes}");
    kibibytes / 1024.0
}
