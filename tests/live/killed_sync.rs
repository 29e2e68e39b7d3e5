//! A sync container that is killed while it moves a tree of many files: it comes again,
//! finishes the move, and leaves alone what somebody changed meanwhile.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::docker::{self, exec};
use crate::git_server::GitServer;
use crate::place::{Place, is_full, until};
use crate::projects::give;
use crate::worker::{Follower, Message, Worker};

const FILES: usize = 20_000;

/// A tenth of a CPU takes its time, on a busy host even more.
const STEP_MAX: Duration = Duration::from_secs(600);

fn path_of(number: usize) -> String {
    format!("part-{:03}/file-{number:05}", number / 100)
}

fn text(number: usize, version: usize) -> String {
    format!("file {number} in version {version}\n").repeat(20)
}

fn git(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        // Beside the service, and of another user.
        .env("GIT_OPTIONAL_LOCKS", "0");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Commits a version of all files to the server's main branch.
fn push(repository: &Path, version: usize) -> String {
    let mut import = git(repository, &["fast-import", "--quiet", "--force"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    let from = if version == 1 { "" } else { "from refs/heads/main^0\n" };
    let head = "commit refs/heads/main\ncommitter t <t@example.org> 1700000000 +0000\ndata 1\nv";
    write!(stream, "{head}\n{from}").unwrap();
    for number in 0..FILES {
        let (path, text) = (path_of(number), text(number, version));
        write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len()).unwrap();
    }
    drop(stream);
    assert!(import.wait().unwrap().success());
    run(repository, &["rev-parse", "main"])
}

struct Moving {
    workspace: PathBuf,
    sync: String,
}

impl Moving {
    /// Kills the container when this file has moved, and what runs in it.
    async fn kill_at(&self, number: usize, version: usize) {
        let path = self.workspace.join(path_of(number));
        until("the move is in its middle", STEP_MAX, async || {
            (std::fs::read_to_string(&path).ok()? == text(number, version)).then_some(())
        })
        .await;
        let inspected = docker::inspect(&self.sync).await;
        let pid = inspected["State"]["Pid"].as_i64().unwrap();
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
        let last = std::fs::read_to_string(self.workspace.join(path_of(FILES - 1))).unwrap();
        assert_ne!(last, text(FILES - 1, version), "the move was over");
    }

    fn is_whole(&self, commit: &str) {
        assert_eq!(run(&self.workspace, &["rev-parse", "HEAD"]), commit);
        assert_eq!(run(&self.workspace, &["status", "--porcelain"]), "?? notes.txt");
    }
}

#[tokio::test]
async fn full_a_sync_container_that_is_killed_in_a_move_comes_again_and_finishes_it() {
    if !is_full("20,000 files and two kills") {
        return;
    }
    let place = Place::new().await;
    let server = GitServer::new(&place).await;
    let repository = server.repository("tree");
    push(&repository, 1);
    let workspace = place.data().join("workspaces/moved");
    std::fs::create_dir_all(workspace.parent().unwrap()).unwrap();
    let (from, to) = (repository.to_str().unwrap(), workspace.to_str().unwrap());
    run(&place.dir, &["clone", "--quiet", "--no-hardlinks", from, to]);
    std::fs::write(workspace.join("notes.txt"), "mine").unwrap();
    give(&workspace);

    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let mut job = Message::new("moved", "start");
    job.body["spec"] = json!({
        "workspace": {"git": {"url": server.url("tree"), "ref": "main"}},
        "agents": [], "previews": [], "sync": {"interval": "5s"},
    });
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let ids = docker::ids(&place.instance, "moved").await;
    let sync = ids.keys().find(|name| name.contains("_sync_")).unwrap().clone();
    let moving = Moving { workspace: workspace.clone(), sync };
    let is_synced = |event: &Value, head: &str| {
        event["type"] == "covibes.sync.synced" && event["data"]["head"] == head
    };

    let second = push(&repository, 2);
    moving.kill_at(FILES / 2, 2).await;
    events.until("the move is finished", |event| is_synced(event, &second)).await;
    moving.is_whole(&second);
    let log = docker::docker(&["logs", &moving.sync]).await;
    assert!(log.contains("a move that was cut off is finished"), "{log}");

    // What somebody changes after the kill stays, is told, and then put right.
    let third = push(&repository, 3);
    moving.kill_at(FILES / 3, 3).await;
    let edited = path_of(123);
    std::fs::write(workspace.join(&edited), "an agent's own").unwrap();
    let conflict =
        events.until("it is told", |event| event["type"] == "covibes.sync.conflict").await;
    assert_eq!(conflict["data"]["paths"], json!([edited]), "{conflict}");
    assert_eq!(std::fs::read_to_string(workspace.join(&edited)).unwrap(), "an agent's own");
    let shown = place.run(&["sync", "moved"]).await;
    assert!(shown.stdout.contains("half_moved: a move was cut off"), "{shown:?}");
    let shown = place.run(&["teams", "show", "moved"]).await;
    assert!(shown.stdout.contains(&edited), "{shown:?}");
    exec(&moving.sync, &["git", "-C", "/workspace", "checkout", "--", &edited]).await;
    events.until("the move is finished", |event| is_synced(event, &third)).await;
    moving.is_whole(&third);
    assert_eq!(std::fs::read_to_string(workspace.join("notes.txt")).unwrap(), "mine");
}
