//! Preview ports by the thousand: never one twice, kept over restarts, and a
//! clear end when there is none, also with two workers on one host that see
//! each other only when a port turns out to be taken.

use std::collections::{BTreeMap, BTreeSet};

use covibes::domain::failure::Code;
use covibes::domain::ids::PartName;
use covibes::domain::settings::Settings;
use covibes::pipeline::admission::{choose_ports, spread};
use proptest::prelude::*;

type Chosen = BTreeMap<PartName, u16>;

/// A worker: what it knows are its own teams.
struct Worker {
    instance: &'static str,
    settings: Settings,
    teams: BTreeMap<String, Chosen>,
}

/// As often as a start looks again (`PORT_TRIES`), and each time past whatever
/// the listen on the host showed to be taken.
const TRIES_MAX: usize = 4000;

impl Worker {
    fn new(instance: &'static str, ports: (u16, u16)) -> Self {
        let settings = Settings { preview_ports: ports, ..Settings::default() };
        Self { instance, settings, teams: BTreeMap::new() }
    }

    /// Starts a team with so many previews; `host` is who listens on what.
    fn start(
        &mut self,
        team: &str,
        previews: usize,
        host: &mut BTreeMap<u16, String>,
    ) -> Result<(), Code> {
        let names: Vec<PartName> =
            (0..previews).map(|n| PartName::parse(&format!("p{n}")).unwrap()).collect();
        let before = self.teams.remove(team).unwrap_or_default();
        let mine =
            |port: &u16| host.get(port).map(String::as_str) == Some(self.owner(team).as_str());
        let held: BTreeSet<u16> = before.values().copied().filter(mine).collect();
        let others = self.teams.values().flat_map(BTreeMap::values).copied();
        let mut taken: BTreeSet<u16> = others.collect();
        let start = spread(self.instance, team);
        for _ in 0..TRIES_MAX {
            let chosen =
                choose_ports(&self.settings, &names, &before, start, &taken, &BTreeSet::new());
            let chosen = match chosen {
                Ok(chosen) => chosen,
                Err(failure) => {
                    self.teams.insert(team.to_owned(), before);
                    return Err(failure.code);
                }
            };
            let busy: Vec<u16> = chosen
                .values()
                .copied()
                .filter(|port| host.contains_key(port) && !held.contains(port))
                .collect();
            if !busy.is_empty() {
                taken.extend(busy);
                continue;
            }
            let owner = self.owner(team);
            host.retain(|_, of| *of != owner);
            for port in chosen.values() {
                assert_eq!(host.insert(*port, owner.clone()), None, "{port} was given twice");
            }
            self.teams.insert(team.to_owned(), chosen);
            return Ok(());
        }
        panic!("{team} never found its ports");
    }

    /// Nobody listens any more; the ports stay a preference.
    fn stop(&self, team: &str, host: &mut BTreeMap<u16, String>) {
        let owner = self.owner(team);
        host.retain(|_, of| *of != owner);
    }

    fn owner(&self, team: &str) -> String {
        format!("{}/{team}", self.instance)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Start { worker: usize, team: u16, previews: usize },
    Stop { worker: usize, team: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    let teams = 0_u16..600;
    prop_oneof![
        4 => (0_usize..2, teams.clone(), 1_usize..5)
            .prop_map(|(worker, team, previews)| Step::Start { worker, team, previews }),
        1 => (0_usize..2, teams).prop_map(|(worker, team)| Step::Stop { worker, team }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn thousands_of_ports_are_given_and_never_one_twice(
        steps in proptest::collection::vec(step(), 1200..1500),
        foreign in proptest::collection::btree_set(5000_u16..9000, 0..50),
    ) {
        let mut host: BTreeMap<u16, String> =
            foreign.iter().map(|port| (*port, "somebody".to_owned())).collect();
        let mut workers = [Worker::new("one", (5000, 8999)), Worker::new("two", (5000, 8999))];
        let mut given = 0;
        for step in steps {
            match step {
                Step::Start { worker, team, previews } => {
                    let team = format!("team-{team}");
                    let before = workers[worker].teams.get(&team).cloned().unwrap_or_default();
                    let is_running = host.values().any(|of| *of == workers[worker].owner(&team));
                    prop_assert_eq!(workers[worker].start(&team, previews, &mut host), Ok(()));
                    let after = &workers[worker].teams[&team];
                    given += after.len();
                    prop_assert_eq!(after.len(), previews);
                    for (name, port) in after {
                        prop_assert!(workers[worker].settings.is_preview_port(*port));
                        prop_assert!(!foreign.contains(port));
                        if is_running && before.contains_key(name) {
                            prop_assert_eq!(Some(port), before.get(name), "{} moved", name);
                        }
                    }
                }
                Step::Stop { worker, team } => {
                    workers[worker].stop(&format!("team-{team}"), &mut host);
                }
            }
        }
        prop_assert!(given > 1000, "{}", given);
    }
}

#[test]
fn the_last_port_is_found_and_then_there_is_a_clear_end() {
    let mut host = BTreeMap::from([(6101, "somebody".to_owned())]);
    let mut worker = Worker::new("one", (6100, 6103));
    for team in ["a", "b", "c"] {
        assert_eq!(worker.start(team, 1, &mut host), Ok(()));
    }
    assert_eq!(worker.start("d", 1, &mut host), Err(Code::PortExhausted));
    worker.stop("b", &mut host);
    worker.teams.remove("b");
    assert_eq!(worker.start("d", 1, &mut host), Ok(()));
    assert!(Code::PortExhausted.hint().contains("preview.ports"));
}
