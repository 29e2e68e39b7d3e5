//! Agents with the real `claude` CLI: it edits a workspace and runs commands as
//! a stand-in for its API says, reached through the egress proxy by host policy.

use std::path::Path;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::docker::{self, docker, exec};
use crate::git_server::GitServer;
use crate::model_server::{ModelServer, bash, prompt, read, wait, write};
use crate::net::{Reply, send, until_page_holds};
use crate::place::{Place, STATE_MAX, until};
use crate::projects;
use crate::worker::{Follower, Message, Worker};

const KEY: &str = "sk-canary-6f1d2b8e90";
const TOKEN: &str = "the-workers-own-token";
const ORIGIN: &str = "https://dash.example";

/// A page that shows what `page.txt` says now.
const SERVER: &str = "const fs = require('fs');\nrequire('http').createServer((_, response) => \
                      response.end(fs.readFileSync('page.txt'))).listen(process.env.PORT, '0.0.0.0');";

/// A place whose worker knows the key and is asked with a token.
async fn place() -> Place {
    let mut place = Place::new().await;
    let secrets = place.directory("secrets");
    std::fs::create_dir(secrets.join("anthropic")).unwrap();
    std::fs::write(secrets.join("anthropic/default"), KEY).unwrap();
    std::fs::write(place.dir.join("token"), TOKEN).unwrap();
    let token = place.dir.join("token").display().to_string();
    place.set("COVIBES_PATHS_SECRETS", secrets.display().to_string());
    place.set("COVIBES_HTTP_TOKEN_FILE", token);
    place.set("COVIBES_HTTP_CORS_ORIGINS", format!("[\"{ORIGIN}\"]"));
    place
}

fn project(place: &Place) -> std::path::PathBuf {
    let path = place.directory("app");
    let scripts = json!({"dev": "node server.js"});
    projects::node(&path, &scripts, &[("server.js", SERVER), ("page.txt", "before")]);
    path
}

fn agent(name: &str, prompt: Option<&str>) -> Value {
    let mut agent = json!({"name": name, "secrets": {"ANTHROPIC_API_KEY": "anthropic/default"}});
    if let Some(prompt) = prompt {
        agent["prompt"] = prompt.into();
    }
    agent
}

/// One team's agents, asked through the worker.
struct Team<'a> {
    place: &'a Place,
    team: &'a str,
}

impl Team<'_> {
    async fn ask(&self, method: &str, agent: &str, path: &str, body: &str) -> Reply {
        let bearer = format!("Bearer {TOKEN}");
        self.ask_with(method, agent, path, &[("authorization", &bearer)], body, |_| false).await
    }

    async fn ask_with(
        &self,
        method: &str,
        agent: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        enough: impl Fn(&str) -> bool,
    ) -> Reply {
        let path = format!("/api/teams/{}/agents/{agent}{path}", self.team);
        send(self.place.http(), method, &path, headers, body, enough).await
    }

    /// Posts a task that may run every command.
    async fn post(&self, agent: &str, steps: &[Value]) -> String {
        let body = json!({"prompt": prompt(steps), "allowed_tools": ["Bash"]}).to_string();
        let reply = self.ask("POST", agent, "/tasks", &body).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let place = format!("/api/teams/{}/agents/{agent}/tasks/{id}", self.team);
        assert_eq!(reply.header("location"), place);
        id
    }

    async fn task(&self, agent: &str, id: &str) -> Value {
        self.ask("GET", agent, &format!("/tasks/{id}"), "").await.json()
    }

    async fn reaches(&self, agent: &str, id: &str, state: &str) -> Value {
        until(&format!("{id} is {state}"), STATE_MAX, async || {
            let task = self.task(agent, id).await;
            (task["state"] == state).then_some(task)
        })
        .await
    }
}

fn is_task(event: &Value, kind: &str, id: &str) -> bool {
    event["type"] == format!("covibes.agent.task.{kind}") && event["data"]["task"] == id
}

#[tokio::test]
async fn the_real_cli_works_for_a_team_and_its_events_tell_it() {
    let place = place().await;
    let server = ModelServer::new(&place, KEY).await;
    let workspace = place.workspace("crew", &project(&place));
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;

    // A start with a first task, which edits the page that the preview shows.
    // The CLI writes over no file that it has not read.
    let first = prompt(&[read("page.txt"), write("page.txt", "made by the cli")]);
    let mut job = Message::start("crew", &["main"]);
    job.body["spec"]["agents"] = json!([agent("one", Some(&first)), agent("two", None)]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link = events.seen().of_job(&job.id).link("main");
    let finished = events
        .until("the first task is over", |event| event["type"] == "covibes.agent.task.finished")
        .await;
    let data = &finished["data"];
    assert_eq!((&data["state"], &data["agent"]), (&json!("succeeded"), &json!("one")), "{data}");
    assert_eq!(data["message"], "did 2 steps, 0 failed ");
    assert!(data["turns"].as_u64() >= Some(3) && data["exit_code"] == 0, "{data}");
    assert_eq!(std::fs::read_to_string(workspace.join("page.txt")).unwrap(), "made by the cli");
    until_page_holds(&link, "/", "made by the cli").await;
    let id = data["task"].as_str().unwrap();
    let started = events.seen().0.iter().filter(|event| is_task(event, "started", id)).count();
    assert_eq!(started, 1);
    let asked = server.requests();
    assert!(asked.iter().any(|request| request["known_key"] == true), "{asked:?}");
    assert!(asked.iter().all(|request| request["known_key"] != false), "{asked:?}");

    let team = Team { place: &place, team: "crew" };
    two_work_at_once(&team, &mut events, &workspace).await;
    dashboards(&team).await;
    commands(&place, &team, &mut events).await;
    a_key_is_found_nowhere(&place, &team, &worker, &mut events).await;
    a_restart_interrupts(&place, &team, &mut events).await;

    // The same start again is the same prompt: it is not posted again.
    let mut again = Message::start("crew", &["main"]);
    again.body["spec"] = job.body["spec"].clone();
    again.publish(&place).await;
    assert_eq!(events.end_of(&again.id).await["type"], "covibes.job.succeeded");
    let tasks = team.ask("GET", "one", "/tasks", "").await.json();
    let tasks = tasks["tasks"].as_array().unwrap().clone();
    let same = tasks.iter().filter(|t| t["prompt"].as_str().unwrap().contains("made by the cli"));
    assert_eq!(same.count(), 1, "{tasks:?}");
    events.seen().of_team("crew").assert_in_sequence();
}

async fn two_work_at_once(team: &Team<'_>, events: &mut Follower, workspace: &Path) {
    let steps = |name: &str| {
        let copy = bash(&format!("cp {name}.txt {name}-copy.txt && sleep 3"));
        [write(&format!("{name}.txt"), name), copy]
    };
    let one = team.post("one", &steps("one")).await;
    let two = team.post("two", &steps("two")).await;
    until("both run at the same time", STATE_MAX, async || {
        let states = [team.task("one", &one).await, team.task("two", &two).await];
        states.iter().all(|task| task["state"] == "running").then_some(())
    })
    .await;
    for (agent, id) in [("one", &one), ("two", &two)] {
        let task = team.reaches(agent, id, "succeeded").await;
        assert_eq!(task["last_message"], "did 2 steps, 0 failed ", "{task}");
        let copy = workspace.join(format!("{agent}-copy.txt"));
        assert_eq!(std::fs::read_to_string(copy).unwrap(), agent);
        let is_end = |event: &Value| is_task(event, "finished", id);
        if !events.seen().0.iter().any(is_end) {
            events.until("it is told", is_end).await;
        }
        let progress = events.seen().0.iter().filter(|event| is_task(event, "progress", id));
        assert!((1..=30).contains(&progress.count()), "{:?}", events.seen().kinds());
    }
}

/// What a page in a browser meets.
async fn dashboards(team: &Team<'_>) {
    let bearer = format!("Bearer {TOKEN}");
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        team.ask_with(method, "one", path, headers, "", |_| false).await
    };
    assert_eq!(ask("GET", "/tasks", &[]).await.status, 401);
    let wrong = [("authorization", "Bearer the-workers-own-tokem")];
    assert_eq!(ask("GET", "/tasks", &wrong).await.status, 401);
    let preflight = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let reply = ask("OPTIONS", "/tasks", &preflight).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, ORIGIN));
    assert!(reply.header("access-control-allow-methods").contains("POST"), "{reply:?}");
    assert!(reply.header("access-control-allow-headers").contains("authorization"), "{reply:?}");
    assert_eq!(reply.header("vary"), "origin");
    let foreign = [("origin", "https://evil.example"), preflight[1]];
    let reply = ask("OPTIONS", "/tasks", &foreign).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, ""));
    let allowed = [("authorization", bearer.as_str()), ("origin", ORIGIN)];
    let reply = ask("GET", "/tasks", &allowed).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, ORIGIN));
    let foreign = [("authorization", bearer.as_str()), ("origin", "https://evil.example")];
    assert_eq!(ask("GET", "/tasks", &foreign).await.status, 403);
    // Neither what ends an agent nor what is between it and its worker.
    let id = reply.json()["tasks"][0]["id"].as_str().unwrap().to_owned();
    for path in ["/shutdown".to_owned(), format!("/tasks/{id}/told"), "/tasks/../health".to_owned()]
    {
        assert_eq!(team.ask("POST", "one", &path, "{}").await.status, 404, "{path}");
    }
    assert_eq!(team.ask("GET", "three", "/tasks", "").await.status, 404);
    assert_eq!(team.ask("POST", "one", "/tasks", &"x".repeat(300_000)).await.status, 413);

    // Events come as they happen, and again from where a reader was.
    let running = team.post("one", &[bash("echo begun"), wait(60)]).await;
    let path = format!("/tasks/{running}/events");
    let with = [("authorization", bearer.as_str())];
    let reply =
        team.ask_with("GET", "one", &path, &with, "", |text| text.contains("tool_result")).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let task = team.task("one", &running).await;
    assert_eq!(task["state"], "running", "{task}: {}", reply.body);
    let from = [with[0], ("last-event-id", "1")];
    let reply = team.ask_with("GET", "one", &path, &from, "", |text| text.contains("\nid: ")).await;
    assert!(reply.body.contains("id: 2\n") && !reply.body.contains("id: 1\n"), "{}", reply.body);
    let began = Instant::now();
    let ended = team.ask("DELETE", "one", &format!("/tasks/{running}"), "").await;
    assert_eq!(ended.status, 202);
    let task = team.reaches("one", &running, "cancelled").await;
    assert!(began.elapsed().as_secs() < 5, "{:?}: {task}", began.elapsed());
}

/// What a person types on the host.
async fn commands(place: &Place, team: &Team<'_>, events: &mut Follower) {
    let steps = prompt(&[bash("echo typed > typed.txt")]);
    let run = ["agent", "run", "crew", "two", &steps, "--allow", "Bash"];
    let ended = place.run(&run).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("did 1 steps, 0 failed"), "{ended:?}");
    assert!(ended.stderr.contains("> Bash"), "{ended:?}");
    let without = prompt(&[bash("node -e 1")]);
    let ended = place.run(&["agent", "run", "crew", "two", &without, "--json"]).await;
    assert!(ended.stdout.contains("did 1 steps, 1 failed"), "{ended:?}");

    let waiting = prompt(&[wait(60)]);
    let ended = place.run(&["agent", "run", "crew", "two", &waiting, "--detach"]).await;
    let id = ended.stdout.trim().to_owned();
    team.reaches("two", &id, "running").await;
    let shown = place.run(&["teams", "show", "crew"]).await.stdout;
    assert!(shown.contains(&id) && shown.contains("running"), "{shown}");
    let listed = place.run(&["agent", "tasks", "crew", "two", "--json"]).await.stdout;
    let listed: Vec<Value> = listed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(listed.iter().any(|t| t["task"]["id"] == id.as_str()), "{listed:?}");
    let cancelled = place.run(&["agent", "cancel", "crew", "two"]).await;
    assert_eq!((cancelled.code, cancelled.stderr.trim()), (Some(0), "cancelled"));
    let told = events.until("the end is told", |event| is_task(event, "finished", &id)).await;
    assert_eq!(told["data"]["state"], "cancelled");
    let nobody = place.run(&["agent", "run", "crew", "three", "x"]).await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no agent three of team crew runs here"), "{nobody:?}");
}

/// Also not when the CLI itself is made to print it, and when it fails.
async fn a_key_is_found_nowhere(
    place: &Place,
    team: &Team<'_>,
    worker: &Worker<'_>,
    events: &mut Follower,
) {
    let print = bash("echo the key is $ANTHROPIC_API_KEY; env; exit 3");
    let id = team.post("two", &[print]).await;
    let task = team.reaches("two", &id, "succeeded").await;
    events.until("the end is told", |event| is_task(event, "finished", &id)).await;
    let output = team.ask("GET", "two", &format!("/tasks/{id}/events"), "").await.body;
    assert!(output.contains("the key is [secret ANTHROPIC_API_KEY]"), "{output}");

    let mut texts = vec![("the output", output), ("the task", task.to_string())];
    for name in docker::ids(&place.instance, "crew").await.keys() {
        texts.push(("inspect", docker(&["inspect", name]).await));
        let logs = std::process::Command::new("docker").args(["logs", name]).output().unwrap();
        texts.push(("logs", String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into()));
    }
    for path in ["/tasks", "/health", "/metrics"] {
        texts.push(("an agent's answer", team.ask("GET", "two", path, "").await.body));
    }
    texts.push(("the worker's metrics", worker.get("/metrics").await.unwrap().body));
    texts.push(("the worker's log", worker.process.stderr()));
    texts.push(("events", format!("{:?}", events.seen().0)));
    texts.push(("teams show", place.run(&["teams", "show", "crew", "--json"]).await.stdout));
    let state = Path::new("/var/lib/covibes/instances").join(&place.instance);
    let found = std::process::Command::new("grep").args(["-rl", KEY]).arg(&state).output().unwrap();
    texts.push(("the state directory", String::from_utf8_lossy(&found.stdout).into_owned()));
    assert!(state.join("compose/crew/compose.yaml").exists());
    for (what, text) in texts {
        let at = text.find(KEY);
        assert_eq!(at, None, "the key is in {what}");
        assert!(what != "the state directory" || text.is_empty(), "{text}");
    }
    // Where it has to be: a file that only its container's user reads.
    let agent = docker::ids(&place.instance, "crew").await;
    let agent = agent.keys().find(|name| name.ends_with("_two")).unwrap();
    let mode =
        exec(agent, &["stat", "-c", "%a %u", "/run/secrets/covibes/ANTHROPIC_API_KEY"]).await;
    assert_eq!(mode.output, "400 1000");
    let touched = exec(agent, &["touch", "/run/secrets/covibes/x"]).await;
    assert!(touched.output.contains("Read-only file system"), "{touched:?}");
}

async fn a_restart_interrupts(place: &Place, team: &Team<'_>, events: &mut Follower) {
    let running = team.post("two", &[wait(60)]).await;
    team.reaches("two", &running, "running").await;
    let waiting = team.post("two", &[bash("echo later > later.txt")]).await;
    let ids = docker::ids(&place.instance, "crew").await;
    let name = ids.keys().find(|name| name.ends_with("_two")).unwrap();
    docker(&["restart", name]).await;
    // Told by what the agent remembers, whoever asked meanwhile.
    let told = events.until("the interruption is told", |e| is_task(e, "finished", &running)).await;
    assert_eq!(told["data"]["state"], "interrupted", "{told}");
    events.until("what waited is done", |event| is_task(event, "finished", &waiting)).await;
    assert_eq!(team.task("two", &waiting).await["state"], "succeeded");
}

#[tokio::test]
async fn an_agent_has_its_teams_key_and_pinned_hosts_read_only() {
    let mut place = Place::new().await;
    let server = GitServer::new(&place).await;
    server.project(&place);
    let secrets = place.directory("secrets");
    std::fs::write(secrets.join("known_hosts"), "git.example ssh-ed25519 AAAA\n").unwrap();
    std::fs::create_dir(secrets.join("ssh")).unwrap();
    std::fs::write(secrets.join("ssh/crew"), "not a real key\n").unwrap();
    place.set("COVIBES_PATHS_SECRETS", secrets.display().to_string());
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let mut job = Message::new("crew", "start");
    job.body["spec"] = json!({
        "workspace": {"git": {"url": server.url("app"), "ref": "main", "credentials": "ssh:crew"}},
        "agents": [{"name": "one"}], "previews": [],
    });
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let ids = docker::ids(&place.instance, "crew").await;
    let agent = ids.keys().find(|name| name.ends_with("_one")).unwrap();
    let said = async |script: &str| exec(agent, &["sh", "-c", script]).await.output;
    assert_eq!(said("stat -c '%a %u' ~/.ssh/id_rsa").await, "400 1000");
    assert_eq!(said("cat ~/.ssh/id_rsa ~/.ssh/known_hosts | wc -l").await, "2");
    for file in ["id_rsa", "known_hosts"] {
        let written = said(&format!("echo x >> ~/.ssh/{file}; rm -f ~/.ssh/{file}")).await;
        let refused = written.contains("Read-only") || written.contains("Permission denied");
        assert!(refused, "{file}: {written}");
    }
    // Through the proxy, to pinned hosts only.
    let git = said("git ls-remote ssh://git@git.example/x 2>&1; echo $GIT_SSH_COMMAND").await;
    assert!(git.contains("StrictHostKeyChecking=yes") && git.contains("nc -X connect"), "{git}");
}
