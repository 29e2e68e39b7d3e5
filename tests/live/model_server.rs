//! A stand-in for the Messages API in a container on a network of its own, over
//! TLS: what a company's gateway to its models is to Covibes.

use std::fs::File;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::docker::{self, docker};
use crate::git_server::agent_image;
use crate::net;
use crate::place::{COMMAND_MAX, Place, STATE_MAX, until};
use crate::policy::{self, MODEL_NETWORK, MODEL_SERVER};

/// The server; it ends before its address may be another's.
pub(crate) struct ModelServer {
    instance: String,
    /// What the container sees as `/srv`.
    directory: PathBuf,
    /// There is one address, so one server at a time on this host.
    _lock: File,
}

impl ModelServer {
    /// A server that takes this key and no other.
    pub(crate) async fn new(place: &Place, key: &str) -> Self {
        let lock = File::create(std::env::temp_dir().join("covibes-live-model.lock")).unwrap();
        until("no other model server runs", COMMAND_MAX, async || lock.try_lock().ok()).await;
        let directory = place.directory("model-server");
        policy::certify_model(&directory);
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/model_server.py");
        std::fs::copy(program, directory.join("model_server.py")).unwrap();
        std::fs::write(directory.join("key"), key).unwrap();

        let name = docker::beside(&place.instance, "model");
        let label = docker::beside_label(&place.instance);
        let subnet = format!("--subnet={MODEL_NETWORK}");
        let volume = format!("{}:/srv:rw", directory.display());
        let server = Self { instance: place.instance.clone(), directory, _lock: lock };
        docker(&["network", "create", "--label", &label, &subnet, &name]).await;
        let image = agent_image().await;
        docker(&[
            "run",
            "--detach",
            "--name",
            &name,
            "--label",
            &label,
            "--network",
            &name,
            "--ip",
            MODEL_SERVER,
            "--user",
            "0:0",
            "--volume",
            &volume,
            &image,
            "python3",
            "/srv/model_server.py",
        ])
        .await;
        until("the model server listens", STATE_MAX, async || {
            let address = format!("{MODEL_SERVER}:443").parse().unwrap();
            net::listens(address).await.then_some(())
        })
        .await;
        server
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.join("requests.jsonl"));
        let text = text.unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        if std::env::var_os("COVIBES_TEST_KEEP").is_none() {
            docker::remove_beside(&self.instance);
        }
    }
}

/// A prompt that makes the stand-in do these steps.
pub(crate) fn prompt(steps: &[Value]) -> String {
    format!("Please do this. STEPS: {}", Value::from(steps.to_vec()))
}

/// Reads a file of the workspace.
pub(crate) fn read(name: &str) -> Value {
    json!({"tool": "Read", "input": {"file_path": format!("/workspace/{name}")}})
}

/// Writes a file of the workspace.
pub(crate) fn write(name: &str, content: &str) -> Value {
    let path = format!("/workspace/{name}");
    json!({"tool": "Write", "input": {"file_path": path, "content": content}})
}

/// Runs a command.
pub(crate) fn bash(command: &str) -> Value {
    json!({"tool": "Bash", "input": {"command": command, "description": "a command"}})
}

/// Says words for so many seconds.
pub(crate) fn wait(seconds: u32) -> Value {
    json!({"tool": "wait", "seconds": seconds})
}
