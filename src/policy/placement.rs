//! On which host a team without a place begins. Pure: the dispatcher knows the
//! hosts, this chooses.
//!
//! Most room first. What was placed since a host last spoke is counted against
//! what it said, so that a burst of starts spreads. A full cluster still places:
//! the start waits in the mailbox of the least loaded host, where a later stop
//! finds it.

use crate::domain::control::Room;
use crate::domain::ids::HostId;
use crate::domain::limits::{AGENT, PREVIEW, SYNC};
use crate::domain::spec::Spec;

/// What a team will reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Bytes.
    pub memory_bytes: i64,
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
}

/// An agent, a preview and the sync service: what a job is taken to reserve of
/// which no more is known than that it is under way.
const ORDINARY: Demand = Demand::of(1, 1);

impl Demand {
    const fn of(agents: u64, previews: u64) -> Self {
        let memory = agents * AGENT.memory_reserved_bytes
            + previews * PREVIEW.memory_reserved_bytes
            + SYNC.memory_reserved_bytes;
        let cpu = agents * AGENT.cpu_reserved_millis as u64
            + previews * PREVIEW.cpu_reserved_millis as u64
            + SYNC.cpu_reserved_millis as u64;
        // At most 16 agents and 16 previews.
        Self { memory_bytes: memory as i64, cpu_millis: cpu as i64 }
    }

    /// What the spec asks for.
    #[must_use]
    pub fn of_spec(spec: &Spec) -> Self {
        Self::of(spec.agents.len() as u64, spec.previews.len() as u64)
    }
}

/// What was placed on a host since it last spoke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Teams.
    pub teams: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
}

impl Placed {
    /// One team more.
    pub fn add(&mut self, demand: Demand) {
        self.teams += 1;
        self.memory_bytes += demand.memory_bytes;
        self.cpu_millis += demand.cpu_millis;
    }
}

/// A host that takes new teams: heard of late, not draining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub host: HostId,
    /// What it last said; `None` if it could not say.
    pub room: Option<Room>,
    /// What it was given since.
    pub placed: Placed,
}

/// How good a host is for a team, best last: one that knows its room before one
/// that does not, enough disk before not, then by how many such teams fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fitness {
    knows_its_room: bool,
    has_disk: bool,
    teams: i64,
    memory_bytes: i64,
}

/// Chooses a host, the first by name among equals; `None` if every mailbox has
/// as many waiting jobs as it may.
#[must_use]
pub fn choose(candidates: &[Candidate], demand: Demand) -> Option<&HostId> {
    let mut best: Option<(Fitness, &HostId)> = None;
    for candidate in candidates.iter().filter(|candidate| lets_wait(candidate)) {
        let fitness = fitness(candidate, demand);
        let is_better = match best {
            None => true,
            Some((before, host)) => {
                fitness > before || (fitness == before && candidate.host < *host)
            }
        };
        if is_better {
            best = Some((fitness, &candidate.host));
        }
    }
    best.map(|(_, host)| host)
}

fn lets_wait(candidate: &Candidate) -> bool {
    candidate.room.is_none_or(|room| i64::from(room.waiting) > candidate.placed.teams)
}

fn fitness(candidate: &Candidate, demand: Demand) -> Fitness {
    let placed = candidate.placed;
    let Some(room) = candidate.room else {
        return Fitness {
            knows_its_room: false,
            has_disk: true,
            teams: placed.teams.saturating_neg(),
            memory_bytes: 0,
        };
    };
    let jobs = i64::from(room.jobs);
    let left = |said: i64, each: i64, placed: i64| {
        said.saturating_sub(jobs.saturating_mul(each)).saturating_sub(placed)
    };
    let memory = left(room.memory_bytes, ORDINARY.memory_bytes, placed.memory_bytes);
    let cpu = left(room.cpu_millis, ORDINARY.cpu_millis, placed.cpu_millis);
    let fitting = [
        left(room.teams, 1, placed.teams),
        memory.div_euclid(demand.memory_bytes.max(1)),
        cpu.div_euclid(demand.cpu_millis.max(1)),
    ];
    Fitness {
        knows_its_room: true,
        has_disk: !room.disk_is_low,
        teams: fitting.into_iter().min().unwrap_or_default(),
        memory_bytes: memory,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: i64 = 1 << 30;

    fn room(teams: i64, memory_bytes: i64) -> Room {
        Room { teams, memory_bytes, cpu_millis: 8000, disk_is_low: false, jobs: 0, waiting: 100 }
    }

    fn candidate(name: &str, room: Option<Room>) -> Candidate {
        Candidate { host: HostId::parse(name).unwrap(), room, placed: Placed::default() }
    }

    fn chosen(candidates: &[Candidate]) -> Option<&str> {
        choose(candidates, ORDINARY).map(HostId::as_str)
    }

    #[test]
    fn the_host_with_most_room_is_chosen_and_the_first_by_name_among_equals() {
        let hosts = [
            candidate("c", Some(room(5, 8 * GIB))),
            candidate("b", Some(room(9, 8 * GIB))),
            candidate("a", Some(room(9, 8 * GIB))),
        ];
        assert_eq!(chosen(&hosts), Some("a"));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn the_scarcest_resource_counts() {
        let many_teams = candidate("a", Some(room(100, GIB)));
        let much_memory = candidate("b", Some(room(2, 64 * GIB)));
        assert_eq!(chosen(&[many_teams, much_memory.clone()]), Some("b"));
        let little_cpu = Room { cpu_millis: 400, ..room(100, 64 * GIB) };
        assert_eq!(chosen(&[candidate("a", Some(little_cpu)), much_memory]), Some("b"));
    }

    #[test]
    fn jobs_under_way_have_reserved_nothing_yet_and_count_all_the_same() {
        let busy = Room { jobs: 8, ..room(10, 16 * GIB) };
        let hosts = [candidate("a", Some(busy)), candidate("b", Some(room(5, 8 * GIB)))];
        assert_eq!(chosen(&hosts), Some("b"));
    }

    #[test]
    fn a_full_cluster_places_where_the_start_may_wait() {
        let full = |waiting| Room { waiting, ..room(-1, -GIB) };
        let hosts = [candidate("a", Some(full(0))), candidate("b", Some(full(3)))];
        assert_eq!(chosen(&hosts), Some("b"));
        assert_eq!(chosen(&hosts[..1]), None);
        let fuller = Room { waiting: 100, ..room(-5, -GIB) };
        assert_eq!(chosen(&[hosts[1].clone(), candidate("a", Some(fuller))]), Some("b"));
    }

    #[test]
    fn a_host_that_does_not_know_its_room_or_has_no_disk_is_the_last_resort() {
        let silent = candidate("a", None);
        let no_disk = candidate("b", Some(Room { disk_is_low: true, ..room(9, 8 * GIB) }));
        let full = candidate("c", Some(room(0, 0)));
        assert_eq!(chosen(&[silent.clone(), no_disk.clone(), full]), Some("c"));
        assert_eq!(chosen(&[silent.clone(), no_disk]), Some("b"));
        assert_eq!(chosen(&[silent]), Some("a"));
    }

    proptest! {
        /// Whatever is placed in a burst, no host is given a team while another
        /// has more room, so equal hosts differ by one at most.
        #[test]
        fn a_burst_spreads(hosts in 1_usize..6, teams in 0_usize..60) {
            let mut all: Vec<_> = (0..hosts)
                .map(|n| candidate(&format!("h{n}"), Some(room(50, 512 * GIB))))
                .collect();
            for _ in 0..teams {
                let host = choose(&all, ORDINARY).unwrap().clone();
                all.iter_mut().find(|c| c.host == host).unwrap().placed.add(ORDINARY);
            }
            let counts: Vec<_> = all.iter().map(|c| c.placed.teams).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
            prop_assert_eq!(counts.iter().sum::<i64>(), teams as i64);
        }

        /// Nothing that a host says makes the choice fail or overflow.
        #[test]
        fn any_room_is_survived(
            said in proptest::collection::vec((any::<[i64; 3]>(), any::<bool>(), any::<[u32; 2]>()), 0..5),
            placed in any::<u16>(),
        ) {
            let candidates: Vec<_> = said.iter().enumerate().map(|(n, (numbers, low, [jobs, waiting]))| {
                let [teams, memory_bytes, cpu_millis] = *numbers;
                let room = Room { teams, memory_bytes, cpu_millis, disk_is_low: *low, jobs: *jobs, waiting: *waiting };
                let mut candidate = candidate(&format!("h{n}"), Some(room));
                candidate.placed.teams = i64::from(placed);
                candidate
            }).collect();
            let possible = candidates.iter().any(lets_wait);
            prop_assert_eq!(choose(&candidates, ORDINARY).is_some(), possible);
        }
    }
}
