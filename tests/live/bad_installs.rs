//! Installs that mean harm, or meet a disk without room: each ends with its own code, costs
//! nobody else anything, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::docker;
use crate::net::until_page_holds;
use crate::place::{COMMAND_MAX, Place, is_full, until};
use crate::projects::{SERVER, give, node};
use crate::worker::{Follower, Message, Worker};

/// A project whose postinstall is this program.
fn project(place: &Place, name: &str, postinstall: &str, program: &str) -> PathBuf {
    let path = place.directory(name);
    let scripts = json!({"dev": "node server.js", "postinstall": postinstall});
    let file = postinstall.rsplit(' ').next().unwrap();
    node(&path, &scripts, &[("server.js", SERVER), (file, program)]);
    give(&path);
    path
}

/// The failure of a start that must fail, and the last lines of its log.
async fn failure(place: &Place, team: &str, path: &Path) -> (Value, String) {
    let up = ["up", path.to_str().unwrap(), "--team", team, "--agents", "0", "--json"];
    let ended = place.run(&up).await;
    assert_eq!(ended.code, Some(1), "{:?}", ended.events().kinds());
    let failed = ended.events().one("job.failed")["data"].clone();
    assert_eq!(failed["undone"], true, "{failed}");
    let log: Vec<_> = failed["failure"]["log"].as_array().unwrap().to_vec();
    let log: Vec<_> = log.iter().filter_map(Value::as_str).collect();
    (failed["failure"].clone(), log.join("\n"))
}

/// More processes than an install may have.
const FORKS: &str = "n=0\nwhile [ $n -lt 4000 ]; do\n  sleep 600 >/dev/null 2>&1 &\n  \
    n=$((n + 1))\ndone\necho 'nobody stopped it'\n";

/// Whoever it might want to talk to, directly and by the proxy.
const CALLS_HOME: &str = r#"
const net = require('net');
const proxy = new URL(process.env.HTTPS_PROXY);
const connected = (host, port, ask) => new Promise((done) => {
  const socket = net.connect({ host, port: Number(port), timeout: 3000 });
  const end = (what) => { socket.destroy(); done(what); };
  socket.on('connect', () => ask ? socket.write(`CONNECT ${ask} HTTP/1.1\r\nHost: ${ask}\r\n\r\n`) : end('reached'));
  socket.on('data', (text) => end(/^HTTP\/1.\d 200/.test(text) ? 'reached' : 'blocked'));
  socket.on('error', () => end('blocked'));
  socket.on('timeout', () => end('blocked'));
});
(async () => {
  const lines = [];
  for (const [name, host, port, ask] of [
    ['direct', '1.1.1.1', 443], ['metadata', '169.254.169.254', 80],
    ['broker', proxy.hostname, 5672], ['worker', proxy.hostname, 9464],
    ['elsewhere', proxy.hostname, proxy.port, 'example.org:443'],
    ['inside', proxy.hostname, proxy.port, '127.0.0.1:5672'],
  ]) lines.push(`${name} ${await connected(host, port, ask)}`);
  console.error(lines.join('\n'));
  process.exit(1);
})();
"#;

#[tokio::test]
async fn installs_that_fork_call_home_or_flood_harm_nobody() {
    let place = Place::new().await;
    let forks = project(&place, "forks", "sh forks.sh", FORKS);
    let home = project(&place, "home", "node home.js", CALLS_HOME);
    let flood = place.directory("flood");
    node(&flood, &json!({"dev": "node server.js"}), &[("server.js", SERVER)]);
    let bytes = if is_full("a gigabyte of output") { 1 << 30 } else { 48 << 20 };
    let line = "an install that has much to say ".repeat(6);
    let install = format!("preview: {{install: \"yes {line} | head -c {bytes}\"}}\n");
    std::fs::write(flood.join(".covibes.yml"), install).unwrap();

    let (forks, home) =
        tokio::join!(failure(&place, "forks", &forks), failure(&place, "home", &home));
    let (failure, log) = forks;
    assert_eq!(failure["code"], "build.install_failed", "{failure}");
    assert!(log.contains("Cannot fork") && !log.contains("nobody stopped it"), "{log}");
    let (failure, log) = home;
    assert_eq!(failure["code"], "build.install_failed", "{failure}");
    for who in ["direct", "metadata", "broker", "worker", "elsewhere", "inside"] {
        assert!(log.contains(&format!("{who} blocked")), "{log}");
    }

    let up = ["up", flood.to_str().unwrap(), "--team", "flood", "--agents", "0", "--json"];
    let events = place.done(&up).await;
    until_page_holds(&events.link("main"), "/", "<h1>served</h1>").await;
    // A line a second at most, whatever it says.
    let told = events.of("step.progress").len();
    assert!(told < 300, "{told}");
    place.done(&["destroy", "flood", "--json"]).await;
    for team in ["forks", "home", "flood"] {
        place.assert_gone(team).await;
    }
}

/// Prints a gigabyte, in lines or as one.
const PRINTS: &str = r#"
const lines = process.env.npm_package_version === '1.0.0';
const text = 'an install that has much to say '.repeat(6);
const chunk = Buffer.from(Array(300).fill(text).join(lines ? '\n' : ' ') + (lines ? '\n' : ' '));
let left = 2 ** 30;
while (left > 0) left -= require('fs').writeSync(1, chunk);
console.log('\nthat is all');
"#;

/// The bytes of the files in a directory.
fn bytes_in(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The directory of the log that Docker keeps of an install, while it runs.
async fn dockers_log(place: &Place, team: &str) -> PathBuf {
    until("the install runs", COMMAND_MAX, async || {
        let running = docker::running_oneshots(&place.instance, team).await;
        let name = running.into_iter().find(|name| name.contains("_install_"))?;
        let path = docker::inspect(&name).await["LogPath"].as_str()?.to_owned();
        Path::new(&path).parent().map(PathBuf::from)
    })
    .await
}

#[tokio::test]
async fn full_an_install_that_prints_a_gigabyte_costs_neither_memory_nor_disk() {
    if !is_full("a gigabyte of output") {
        return;
    }
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    for (team, version) in [("lines", "1.0.0"), ("one_line", "2.0.0")] {
        let app = project(&place, team, "node prints.js", PRINTS);
        for name in ["package.json", "package-lock.json"] {
            let text = std::fs::read_to_string(app.join(name)).unwrap();
            std::fs::write(app.join(name), text.replace("1.0.0", version)).unwrap();
        }
        place.workspace(team, &app);
        let before = worker.memory();
        let job = Message::start(team, &["main"]);
        job.publish(&place).await;
        let watched = async {
            let log = dockers_log(&place, team).await;
            let (mut memory, mut disk) = (0, 0);
            until("the install is over", 2 * COMMAND_MAX, async || {
                memory = memory.max(worker.memory());
                disk = disk.max(bytes_in(&log));
                (!log.exists()).then_some(())
            })
            .await;
            (memory, disk)
        };
        let (end, (memory, disk)) = tokio::join!(events.end_of(&job.id), watched);
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
        let told = events.seen().of_job(&job.id);
        let progress = told.of("step.progress");
        let seconds = |event: &Value| {
            event["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
        };
        let took = seconds(told.of("job.succeeded")[0]) - seconds(&told.0[0]);
        let logs = Path::new("/var/lib/covibes/instances").join(&place.instance).join("logs");
        let kept = bytes_in(&logs.join(team));
        let grown = memory.saturating_sub(before) >> 20;
        eprintln!(
            "{team}: {took} s, memory +{grown} MB, Docker's log {} MB, log kept {} kB, {} told",
            disk >> 20,
            kept >> 10,
            progress.len()
        );
        // Docker keeps three files of ten megabytes, and one that it is about to leave.
        assert!(disk < 45 << 20, "Docker's log had {disk} bytes");
        assert!(grown < 64, "the worker's memory grew by {grown} MB");
        assert!(kept > 0 && kept < 10 << 20, "the log that is kept has {kept} bytes");
        assert!(progress.len() as i64 <= took + 10, "{} in {took} s", progress.len());
        let longest = progress.iter().map(|event| event.to_string().len()).max().unwrap_or(0);
        assert!(longest < 8192, "an event of {longest} bytes");
    }
}

/// A small file system of a test's own.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Place, megabytes: u64) -> Self {
        let (image, mount) = (place.dir.join("disk.img"), place.directory("disk"));
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Self(mount)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With what a failed test left mounted below it.
        let _ = Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const FILLS: &str = "const fs = require('fs');\n\
    const file = fs.openSync('node_modules/all-there-is', 'w');\n\
    for (;;) fs.writeSync(file, Buffer.alloc(1 << 20));\n";

#[tokio::test]
async fn an_install_on_a_full_disk_says_so_and_leaves_room_for_the_next() {
    let mut place = Place::new().await;
    let disk = Disk::new(&place, 256);
    place.set("COVIBES_PATHS_DATA", disk.0.to_str().unwrap());
    let path = project(&place, "full", "node fill.js", FILLS);
    let (failure, log) = failure(&place, "full", &path).await;
    assert_eq!(failure["code"], "build.disk_full", "{failure}");
    assert_eq!((&failure["fault"], &failure["step"]), (&json!("operator"), &json!("build")));
    assert!(log.contains("ENOSPC"), "{log}");

    // Nothing of it stays, or the next one would fail of it.
    let free = rustix::fs::statvfs(&disk.0).unwrap();
    let free = free.f_bavail * free.f_frsize;
    assert!(free > 150 << 20, "{free}");
    std::fs::write(path.join("fill.js"), "").unwrap();
    let up = ["up", path.to_str().unwrap(), "--team", "full", "--agents", "0", "--json"];
    let events = place.done(&up).await;
    until_page_holds(&events.link("main"), "/", "<h1>served</h1>").await;
    place.done(&["destroy", "full", "--json"]).await;
    let left = crate::place::mounts_below(&disk.0);
    assert_eq!(left, [disk.0.to_str().unwrap()], "only the disk itself is mounted");
}
