//! The supervisor as the worker sees it, over HTTP and with real processes.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod crashes;
mod mirror;

use super::*;
use crate::service::testing::{Client, eventually, is_gone};

struct World {
    dir: tempfile::TempDir,
    client: Client,
    port: u16,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServiceError>>,
}

impl World {
    async fn new(script: &str) -> Self {
        Self::with(tempfile::tempdir().unwrap(), script, |_| {}).await
    }

    /// A supervisor with other settings, in a directory that may hold something.
    async fn with(
        dir: tempfile::TempDir,
        script: &str,
        change: impl FnOnce(&mut RunSettings),
    ) -> Self {
        let port = free_port();
        let mut settings = RunSettings {
            dir: dir.path().to_owned(),
            mirror: None,
            port,
            health: "/".to_owned(),
            state_address: (Ipv4Addr::LOCALHOST, 0).into(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            retry_pause: Duration::from_secs(3600),
            force_polling: false,
        };
        change(&mut settings);
        let preview = Preview::bind(settings).await.unwrap();
        let client = Client { address: preview.address().unwrap(), token: None };
        let stop = CancellationToken::new();
        let served = tokio::spawn(preview.serve(stop.clone().cancelled_owned()));
        Self { dir, client, port, stop, served }
    }

    async fn state(&self, wanted: &str) -> Value {
        eventually(wanted, || async {
            let state = self.client.get("/state").await.json();
            (state["state"] == wanted).then_some(state)
        })
        .await
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
        self.dir
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

fn free_port() -> u16 {
    StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn exists(path: &Path) {
    eventually("the file exists", || async { path.exists().then_some(()) }).await;
}

#[tokio::test]
async fn a_server_that_exits_is_failing_with_its_code_and_last_words() {
    let world = World::new("exec >&2; seq 1 150; echo 'no such module'; exit 3").await;
    let state = world.state("failing").await;
    assert_eq!(state["exit_code"], 3);
    assert_eq!(state["pid"], Value::Null);
    assert_eq!(state["restarts"], 0);
    let health = world.client.get("/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["exit_code"], 3);
    let log = world.client.get("/log").await.json();
    let log: Vec<_> = log.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(log.len(), 100);
    assert_eq!((log[0], log[98], log[99]), ("52", "150", "no such module"));
    world.end().await;
}

#[tokio::test]
async fn a_killed_server_is_failing_with_its_signal() {
    let world = World::new("kill -9 $$").await;
    let state = world.state("failing").await;
    assert_eq!((&state["exit_code"], &state["signal"]), (&Value::Null, &json!(9)));
    world.end().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_failing_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RunSettings {
        dir: dir.path().join("missing"),
        mirror: None,
        port: 1,
        health: "/".to_owned(),
        state_address: (Ipv4Addr::LOCALHOST, 0).into(),
        program: "covibes-no-such-program".into(),
        arguments: Vec::new(),
        retry_pause: Duration::from_secs(3600),
        force_polling: false,
    };
    let preview = Preview::bind(settings).await.unwrap();
    let client = Client { address: preview.address().unwrap(), token: None };
    let stop = CancellationToken::new();
    let served = tokio::spawn(preview.serve(stop.clone().cancelled_owned()));
    let error = eventually("failing", || async {
        let state = client.get("/state").await.json();
        state["error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.starts_with("cannot start it"), "{error}");
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_changed_file_starts_a_failed_server_again() {
    let world = World::new("test -e fixed && exec sleep 600; exit 1").await;
    world.state("failing").await;
    // The watch begins some time after the failure, so the file changes until it is seen.
    let state = eventually("started again", || async {
        std::fs::write(world.path("fixed"), "1").unwrap();
        let state = world.client.get("/state").await.json();
        (state["state"] == "starting").then_some(state)
    })
    .await;
    assert_eq!(state["restarts"], 1);
    assert!(state["pid"].is_u64());
    world.end().await;
}

#[tokio::test]
async fn a_failed_server_is_tried_again_after_a_rest() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RunSettings {
        dir: dir.path().to_owned(),
        mirror: None,
        port: 1,
        health: "/".to_owned(),
        state_address: (Ipv4Addr::LOCALHOST, 0).into(),
        program: "false".into(),
        arguments: Vec::new(),
        retry_pause: Duration::from_millis(20),
        force_polling: false,
    };
    let preview = Preview::bind(settings).await.unwrap();
    let client = Client { address: preview.address().unwrap(), token: None };
    let stop = CancellationToken::new();
    let served = tokio::spawn(preview.serve(stop.clone().cancelled_owned()));
    eventually("tried again", || async {
        let state = client.get("/state").await.json();
        (state["restarts"].as_u64().unwrap() >= 2).then_some(())
    })
    .await;
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_bound_to_localhost_is_running_and_named_so() {
    let world = World::new("exec sleep 600").await;
    world.state("starting").await;
    assert_eq!(world.client.get("/health").await.status, 503);
    // The test and the server share a network namespace, so the test may listen for it.
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, world.port)).unwrap();
    let state = world.state("running").await;
    let wanted = json!({"address": "127.0.0.1", "port": world.port});
    let listening = state["listening"].as_array().unwrap();
    assert!(listening.contains(&wanted), "{listening:?}");
    let own = world.client.address.port();
    assert!(!listening.iter().any(|socket| socket["port"] == own), "{listening:?}");
    assert_eq!(world.client.get("/health").await.status, 200);
    drop(listener);
    world.state("starting").await;
    world.end().await;
}

#[tokio::test]
async fn the_end_reaches_grandchildren_and_strays() {
    let script = "trap 'echo bye > said; exit 0' TERM
        sh -c 'echo $$ > child; exec sleep 600' &
        setsid sh -c 'echo $$ > stray; exec sleep 600' &
        wait";
    let world = World::new(script).await;
    for name in ["child", "stray"] {
        exists(&world.path(name)).await;
    }
    let dir = world.dir.path().to_owned();
    let World { stop, served, dir: _keep, .. } = world;
    stop.cancel();
    served.await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("said")).unwrap(), "bye\n");
    is_gone(&dir.join("child")).await;
    is_gone(&dir.join("stray")).await;
}
