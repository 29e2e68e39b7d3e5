//! The agent's API over HTTP, with a shell script in place of the CLI.

mod untold;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::Environment;
use crate::service::testing::{Client, eventually, is_gone};

const TOKEN: &str = "0123456789abcdef0123";
const CANARY: &str = "canary-key-5f2c9a";

const CLAUDE: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo "9.9.9 (fake)"; exit 0; }
prompt=$(cat)
printf '%s\n' "$@" > args
env > environment
echo '{"type":"system","subtype":"init","session_id":"s-1"}'
case $prompt in
hang)
    trap '' INT TERM
    sh -c 'echo $$ > child; while :; do sleep 600; done' &
    setsid sh -c 'echo $$ > stray; while :; do sleep 600; done' &
    echo '{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"hanging"}]}}'
    while :; do wait; done ;;
gentle)
    trap 'echo int > said; exit 130' INT
    sleep 600 & wait ;;
fail) echo "no credit for $API_KEY" >&2; exit 2 ;;
flood) yes "{\"type\":\"user\",\"x\":\"$(head -c 1000 /dev/zero | tr '\0' x)\"}" | head -n 20000 ;;
long) head -c 2000000 /dev/zero | tr '\0' x; echo; echo plain ;;
error) echo '{"type":"result","subtype":"error_max_turns","is_error":true}'; exit 1 ;;
login)
    echo '{"type":"result","subtype":"success","is_error":true,"result":"Not logged in · Please run /login"}'
    exit 1 ;;
*) echo "{\"type\":\"assistant\",\"message\":{\"id\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"the key is $API_KEY\"}]}}" ;;
esac
echo '{"type":"result","subtype":"success","is_error":false,"num_turns":2,"result":"done","total_cost_usd":0.5,"usage":{"input_tokens":3,"output_tokens":4}}'
"#;

struct World {
    dir: tempfile::TempDir,
    client: Client,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServiceError>>,
}

impl World {
    async fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap()).await
    }

    /// Ends the service as a stop of its container does, and starts another.
    async fn again(self) -> Self {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
        Self::in_directory(self.dir).await
    }

    async fn in_directory(dir: tempfile::TempDir) -> Self {
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("workspace/node_modules")).unwrap();
        std::fs::create_dir_all(path("secrets")).unwrap();
        std::fs::write(path("secrets/API_KEY"), format!("{CANARY}\n")).unwrap();
        std::fs::write(path("token"), TOKEN).unwrap();
        std::fs::write(path("claude"), CLAUDE).unwrap();
        std::fs::set_permissions(path("claude"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let named = |name, value: &str| (name, dir.path().join(value).into_os_string());
        let settings = AgentSettings::from_environment(&Environment::from_pairs([
            ("COVIBES_LISTEN", "127.0.0.1:0".into()),
            ("PATH", Environment::from_process().path("PATH", "").into()),
            named("COVIBES_TOKEN_FILE", "token"),
            named("COVIBES_SECRETS_DIR", "secrets"),
            named("COVIBES_WORKSPACE", "workspace"),
            named("COVIBES_AGENT_DIR", "temp"),
            named("COVIBES_CLAUDE", "claude"),
            named("COVIBES_CGROUP_DIR", "cgroup"),
            // Nothing listens there, and nothing is asked beyond this machine.
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9".into()),
        ]))
        .unwrap();
        let agent = Agent::bind(settings).await.unwrap();
        let client = Client { address: agent.address().unwrap(), token: Some(TOKEN) };
        let stop = CancellationToken::new();
        let served = tokio::spawn(agent.serve(stop.clone().cancelled_owned()));
        Self { dir, client, stop, served }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn add(&self, body: Value) -> String {
        let answer = self.client.post("/tasks", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.headers["location"], format!("/tasks/{id}"));
        id
    }

    async fn task(&self, id: &str) -> Value {
        self.client.get(&format!("/tasks/{id}")).await.json()
    }

    async fn reaches(&self, id: &str, state: &str) -> Value {
        eventually(state, || async {
            let task = self.task(id).await;
            (task["state"] == state).then_some(task)
        })
        .await
    }

    async fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let written = || async { std::fs::read(&path).is_ok_and(|b| !b.is_empty()).then_some(()) };
        eventually(name, written).await;
        path
    }

    async fn end(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_task_runs_the_cli_and_its_output_can_be_read_from_any_point() {
    let world = World::new().await;
    let body = json!({"prompt": "work", "model": "m-1", "allowed_tools": ["Edit", "Bash(ls:*)"],
        "max_turns": 7});
    let id = world.add(body).await;
    let events = world.client.events(&format!("/tasks/{id}/events"), |_| false).await;
    let ids: Vec<_> = events.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    assert!(events.contains("event: end"), "{events}");
    let task = world.task(&id).await;
    assert_eq!(task["state"], "succeeded");
    assert_eq!(task["last_message"], "done");
    assert_eq!(task["tokens"], json!({"input": 3, "output": 4}));
    assert_eq!(task["cost_usd"], 0.5);
    assert_eq!((&task["exit_code"], &task["turns"]), (&json!(0), &json!(2)));
    let args = std::fs::read_to_string(world.path("workspace/args")).unwrap();
    let args: Vec<_> = args.lines().collect();
    assert_eq!(
        args.join(" "),
        "-p --output-format stream-json --verbose --permission-mode acceptEdits --model m-1 \
         --allowedTools Edit Bash(ls:*) --max-turns 7"
    );
    let from = [("last-event-id", "2")];
    let rest = world.client.send("GET", &format!("/tasks/{id}/events"), &from, "").await.text;
    let ids: Vec<_> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["3", "4"]);
    world.end().await;
}

#[tokio::test]
async fn secrets_reach_the_cli_and_nobody_else() {
    let world = World::new().await;
    let good = world.add(json!({"prompt": "work"})).await;
    let events = world.client.events(&format!("/tasks/{good}/events"), |_| false).await;
    let bad = world.add(json!({"prompt": "fail"})).await;
    let failed = world.reaches(&bad, "failed").await;
    assert_eq!(failed["error"]["code"], "task.cli_failed");
    assert_eq!(failed["exit_code"], 2);
    assert_eq!(failed["stderr"], json!(["no credit for [secret API_KEY]"]));
    let list = world.client.get("/tasks").await.text;
    let metrics = world.client.get("/metrics").await.text;
    let health = world.client.get("/health").await.text;
    for text in [&events, &list, &metrics, &health] {
        assert!(!text.contains(CANARY), "{text}");
    }
    let on_disk = std::fs::read_to_string(world.path(&format!("temp/tasks/{good}.jsonl"))).unwrap();
    assert!(on_disk.contains("[secret API_KEY]") && !on_disk.contains(CANARY), "{on_disk}");
    let environment = std::fs::read_to_string(world.path("workspace/environment")).unwrap();
    assert!(environment.contains(&format!("API_KEY={CANARY}")), "{environment}");
    assert!(!environment.contains("COVIBES_TOKEN_FILE"), "{environment}");
    world.end().await;
}

#[tokio::test]
async fn a_cancelled_task_is_over_within_five_seconds_with_all_its_processes() {
    let world = World::new().await;
    let id = world.add(json!({"prompt": "hang"})).await;
    let child = world.file("workspace/child").await;
    let stray = world.file("workspace/stray").await;
    let cancelled = async {
        let answer = world.client.delete(&format!("/tasks/{id}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["cancelling"]), (202, &json!(true)));
        world.reaches(&id, "cancelled").await
    };
    let task = tokio::time::timeout(Duration::from_secs(5), cancelled).await.unwrap();
    assert_eq!(task["signal"], 9);
    assert_eq!(task["last_message"], "hanging");
    is_gone(&child).await;
    is_gone(&stray).await;
    assert_eq!(world.client.delete(&format!("/tasks/{id}")).await.status, 200);
    world.end().await;
}

#[tokio::test]
async fn a_cancelled_task_is_asked_politely_first() {
    let world = World::new().await;
    let id = world.add(json!({"prompt": "gentle"})).await;
    world.file("workspace/environment").await;
    world.client.delete(&format!("/tasks/{id}")).await;
    let task = world.reaches(&id, "cancelled").await;
    assert!(task["exit_code"] == 130 || task["signal"] == 2, "{task}");
    world.end().await;
}

#[tokio::test]
async fn a_full_queue_is_answered_with_429_and_a_waiting_task_can_be_cancelled() {
    let world = World::new().await;
    let running = world.add(json!({"prompt": "gentle"})).await;
    world.reaches(&running, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(world.add(json!({"prompt": "work"})).await);
    }
    let refused = world.client.post("/tasks", &json!({"prompt": "work"})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "15");
    assert_eq!(refused.json()["error"]["code"], "queue.full");
    let cancelled = world.client.delete(&format!("/tasks/{}", waiting[0])).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["state"]), (200, &json!("cancelled")));
    world.add(json!({"prompt": "work"})).await;
    let list = world.client.get("/tasks").await.json();
    assert_eq!((&list["running"], &list["waiting"]), (&json!(1), &json!(16)));
    assert_eq!(list["tasks"].as_array().unwrap().len(), 18);
    let metrics = world.client.get("/metrics").await.text;
    assert!(metrics.contains("covibes_agent_waiting_tasks 16"), "{metrics}");
    assert!(metrics.contains("covibes_agent_tasks_refused_total 1"), "{metrics}");
    world.end().await;
}

#[tokio::test]
async fn everything_but_health_needs_the_token() {
    let world = World::new().await;
    for token in [None, Some("0123456789abcdef0124")] {
        let stranger = Client { address: world.client.address, token };
        assert_ne!(stranger.get("/health").await.status, 401);
        for path in
            ["/tasks", "/tasks/x", "/tasks/x/events", "/events", "/changes", "/metrics", "/nothing"]
        {
            let answer = stranger.get(path).await;
            assert_eq!(answer.status, 401, "{path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        assert_eq!(stranger.post("/tasks", &json!({"prompt": "x"})).await.status, 401);
        assert_eq!(stranger.post("/shutdown", &json!({})).await.status, 401);
        assert_eq!(stranger.post("/tasks/x/told", &json!({})).await.status, 401);
    }
    assert_eq!(world.client.get("/nothing").await.status, 404);
    assert_eq!(world.client.get("/tasks/x").await.status, 404);
    world.end().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let world = World::new().await;
    for (body, status) in [
        ("{".to_owned(), 400),
        (r#"{"prompt":"x","surprise":1}"#.to_owned(), 400),
        (r#"{"prompt":""}"#.to_owned(), 422),
        (format!(r#"{{"prompt":"{}"}}"#, "x".repeat(300 * 1024)), 413),
    ] {
        let answer = world.client.send("POST", "/tasks", &[], &body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert!(answer.json()["error"]["message"].is_string());
    }
    world.end().await;
}

#[tokio::test]
async fn a_restart_interrupts_what_runs_and_keeps_the_queue_and_what_is_over() {
    let world = World::new().await;
    let over = world.add(json!({"prompt": "work"})).await;
    let before = world.reaches(&over, "succeeded").await;
    let running = world.add(json!({"prompt": "hang"})).await;
    world.file("workspace/stray").await;
    let waiting = world.add(json!({"prompt": "work", "model": "m-2"})).await;
    let world = world.again().await;
    assert_eq!(world.task(&over).await, before);
    assert_eq!(world.task(&running).await["state"], "interrupted");
    let after = world.reaches(&waiting, "succeeded").await;
    assert_eq!(after["model"], "m-2");
    let events = world.client.events(&format!("/tasks/{over}/events"), |_| false).await;
    assert_eq!(events.lines().filter(|line| line.starts_with("id: ")).count(), 4, "{events}");
    let list = world.client.get("/tasks").await.json();
    assert_eq!(list["tasks"].as_array().unwrap().len(), 3);
    world.end().await;
}

#[tokio::test]
async fn a_service_that_is_killed_finds_its_task_interrupted() {
    let world = World::new().await;
    let id = world.add(json!({"prompt": "hang"})).await;
    world.file("workspace/stray").await;
    // What a killed service leaves: the files as they are, with half a line.
    let (task, output) = (format!("temp/tasks/{id}.json"), format!("temp/tasks/{id}.jsonl"));
    let kept = eventually("written down as running", || async {
        let text = std::fs::read_to_string(world.path(&task)).ok()?;
        text.contains("\"started\":\"").then_some(text)
    })
    .await;
    let stop = world.again().await;
    stop.stop.cancel();
    stop.served.await.unwrap().unwrap();
    let dir = stop.dir;
    std::fs::write(dir.path().join(&task), kept).unwrap();
    std::fs::write(dir.path().join(&output), "{\"type\":\"a\"}\n{\"type\":\"b\"}\n{\"ty").unwrap();
    std::fs::write(dir.path().join("temp/tasks/rubbish.json"), "{").unwrap();
    let world = World::in_directory(dir).await;
    let task = world.task(&id).await;
    assert_eq!((&task["state"], &task["events"]), (&json!("interrupted"), &json!(2)), "{task}");
    assert!(task["started_at"].is_string() && task["finished_at"].is_string(), "{task}");
    assert!(!world.path("temp/tasks/rubbish.json").exists());
    let events = world.client.events(&format!("/tasks/{id}/events"), |_| false).await;
    assert!(events.contains("{\"type\":\"b\"}") && !events.contains("\"ty\n"), "{events}");
    world.end().await;
}

#[tokio::test]
async fn a_key_asks_once_also_over_a_restart() {
    let world = World::new().await;
    let ask = async |world: &World, key: &str| {
        let key = [("idempotency-key", key)];
        let answer = world.client.send("POST", "/tasks", &key, r#"{"prompt":"work"}"#).await;
        let body = answer.json();
        (answer.status.as_u16(), body["id"].as_str().unwrap_or_default().to_owned())
    };
    let (status, id) = ask(&world, "first").await;
    assert_eq!((status, ask(&world, "first").await), (202, (200, id.clone())));
    world.reaches(&id, "succeeded").await;
    let world = world.again().await;
    assert_eq!(ask(&world, "first").await, (200, id));
    assert_eq!(ask(&world, "second").await.0, 202);
    assert_eq!(ask(&world, &"x".repeat(201)).await.0, 400);
    world.end().await;
}

#[tokio::test]
async fn a_follower_of_all_tasks_sees_each_change_and_what_was_told_is_kept() {
    let world = World::new().await;
    let first = world.add(json!({"prompt": "work", "resume": "session-1"})).await;
    world.reaches(&first, "succeeded").await;
    let args = std::fs::read_to_string(world.path("workspace/args")).unwrap();
    assert!(args.contains("--resume\nsession-1\n"), "{args}");
    let told = json!({"fact": "finished"});
    assert_eq!(world.client.post(&format!("/tasks/{first}/told"), &told).await.status, 204);
    let bad = world.client.post(&format!("/tasks/{first}/told"), &json!({"fact": "x"})).await;
    assert_eq!(bad.status, 400);
    let world = world.again().await;
    let follow = {
        let client = world.client.clone();
        let over = |text: &str| text.matches("\"state\":\"succeeded\"").count() == 2;
        tokio::spawn(async move { client.events("/events", over).await })
    };
    let second = world.add(json!({"prompt": "work"})).await;
    let text = follow.await.unwrap();
    let tasks: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    assert_eq!((&tasks[0]["id"], &tasks[0]["told"]), (&json!(first), &json!("finished")));
    let last = tasks.last().unwrap();
    assert_eq!((&last["id"], &last["told"]), (&json!(second), &json!("nothing")), "{text}");
    world.end().await;
}

#[tokio::test]
async fn a_failure_says_which_one_it_was() {
    let world = World::new().await;
    let late = world.add(json!({"prompt": "gentle", "timeout": 1})).await;
    assert_eq!(world.reaches(&late, "failed").await["error"]["code"], "task.timeout");
    let error = world.add(json!({"prompt": "error"})).await;
    assert_eq!(world.reaches(&error, "failed").await["error"]["code"], "task.cli_error");
    let login = world.add(json!({"prompt": "login"})).await;
    assert_eq!(world.reaches(&login, "failed").await["error"]["code"], "task.no_key");
    // With a key, it is the CLI that knows what is wrong with it.
    std::fs::write(world.path("secrets/ANTHROPIC_API_KEY"), "a-key-of-old-days").unwrap();
    let login = world.add(json!({"prompt": "login"})).await;
    assert_eq!(world.reaches(&login, "failed").await["error"]["code"], "task.cli_error");
    std::fs::remove_file(world.path("claude")).unwrap();
    let missing = world.add(json!({"prompt": "work"})).await;
    assert_eq!(world.reaches(&missing, "failed").await["error"]["code"], "task.cli_missing");
    world.end().await;
}

#[tokio::test]
async fn output_on_disk_stays_within_bounds() {
    let world = World::new().await;
    let flood = world.add(json!({"prompt": "flood"})).await;
    let task = world.reaches(&flood, "succeeded").await;
    assert_eq!(task["truncated"], true);
    let size = std::fs::metadata(world.path(&format!("temp/tasks/{flood}.jsonl"))).unwrap().len();
    assert!((8_000_000..8_500_000).contains(&size), "{size}");
    assert_eq!(task["output_bytes"], size);
    let long = world.add(json!({"prompt": "long"})).await;
    let events = world.client.events(&format!("/tasks/{long}/events"), |_| false).await;
    assert!(events.contains(r#"{"bytes":2000000,"type":"covibes.line_too_long"}"#), "{events}");
    assert!(events.contains(r#"{"text":"plain","type":"covibes.text"}"#), "{events}");
    world.end().await;
}

#[tokio::test]
async fn health_names_each_check() {
    let world = World::new().await;
    let health = eventually("healthy", || async {
        let answer = world.client.get("/health").await;
        let known = answer.json()["checks"][5]["detail"] != "not looked at yet";
        known.then_some(answer)
    })
    .await;
    assert_eq!(health.status, 200);
    let body = health.json();
    // The API is not there, which an agent can live with for a while.
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["checks"][5]["detail"], "127.0.0.1:9: connection refused");
    assert_eq!(body["checks"][6]["status"], "ok");
    let checks = body["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["process", "disk", "workspace", "cli", "proxy", "api", "memory"]);
    assert_eq!(checks[3]["detail"], "9.9.9 (fake)");
    assert!(checks[3]["age_seconds"].is_number());
    let cgroup = world.path("cgroup");
    std::fs::create_dir_all(&cgroup).unwrap();
    std::fs::write(cgroup.join("memory.max"), "104857600").unwrap();
    std::fs::write(cgroup.join("memory.current"), "89128960").unwrap();
    let body = world.client.get("/health").await.json();
    assert_eq!(body["checks"][6]["status"], "degraded", "{body}");
    assert_eq!(body["checks"][6]["detail"], "85 of 100 MiB, 85 %");
    std::fs::remove_dir_all(world.path("workspace")).unwrap();
    let health = world.client.get("/health").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &json!("failed")));
    world.end().await;
}

#[tokio::test]
async fn file_changes_are_told_without_noise() {
    let world = World::new().await;
    let mut tick = 0;
    let mode = world.client.events("/changes", |text| text.contains("event: mode\n")).await;
    assert!(mode.contains(r#"data: {"mode":"inotify"}"#), "{mode}");
    let follow = {
        let client = world.client.clone();
        tokio::spawn(async move { client.events("/changes", |t| t.contains("seen.txt")).await })
    };
    // The stream may begin after a write, so the file changes until it is seen.
    eventually("told", || {
        tick += 1;
        std::fs::write(world.path("workspace/node_modules/noise"), tick.to_string()).unwrap();
        std::fs::write(world.path("workspace/seen.txt"), tick.to_string()).unwrap();
        let told = follow.is_finished();
        async move { told.then_some(()) }
    })
    .await;
    let text = follow.await.unwrap();
    assert!(text.contains(r#"{"paths":["seen.txt"],"rescan":false}"#), "{text}");
    world.end().await;
}

#[tokio::test]
async fn a_shutdown_ends_the_running_task_within_two_seconds() {
    let world = World::new().await;
    let id = world.add(json!({"prompt": "hang"})).await;
    let child = world.file("workspace/child").await;
    let stray = world.file("workspace/stray").await;
    let follow = world.client.open("GET", &format!("/tasks/{id}/events"), &[], "").await;
    let ended = async {
        let answer = world.client.post("/shutdown", &json!({})).await;
        assert_eq!(answer.status, 202);
        world.served.await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_secs(2), ended).await.unwrap();
    assert!(follow.into_body().collect().await.is_ok(), "an open stream ends in good order");
    is_gone(&child).await;
    is_gone(&stray).await;
}

#[test]
fn without_a_token_the_service_refuses_to_start() {
    let error = AgentSettings::from_environment(&Environment::default()).unwrap_err();
    assert_eq!(error.to_string(), "COVIBES_TOKEN_FILE is not set");
    assert_eq!(ServiceError::from(error).exit_code(), 78);
}
