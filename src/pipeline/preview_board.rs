//! What a preview's supervisor says about its dev server, and what a preview
//! does therefore: the one place that decides between starting, compiling,
//! ready and failing, for the health step, for the look at running teams, and
//! for `covibes teams show`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::domain::event::PreviewFact;
use crate::domain::limits::PREVIEW_STATE_PORT;
use crate::ports::probe::{Probe, ProbeAnswer};

/// The supervisor answers from memory.
const BOARD_TIME_MAX: Duration = Duration::from_secs(2);

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Whether the dev server's process ended.
    pub failing: bool,
    /// Its last exit code.
    pub exit_code: Option<i64>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// The line of its output that says what is wrong.
    pub error_line: Option<String>,
    /// Whether only a changed file starts it again.
    pub gave_up: bool,
    /// Lines of output so far.
    pub lines: u64,
    /// Files of the workspace that were copied so far, while the first copy goes on.
    pub copied: Option<u64>,
    /// Where it should listen.
    pub port: Option<u16>,
    /// How it is asked whether it is there: a path, or `tcp`.
    pub health: String,
    /// Why it polls for changes, if it does.
    pub polling: Option<String>,
    /// Where something in the container listens.
    pub listening: Vec<(String, u16)>,
}

impl Board {
    /// Asks a supervisor; nothing, if it does not answer.
    pub async fn ask(probe: &dyn Probe, address: Ipv4Addr) -> Option<Self> {
        let socket = SocketAddr::new(IpAddr::V4(address), PREVIEW_STATE_PORT);
        match probe.http(socket, "localhost", "/state", BOARD_TIME_MAX).await {
            ProbeAnswer::Http { body, .. } => {
                serde_json::from_slice(&body).ok().map(|body| Self::read(&body))
            }
            ProbeAnswer::Connected
            | ProbeAnswer::Refused
            | ProbeAnswer::TimedOut
            | ProbeAnswer::Broken(_) => None,
        }
    }

    /// Reads what it answered; an older one says less.
    fn read(body: &Value) -> Self {
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
        let mirror = body.get("mirror").filter(|mirror| mirror["state"] == "starting");
        let sockets = body.get("listening").and_then(Value::as_array).into_iter().flatten();
        let socket = |socket: &Value| {
            Some((socket.get("address")?.as_str()?.to_owned(), port(socket.get("port")?)?))
        };
        Self {
            failing: text("state").as_deref() == Some("failing"),
            exit_code: body.get("exit_code").and_then(Value::as_i64),
            error: text("error"),
            error_line: text("error_line"),
            gave_up: body.get("gave_up").and_then(Value::as_bool).unwrap_or(false),
            lines: body.get("lines").and_then(Value::as_u64).unwrap_or(0),
            copied: mirror.and_then(|mirror| mirror["copied"].as_u64()),
            port: body.get("port").and_then(port),
            health: text("health").unwrap_or_else(|| "/".to_owned()),
            polling: text("polling"),
            listening: sockets.filter_map(socket).collect(),
        }
    }

    /// Whether something that others can reach listens on a port.
    #[must_use]
    pub fn listens(&self, port: u16) -> bool {
        self.listening.iter().any(|(address, p)| *p == port && !is_loopback(address))
    }

    /// Whether something listens on a port, and nobody else can reach it.
    #[must_use]
    pub fn listens_to_itself(&self, port: u16) -> bool {
        !self.listens(port) && self.listening.iter().any(|(_, p)| *p == port)
    }

    /// Another port on which others can reach something.
    #[must_use]
    pub fn listens_elsewhere(&self, port: u16) -> Option<u16> {
        let other = |(address, p): &&(String, u16)| *p != port && !is_loopback(address);
        self.listening.iter().find(other).map(|(_, port)| *port)
    }

    /// That the preview notices changes late, and why, if it does.
    #[must_use]
    pub fn polls(&self) -> Option<String> {
        self.polling.as_ref().map(|reason| format!("it polls for changes: {reason}"))
    }

    /// How the dev server ended, for people.
    #[must_use]
    pub fn end(&self) -> String {
        match (self.exit_code, &self.error) {
            (_, Some(error)) => format!("the dev server did not run: {error}"),
            (Some(0), None) => {
                "the dev command ended with exit code 0; it must stay in the foreground".to_owned()
            }
            (Some(code), None) => format!("the dev server ended with exit code {code}"),
            (None, None) => "the dev server was ended by a signal".to_owned(),
        }
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    })
}

/// Whether an answer means that a page is served.
#[must_use]
pub fn is_alive(answer: &ProbeAnswer) -> bool {
    match answer {
        ProbeAnswer::Http { status, .. } => *status < 500,
        ProbeAnswer::Connected => true,
        ProbeAnswer::Refused | ProbeAnswer::TimedOut | ProbeAnswer::Broken(_) => false,
    }
}

/// What a preview does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLook {
    /// What.
    pub fact: PreviewFact,
    /// What is wrong: the first line that says so if it fails, or why a ready
    /// one notices changes late.
    pub error: Option<String>,
    /// Whether it fails by its page's answer: its dev server is there, and what
    /// somebody wrote is at fault.
    pub answers: bool,
}

impl PreviewLook {
    /// One that does this, with what is wrong.
    #[must_use]
    pub fn of(fact: PreviewFact, error: Option<String>) -> Self {
        Self { fact, error, answers: false }
    }

    fn failing(error: String) -> Self {
        Self::of(PreviewFact::Failing, Some(error))
    }

    /// Whether both show the same.
    #[must_use]
    pub fn shows(&self, other: &Self) -> bool {
        (self.fact, &self.error) == (other.fact, &other.error)
    }
}

/// Looks at a preview whose container runs: first its supervisor, then its page,
/// which may take `page_time_max` to be compiled.
pub async fn look(
    probe: &dyn Probe,
    address: Ipv4Addr,
    page_time_max: Duration,
) -> Option<PreviewLook> {
    let board = Board::ask(probe, address).await?;
    if board.failing {
        return Some(PreviewLook::failing(board.error_line.clone().unwrap_or_else(|| board.end())));
    }
    let port = board.port?;
    if board.listens_to_itself(port) {
        return Some(PreviewLook::failing(format!("it listens on localhost:{port} only")));
    }
    let socket = SocketAddr::new(IpAddr::V4(address), port);
    let answer = match board.health.as_str() {
        "tcp" => probe.tcp(socket, page_time_max).await,
        path => probe.http(socket, "localhost", path, page_time_max).await,
    };
    Some(match answer {
        answer if is_alive(&answer) => PreviewLook::of(PreviewFact::Ready, board.polls()),
        // What went wrong is printed while the page is made, and so after the first question.
        ProbeAnswer::Http { status, .. } => {
            let line = Board::ask(probe, address).await.unwrap_or(board).error_line;
            let status = || format!("the page answers with status {status}");
            PreviewLook { answers: true, ..PreviewLook::failing(line.unwrap_or_else(status)) }
        }
        ProbeAnswer::TimedOut | ProbeAnswer::Broken(_) | ProbeAnswer::Connected => {
            PreviewLook::of(PreviewFact::Compiling, None)
        }
        ProbeAnswer::Refused => PreviewLook::of(PreviewFact::Starting, None),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_older_supervisor_says_is_enough() {
        let body = json!({"state": "running", "exit_code": null, "port": 3000, "listening": [
            {"address": "::ffff:127.0.0.1", "port": 3000}, {"address": "0.0.0.0", "port": 4000}
        ]});
        let board = Board::read(&body);
        assert!(!board.failing && board.listens_to_itself(3000) && !board.listens(3000));
        assert_eq!((board.listens_elsewhere(3000), board.health.as_str()), (Some(4000), "/"));
        assert_eq!(Board::read(&json!({})).end(), "the dev server was ended by a signal");
        let daemon = Board::read(&json!({"state": "failing", "exit_code": 0}));
        assert!(daemon.failing && daemon.end().contains("foreground"));
    }
}
