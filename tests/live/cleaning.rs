//! What `host gc` removes from a real host and what it leaves: exactly what a dry run said,
//! and never work that is nowhere else. A full disk refuses starts before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use covibes::adapters::records::FileRecords;
use covibes::domain::ids::TeamId;
use covibes::ports::records::Records as _;
use serde_json::{Value, json};

use crate::docker::{self, docker, exec};
use crate::events::kind;
use crate::git_server::GitServer;
use crate::place::{Place, STATE_MAX, until};
use crate::projects::plain;
use crate::worker::{Follower, Message, Worker};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Teams whose workspaces are clones, and what is done in each before it is left alone.
const TEAMS: [(&str, &str); 5] = [
    ("pushed", "true"),
    ("dirty", "echo mine > work.txt"),
    ("ahead", "echo mine > page.txt && git commit --quiet --all --message mine"),
    ("stashed", "echo mine > page.txt && git stash --quiet"),
    ("treed", "git worktree add --quiet --detach /worktrees/old && echo mine > /worktrees/old/new"),
];

/// Where this instance's records, evidence and logs are.
fn state(place: &Place) -> PathBuf {
    Path::new("/var/lib/covibes/instances").join(&place.instance)
}

fn write_old(path: &Path, days: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "a line\n").unwrap();
    grow_old(path, days);
}

fn grow_old(path: &Path, days: u32) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * days).unwrap();
}

/// Has every team's last word be forty days old.
async fn age_records(place: &Place) {
    let records = FileRecords::open(&state(place).join("teams")).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let then = u64::try_from((now - DAY * 40).as_micros()).unwrap();
    for (team, _) in TEAMS {
        let team = TeamId::parse(team).unwrap();
        let mut record = records.load(&team).await.unwrap().unwrap();
        assert!(!record.up, "{team} is stopped");
        record.sequence = then;
        records.save(&record).await.unwrap();
    }
}

/// An image of an earlier version, made ninety days ago.
async fn old_image(place: &Place) -> String {
    let name = format!("covibes/sync:{}", place.instance);
    let directory = place.directory("image");
    let empty = [0_u8; 1024];
    std::fs::write(directory.join("layer.tar"), empty).unwrap();
    // What `sha256sum` says of 1,024 zeroes.
    let layer = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let created = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(90 * 24);
    let config = json!({
        "created": created.to_string(), "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    let tar = place.dir.join("image.tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&tar).arg("-C").arg(&directory).args(files);
    assert!(pack.status().unwrap().success());
    docker(&["load", "--quiet", "--input", tar.to_str().unwrap()]).await;
    name
}

/// What a run of `host gc` says became, or would become, of each thing of this test's own.
async fn gc(place: &Place, arguments: &[&str]) -> BTreeMap<(String, String), String> {
    let ended = place.run(&[&["host", "gc", "--json"][..], arguments].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let all = lines.map(|line| ((word(&line, "kind"), word(&line, "name")), word(&line, "end")));
    // Images are the host's; others may use them, and clean them, meanwhile.
    all.filter(|((kind, name), _)| kind != "image" || name.ends_with(&place.instance)).collect()
}

#[tokio::test]
async fn what_a_dry_run_said_is_removed_and_work_stays() {
    let place = Place::new().await;
    let server = GitServer::new(&place).await;
    server.project(&place);
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let mut jobs = Vec::new();
    for (team, _) in TEAMS {
        let mut job = Message::start(team, &[]);
        job.body["spec"]["workspace"] = json!({"git": {"url": server.url("app"), "ref": "main"}});
        job.publish(&place).await;
        jobs.push(job);
    }
    for job in &jobs {
        if events.seen().of_job(&job.id).of("job.succeeded").is_empty() {
            let end = events.end_of(&job.id).await;
            assert_eq!(kind(&end), "job.succeeded", "{end}");
        }
    }
    for (team, work) in TEAMS {
        let sync = format!("covibes.{}_sync_{team}", place.instance);
        let git = "export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t \
                   GIT_COMMITTER_EMAIL=t@example.org";
        let script = format!("{git}; cd /workspace && {work}");
        let done = exec(&sync, &["sh", "-c", &script]).await;
        assert_eq!(done.code, 0, "{team}: {done:?}");
        let stop = Message::new(team, "stop");
        stop.publish(&place).await;
        events.end_of(&stop.id).await;
    }
    worker.process.terminate();
    assert_eq!(worker.process.end().await.code, Some(0));

    age_records(&place).await;
    let image = old_image(&place).await;
    let (data, state) = (place.data(), state(&place));
    write_old(&state.join("evidence/pushed/old.txt"), 8);
    write_old(&state.join("evidence/pushed/new.txt"), 1);
    write_old(&state.join("logs/pushed/old.log"), 8);
    write_old(&data.join("cache/pushed/preview-main/modules"), 8);
    write_old(&data.join("worktrees/pushed/gone/file"), 8);
    write_old(&data.join("worktrees/nobodys/gone/file"), 8);
    for gone in ["worktrees/pushed/gone", "worktrees/treed/old"] {
        grow_old(&data.join(gone), 8);
    }
    grow_old(&data.join("worktrees/nobodys/gone"), 40);
    let things = docker::of_team(&place.instance, "pushed").await;
    assert!(!things.volumes.is_empty(), "a stopped team keeps its volumes");

    let said = gc(&place, &["--dry-run"]).await;
    assert_eq!(said, gc(&place, &["--dry-run"]).await, "it changed nothing");
    assert_eq!(docker::of_team(&place.instance, "pushed").await, things);
    let did = gc(&place, &[]).await;
    let as_done = |end: &String| end.replace("would be removed", "removed");
    let expected: BTreeMap<_, _> = said.iter().map(|(k, end)| (k.clone(), as_done(end))).collect();
    assert_eq!(did, expected);

    let path = |path: PathBuf| path.display().to_string();
    let names = |what: &str| {
        let gone = did.iter().filter(|((kind, _), end)| kind == what && *end == "removed");
        gone.map(|((_, name), _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("workspace"), ["workspace of pushed"]);
    assert_eq!(names("image"), std::slice::from_ref(&image));
    assert_eq!(names("worktree"), [path(data.join("worktrees/pushed/gone"))]);
    assert_eq!(names("cache"), [path(data.join("cache/pushed/preview-main"))]);
    let papers = ["evidence/pushed/old.txt", "logs/pushed/old.log"];
    assert_eq!(names("paper"), papers.map(|name| path(state.join(name))));
    for (team, why) in [
        ("dirty", "uncommitted in the workspace: work.txt"),
        ("ahead", "unpushed commits"),
        ("stashed", "stashed changes"),
        ("treed", "uncommitted in worktree old: new"),
    ] {
        let end = &did[&("workspace".to_owned(), format!("workspace of {team}"))];
        assert!(end.starts_with("stays") && end.contains(why), "{team}: {end}");
        assert!(data.join("workspaces").join(team).join(".git").exists(), "{team}");
    }
    let treed = &did[&("worktree".to_owned(), path(data.join("worktrees/treed/old")))];
    assert!(treed.contains("uncommitted in worktree old: new"), "{treed}");
    assert_eq!(std::fs::read_to_string(data.join("worktrees/treed/old/new")).unwrap(), "mine\n");
    let nobodys = &did[&("unclear".to_owned(), path(data.join("worktrees/nobodys/gone")))];
    assert!(nobodys.starts_with("stays"), "{nobodys}");
    // And so it is.
    assert!(!data.join("workspaces/pushed").exists() && !data.join("worktrees/pushed").exists());
    assert!(docker::of_team(&place.instance, "pushed").await.is_empty());
    assert!(state.join("evidence/pushed/new.txt").exists());
    assert!(docker(&["image", "ls", "--quiet", &image]).await.is_empty());
    let again: Vec<_> = gc(&place, &[]).await.into_values().filter(|e| e == "removed").collect();
    assert_eq!(again, [""; 0], "once is enough");
}

/// A file system of 12 GB in a file with holes, as this instance's data.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Place) -> Self {
        let (file, at) = (place.dir.join("disk"), place.data());
        std::fs::File::create(&file).unwrap().set_len(12 << 30).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        let disk = Self(at);
        run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=1,nodiscard", path_text(&file)]);
        run("mount", &["-o", "loop", path_text(&file), path_text(&disk.0)]);
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {arguments:?}: {said}");
}

#[tokio::test]
async fn a_workspace_that_is_too_large_is_told_and_a_full_disk_starts_nothing() {
    let mut place = Place::new().await;
    place.set("COVIBES_CAPACITY_DISK_USED_MAX", "0.8");
    let _disk = Disk::new(&place);
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let files = plain(&place, "app");
    let workspace = place.workspace("large", &files);
    let job = Message::start("large", &["main"]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(kind(&end), "job.succeeded", "{end}");

    // Blocks that are set aside and never written: the disk holds them all the same.
    let ballast = workspace.join("ballast");
    run("fallocate", &["-l", "10500M", path_text(&ballast)]);
    let told = events
        .until("it is told to be too large", |event| {
            kind(event) == "team.degraded" && event["subject"] == "large"
        })
        .await;
    assert!(told["data"]["cause"].as_str().unwrap().contains("more than 10 GB"), "{told}");

    // The disk is 88 % full, and 80 % is the limit: nothing of another team is begun.
    place.workspace("late", &files);
    let late = Message::start("late", &["main"]);
    late.publish(&place).await;
    let end = events.end_of(&late.id).await;
    assert_eq!(end["data"]["failure"]["code"], "host.disk_low", "{end}");
    assert!(docker::of_team(&place.instance, "late").await.is_empty());
    for kind in ["cache", "worktrees"] {
        assert!(!place.data().join(kind).join("late").exists(), "{kind} of a refused team");
    }

    std::fs::remove_file(&ballast).unwrap();
    events
        .until("it is told to be well", |event| {
            kind(event) == "team.running" && event["subject"] == "large"
        })
        .await;
    let again = Message::start("late", &["main"]);
    again.publish(&place).await;
    let end = events.end_of(&again.id).await;
    assert_eq!(kind(&end), "job.succeeded", "{end}");
    for team in ["large", "late"] {
        let destroy = Message::new(team, "destroy");
        destroy.publish(&place).await;
        events.end_of(&destroy.id).await;
    }
    until("nothing is mounted any more", STATE_MAX, async || {
        let mounts = crate::place::mounts_below(&place.data());
        (mounts.len() == 1).then_some(())
    })
    .await;
}
