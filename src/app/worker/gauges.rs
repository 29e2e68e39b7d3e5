//! Keeps the gauges of what exists on this host true, by a listing every ten
//! seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::event::TeamState;
use crate::domain::limits::CONTAINER_UID;
use crate::domain::plan::Role;
use crate::observe::{Amounts, Listing};
use crate::pipeline::monitor::Monitor;
use crate::pipeline::{Ports, estate};
use crate::ports::engine::{Filter, label};

/// Prometheus scrapes every 15 s by custom; gauges should not be older.
const EVERY: Duration = Duration::from_secs(10);

/// Lists until `end`; the page is shown the last listing.
pub async fn keep(
    ports: Ports,
    monitor: Arc<Monitor>,
    shown: watch::Sender<Option<Listing>>,
    end: CancellationToken,
) {
    loop {
        if let Some(listing) = look(&ports, &monitor).await {
            ports.metrics.observed(&listing);
            shown.send_replace(Some(listing));
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = ports.clock.sleep(EVERY) => {}
        }
    }
}

async fn look(ports: &Ports, monitor: &Monitor) -> Option<Listing> {
    let filter = Filter { instance: ports.settings.instance.clone(), team: None };
    let observed = ports.engine.list(&filter).await.ok()?;
    let mut listing = Listing::default();
    for container in &observed.containers {
        if let Some(role) = container.labels.get(label::ROLE).and_then(|r| Role::parse(r)) {
            listing.containers.push((role, container.state.clone()));
            listing.ports_in_use += container.host_ports.len() as i64;
        }
    }
    let (first, last) = ports.settings.preview_ports;
    let limit = (first..=last).filter(|p| ports.settings.is_preview_port(*p)).count();
    listing.ports_limit = limit as i64;
    listing.subnets_in_use = observed.networks.len() as i64;
    listing.teams = ports.records.states().await.ok()?;
    // What a job left is what a record knows; how it is now, the monitor does.
    let is_left = |state: &TeamState| matches!(state, TeamState::Running | TeamState::Degraded);
    let now: Vec<_> = monitor.states().into_values().collect();
    if listing.teams.iter().filter(|state| is_left(state)).count() == now.len() {
        listing.teams.retain(|state| !is_left(state));
        listing.teams.extend(now);
    }
    let watches = ports.host.watch_use(CONTAINER_UID).await;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    listing.watches = (number(watches.watches), number(watches.watches_max));
    listing.instances = (number(watches.instances), number(watches.instances_max));
    let (resources, capacity) = (ports.host.resources().await.ok()?, &ports.settings.capacity);
    listing.disk_available_bytes = resources.disk_available_bytes;
    (listing.disk_used, listing.disk_used_max) = (resources.disk_used, capacity.disk_used_max);
    let (memory_bytes, cpu_millis) = estate::reserved(&observed);
    let teams = estate::teams_of(&observed).values().filter(|runs| **runs).count() as i64;
    listing.reserved = Amounts { teams, memory_bytes, cpus: cpu_millis as f64 / 1000.0 };
    listing.capacity = Amounts {
        teams: i64::from(capacity.teams_max),
        memory_bytes: (resources.memory_bytes as f64 * capacity.memory_overcommit) as i64,
        cpus: resources.cpus * capacity.cpu_overcommit,
    };
    Some(listing)
}
