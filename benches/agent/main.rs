//! What the agent service costs beside the CLI: `cargo bench --bench agent`.
//!
//! The real binary with a shell script for the CLI. Each figure is printed with
//! its bound, and with the same work without the service where there is such a
//! thing. Exits 1 when a bound does not hold.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends here")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TOKEN: &str = "0123456789abcdef";

/// Starts that are measured, each way.
const STARTS: usize = 40;

/// Bytes that the CLI writes at once.
const STREAM_BYTES: usize = 200 << 20;

/// Files below the workspace, and how many change.
const FILES: usize = 20_000;
const FILES_PER_DIRECTORY: usize = 50;
const CHANGES: usize = 200;

/// Between two changes: longer than the service collects.
const CHANGE_EVERY: Duration = Duration::from_millis(260);

/// Says when it began, or prints what it is told to.
const CLAUDE: &str = "#!/bin/sh
[ \"$1\" = --version ] && { echo 1; exit 0; }
date +%s%N > began
read -r prompt
[ \"$prompt\" = stream ] && cat ../stream
echo '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false}'
";

/// The service, ended with the benchmark.
struct Service {
    child: Child,
    port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(dir: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new(env!("CARGO_BIN_EXE_covibes-agent"))
            .env("COVIBES_LISTEN", format!("127.0.0.1:{port}"))
            .env("COVIBES_TOKEN_FILE", dir.join("token"))
            .env("COVIBES_SECRETS_DIR", dir.join("secrets"))
            .env("COVIBES_WORKSPACE", dir.join("workspace"))
            .env("COVIBES_AGENT_DIR", dir.join("agent"))
            .env("COVIBES_CLAUDE", dir.join("claude"))
            .env("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
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

    fn open(&self, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\
             authorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    /// Posts a task and returns its id.
    fn post(&self, prompt: &str) -> String {
        let mut answer = String::new();
        let body = format!("{{\"prompt\":\"{prompt}\"}}");
        self.open("POST", "/tasks", &body).read_to_string(&mut answer).unwrap();
        let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        id.unwrap_or_else(|| panic!("no task: {answer}")).to_owned()
    }

    /// Waits for a task's end.
    fn wait(&self, id: &str) {
        let mut lines = self.open("GET", &format!("/tasks/{id}/events"), "");
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).unwrap() > 0 {
            if line.starts_with(b"event: end") {
                return;
            }
            line.clear();
        }
        panic!("no end");
    }

    fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn unix_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Prints one figure; tells whether its bound holds.
fn row(what: &str, value: f64, unit: &str, bound: (&str, f64), beside: &str) -> bool {
    let (sign, limit) = bound;
    let holds = if sign == "<=" { value <= limit } else { value >= limit };
    let verdict = if holds { "holds" } else { "MISSED" };
    println!("{what:<44} {value:>9.2} {unit:<5} {sign} {limit:<6} {verdict:<7} {beside}");
    holds
}

/// Milliseconds from a wish to the CLI's first instruction.
fn starts(service: &Service, dir: &Path) -> (f64, f64) {
    let began = dir.join("workspace/began");
    let taken = |start: u128| {
        let at: u128 = std::fs::read_to_string(&began).unwrap().trim().parse().unwrap();
        (at as f64 - start as f64) / 1e6
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = unix_nanos();
        let mut child = Command::new(dir.join("claude"))
            .current_dir(dir.join("workspace"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"x\n").unwrap();
        child.wait().unwrap();
        without.push(taken(start));
        let start = unix_nanos();
        let id = service.post("x");
        service.wait(&id);
        with.push(taken(start));
    }
    (quantile(&mut with, 0.5), quantile(&mut without, 0.5))
}

/// Megabytes per second of the CLI's output.
fn stream(service: &Service, dir: &Path) -> (f64, f64) {
    let line = format!("{{\"type\":\"user\",\"x\":\"{}\"}}\n", "x".repeat(1000));
    let content = line.repeat(STREAM_BYTES / line.len());
    std::fs::write(dir.join("stream"), &content).unwrap();
    let megabytes = content.len() as f64 / 1e6;
    drop(content);
    let start = Instant::now();
    let mut child = Command::new(dir.join("claude"))
        .current_dir(dir.join("workspace"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"stream\n").unwrap();
    let mut sink = Vec::with_capacity(1 << 16);
    let mut output = child.stdout.take().unwrap();
    while output.by_ref().take(1 << 16).read_to_end(&mut sink).unwrap() > 0 {
        sink.clear();
    }
    child.wait().unwrap();
    let without = megabytes / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let id = service.post("stream");
    service.wait(&id);
    (megabytes / start.elapsed().as_secs_f64(), without)
}

/// Milliseconds from a file's change to its event, of all changes.
fn changes(service: &Service, dir: &Path) -> Vec<f64> {
    let mut lines = service.open("GET", "/changes", "").lines();
    let mut next = |wanted: &str| {
        lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains(wanted)).unwrap()
    };
    let mode = next("data: ");
    assert!(mode.contains("inotify"), "{mode}");
    let mut taken = Vec::new();
    for number in 0..CHANGES {
        let at = number * (FILES / CHANGES);
        let name = format!("d{}/f{at}", at / FILES_PER_DIRECTORY);
        let start = Instant::now();
        std::fs::write(dir.join("workspace").join(&name), number.to_string()).unwrap();
        next(&name);
        taken.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::park_timeout(CHANGE_EVERY);
    }
    taken
}

fn main() -> std::process::ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for name in ["workspace", "secrets", "agent"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    std::fs::write(path.join("token"), TOKEN).unwrap();
    std::fs::write(path.join("secrets/API_KEY"), "a-key-that-is-looked-for").unwrap();
    std::fs::write(path.join("claude"), CLAUDE).unwrap();
    std::fs::set_permissions(path.join("claude"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let service = Service::start(path);

    let (with, without) = starts(&service, path);
    let beside = format!("{without:.2} ms without it, {with:.2} with");
    let mut holds =
        row("added to a task's start, median", with - without, "ms", ("<=", 5.0), &beside);
    let (with, without) = stream(&service, path);
    let beside = format!("{without:.0} MB/s without it, ratio {:.2}", with / without);
    holds &= row("output of a task", with, "MB/s", (">=", 50.0), &beside);
    let idle = service.resident_kib() as f64 / 1024.0;
    holds &= row("resident after these tasks", idle, "MiB", ("<=", 10.0), "");
    for number in 0..FILES {
        let directory = path.join(format!("workspace/d{}", number / FILES_PER_DIRECTORY));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("f{number}")), "").unwrap();
    }
    let mut taken = changes(&service, path);
    let median = quantile(&mut taken, 0.5);
    let beside = format!("median {median:.2} ms, {FILES} files, {CHANGES} changes");
    holds &=
        row("file change to event, p99", quantile(&mut taken, 0.99), "ms", ("<=", 20.0), &beside);
    let watching = service.resident_kib() as f64 / 1024.0;
    holds &= row("resident while watching", watching, "MiB", ("<=", 10.0), "");
    if holds { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
