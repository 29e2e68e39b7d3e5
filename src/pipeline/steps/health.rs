//! Step 6, health: containers in, a running team out.
//!
//! The worker asks each container at its own address, first after 50 ms and
//! then ever more slowly up to a second; then each preview once through its
//! published port. Any status below 500 means alive.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use crate::domain::event::{ContainerFact, EventKind, PreviewFact};
use crate::domain::failure::{Code, Failure};
use crate::domain::names::{ContainerName, host_label};
use crate::domain::plan::{ContainerPlan, Plan, ProbeKind, Role};
use crate::pipeline::preview_board::{Board, is_alive};
use crate::pipeline::run::Run;
use crate::ports::engine::ContainerState;
use crate::ports::probe::ProbeAnswer;

mod advice;

/// The first wait; a start itself has just taken longer.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two probes.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// One probe: a dev server that compiles its first page takes this long, and one
/// that is asked anew may begin anew.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a preview may answer nothing, or only server errors, and say nothing.
const PREVIEW_TIME_MAX: Duration = Duration::from_secs(120);

/// How long one that listens already may compile its first page in silence.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(180);

/// How long a preview may listen on another port than its own, and say nothing.
const ELSEWHERE_TIME_MAX: Duration = Duration::from_secs(45);

/// How long a preview may answer nothing but server errors that are its own: its
/// code does not get better by itself, and each request makes it say more.
const ERRORS_TIME_MAX: Duration = Duration::from_secs(45);

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
    let mut end = Instant::now() + budget;
    let mut pause = FIRST_WAIT;
    let mut seen_listening = false;
    let (mut lines, mut copied) = (0, 0);
    let mut elsewhere: Option<Instant> = None;
    let mut errors: Option<Instant> = None;
    let mut last = ProbeAnswer::Refused;
    loop {
        let mut waiting = format!("waiting for {}", container.name);
        let state = run.ports.engine.inspect_container(&container.name).await?;
        let Some(state) = state else {
            return Err(Failure::new(
                Code::DockerFailed,
                format!("the container {} disappeared", container.name),
            ));
        };
        if let Some(failure) = ended(run, container, &state).await {
            return Err(failing(run, container, failure, None).await);
        }
        if let Some(address) = state.address {
            last = probe(run, container, address).await;
            if is_alive(&last) {
                return through_published_port(run, plan, container, address).await;
            }
            errors = errors.or(Some(Instant::now())).filter(|_| is_own_error(&last));
            if let ProbeAnswer::Http { status, .. } = last {
                waiting.push_str(&format!(": it answers with status {status}"));
            }
            if container.owner.role == Role::Preview
                && let Some(board) = Board::ask(&*run.ports.probe, address).await
            {
                if let Some(failure) = diagnose(run, container, &board, pause).await {
                    return Err(failing(run, container, failure, Some(&board)).await);
                }
                if board.listens(probe_port(container)) && !seen_listening {
                    seen_listening = true;
                    end = end.max(Instant::now() + COMPILE_TIME_MAX);
                    tell(run, container, PreviewFact::Compiling, None, None).await;
                }
                // A server may open other ports on its way to its own, but then it goes on: one
                // that has nothing more to say has come to where it wanted.
                let port = probe_port(container);
                let is_elsewhere = !board.listens(port)
                    && board.listens_elsewhere(port).is_some()
                    && board.lines == lines;
                elsewhere = elsewhere.or(Some(Instant::now())).filter(|_| is_elsewhere);
                if elsewhere.is_some_and(|since| since.elapsed() >= ELSEWHERE_TIME_MAX) {
                    end = Instant::now();
                }
                let now_copied = board.copied.unwrap_or(copied);
                if (board.lines, now_copied) != (lines, copied) {
                    // Whoever still says something, or copies, is at work; the
                    // step's own bound ends one that never comes to a page.
                    (lines, copied) = (board.lines, now_copied);
                    end = end.max(Instant::now() + budget);
                }
                if board.copied.is_some() {
                    waiting =
                        format!("copying the workspace for {}: {copied} files", container.name);
                }
            }
        }
        let is_preview = container.owner.role == Role::Preview;
        let errs = is_preview && errors.is_some_and(|since| since.elapsed() >= ERRORS_TIME_MAX);
        if errs || Instant::now() >= end {
            let (failure, board) = give_up(run, container, &last).await;
            return Err(failing(run, container, failure, board.as_ref()).await);
        }
        run.say(waiting);
        run.ports.clock.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_WAIT);
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

fn probe_port(container: &ContainerPlan) -> u16 {
    match container.probe {
        ProbeKind::Http { port, .. } | ProbeKind::Tcp { port } => port,
        ProbeKind::None => 0,
    }
}

/// Whether an answer says that the page's own code fails, and not that something
/// is still on its way.
fn is_own_error(answer: &ProbeAnswer) -> bool {
    matches!(answer, ProbeAnswer::Http { status, .. } if *status >= 500 && !(502..=504).contains(status))
}

/// A failure that needs no more waiting: the dev server ended, or listens
/// where nobody can reach it.
async fn diagnose(
    run: &Run<'_>,
    container: &ContainerPlan,
    board: &Board,
    pause: Duration,
) -> Option<Failure> {
    if board.failing {
        let log = tail(run, &container.name).await;
        let all = log.join("\n");
        let (code, message) = if all.contains("ENOSPC") && all.contains("watch") {
            (Code::PreviewWatchLimit, "the dev server ran out of file watches".to_owned())
        } else if board.exit_code == Some(137) || all.contains("JavaScript heap out of memory") {
            (Code::PreviewOutOfMemory, "the dev server ran out of memory".to_owned())
        } else {
            (Code::PreviewExited, board.end())
        };
        return Some(Failure::new(code, message + advice::of(&log)).with_log(log));
    }
    // A server may open a socket on localhost before its real one: only what
    // still stands after the waits have grown is taken as its last word.
    let port = probe_port(container);
    if pause < LONGEST_WAIT || !board.listens_to_itself(port) {
        return None;
    }
    let log = tail(run, &container.name).await;
    let message = format!("the dev server listens on localhost:{port} only");
    Some(Failure::new(Code::PreviewLocalhostBind, message).with_log(log))
}

/// Tells that a preview fails, and adds the line that says why to the failure.
async fn failing(
    run: &Run<'_>,
    container: &ContainerPlan,
    mut failure: Failure,
    board: Option<&Board>,
) -> Failure {
    if container.owner.role != Role::Preview {
        return failure;
    }
    let line = board.and_then(|board| board.error_line.clone());
    let error = line.clone().unwrap_or_else(|| failure.message.clone());
    tell(run, container, PreviewFact::Failing, None, Some(error)).await;
    if let Some(line) = line {
        failure.message = format!("{}: {line}", failure.message);
    }
    failure
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
        log: log.clone(),
    };
    // Best effort: the run's own failure follows.
    let _ = run.reporter.tell(event).await;
    let exit = state.exit_code.unwrap_or_default();
    let message = format!("the container {} ended with exit code {exit}", container.name);
    Some(Failure::new(code, message).with_log(log))
}

async fn give_up(
    run: &Run<'_>,
    container: &ContainerPlan,
    last: &ProbeAnswer,
) -> (Failure, Option<Board>) {
    let log = tail(run, &container.name).await;
    if container.owner.role != Role::Preview {
        let message = format!("{} did not become healthy", container.name);
        return (Failure::new(Code::ServiceUnhealthy, message).with_log(log), None);
    }
    let port = probe_port(container);
    let state = run.ports.engine.inspect_container(&container.name).await.ok().flatten();
    let board = match state.and_then(|s| s.address) {
        Some(address) => Board::ask(&*run.ports.probe, address).await,
        None => None,
    };
    let elsewhere = board.as_ref().filter(|board| !board.listens(port));
    let elsewhere = elsewhere.and_then(|board| board.listens_elsewhere(port));
    let (code, message) = match (last, elsewhere) {
        (ProbeAnswer::Http { status, .. }, _) => {
            (Code::PreviewFailing, format!("the page answers with status {status}"))
        }
        (_, Some(other)) => {
            (Code::PreviewWrongPort, format!("it listens on port {other} instead of {port}"))
        }
        _ => (Code::PreviewTimeout, format!("nothing answered on port {port} in time")),
    };
    (Failure::new(code, message + advice::of(&log)).with_log(log), board)
}

/// One request the way a browser comes, and the tellings that follow.
async fn through_published_port(
    run: &Run<'_>,
    plan: &Plan,
    container: &ContainerPlan,
    inside: Ipv4Addr,
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
        let link = plan.links.get(preview).cloned();
        let polls = Board::ask(&*run.ports.probe, inside).await.and_then(|board| board.polls());
        tell(run, container, PreviewFact::Ready, link, polls).await;
    }
    let event = EventKind::Container {
        fact: ContainerFact::Healthy,
        role,
        part: container.owner.part.clone(),
        cause: "its probe passes".to_owned(),
        exit_code: None,
        log: Vec::new(),
    };
    // Best effort here: the session's end is noticed by the next step event.
    let _ = run.reporter.tell(event).await;
    Ok(())
}

async fn tell(
    run: &Run<'_>,
    container: &ContainerPlan,
    fact: PreviewFact,
    url: Option<String>,
    error: Option<String>,
) {
    if let Some(preview) = container.owner.part.clone() {
        let _ = run.reporter.tell(EventKind::Preview { fact, preview, url, error }).await;
    }
}

async fn tail(run: &Run<'_>, name: &ContainerName) -> Vec<String> {
    run.ports.engine.log_tail(name, 100).await.unwrap_or_default()
}
