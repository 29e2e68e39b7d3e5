//! The three services as Docker runs them: real binaries, variables, SIGTERM,
//! and the exec-form healthcheck.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const AGENT: &str = env!("CARGO_BIN_EXE_covibes-agent");
const SYNC: &str = env!("CARGO_BIN_EXE_covibes-sync");
const PREVIEW: &str = env!("CARGO_BIN_EXE_covibes-preview");

/// Slow machines are slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that ends with the test, whatever happens.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Sends SIGTERM and returns all that was printed and how it ended.
    fn terminate(mut self, bound: Duration) -> (String, Option<i32>) {
        let began = Instant::now();
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let code = self.0.wait().unwrap().code();
        assert!(began.elapsed() < bound, "took {:?}", began.elapsed());
        let mut printed = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (printed, code)
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Each look starts a program, which paces the loop.
fn becomes_healthy(check: impl Fn() -> Command) {
    let began = Instant::now();
    while !check().stdin(Stdio::null()).status().unwrap().success() {
        assert!(began.elapsed() < PATIENCE, "never healthy");
    }
}

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "0123456789abcdef").unwrap();
    std::fs::write(dir.path().join("index.html"), "<h1>hello</h1>").unwrap();
    dir
}

fn check_http_service(binary: &str) {
    let dir = workspace();
    let listen = format!("127.0.0.1:{}", free_port());
    let command = || {
        let mut command = Command::new(binary);
        command.env("COVIBES_LISTEN", &listen);
        command
    };
    let mut service = command();
    service
        .env("COVIBES_TOKEN_FILE", dir.path().join("token"))
        .env("COVIBES_WORKSPACE", dir.path())
        .env("COVIBES_AGENT_DIR", dir.path().join("agent"))
        .env("COVIBES_CLAUDE", "true");
    let healthcheck = || {
        let mut command = command();
        command.arg("--healthcheck");
        command
    };
    assert!(!healthcheck().status().unwrap().success(), "nobody is there yet");
    let service = Service::start(&mut service);
    becomes_healthy(healthcheck);
    let (printed, code) = service.terminate(Duration::from_secs(2));
    assert_eq!(code, Some(0));
    for line in printed.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
    assert!(printed.contains("serving"), "{printed}");
}

#[test]
fn the_agent_serves_until_sigterm() {
    check_http_service(AGENT);
}

#[test]
fn sync_serves_until_sigterm() {
    check_http_service(SYNC);
}

#[test]
fn without_a_token_neither_starts_and_both_say_that_it_is_for_good() {
    for binary in [AGENT, SYNC] {
        let output = Command::new(binary).env_remove("COVIBES_TOKEN_FILE").output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("COVIBES_TOKEN_FILE is not set"), "{printed}");
    }
}

#[test]
fn the_preview_supervises_the_static_server_bound_to_localhost() {
    let dir = workspace();
    let (port, state_port) = (free_port(), free_port());
    let mut run = Command::new(PREVIEW);
    run.args(["run", "--dir"])
        .arg(dir.path())
        .args(["--port", &port.to_string(), "--state-port", &state_port.to_string(), "--"])
        .args([PREVIEW, "static", "--address", "127.0.0.1", "--dir", "."])
        .args(["--port", &port.to_string()]);
    let service = Service::start(&mut run);
    becomes_healthy(|| {
        let mut command = Command::new(PREVIEW);
        command.arg("--healthcheck").env("COVIBES_STATE_PORT", state_port.to_string());
        command
    });
    let page = get(port, "/");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("content-type: text/html; charset=utf-8"), "{page}");
    assert!(page.contains("<h1>hello</h1>"), "{page}");
    assert!(page.contains("new EventSource('/__covibes/changes?0')"), "{page}");
    assert!(get(port, "/token/../token").starts_with("HTTP/1.1 404"));
    let state = get(state_port, "/state");
    let socket = format!(r#"{{"address":"127.0.0.1","port":{port}}}"#);
    assert!(state.contains(r#""state":"running""#) && state.contains(&socket), "{state}");
    let (_, code) = service.terminate(Duration::from_secs(2));
    assert_eq!(code, Some(0));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "the server is gone");
}

#[test]
fn an_open_page_is_told_when_a_file_of_its_site_changes() {
    let dir = workspace();
    let port = free_port();
    let mut run = Command::new(PREVIEW);
    run.args(["static", "--address", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
    let service = Service::start(run.arg(dir.path()));
    let began = Instant::now();
    let mut page = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    page.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    page.write_all(b"GET /__covibes/changes?0 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = String::new();
    let mut until = |wanted: &str| {
        let mut buffer = [0; 1024];
        while !said.contains(wanted) {
            let length = page.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "it ended: {said}");
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    // Whoever has the answer's head is listening already.
    until("text/event-stream");
    std::fs::write(dir.path().join("style.css"), "h1 { color: red }").unwrap();
    until("data: changed");
    let (_, code) = service.terminate(Duration::from_secs(2));
    assert_eq!(code, Some(0));
}

#[test]
fn a_shell_line_runs_when_no_arguments_are_given() {
    let dir = workspace();
    let (port, state_port) = (free_port(), free_port());
    let mut run = Command::new(PREVIEW);
    run.arg("run")
        .env("COVIBES_DIR", dir.path())
        .env("COVIBES_PORT", port.to_string())
        .env("COVIBES_STATE_PORT", state_port.to_string())
        .env("COVIBES_COMMAND", format!("cd . && exec '{PREVIEW}' static"));
    let service = Service::start(&mut run);
    becomes_healthy(|| {
        let mut command = Command::new(PREVIEW);
        command.args(["--healthcheck", "--state-port", &state_port.to_string()]);
        command
    });
    assert!(get(port, "/index.html").contains("<h1>hello</h1>"));
    let (_, code) = service.terminate(Duration::from_secs(2));
    assert_eq!(code, Some(0));
}

#[test]
fn a_preview_may_run_on_a_copy_that_follows_the_workspace() {
    let dir = workspace();
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    let (port, state_port) = (free_port(), free_port());
    let mut run = Command::new(PREVIEW);
    run.args(["run", "--port", &port.to_string(), "--state-port", &state_port.to_string()])
        .arg("--mirror-source")
        .arg(dir.path())
        .arg("--mirror-place")
        .arg(place.path())
        .arg("--dir")
        .arg(&tree)
        .args(["--", PREVIEW, "static", "--dir", ".", "--port", &port.to_string()]);
    let service = Service::start(&mut run);
    becomes_healthy(|| {
        let mut command = Command::new(PREVIEW);
        command.args(["--healthcheck", "--state-port", &state_port.to_string()]);
        command
    });
    assert!(get(port, "/").contains("<h1>hello</h1>"));
    std::fs::write(dir.path().join("index.html"), "<h1>edited</h1>").unwrap();
    let began = Instant::now();
    // Each look asks the server, which paces the loop.
    while !get(port, "/").contains("<h1>edited</h1>") {
        assert!(began.elapsed() < PATIENCE, "the edit never came");
    }
    assert!(get(state_port, "/state").contains(r#""state":"in_step""#));
    let (_, code) = service.terminate(Duration::from_secs(2));
    assert_eq!(code, Some(0));
    // Where the copy has no place, the program does not guess one.
    let mut alone = Command::new(PREVIEW);
    alone.args(["run", "--port", "1", "--mirror-source", "/", "--", "true"]);
    assert_eq!(alone.output().unwrap().status.code(), Some(2));
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
