//! Whether a host takes on a start, and with which subnet and ports.
//!
//! Pure but for its arguments: the runner observes, this decides.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::{self, Limits};
use crate::domain::plan::{AGENT_NETWORKS, PREVIEW_NETWORKS, Plan, Role, SLOTS, slot_subnet};
use crate::domain::settings::Settings;
use crate::domain::spec::Spec;
use crate::ports::engine::{Observed, label};
use crate::ports::host::{HostResources, WatchUse};

/// What a team sets aside on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Preview ports.
    pub ports: usize,
}

impl Share {
    fn of(role: Role, limits: Limits) -> Self {
        Self {
            memory_bytes: limits.memory_reserved_bytes,
            cpu_millis: u64::from(limits.cpu_reserved_millis),
            ports: usize::from(role == Role::Preview),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes + other.memory_bytes,
            cpu_millis: self.cpu_millis + other.cpu_millis,
            ports: self.ports + other.ports,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            ports: self.ports.max(other.ports),
        }
    }

    /// Whether it is more than `other` in anything.
    #[must_use]
    pub fn exceeds(self, other: Self) -> bool {
        self.or(other) != other
    }
}

/// What a spec asks for.
#[must_use]
pub fn share_of_spec(spec: &Spec) -> Share {
    let agents = spec.agents.iter().map(|a| Share::of(Role::Agent, a.limits.lower(limits::AGENT)));
    let previews = spec.previews.iter().map(|_| Share::of(Role::Preview, limits::PREVIEW));
    agents.chain(previews).fold(Share::of(Role::Sync, limits::SYNC), Share::and)
}

/// What a plan asks for.
#[must_use]
pub fn share_of_plan(plan: &Plan) -> Share {
    plan.containers
        .iter()
        .map(|container| Share::of(container.owner.role, container.limits))
        .fold(Share::default(), Share::and)
}

/// What every other team has: what its containers set aside, or what was set
/// aside for a run of it, whichever is more.
#[must_use]
pub fn claims_of_others(
    observed: &Observed,
    held: &BTreeMap<TeamId, Share>,
    team: &TeamId,
) -> BTreeMap<String, Share> {
    let mut claims: BTreeMap<String, Share> = BTreeMap::new();
    for container in &observed.containers {
        let Some(owner) = container.labels.get(label::TEAM).filter(|t| *t != team.as_str()) else {
            continue;
        };
        let role = container.labels.get(label::ROLE).and_then(|r| Role::parse(r));
        let share = match role {
            Some(Role::Agent) => Share::of(Role::Agent, limits::AGENT),
            Some(Role::Preview) => Share::of(Role::Preview, limits::PREVIEW),
            Some(Role::Sync) => Share::of(Role::Sync, limits::SYNC),
            Some(Role::Oneshot | Role::Egress) | None => Share::default(),
        };
        let claim = claims.entry(owner.clone()).or_default();
        *claim = claim.and(share);
    }
    for (owner, share) in held.iter().filter(|(owner, _)| *owner != team) {
        let claim = claims.entry(owner.to_string()).or_default();
        *claim = claim.or(*share);
    }
    claims
}

/// Decides whether the host has room for one more team's share.
///
/// # Errors
/// `capacity.*`, `port.exhausted` or `host.disk_low`, naming the short resource.
pub fn admit(
    settings: &Settings,
    resources: &HostResources,
    others: &BTreeMap<String, Share>,
    wanted: Share,
) -> Result<(), Failure> {
    let capacity = &settings.capacity;
    if resources.disk_used > capacity.disk_used_max {
        return Err(Failure::new(
            Code::HostDiskLow,
            format!("the host's disk is {:.0} % full", resources.disk_used * 100.0),
        ));
    }
    if others.len() >= capacity.teams_max as usize {
        return Err(Failure::new(
            Code::CapacityTeams,
            format!("the host runs {} teams already", others.len()),
        ));
    }
    let all = others.values().copied().fold(wanted, Share::and);
    if all.memory_bytes as f64 > resources.memory_bytes as f64 * capacity.memory_overcommit {
        return Err(Failure::new(Code::CapacityMemory, "the host's memory is reserved"));
    }
    if all.cpu_millis as f64 > resources.cpus * 1000.0 * capacity.cpu_overcommit {
        return Err(Failure::new(Code::CapacityCpu, "the host's CPUs are reserved"));
    }
    let (first, last) = settings.preview_ports;
    if all.ports > (first..=last).filter(|port| settings.is_preview_port(*port)).count() {
        return Err(Failure::new(Code::PortExhausted, "every preview port is taken"));
    }
    Ok(())
}

/// Decides whether a spec asks for more previews than a team may have.
///
/// # Errors
/// `capacity.previews`.
pub fn admit_previews(settings: &Settings, spec: &Spec) -> Result<(), Failure> {
    let (asked, max) = (spec.previews.len(), settings.capacity.previews_per_team);
    if asked <= max {
        return Ok(());
    }
    let message = format!("the team asks for {asked} previews, and may have {max} on this host");
    Err(Failure::new(Code::CapacityPreviews, message))
}

/// Decides whether the kernel has watches left for the dev servers of a team
/// that does not run yet. Without them they would poll, and cost the host more.
///
/// # Errors
/// `capacity.watches`, naming what is short.
pub fn admit_watches(found: WatchUse, spec: &Spec) -> Result<(), Failure> {
    if spec.previews.is_empty() {
        return Ok(());
    }
    // The rest is for those that run, whose projects grow.
    let used_up = found.watches_max / 10 * 9;
    if found.watches_max > 0 && found.watches > used_up {
        return Err(Failure::new(
            Code::CapacityWatches,
            format!("{} of {} inotify watches are in use", found.watches, found.watches_max),
        ));
    }
    // A dev server and its bundler have one each.
    let wanted = 2 * spec.previews.len() as u64;
    if found.instances_max > 0 && found.instances + wanted > found.instances_max {
        return Err(Failure::new(
            Code::CapacityWatches,
            format!("{} of {} inotify instances are in use", found.instances, found.instances_max),
        ));
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

/// The index of a subnet, if it is a team's.
#[must_use]
pub fn slot_of(net: &Ipv4Net) -> Option<u16> {
    [AGENT_NETWORKS, PREVIEW_NETWORKS].into_iter().find_map(|space| {
        let offset = u32::from(net.network()).checked_sub(u32::from(space.network()))?;
        let slot = u16::try_from(offset / 32).ok().filter(|s| *s < SLOTS)?;
        (slot_subnet(space, slot) == *net).then_some(slot)
    })
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
    fn each_resource_that_is_short_is_named_and_a_share_counts_once() {
        let mut settings = Settings { preview_ports: (5000, 5003), ..Settings::default() };
        settings.capacity.teams_max = 3;
        let resources =
            HostResources { memory_bytes: 10, cpus: 1.0, disk_used: 0.1, disk_available_bytes: 1 };
        settings.capacity.cpu_overcommit = 1.0;
        let share = |memory_bytes, cpu_millis, ports| Share { memory_bytes, cpu_millis, ports };
        let code = |others: &[Share], wanted| {
            let named = others.iter().enumerate().map(|(n, share)| (n.to_string(), *share));
            admit(&settings, &resources, &named.collect(), wanted).err().map(|f| f.code)
        };
        assert_eq!(code(&[share(5, 500, 2)], share(5, 500, 2)), None);
        assert_eq!(code(&[share(5, 1, 1)], share(6, 1, 1)), Some(Code::CapacityMemory));
        assert_eq!(code(&[share(1, 500, 1)], share(1, 501, 1)), Some(Code::CapacityCpu));
        assert_eq!(code(&[share(1, 1, 2)], share(1, 1, 3)), Some(Code::PortExhausted));
        assert_eq!(code(&[share(1, 1, 0); 3], share(1, 1, 0)), Some(Code::CapacityTeams));
        // What was set aside for a run, and what it has made so far, are one claim.
        let [a, b] = ["a", "b"].map(|raw| TeamId::parse(raw).unwrap());
        let held = BTreeMap::from([(a.clone(), share(9, 9, 1)), (b, share(1, 1, 0))]);
        let claims = claims_of_others(&Observed::default(), &held, &a);
        assert_eq!(claims.into_iter().collect::<Vec<_>>(), [("b".to_owned(), share(1, 1, 0))]);
        assert!(share(1, 2, 1).exceeds(share(2, 1, 1)) && !share(1, 1, 1).exceeds(share(1, 1, 1)));
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
