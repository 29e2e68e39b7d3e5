//! What keeping a workspace in step costs: `cargo bench --bench sync`.
//!
//! The real service beside the bare `git fetch` that it contains. SSH is a script
//! that runs the command here, so that the network costs nothing and the service
//! all the more. `--files N` and `--megabytes N` make the repository; the goals of
//! a resident service are for 50,000 files and 1,000 MB. Hermetic.
//!
//! Prints each figure with its bound; exits 1 when one does not hold.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends here")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TOKEN: &str = "0123456789abcdef";

/// Cycles and fetches that are timed, one after the other.
const ROUNDS: usize = 60;

/// By default a service looks this often.
const INTERVAL_SECONDS: f64 = 30.0;

/// What its container has.
const MEMORY_MB_MAX: f64 = 128.0;
const CPU_MAX: f64 = 0.1;

/// Says nothing of where: the last argument is what the other side would run.
const SSH: &str = "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n";

fn argument(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)).map_or(default, |n| n.parse().unwrap())
}

fn git(dir: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=b", "-c", "user.email=b@example.org"]).args(arguments);
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
}

/// Bytes that do not get smaller.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
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

fn fill(upstream: &Path, files: usize, megabytes: usize) {
    let each = (megabytes << 20) / files;
    for number in 0..files {
        let directory = upstream.join(format!("part-{}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&directory).unwrap();
        }
        std::fs::write(directory.join(format!("file-{number}")), noise(each, number as u64))
            .unwrap();
    }
}

struct Service {
    child: Child,
    port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // Whatever Git runs ends with it.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(place: &Path, url: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new(env!("CARGO_BIN_EXE_covibes-sync"))
            .env_clear()
            .env("PATH", path(place))
            .env("COVIBES_LISTEN", format!("127.0.0.1:{port}"))
            .env("COVIBES_TOKEN_FILE", place.join("token"))
            .env("COVIBES_TEAM", "bench")
            .env("COVIBES_WORKSPACE", place.join("workspace"))
            .env("COVIBES_SYNC_INTERVAL_SECONDS", "86400")
            .env("COVIBES_GIT_REMOTE", url)
            .env("COVIBES_GIT_REF", "main")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self { child, port };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < end, "the service does not listen");
            std::thread::yield_now();
        }
        service
    }

    /// Has it sync; returns the answer.
    fn sync(&self) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        write!(
            stream,
            "POST /sync HTTP/1.1\r\nhost: sync\r\nconnection: close\r\n\
             authorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// CPU seconds of the service and of every Git that has ended.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11..15].iter().map(|n| n.parse::<f64>().unwrap()).sum();
        ticks / 100.0
    }
}

/// Anonymous memory of the service and its Gits, sampled; their files can go.
fn watch_memory(leader: u32, peak: &AtomicU64, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        let mut total = 0;
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name));
            let Ok(status) = read("status") else { continue };
            let field = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key))?;
                line.split_whitespace().next()?.parse::<u64>().ok()
            };
            let pid = field("Pid:").unwrap_or(0);
            let is_ours = pid == u64::from(leader) || is_below(leader, field("PPid:").unwrap_or(0));
            total += if is_ours { field("RssAnon:").unwrap_or(0) } else { 0 };
        }
        peak.fetch_max(total, Ordering::Relaxed);
        std::thread::yield_now();
    }
}

fn is_below(leader: u32, mut pid: u64) -> bool {
    for _ in 0..8 {
        if pid == u64::from(leader) {
            return true;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            return false;
        };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    }
    false
}

/// Programs, ours first.
fn path(place: &Path) -> std::ffi::OsString {
    let mut path = place.join("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn main() {
    let (files, megabytes) = (argument("--files", 2_000), argument("--megabytes", 40));
    let dir = tempfile::tempdir_in(argument_dir()).unwrap();
    let place = dir.path();
    let (upstream, workspace) = (place.join("upstream"), place.join("workspace"));
    std::fs::create_dir_all(place.join("bin")).unwrap();
    std::fs::write(place.join("token"), TOKEN).unwrap();
    std::fs::write(place.join("bin/ssh"), SSH).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.join("bin/ssh"), executable).unwrap();
    git(place, &["init", "-q", "-b", "main", "upstream"]);
    // Housekeeping of the other side is not what is measured.
    git(&upstream, &["config", "gc.auto", "0"]);
    fill(&upstream, files, megabytes);
    git(&upstream, &["add", "--all"]);
    git(&upstream, &["commit", "-q", "-m", "first"]);
    git(place, &["clone", "-q", "--no-local", upstream.to_str().unwrap(), "workspace"]);
    println!("{files} files, {megabytes} MB");

    let url = format!("ssh://git@localhost{}/.git", upstream.display());
    let service = Service::start(place, &url);
    let (peak, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    assert!(service.sync().contains("\"outcome\":\"up_to_date\""), "{}", service.sync());
    let (mut fetches, mut cycles) = (Vec::new(), Vec::new());
    let cpu_before = service.cpu();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        bare_fetch(place, &workspace, &url);
        fetches.push(began.elapsed());
        let began = Instant::now();
        let answer = service.sync();
        cycles.push(began.elapsed());
        assert!(answer.contains("\"outcome\":\"up_to_date\""), "{answer}");
    }
    let cpu = (service.cpu() - cpu_before) / ROUNDS as f64;
    let (fetch, cycle) = (median(&mut fetches), median(&mut cycles));
    let ratio = cycle / fetch;
    println!("bare git fetch          {fetch:8.1} ms   median of {ROUNDS}");
    println!("cycle with nothing new  {cycle:8.1} ms   {ratio:.2} times, at most 1.2");
    let share = cpu / INTERVAL_SECONDS;
    println!(
        "CPU of a cycle          {:8.1} ms   {share:.4} of a CPU every 30 s, at most {CPU_MAX}",
        cpu * 1000.0
    );

    // A push of many files, fetched, counted and checked out, under watch.
    for number in (0..files).step_by(50) {
        let file = upstream.join(format!("part-{}/file-{number}", number / 100));
        std::fs::write(file, noise((megabytes << 20) / files, 1_000_003 + number as u64)).unwrap();
    }
    git(&upstream, &["commit", "-q", "-a", "-m", "second"]);
    let watcher = {
        let (peak, end, leader) = (peak.clone(), end.clone(), service.child.id());
        std::thread::spawn(move || watch_memory(leader, &peak, &end))
    };
    let began = Instant::now();
    let answer = service.sync();
    assert!(answer.contains("\"outcome\":\"fast_forwarded\""), "{answer}");
    let moved = began.elapsed().as_secs_f64();
    for _ in 0..5 {
        service.sync();
    }
    end.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let memory = peak.load(Ordering::Relaxed) as f64 / 1024.0;
    println!("a push of {:5} files   {moved:8.2} s", files.div_ceil(50));
    println!(
        "memory at most          {memory:8.1} MB   at most {MEMORY_MB_MAX}, files not counted"
    );
    if ratio > 1.2 || share > CPU_MAX || memory > MEMORY_MB_MAX {
        std::process::exit(1);
    }
}

/// Where a gigabyte or three may lie.
fn argument_dir() -> PathBuf {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--directory");
    at.and_then(|at| arguments.get(at + 1)).map_or_else(std::env::temp_dir, PathBuf::from)
}

fn bare_fetch(place: &Path, workspace: &Path, url: &str) {
    let status = Command::new("git")
        .args(["fetch", "--quiet", "--no-tags", "--", url])
        .arg("+refs/heads/main:refs/remotes/origin/main")
        .current_dir(workspace)
        .env_clear()
        .env("PATH", path(place))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .status()
        .unwrap();
    assert!(status.success());
}
