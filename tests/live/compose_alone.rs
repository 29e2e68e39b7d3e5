//! A file of `covibes compose` serves its project with Docker alone, also what the project must
//! write although its code is read-only, and brings up agents and sync with tokens of its own.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::compose::{TOOLS, fetched, run, said};
use crate::docker;
use crate::net::until_page_holds;
use crate::place::{COMMAND_MAX, Place, STATE_MAX, until};

/// A file of `covibes compose`, run by Compose alone as a project of the test's own.
struct Alone<'a> {
    place: &'a Place,
    program: PathBuf,
    file: PathBuf,
    project: String,
}

impl Alone<'_> {
    async fn compose(&self, arguments: &[&str]) -> String {
        let running = Command::new(&self.program)
            .args(["--project-name", &self.project, "--file"])
            .arg(&self.file)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(COMMAND_MAX, running).await.expect("Compose ends");
        said(&format!("docker-compose {arguments:?}"), &output.unwrap())
    }

    async fn container(&self, service: &str) -> Value {
        docker::inspect(&format!("{}-{service}-1", self.project)).await
    }

    async fn log(&self, service: &str) -> String {
        self.compose(&["--profile", "agents", "logs", "--no-log-prefix", service]).await
    }

    /// Everything that Docker has of the project.
    async fn left(&self) -> String {
        let filter = format!("--filter=label=com.docker.compose.project={}", self.project);
        let mut left = docker::docker(&["ps", "--all", "--quiet", &filter]).await;
        for kind in ["network", "volume"] {
            left += &docker::docker(&[kind, "ls", "--quiet", &filter]).await;
        }
        left
    }
}

/// What a project is checked for.
struct Case<'a> {
    example: &'a str,
    owner: u32,
    port: u16,
    path: &'a str,
    holds: &'a str,
    /// What is new in the project's directory: mount points, and links of writable files.
    made: &'a [&'a str],
}

/// Renders a project's file and brings it up with nothing but Docker.
async fn up<'a>(place: &'a Place, directory: &Path, team: &str) -> Alone<'a> {
    let program = fetched(TOOLS).await;
    let before = names_below(directory);
    let ended = place.run(&["compose", directory.to_str().unwrap(), "--team", team]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(names_below(directory), before, "rendering changes nothing");
    let file = place.dir.join("compose.yaml");
    std::fs::write(&file, &ended.stdout).unwrap();
    // By this name what a failed test leaves is removed with its place.
    let alone = Alone { place, program, file, project: place.instance.clone() };
    alone.compose(&["up", "--detach"]).await;
    alone
}

async fn down(alone: Alone<'_>, team: &str) {
    alone.compose(&["--profile", "agents", "down", "--volumes", "--timeout", "10"]).await;
    assert_eq!(alone.left().await, "");
    assert!(docker::of_team(&alone.place.instance, team).await.is_empty());
}

/// Renders an example's file, brings it up with nothing but Docker, and takes it down again.
async fn check_alone(case: &Case<'_>) {
    let Case { example, owner, port, path, holds, made } = *case;
    let mut place = Place::new().await;
    // A range of one port, so that tests side by side do not meet.
    place.set("COVIBES_PREVIEW_PORTS", format!("[{port}, {port}]"));
    let directory = place.example(example);
    run("chown", &[Path::new("-R"), Path::new(&format!("{owner}:{owner}")), &directory]).await;
    let before = names_below(&directory);
    let alone = up(&place, &directory, example).await;
    let link: url::Url = format!("http://localhost:{port}").parse().unwrap();
    until_page_holds(&link, path, holds).await;
    for (service, code) in [("prepare", 0), ("install-main", 0)] {
        let state = &alone.container(service).await["State"];
        assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(code)));
    }
    let preview = alone.container("preview-main").await;
    let user = if owner == 0 { 1000 } else { owner };
    assert_eq!(preview["Config"]["User"], format!("{user}:{user}"));
    assert_eq!(preview["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(preview["HostConfig"]["Memory"], 1_i64 << 30);
    let new: Vec<String> = names_below(&directory).difference(&before).cloned().collect();
    assert_eq!(new, made);

    // A second time nothing is installed.
    alone.compose(&["up", "--detach"]).await;
    let log = alone.compose(&["logs", "--no-log-prefix", "install-main"]).await;
    assert_eq!(
        log.matches("added ").count() + log.matches("Successfully installed").count(),
        1,
        "{log}"
    );
    until_page_holds(&link, path, holds).await;
    down(alone, example).await;
}

fn names_below(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn the_file_of_a_users_own_project_serves_its_page() {
    check_alone(&Case {
        example: "vite-react",
        owner: 1000,
        port: 9711,
        path: "/",
        holds: "<title>Covibes Vite React example</title>",
        made: &["node_modules"],
    })
    .await;
}

#[tokio::test]
async fn the_file_of_roots_project_serves_a_copy() {
    check_alone(&Case {
        example: "express",
        owner: 0,
        port: 9712,
        path: "/",
        holds: "Covibes Express example",
        made: &[],
    })
    .await;
}

/// Django opens its database when it starts: without the link it ends at once.
#[tokio::test]
async fn the_file_of_a_django_project_serves_its_page() {
    check_alone(&Case {
        example: "django",
        owner: 1000,
        port: 9713,
        path: "/",
        holds: "Covibes Django example",
        made: &["db.sqlite3"],
    })
    .await;
}

/// Serves how often it was asked, which it keeps in a file and in a directory beside its code.
const COUNTER: &str = "\
import { createServer } from 'node:http';
import { appendFileSync, readFileSync } from 'node:fs';
createServer((request, response) => {
  appendFileSync('visits.txt', 'x');
  appendFileSync('uploads/visits.txt', 'x');
  const both = ['visits.txt', 'uploads/visits.txt'].map((file) => readFileSync(file, 'utf8'));
  response.end(`counted ${both.map((text) => text.length > 0)}`);
}).listen(process.env.PORT, '0.0.0.0');
";

const AGENT: &str = "agent-agent-1";

/// Files and directories that the project file names are written, and outlive the containers;
/// agents and sync come up beside them, from the profile that the file's head speaks of.
#[tokio::test]
async fn the_file_keeps_what_the_project_may_write_and_runs_its_agents() {
    let mut place = Place::new().await;
    place.set("COVIBES_PREVIEW_PORTS", "[9714, 9714]");
    let directory = place.directory("counter");
    std::fs::write(directory.join("server.mjs"), COUNTER).unwrap();
    let manifest = r#"{"scripts":{"dev":"node server.mjs"}}"#;
    std::fs::write(directory.join("package.json"), manifest).unwrap();
    let project = "preview:\n  port: 4100\n  writable: [visits.txt, uploads/]\n";
    std::fs::write(directory.join(".covibes.yml"), project).unwrap();
    std::fs::create_dir(directory.join("uploads")).unwrap();
    run("chown", &[Path::new("-R"), Path::new("1000:1000"), &directory]).await;
    let alone = up(&place, &directory, "counter").await;
    let link: url::Url = "http://localhost:9714".parse().unwrap();
    until_page_holds(&link, "/", "counted true,true").await;
    assert!(directory.join("visits.txt").is_symlink());
    assert_eq!(names_below(&directory.join("uploads")), BTreeSet::new());
    alone.compose(&["up", "--detach", "--force-recreate", "preview-main"]).await;
    let kept = ["exec", "preview-main", "cat", "/workspace/visits.txt"];
    assert!(alone.compose(&kept).await.starts_with('x'), "it did not outlive its container");
    until_page_holds(&link, "/", "counted true,true").await;

    // As the head of the file says: a random token in each file that `secrets` names.
    let secrets = place.directory("secrets");
    for service in [AGENT, "sync"] {
        let file = secrets.join(format!("{service}-token"));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
    }
    alone.compose(&["--profile", "agents", "up", "--detach"]).await;
    for service in [AGENT, "sync"] {
        until("agents and sync are healthy", STATE_MAX, async || {
            let container = alone.container(service).await;
            assert_eq!(container["RestartCount"], 0, "{service}: {}", alone.log(service).await);
            (container["State"]["Health"]["Status"] == "healthy").then_some(())
        })
        .await;
    }
    down(alone, "counter").await;
}
