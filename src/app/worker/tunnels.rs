//! Counts the tunnels of this worker's teams, and writes into its log what they
//! were denied: who looks for the reason of a failing install finds it there.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::TeamId;
use crate::domain::names::ContainerName;
use crate::pipeline::Ports;
use crate::pipeline::tunnels::{Tunnel, TunnelOutcome};
use crate::ports::engine::{Filter, label};

/// How often the teams' networks are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Lines that are kept until it is known whose they are: of other instances, or
/// of a team that began since the last look.
const UNKNOWN_MAX: usize = 512;

/// The proxy of the host.
pub const PROXY: &str = "covibes_egress";

#[derive(Default)]
struct Known {
    networks: Vec<(Ipv4Net, TeamId)>,
    unknown: VecDeque<Tunnel>,
}

/// Reads the proxy's log until `end`.
pub async fn count(ports: Ports, end: CancellationToken) {
    let name = ContainerName::from_engine(PROXY).expect("the literal is a name");
    let known = Mutex::new(Known::default());
    let on_line = |line: &str| {
        if let Some(tunnel) = Tunnel::read(line) {
            note(&ports, &known, tunnel);
        }
    };
    let listen = async {
        loop {
            // It ends when the proxy is replaced, and fails before there is one.
            let _ = ports.engine.follow_log(&name, 0, &on_line).await;
            ports.clock.sleep(LOOK_EVERY).await;
        }
    };
    let look = async {
        loop {
            look_at_networks(&ports, &known).await;
            ports.clock.sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = async { tokio::join!(listen, look); } => {}
    }
}

fn note(ports: &Ports, known: &Mutex<Known>, tunnel: Tunnel) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    match known.networks.iter().find(|(network, _)| network.contains(&tunnel.from)) {
        Some((_, team)) => told(ports, team, &tunnel),
        None => {
            known.unknown.push_back(tunnel);
            if known.unknown.len() > UNKNOWN_MAX {
                known.unknown.pop_front();
            }
        }
    }
}

fn told(ports: &Ports, team: &TeamId, tunnel: &Tunnel) {
    ports.metrics.tunnel_ended(tunnel.outcome.as_str(), tunnel.bytes);
    let (target, outcome) = (&tunnel.target, tunnel.outcome.as_str());
    match tunnel.outcome {
        TunnelOutcome::Denied => {
            tracing::info!(team.id = %team, target, outcome, "a team was denied a way out");
        }
        TunnelOutcome::Opened | TunnelOutcome::Failed => {
            tracing::debug!(team.id = %team, target, outcome, tunnel.bytes, "a tunnel ended");
        }
    }
}

async fn look_at_networks(ports: &Ports, known: &Mutex<Known>) {
    let filter = Filter { instance: ports.settings.instance.clone(), team: None };
    let Ok(observed) = ports.engine.list(&filter).await else { return };
    let networks = observed.networks.iter().flat_map(|network| {
        let team = network.labels.get(label::TEAM).and_then(|team| TeamId::parse(team).ok());
        let pairs = network.subnets.iter().map(move |subnet| Some((*subnet, team.clone()?)));
        pairs.flatten().collect::<Vec<_>>()
    });
    let networks = networks.collect();
    let unknown = {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.networks = networks;
        std::mem::take(&mut known.unknown)
    };
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    // What is nobody's even now is another instance's.
    for tunnel in unknown {
        let found = known.networks.iter().find(|(network, _)| network.contains(&tunnel.from));
        if let Some((_, team)) = found {
            told(ports, team, &tunnel);
        }
    }
}
