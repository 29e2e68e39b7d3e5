//! Whether a host takes on a start, and with which subnet and ports.
//!
//! Pure but for its arguments: the runner observes, this decides.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use crate::domain::failure::{Code, Failure};
use crate::domain::ids::PartName;
use crate::domain::limits::{self, Limits};
use crate::domain::plan::{AGENT_NETWORKS, PREVIEW_NETWORKS, Role, SLOTS, slot_subnet};
use crate::domain::settings::Settings;
use crate::domain::spec::Spec;
use crate::ports::engine::{Observed, label};
use crate::ports::host::HostResources;

fn reservation(limits: Limits) -> (u64, u64) {
    (limits.memory_reserved_bytes, u64::from(limits.cpu_reserved_millis))
}

/// What a spec sets aside: bytes and thousandths of a CPU.
fn reserved_by_spec(spec: &Spec) -> (u64, u64) {
    let agents = spec.agents.iter().map(|a| reservation(a.limits.lower(limits::AGENT)));
    let previews = spec.previews.iter().map(|_| reservation(limits::PREVIEW));
    agents
        .chain(previews)
        .chain([reservation(limits::SYNC)])
        .fold((0, 0), |(m, c), (memory, cpu)| (m + memory, c + cpu))
}

/// What the containers of other teams set aside.
fn reserved_by_others(observed: &Observed, team: &str) -> (u64, u64, BTreeSet<String>) {
    let mut teams = BTreeSet::new();
    let (mut memory, mut cpu) = (0, 0);
    for container in &observed.containers {
        let Some(owner) = container.labels.get(label::TEAM).filter(|t| *t != team) else {
            continue;
        };
        teams.insert(owner.clone());
        let role = container.labels.get(label::ROLE).and_then(|r| Role::parse(r));
        let (m, c) = match role {
            Some(Role::Agent) => reservation(limits::AGENT),
            Some(Role::Preview) => reservation(limits::PREVIEW),
            Some(Role::Sync) => reservation(limits::SYNC),
            Some(Role::Oneshot | Role::Egress) | None => (0, 0),
        };
        memory += m;
        cpu += c;
    }
    (memory, cpu, teams)
}

/// Decides whether the host has room for a start.
///
/// # Errors
/// `capacity.*` or `host.disk_low`, naming the short resource.
pub fn admit(
    settings: &Settings,
    resources: &HostResources,
    observed: &Observed,
    team: &str,
    spec: &Spec,
) -> Result<(), Failure> {
    let capacity = &settings.capacity;
    if resources.disk_used > capacity.disk_used_max {
        return Err(Failure::new(
            Code::HostDiskLow,
            format!("the host's disk is {:.0} % full", resources.disk_used * 100.0),
        ));
    }
    let (memory, cpu, teams) = reserved_by_others(observed, team);
    if teams.len() >= capacity.teams_max as usize {
        return Err(Failure::new(
            Code::CapacityTeams,
            format!("the host runs {} teams already", teams.len()),
        ));
    }
    let (wanted_memory, wanted_cpu) = reserved_by_spec(spec);
    let memory_limit = resources.memory_bytes as f64 * capacity.memory_overcommit;
    if (memory + wanted_memory) as f64 > memory_limit {
        return Err(Failure::new(Code::CapacityMemory, "the host's memory is reserved"));
    }
    let cpu_limit = resources.cpus * 1000.0 * capacity.cpu_overcommit;
    if (cpu + wanted_cpu) as f64 > cpu_limit {
        return Err(Failure::new(Code::CapacityCpu, "the host's CPUs are reserved"));
    }
    Ok(())
}

/// A number of its own for each team of each instance. Choices begin there, so
/// that two workers on one host that choose at once rarely choose the same.
#[must_use]
pub fn spread(instance: &str, team: &str) -> u16 {
    let digest = Sha256::digest(format!("{instance}/{team}"));
    u16::from_be_bytes([digest[0], digest[1]])
}

/// Chooses the index of a team's subnets: the one it has, the one it had, or
/// the first from `start` on that overlaps nothing.
///
/// # Errors
/// `capacity.subnets` when all 2,048 are taken.
pub fn choose_slot(
    own: &[Ipv4Net],
    previous: Option<u16>,
    start: u16,
    taken: &[Ipv4Net],
) -> Result<u16, Failure> {
    let slot_of = |net: &Ipv4Net| {
        [AGENT_NETWORKS, PREVIEW_NETWORKS].into_iter().find_map(|space| {
            let offset = u32::from(net.network()).checked_sub(u32::from(space.network()))?;
            let slot = u16::try_from(offset / 32).ok().filter(|s| *s < SLOTS)?;
            (slot_subnet(space, slot) == *net).then_some(slot)
        })
    };
    if let Some(slot) = own.iter().find_map(slot_of) {
        return Ok(slot);
    }
    let overlaps = |a: Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    let free = |slot: &u16| {
        [AGENT_NETWORKS, PREVIEW_NETWORKS]
            .into_iter()
            .all(|space| !taken.iter().any(|t| overlaps(slot_subnet(space, *slot), t)))
    };
    previous
        .into_iter()
        .chain((0..SLOTS).map(|n| (start % SLOTS + n) % SLOTS))
        .find(free)
        .ok_or_else(|| Failure::new(Code::CapacitySubnets, "every team subnet is taken"))
}

/// Gives each preview a host port: the one it had if nobody else has it, else
/// the first free one. Ports that stopped teams only prefer are used last.
///
/// # Errors
/// `port.exhausted`.
pub fn choose_ports(
    settings: &Settings,
    previews: &[PartName],
    previous: &BTreeMap<PartName, u16>,
    start: u16,
    taken: &BTreeSet<u16>,
    preferred_by_others: &BTreeSet<u16>,
) -> Result<BTreeMap<PartName, u16>, Failure> {
    let mut chosen = BTreeMap::new();
    let mut used = taken.clone();
    for preview in previews {
        if let Some(port) = previous.get(preview)
            && settings.is_preview_port(*port)
            && used.insert(*port)
        {
            chosen.insert(preview.clone(), *port);
        }
    }
    let (first, last) = settings.preview_ports;
    for preview in previews {
        if chosen.contains_key(preview) {
            continue;
        }
        let usable = |port: &u16| settings.is_preview_port(*port) && !used.contains(port);
        let size = u32::from(last - first) + 1;
        let all = || {
            let from_start = |n| (u32::from(start) + n) % size;
            (0..size).filter_map(move |n| u16::try_from(from_start(n)).ok()).map(|n| first + n)
        };
        let port = all()
            .filter(usable)
            .find(|port| !preferred_by_others.contains(port))
            .or_else(|| all().find(usable))
            .ok_or_else(|| Failure::new(Code::PortExhausted, "every preview port is taken"))?;
        used.insert(port);
        chosen.insert(preview.clone(), port);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_team_keeps_its_subnets_and_skips_foreign_ones() {
        assert_eq!(choose_slot(&[net("172.22.0.64/27")], Some(9), 0, &[]).unwrap(), 2);
        assert_eq!(choose_slot(&[], Some(9), 0, &[]).unwrap(), 9);
        let taken = [net("172.21.0.0/27"), net("172.22.0.32/28"), net("10.0.0.0/8")];
        assert_eq!(choose_slot(&[], None, 0, &taken).unwrap(), 2);
        assert_eq!(
            choose_slot(&[], None, SLOTS - 1, &[slot_subnet(AGENT_NETWORKS, SLOTS - 1)]).unwrap(),
            0
        );
        assert!(choose_slot(&[], Some(3), 0, &[net("172.16.0.0/12")]).is_err());
    }

    #[test]
    fn ports_are_kept_and_never_shared() {
        let settings = Settings { preview_ports: (5000, 5003), ..Settings::default() };
        let [a, b, c] = ["a", "b", "c"].map(|n| PartName::parse(n).unwrap());
        let previous = BTreeMap::from([(a.clone(), 5001), (b.clone(), 5002)]);
        let taken = BTreeSet::from([5002]);
        let parts = [a.clone(), b.clone(), c.clone()];
        let chosen =
            choose_ports(&settings, &parts, &previous, 0, &taken, &BTreeSet::from([5000])).unwrap();
        assert_eq!(chosen[&a], 5001);
        assert_eq!(chosen[&b], 5003);
        // The last one left is one that a stopped team would like.
        assert_eq!(chosen[&c], 5000);
        let full = choose_ports(
            &settings,
            &parts,
            &BTreeMap::new(),
            7,
            &BTreeSet::from([5000, 5001]),
            &BTreeSet::new(),
        );
        assert_eq!(full.unwrap_err().code, Code::PortExhausted);
    }
}
