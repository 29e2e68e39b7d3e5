//! How teams are in the words of their worker, so that the terminal and the page say the
//! same: asked of the worker that runs, else read from what one wrote down. Whoever may
//! read neither sees what Docker has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::adapters::records;
use crate::app::configuration::Configuration;
use crate::app::http::Gate;
use crate::app::local::LOCAL_INSTANCE;
use crate::domain::event::TeamState;
use crate::domain::ids::InstanceName;
use crate::domain::job::ActionKind;
use crate::domain::record::TeamRecord;

/// A worker that does not answer in this time is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A thousand teams are a tenth of it.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// States by team and instance.
pub(super) type States = BTreeMap<(String, String), TeamState>;

/// The last states of all teams, of the worker's instance and of `up`.
///
/// # Errors
/// Never, as long as the instance of `up` has a valid name.
pub(super) async fn states(configuration: &Configuration) -> anyhow::Result<States> {
    let own = &configuration.settings;
    let local = own.clone().for_instance(InstanceName::parse(LOCAL_INSTANCE)?);
    let mut told = States::new();
    for settings in [own, &local] {
        for record in records::peek_all(&settings.state_dir.join("teams")) {
            if record.state != TeamState::Destroyed {
                let key = (record.team.to_string(), settings.instance.to_string());
                told.insert(key, written(&record));
            }
        }
    }
    if let Some(teams) = of_worker(configuration).await {
        told.retain(|(_, instance), _| *instance != own.instance.to_string());
        told.extend(
            teams.into_iter().map(|(team, state)| ((team, own.instance.to_string()), state)),
        );
    }
    Ok(told)
}

/// What a record says. One of a start that was taken back says stopped, and in its last job
/// why nothing is there.
fn written(record: &TeamRecord) -> TeamState {
    let last = record.jobs.last().filter(|job| job.action == ActionKind::Start);
    let outcome = last.and_then(|job| job.outcome.as_deref());
    let failed = outcome.is_some_and(|outcome| outcome.starts_with("failed:"));
    if record.state == TeamState::Stopped && failed { TeamState::Failed } else { record.state }
}

async fn of_worker(configuration: &Configuration) -> Option<Vec<(String, TeamState)>> {
    let token = Gate::word(&configuration.http, &configuration.settings.state_dir)?;
    let asked = ask(reachable(configuration.http.listen), &token);
    let body = tokio::time::timeout(ANSWER_MAX, asked).await.ok().flatten()?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let teams = body["teams"].as_array()?.iter().filter_map(|team| {
        let state = TeamState::parse(team["state"].as_str()?)?;
        (state != TeamState::Destroyed).then(|| Some((team["team"].as_str()?.to_owned(), state)))?
    });
    Some(teams.collect())
}

/// Where a worker that listens everywhere is asked from its own host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(worker: SocketAddr, token: &str) -> Option<Bytes> {
    let stream = TcpStream::connect(worker).await.ok()?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    let request = Request::get("/api/teams")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answered = async {
        let response = sender.send_request(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        Some(body.collect().await.ok()?.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // It only drives the connection; the answer may have come with its end.
        _ = connection => answered.await,
    }
}
