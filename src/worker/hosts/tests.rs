//! Hosts heard, lost, and asked, under paused time.

use async_trait::async_trait;

use super::*;
use crate::domain::control::Room;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;

#[derive(Default)]
struct Paper(Mutex<Vec<HostId>>);

#[async_trait]
impl KnownHosts for Paper {
    async fn load(&self) -> Result<Vec<HostId>, Failure> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn save(&self, hosts: &[HostId]) -> Result<(), Failure> {
        *self.0.lock().unwrap() = hosts.to_vec();
        Ok(())
    }
}

const LOST_AFTER: Duration = Duration::from_secs(30);

fn id(raw: &str) -> HostId {
    HostId::parse(raw).unwrap()
}

fn heartbeat(host: &str, teams: i64) -> Heartbeat {
    let room = Room {
        teams,
        memory_bytes: 1 << 40,
        cpu_millis: 1_000_000,
        disk_is_low: false,
        jobs: 0,
        waiting: 200,
    };
    Heartbeat { host: id(host), dispatches: false, draining: false, room: Some(room) }
}

fn hosts(store: &Arc<Paper>) -> Hosts {
    Hosts::new(id("own"), &[], LOST_AFTER, Arc::clone(store) as Arc<dyn KnownHosts>)
}

fn one() -> Demand {
    Demand { memory_bytes: 1, cpu_millis: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_silent_or_drains_is_not_chosen() {
    let hosts = hosts(&Arc::default());
    hosts.heard(heartbeat("own", 1)).await;
    hosts.heard(heartbeat("big", 9)).await;
    assert_eq!(hosts.choose(one()), Some(id("big")));
    hosts.heard(Heartbeat { draining: true, ..heartbeat("big", 9) }).await;
    assert_eq!(hosts.choose(one()), Some(id("own")));
    hosts.heard(heartbeat("big", 9)).await;
    tokio::time::advance(FRESH).await;
    assert_eq!(hosts.choose(one()), Some(id("own")), "one knows oneself");
}

#[tokio::test(start_paused = true)]
async fn what_was_placed_counts_until_the_next_heartbeat() {
    let hosts = hosts(&Arc::default());
    hosts.heard(heartbeat("own", 2)).await;
    hosts.heard(heartbeat("two", 2)).await;
    let mut chosen: Vec<_> = (0..4).filter_map(|_| hosts.choose(one())).collect();
    chosen.sort();
    assert_eq!(chosen, [id("own"), id("own"), id("two"), id("two")]);
    hosts.heard(heartbeat("two", 1)).await;
    assert_eq!(hosts.choose(one()), Some(id("two")));
}

#[tokio::test(start_paused = true)]
async fn a_host_is_lost_once_and_comes_back() {
    let hosts = hosts(&Arc::default());
    hosts.heard(heartbeat("two", 1)).await;
    tokio::time::advance(LOST_AFTER).await;
    // Not even itself: nobody can be called lost.
    assert_eq!(hosts.newly_lost(), (vec![], 2, 0));
    hosts.heard(heartbeat("own", 1)).await;
    assert_eq!(hosts.newly_lost(), (vec![id("two")], 2, 1));
    assert_eq!(hosts.newly_lost(), (vec![], 2, 1));
    hosts.heard(heartbeat("two", 1)).await;
    assert_eq!(hosts.newly_lost(), (vec![], 2, 0));
}

#[tokio::test(start_paused = true)]
async fn hosts_are_remembered_until_they_are_forgotten() {
    let store = Arc::<Paper>::default();
    hosts(&store).heard(heartbeat("two", 1)).await;
    let hosts = hosts(&store);
    hosts.remember().await;
    let nonce = Uuid::from_u128(1);
    hosts.begin_inventory(nonce);
    hosts.inventory(nonce, id("own"), vec![]);
    assert_eq!(hosts.answers().0, [id("two")]);
    hosts.forget(&id("two")).await;
    hosts.forget(&id("own")).await;
    assert_eq!(hosts.answers().0, []);
    assert_eq!(*store.0.lock().unwrap(), [id("own")]);
}

#[tokio::test(start_paused = true)]
async fn only_answers_to_the_question_count() {
    let hosts = hosts(&Arc::default());
    let holding = Holding { team: TeamId::parse("a").unwrap(), runs: true, sequence: 1 };
    let (old, nonce) = (Uuid::from_u128(1), Uuid::from_u128(2));
    hosts.begin_inventory(nonce);
    hosts.inventory(old, id("own"), vec![holding.clone()]);
    assert_eq!(hosts.answers(), (vec![id("own")], BTreeMap::new()));
    hosts.inventory(nonce, id("own"), vec![holding.clone()]);
    assert_eq!(hosts.answers(), (vec![], BTreeMap::from([(id("own"), vec![holding])])));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_hosts_is_bounded() {
    let hosts = hosts(&Arc::default());
    for n in 0..HOSTS_MAX + 10 {
        hosts.heard(heartbeat(&format!("h{n}"), 1)).await;
    }
    assert_eq!(hosts.view().len(), HOSTS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_silent_dispatcher_is_missed() {
    let hosts = hosts(&Arc::default());
    let time = Duration::from_secs(15);
    assert!(hosts.misses_a_dispatcher(time));
    hosts.heard(Heartbeat { dispatches: true, ..heartbeat("two", 1) }).await;
    assert!(!hosts.misses_a_dispatcher(time));
    tokio::time::advance(time).await;
    assert!(hosts.misses_a_dispatcher(time));
    hosts.set_dispatches(true);
    assert!(!hosts.misses_a_dispatcher(time));
}
