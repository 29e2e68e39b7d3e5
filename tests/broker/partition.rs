//! A cluster of three nodes whose network is cut: nothing that was confirmed is
//! lost, and workers and clients go on at another node.
//!
//! Makes its own cluster by `ops/rabbitmq/cluster.sh`, which needs root and a
//! minute, so that it works only when asked to: docs/TESTING.md has the command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use covibes::adapters::rabbitmq::follow::ReplayFrom;
use covibes::ports::broker::Phase;
use tokio::sync::watch;
use uuid::Uuid;

use crate::place::{Place, soon};
use crate::worker::Worker;

/// How long the network stays cut.
const CUT: Duration = Duration::from_secs(30);

/// A job is published every so often, to one team after the other.
const PACE: Duration = Duration::from_millis(50);
const TEAMS: u128 = 100;

/// How long everything that was confirmed may take to be done after the last
/// cut: sessions that hang are given up after 24 s (measured), and begin again.
const DONE_MAX: Duration = Duration::from_secs(90);

/// Nothing was done for this long: nothing more comes.
const QUIET: Duration = Duration::from_secs(30);

struct Cluster;

impl Cluster {
    fn start() -> (Self, Vec<String>) {
        let cluster = Self;
        let said = script(&["start"]);
        let addresses = String::from_utf8(said.stdout).unwrap();
        (cluster, addresses.split_whitespace().map(str::to_owned).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script(&["stop"]);
    }
}

fn script(arguments: &[&str]) -> Output {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/rabbitmq/cluster.sh");
    let ended = Command::new(path).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "cluster.sh {arguments:?}: {said}");
    ended
}

/// Publishes until told to stop; a job is published again until it is
/// confirmed. Gives how many were, and the longest wait for a confirm.
async fn produce(place: Arc<Place>, stop: watch::Receiver<bool>) -> (u128, Duration) {
    let mut tick = tokio::time::interval(PACE);
    let (mut confirmed, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow() {
        tick.tick().await;
        let next = confirmed + 1;
        let began = Instant::now();
        // A team's first job gives it a place: a stop of a team that has none never
        // comes to a host.
        let action = if next <= TEAMS { "start" } else { "stop" };
        let (id, key) =
            (Uuid::from_u128(next).to_string(), format!("team.t{}.{action}", next % TEAMS));
        while place.client.publish_job(b"{}", &key, &id, &[]).await.is_err() {
            tick.tick().await;
        }
        longest = longest.max(began.elapsed());
        confirmed = next;
    }
    (confirmed, longest)
}

/// The jobs that a worker has done, from its log.
fn numbers(log: &[String], what: &str) -> Vec<u128> {
    log.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
}

/// Pairs of one team whose first runs were not in order.
fn inversions(log: &[String]) -> usize {
    let mut last: BTreeMap<u128, u128> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let firsts = numbers(log, "run").into_iter().filter(|number| seen.insert(*number));
    firsts.filter(|number| last.insert(number % TEAMS, *number) > Some(*number)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_a_split_cluster_loses_nothing() {
    let rounds: usize = match std::env::var("COVIBES_CLUSTER_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap(),
        Err(_) => return eprintln!("not run, because COVIBES_CLUSTER_ROUNDS is not set"),
    };
    let (_cluster, addresses) = Cluster::start();
    let first = Arc::new(Place::new().another_host("first", &addresses));
    let second = first.another_host("second", &addresses);
    // Each begins at another node, so that one of them is always hit.
    let turned = [&addresses[1..], &addresses[..1]].concat();
    let workers = Mutex::new(Vec::new());
    for (place, addresses) in [(&*first, &addresses), (&second, &turned)] {
        let mut worker = Worker::start_at(place, addresses);
        worker.is_in(Phase::Connected).await;
        workers.lock().unwrap().push(worker);
    }
    let done = || -> BTreeSet<u128> {
        let workers = workers.lock().unwrap();
        workers.iter().flat_map(|worker| numbers(&worker.script.log.borrow(), "done")).collect()
    };

    let stop = watch::Sender::new(false);
    let producer = tokio::spawn(produce(Arc::clone(&first), stop.subscribe()));
    println!("round  node  how  work again after  done meanwhile");
    for round in 0..rounds {
        let node = (round % 3 + 1).to_string();
        let how = if round % 2 == 0 { "cut" } else { "off" };
        let before = done().len();
        script(&[how, &node]);
        let began = Instant::now();
        let settled = until_works_again(&done, began).await;
        tokio::time::sleep_until((began + CUT).into()).await;
        let meanwhile = done().len() - before;
        println!("{:5}  {node:>4}  {how}  {settled:>14.1?}  {meanwhile:14}", round + 1);
        script(&["heal"]);
        script(&["whole"]);
    }
    stop.send_replace(true);
    let (confirmed, longest) = soon("the last confirm", producer).await.unwrap();
    let wanted: BTreeSet<u128> = (1..=confirmed).collect();
    let began = Instant::now();
    let mut last = (0, Duration::ZERO);
    while began.elapsed() < last.1 + QUIET && began.elapsed() < DONE_MAX {
        let now = done().len();
        if now > last.0 {
            last = (now, began.elapsed());
        }
        if wanted.is_subset(&done()) {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    let last = last.1;

    // A job that met a full window was refused, which its sender is told.
    let dead = first.client.dead_letters(&Default::default(), 10_000).await.unwrap();
    let number = |id: String| Uuid::try_parse(&id).ok().map(|id| id.as_u128());
    let refused: BTreeSet<_> =
        dead.into_iter().filter_map(|dead| dead.message_id.and_then(number)).collect();
    let ended: BTreeSet<_> = done().union(&refused).copied().collect();
    let lost: Vec<_> = wanted.difference(&ended).copied().collect();
    let mut told = BTreeSet::new();
    let mut log = first.client.replay(ReplayFrom::First, None).await.unwrap();
    while let Ok(Ok(Some(event))) = tokio::time::timeout(Duration::from_secs(5), log.next()).await {
        told.insert(event.id.unwrap());
    }
    let done = done();
    let events_lost = done.iter().filter(|n| !told.contains(&format!("event-{n}"))).count();
    let workers = std::mem::take(&mut *workers.lock().unwrap());
    let (mut runs, mut out_of_order) = (0, 0);
    for worker in workers {
        let log = worker.stop().await;
        runs += numbers(&log, "done").len();
        out_of_order += inversions(&log);
    }
    let again = runs - done.len();
    println!("jobs confirmed {confirmed}, lost {}, run again {again}", lost.len());
    println!("refused because a window was full {}", refused.len());
    println!("events lost {events_lost}, inversions {out_of_order}");
    println!(
        "longest wait for a confirm {longest:.1?}, last job done {last:.1?} after the last cut"
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!((events_lost, out_of_order), (0, 0));
}

/// From the cut until jobs are done again that were not under way at the cut.
async fn until_works_again(done: &impl Fn() -> BTreeSet<u128>, began: Instant) -> Duration {
    // A second's worth of jobs is what may still be on its way.
    let under_way = done().last().copied().unwrap_or(0) + 20;
    while done().last().is_none_or(|last| *last < under_way) && began.elapsed() < CUT {
        tokio::time::sleep(PACE).await;
    }
    began.elapsed()
}
