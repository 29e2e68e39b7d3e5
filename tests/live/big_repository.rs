//! A repository of 50,000 files and a gigabyte, kept in step by the sync container in its 128 MB
//! and tenth of a CPU, while there is work in the workspace.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::docker;
use crate::git_server::GitServer;
use crate::place::{Place, is_full, until};
use crate::projects::give;
use crate::worker::{Follower, Message, Worker};

const FILES: usize = 50_000;

/// A gigabyte in all.
const FILE_BYTES: usize = 20 * 1024;

/// A tenth of a CPU takes its time, on a busy host even more.
const STEP_MAX: Duration = Duration::from_secs(600);

/// Bytes that do not get smaller.
fn noise(length: usize, seed: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn path_of(number: usize) -> String {
    format!("part-{}/file-{number}", number / 100)
}

/// Git as a person's, for directories of anybody.
fn git(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"])
        .args(["-c", "core.compression=0", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Commits files to the server's main branch, as many and as large as they are; returns the commit.
fn commit(
    repository: &Path,
    message: &str,
    files: impl Iterator<Item = (String, Vec<u8>)>,
) -> String {
    let mut import = git(repository, &["fast-import", "--quiet", "--force", "--depth=0"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let is_first = !git(repository, &["rev-parse", "--verify", "--quiet", "main"])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    let from = if is_first { "" } else { "from refs/heads/main^0\n" };
    let length = message.len();
    write!(
        stream,
        "commit refs/heads/main\ncommitter t <t@example.org> 1700000000 +0000\n\
         data {length}\n{message}\n{from}"
    )
    .unwrap();
    for (path, content) in files {
        write!(stream, "M 100644 inline {path}\ndata {}\n", content.len()).unwrap();
        stream.write_all(&content).unwrap();
        stream.write_all(b"\n").unwrap();
    }
    drop(stream);
    assert!(import.wait().unwrap().success());
    run(repository, &["rev-parse", "main"])
}

/// What the kernel counted of a container's memory.
fn kills_and_peak(id: &str) -> (u64, u64) {
    let read = |path: String| std::fs::read_to_string(path).ok();
    let field = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    let first = format!("/sys/fs/cgroup/memory/docker/{id}");
    if let Some(text) = read(format!("{first}/memory.oom_control")) {
        let peak = read(format!("{first}/memory.max_usage_in_bytes")).unwrap();
        return (field(&text, "oom_kill ").unwrap(), peak.trim().parse().unwrap());
    }
    let second = ["docker/", "system.slice/docker-"].map(|p| format!("/sys/fs/cgroup/{p}{id}"));
    let found = second.iter().flat_map(|path| [path.clone(), format!("{path}.scope")]);
    let path = found.into_iter().find(|path| Path::new(path).exists()).expect("it has a cgroup");
    let text = read(format!("{path}/memory.events")).unwrap();
    let peak = read(format!("{path}/memory.peak")).unwrap_or_default();
    (field(&text, "oom_kill ").unwrap(), peak.trim().parse().unwrap_or(0))
}

/// The team, and what is looked at.
struct Large<'a> {
    place: &'a Place,
    repository: PathBuf,
    workspace: PathBuf,
    sync: String,
}

impl Large<'_> {
    /// Waits until the workspace is at a commit; says what that took.
    async fn follows(&self, what: &str, commit: &str) {
        let began = Instant::now();
        until(&format!("the workspace follows {what}"), STEP_MAX, async || {
            (run(&self.workspace, &["rev-parse", "HEAD"]) == commit).then_some(())
        })
        .await;
        self.holds(what, began).await;
    }

    /// Holds that nothing in the container was ended, and that it is the same one.
    async fn holds(&self, what: &str, began: Instant) {
        let inspected = docker::inspect(&self.sync).await;
        let id = inspected["Id"].as_str().unwrap();
        let (kills, peak) = kills_and_peak(id);
        let took = began.elapsed().as_secs();
        eprintln!("{what}: {took} s; {kills} kills, at most {} MB with files", peak >> 20);
        assert_eq!(kills, 0, "{what}");
        assert_eq!(inspected["RestartCount"], 0, "{what}");
        assert_eq!(inspected["State"]["Running"], true, "{what}");
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.workspace.join(name);
        std::fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    }

    fn commit(&self, message: &str, seed: usize, numbers: impl Iterator<Item = usize>) -> String {
        let files = numbers.map(|n| (path_of(n), noise(FILE_BYTES, n + seed * 1_000_003)));
        commit(&self.repository, message, files)
    }

    async fn sync(&self, more: &[&str]) -> (Option<i32>, Value) {
        let arguments = [&["sync", "large", "--json"][..], more].concat();
        let ended = self.place.run(&arguments).await;
        let said = serde_json::from_str(ended.stdout.lines().last().unwrap_or("null"));
        (ended.code, said.unwrap_or_else(|_| panic!("{ended:?}")))
    }
}

#[tokio::test]
async fn full_a_gigabyte_in_fifty_thousand_files_is_kept_in_step_within_the_limits() {
    if !is_full("a gigabyte in 50,000 files") {
        return;
    }
    let place = Place::new().await;
    let server = GitServer::new(&place).await;
    let repository = server.repository("large");
    let all = (0..FILES).map(|n| (path_of(n), noise(FILE_BYTES, n)));
    commit(&repository, "first", all);
    // As a clone leaves it, whose own container has other limits.
    let workspace = place.data().join("workspaces/large");
    std::fs::create_dir_all(workspace.parent().unwrap()).unwrap();
    let (from, to) = (repository.to_str().unwrap(), workspace.to_str().unwrap());
    run(&place.dir, &["clone", "--quiet", "--no-hardlinks", from, to]);
    give(&workspace);

    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let mut job = Message::new("large", "start");
    job.body["spec"] = json!({
        "workspace": {"git": {"url": server.url("large"), "ref": "main"}},
        "agents": [], "previews": [], "sync": {"interval": "5s"},
    });
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let ids = docker::ids(&place.instance, "large").await;
    let sync = ids.keys().find(|name| name.contains("_sync_")).unwrap().clone();
    let inspected = docker::inspect(&sync).await;
    assert_eq!(inspected["HostConfig"]["Memory"], 128 << 20);
    assert_eq!(inspected["HostConfig"]["NanoCpus"], 100_000_000_u64);
    let large = Large { place: &place, repository, workspace, sync };

    // Files that nobody knows stay wherever the remote goes.
    large.write("notes.txt", "mine");
    let second = large.commit("a thousand files", 1, (0..FILES).step_by(50));
    large.follows("a push of a thousand files", &second).await;
    let third = large.commit("ten thousand files", 2, (0..FILES).step_by(5));
    large.follows("a push of ten thousand files", &third).await;
    let blob = std::iter::once(("large.bin".to_owned(), noise(150 << 20, 7)));
    let fourth = commit(&large.repository, "one large file", blob);
    large.follows("a push of one file of 150 MB", &fourth).await;

    // Work that is not committed is in the way, is committed beside it, and is not lost.
    let edited = path_of(77);
    large.write(&edited, "edited");
    let fifth = large.commit("beside an edit", 3, 1000..1010);
    let began = Instant::now();
    let told = events
        .until("the conflict is told", |event| {
            event["type"] == "covibes.sync.conflict" && event["data"]["behind"] == 1
        })
        .await;
    assert_eq!(told["data"]["paths"], json!([edited]), "{told}");
    large.holds("a push beside an edit", began).await;
    let began = Instant::now();
    let (code, made) = large
        .sync(&["--commit", "agent-1", "-m", "edit", "--path", &edited, "--push", "agent-1"])
        .await;
    assert_eq!(code, Some(0), "{made}");
    let pushed = run(&large.repository, &["show", &format!("covibes/large/agent-1:{edited}")]);
    assert_eq!(pushed, "edited");
    large.holds("a commit and a push of an agent's", began).await;
    run(&large.workspace, &["checkout", "--quiet", "--", &edited]);
    give(&large.workspace.join(".git"));
    give(&large.workspace.join("part-0"));
    large.follows("once nothing is in the way", &fifth).await;

    // Both sides have commits.
    large.write(&edited, "committed");
    run(&large.workspace, &["commit", "--quiet", "--all", "--message", "mine"]);
    give(&large.workspace.join(".git"));
    let mine = run(&large.workspace, &["rev-parse", "HEAD"]);
    let sixth = large.commit("beside a commit", 4, 2000..2010);
    until("the histories are told apart", STEP_MAX, async || {
        let (_, status) = large.sync(&[]).await;
        (status["ahead"] == 1 && status["behind"] == 1).then_some(())
    })
    .await;
    let began = Instant::now();
    let (code, joined) = large.sync(&["--strategy", "rebase"]).await;
    assert_eq!((code, &joined["outcome"]), (Some(0), &json!("rebased")), "{joined}");
    large.holds("a rebase", began).await;
    assert_eq!(run(&large.workspace, &["rev-parse", "HEAD~1"]), sixth);
    let kept = run(&large.workspace, &["rev-parse", &format!("refs/covibes/kept/{mine}")]);
    assert_eq!(kept, mine);

    let read = |name: &str| std::fs::read_to_string(large.workspace.join(name)).unwrap();
    assert_eq!((read("notes.txt").as_str(), read(&edited).as_str()), ("mine", "committed"));
    assert_eq!(run(&large.workspace, &["status", "--porcelain"]), "?? notes.txt");
}
