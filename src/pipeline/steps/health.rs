//! Step 6, health: containers in, a running team out.
//!
//! The worker asks each container at its own address, first after 50 ms and
//! then ever more slowly up to a second; then each preview once through its
//! published port. Any status below 500 means alive.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::domain::event::{ContainerFact, EventKind, PreviewFact};
use crate::domain::failure::{Code, Failure};
use crate::domain::limits::PREVIEW_STATE_PORT;
use crate::domain::names::{ContainerName, host_label};
use crate::domain::plan::{ContainerPlan, Plan, ProbeKind, Role};
use crate::pipeline::run::Run;
use crate::ports::engine::ContainerState;
use crate::ports::probe::ProbeAnswer;

/// The first wait; a start itself has just taken longer.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two probes.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// One probe: a dev server that compiles its first page takes this long.
const PROBE_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a preview may answer nothing, or only server errors.
const PREVIEW_TIME_MAX: Duration = Duration::from_secs(120);

/// How long an agent or sync service may take.
const SERVICE_TIME_MAX: Duration = Duration::from_secs(45);

/// Waits until every container of the plan is healthy.
///
/// # Errors
/// The first container that will not become healthy, with its last lines and
/// the most precise code that its supervisor's state allows.
pub async fn wait(run: &Run<'_>, plan: &Plan) -> Result<((), String), Failure> {
    let started = Instant::now();
    try_join_all(plan.containers.iter().map(|container| wait_one(run, plan, container))).await?;
    let millis = started.elapsed().as_millis();
    Ok(((), format!("{} containers healthy after {millis} ms", plan.containers.len())))
}

async fn wait_one(run: &Run<'_>, plan: &Plan, container: &ContainerPlan) -> Result<(), Failure> {
    let budget =
        if container.owner.role == Role::Preview { PREVIEW_TIME_MAX } else { SERVICE_TIME_MAX };
    let end = Instant::now() + budget;
    let mut pause = FIRST_WAIT;
    let mut seen_listening = false;
    let mut last = ProbeAnswer::Refused;
    loop {
        let state = run.ports.engine.inspect_container(&container.name).await?;
        let Some(state) = state else {
            return Err(Failure::new(
                Code::DockerFailed,
                format!("the container {} disappeared", container.name),
            ));
        };
        if let Some(failure) = ended(run, container, &state).await {
            return Err(failure);
        }
        if let Some(address) = state.address {
            last = probe(run, container, address).await;
            if is_alive(&last) {
                return through_published_port(run, plan, container).await;
            }
            if container.owner.role == Role::Preview {
                let board = supervisor(run, address).await;
                if let Some(failure) = diagnose(run, container, board.as_ref(), pause).await {
                    return Err(failure);
                }
                let listening = board.as_ref().is_some_and(|b| listens(b, container));
                if listening && !seen_listening {
                    seen_listening = true;
                    tell(run, container, PreviewFact::Compiling, None).await;
                }
            }
        }
        if Instant::now() >= end {
            return Err(give_up(run, container, &last).await);
        }
        run.say(format!("waiting for {}", container.name));
        run.ports.clock.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_WAIT);
    }
}

fn is_alive(answer: &ProbeAnswer) -> bool {
    match answer {
        ProbeAnswer::Http { status, .. } => *status < 500,
        ProbeAnswer::Connected => true,
        ProbeAnswer::Refused | ProbeAnswer::TimedOut | ProbeAnswer::Broken(_) => false,
    }
}

async fn probe(run: &Run<'_>, container: &ContainerPlan, address: Ipv4Addr) -> ProbeAnswer {
    let socket = |port| SocketAddr::new(IpAddr::V4(address), port);
    match &container.probe {
        ProbeKind::Http { port, path } => {
            // A Host that every framework accepts.
            run.ports.probe.http(socket(*port), "localhost", path, PROBE_TIME_MAX).await
        }
        ProbeKind::Tcp { port } => run.ports.probe.tcp(socket(*port), PROBE_TIME_MAX).await,
        ProbeKind::None => ProbeAnswer::Connected,
    }
}

/// What the preview's supervisor says about its child.
async fn supervisor(run: &Run<'_>, address: Ipv4Addr) -> Option<Value> {
    let socket = SocketAddr::new(IpAddr::V4(address), PREVIEW_STATE_PORT);
    let answer = run.ports.probe.http(socket, "localhost", "/state", Duration::from_secs(2)).await;
    match answer {
        ProbeAnswer::Http { body, .. } => serde_json::from_slice(&body).ok(),
        _ => None,
    }
}

fn probe_port(container: &ContainerPlan) -> u16 {
    match container.probe {
        ProbeKind::Http { port, .. } | ProbeKind::Tcp { port } => port,
        ProbeKind::None => 0,
    }
}

/// The supervisor's list of listening sockets, as address and port.
fn sockets(board: &Value) -> Vec<(String, u16)> {
    let list = board.get("listening").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter()
        .filter_map(|socket| {
            let address = socket.get("address")?.as_str()?.to_owned();
            let port = u16::try_from(socket.get("port")?.as_u64()?).ok()?;
            Some((address, port))
        })
        .collect()
}

fn is_loopback(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    })
}

fn listens(board: &Value, container: &ContainerPlan) -> bool {
    let port = probe_port(container);
    sockets(board).iter().any(|(address, p)| *p == port && !is_loopback(address))
}

/// A failure that needs no more waiting: the dev server ended, or listens
/// where nobody can reach it.
async fn diagnose(
    run: &Run<'_>,
    container: &ContainerPlan,
    board: Option<&Value>,
    pause: Duration,
) -> Option<Failure> {
    let board = board?;
    if board.get("state").and_then(Value::as_str) == Some("failing") {
        let log = tail(run, &container.name).await;
        let all = log.join("\n");
        let exit = board.get("exit_code").and_then(Value::as_i64);
        let (code, message) = if all.contains("ENOSPC") && all.contains("watch") {
            (Code::PreviewWatchLimit, "the dev server ran out of file watches".to_owned())
        } else if exit == Some(137) || all.contains("JavaScript heap out of memory") {
            (Code::PreviewOutOfMemory, "the dev server ran out of memory".to_owned())
        } else {
            let exit = exit.map_or("a signal".to_owned(), |c| format!("exit code {c}"));
            (Code::PreviewExited, format!("the dev server ended with {exit}"))
        };
        return Some(Failure::new(code, message).with_log(log));
    }
    // A server may open a socket on localhost before its real one: only what
    // still stands after the waits have grown is taken as its last word.
    if pause < LONGEST_WAIT {
        return None;
    }
    let port = probe_port(container);
    let sockets = sockets(board);
    let reachable = |p: u16| sockets.iter().any(|(a, q)| *q == p && !is_loopback(a));
    if reachable(port) {
        return None;
    }
    if sockets.iter().any(|(_, p)| *p == port) {
        let log = tail(run, &container.name).await;
        let message = format!("the dev server listens on localhost:{port} only");
        return Some(Failure::new(Code::PreviewLocalhostBind, message).with_log(log));
    }
    None
}

/// A container that no longer runs.
async fn ended(
    run: &Run<'_>,
    container: &ContainerPlan,
    state: &ContainerState,
) -> Option<Failure> {
    let role = container.owner.role;
    let over = !state.running && matches!(state.status.as_str(), "exited" | "dead");
    // Docker restarts it up to five times; the second restart is enough to know.
    if !over && state.restart_count < 2 {
        return None;
    }
    let log = tail(run, &container.name).await;
    let code = match (role, state.oom_killed) {
        (Role::Preview, true) => Code::PreviewOutOfMemory,
        (Role::Preview, false) => Code::PreviewExited,
        _ => Code::ServiceUnhealthy,
    };
    if state.oom_killed {
        run.ports.metrics.container_oom(role);
    }
    let fact = if state.oom_killed { ContainerFact::Oom } else { ContainerFact::Exited };
    let event = EventKind::Container {
        fact,
        role,
        part: container.owner.part.clone(),
        cause: "it ended while it was being started".to_owned(),
        exit_code: state.exit_code,
    };
    // Best effort: the run's own failure follows.
    let _ = run.reporter.tell(event).await;
    let exit = state.exit_code.unwrap_or_default();
    let message = format!("the container {} ended with exit code {exit}", container.name);
    Some(Failure::new(code, message).with_log(log))
}

async fn give_up(run: &Run<'_>, container: &ContainerPlan, last: &ProbeAnswer) -> Failure {
    let log = tail(run, &container.name).await;
    if container.owner.role != Role::Preview {
        let message = format!("{} did not become healthy", container.name);
        return Failure::new(Code::ServiceUnhealthy, message).with_log(log);
    }
    let port = probe_port(container);
    let state = run.ports.engine.inspect_container(&container.name).await.ok().flatten();
    let board = match state.and_then(|s| s.address) {
        Some(address) => supervisor(run, address).await,
        None => None,
    };
    let elsewhere = board.as_ref().map(sockets).unwrap_or_default();
    let elsewhere = elsewhere.iter().find(|(a, p)| *p != port && !is_loopback(a));
    let (code, message) = match (last, elsewhere) {
        (ProbeAnswer::Http { status, .. }, _) => {
            (Code::PreviewFailing, format!("the page answers with status {status}"))
        }
        (_, Some((_, other))) => {
            (Code::PreviewWrongPort, format!("it listens on port {other} instead of {port}"))
        }
        _ => (Code::PreviewTimeout, format!("nothing answered on port {port} in two minutes")),
    };
    Failure::new(code, message).with_log(log)
}

/// One request the way a browser comes, and the tellings that follow.
async fn through_published_port(
    run: &Run<'_>,
    plan: &Plan,
    container: &ContainerPlan,
) -> Result<(), Failure> {
    let role = container.owner.role;
    if let (Some(publish), Some(preview)) = (&container.publish, &container.owner.part) {
        let domain = &run.ports.settings.preview_domain;
        let host = format!("{}.{domain}", host_label(preview, run.team()));
        let ip = if publish.host_ip.is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            publish.host_ip
        };
        let address = SocketAddr::new(ip, publish.host_port);
        let path = match &container.probe {
            ProbeKind::Http { path, .. } => path.as_str(),
            ProbeKind::Tcp { .. } | ProbeKind::None => "/",
        };
        let answer = match container.probe {
            ProbeKind::Tcp { .. } => run.ports.probe.tcp(address, PROBE_TIME_MAX).await,
            _ => run.ports.probe.http(address, &host, path, PROBE_TIME_MAX).await,
        };
        if !is_alive(&answer) {
            let log = tail(run, &container.name).await;
            let message = "the page answers inside and not through its published port";
            return Err(Failure::new(Code::PreviewTimeout, message).with_log(log));
        }
        tell(run, container, PreviewFact::Ready, plan.links.get(preview).cloned()).await;
    }
    let event = EventKind::Container {
        fact: ContainerFact::Healthy,
        role,
        part: container.owner.part.clone(),
        cause: "its probe passes".to_owned(),
        exit_code: None,
    };
    // Best effort here: the session's end is noticed by the next step event.
    let _ = run.reporter.tell(event).await;
    Ok(())
}

async fn tell(run: &Run<'_>, container: &ContainerPlan, fact: PreviewFact, url: Option<String>) {
    if let Some(preview) = container.owner.part.clone() {
        let _ = run.reporter.tell(EventKind::Preview { fact, preview, url }).await;
    }
}

async fn tail(run: &Run<'_>, name: &ContainerName) -> Vec<String> {
    run.ports.engine.log_tail(name, 100).await.unwrap_or_default()
}
