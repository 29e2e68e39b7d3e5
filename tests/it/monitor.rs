//! What a worker notices of its running teams and does about it: deaths, hands,
//! networks taken away, loops, silence, ends of time; with events lost, repeated
//! and out of order.

use std::sync::Arc;
use std::time::Duration;

use covibes::domain::event::TeamState;
use covibes::domain::health::{PartHealth, PartPicture, TeamPicture};
use covibes::domain::ids::TeamId;
use covibes::domain::job::{Action, Job};
use covibes::domain::limits::WORKSPACE_BYTES_MAX;
use covibes::domain::spec::Spec;
use covibes::pipeline::job_runner::Finished;
use covibes::pipeline::runner::Runner;
use covibes::ports::engine::EngineContainerFact;
use covibes::ports::probe::ProbeAnswer;
use covibes::worker::lanes::{LaneLoad, Lanes, LanesConfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::pipeline::{run, spec};
use crate::process::job_of;
use crate::world::World;

mod lifetimes;
mod signals;

const TEAM: &str = "team_alpha";
const AGENT: &str = "covibes_agent_team_alpha_agent-1";
const SYNC: &str = "covibes_sync_team_alpha";
const PREVIEW: &str = "covibes_preview_team_alpha_main";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn team() -> TeamId {
    TeamId::parse(TEAM).unwrap()
}

fn start(spec: Spec) -> Job {
    job_of(TEAM, Action::Start(Box::new(spec)))
}

/// A worker with its lanes, which take its own jobs.
struct Host {
    world: World,
    runner: Arc<Runner>,
}

impl Host {
    async fn new(world: &World) -> Self {
        Self { world: world.clone(), runner: Arc::new(world.runner().await) }
    }

    /// A host with a team that runs and was looked at.
    async fn with_team(spec: Spec) -> Self {
        let host = Self::new(&World::new()).await;
        host.done(&start(spec)).await;
        host.during(5 * SECOND, async {}).await;
        host.world.forget_calls();
        host
    }

    async fn done(&self, job: &Job) {
        assert_eq!(run(&self.runner, job).await.unwrap(), Finished::Done);
    }

    /// Watches for a while, in which something happens.
    async fn during<T>(&self, time: Duration, happens: impl Future<Output = T>) -> T {
        let lanes = Lanes::new(
            self.runner.clone(),
            Arc::default(),
            LanesConfig::default(),
            Arc::new(LaneLoad::default()),
        );
        let end = CancellationToken::new();
        let tending = Arc::clone(&self.runner).tend(end.clone());
        let happening = async {
            // The first listing is done by then.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let value = happens.await;
            tokio::time::sleep(time).await;
            end.cancel();
            value
        };
        let (value, ()) = tokio::select! {
            both = async { tokio::join!(happening, tending) } => both,
            never = lanes.take_own() => never,
        };
        lanes.drain(MINUTE).await;
        value
    }

    fn picture(&self) -> TeamPicture {
        self.runner.monitor().picture(&team()).expect("the team is watched")
    }

    fn part(&self, container: &str) -> PartPicture {
        let mut parts = self.picture().parts.into_iter();
        parts.find(|part| part.container.as_str() == container).expect("the part is watched")
    }

    /// Types of the events about containers and the team, with their data.
    fn told(&self) -> Vec<(String, Value)> {
        let told = self.world.events().into_iter().filter_map(|event| {
            let kind = event.routing_key.strip_prefix("team.team_alpha.")?.to_owned();
            let body: Value = serde_json::from_str(&event.body).unwrap();
            let counts = kind.starts_with("container.") || kind.starts_with("team.");
            (counts && kind != "team.snapshot").then(|| (kind, body["data"].clone()))
        });
        told.collect()
    }

    fn kinds(&self, from: usize) -> Vec<String> {
        self.told().into_iter().skip(from).map(|(kind, _)| kind).collect()
    }

    fn starts_of(&self, name: &str) -> usize {
        self.world.calls().iter().filter(|call| **call == format!("start_container {name}")).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_dies_is_told_and_started_again() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(10 * SECOND, async { host.world.ends(AGENT, 137) }).await;
    let told = host.told().split_off(before);
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["container.exited", "container.restarted", "container.healthy"], "{told:?}");
    assert_eq!(told[0].1["exit_code"], 137);
    assert_eq!(told[0].1["cause"], "it ended with exit code 137");
    assert_eq!((&told[0].1["role"], &told[0].1["part"]), (&"agent".into(), &"agent-1".into()));
    let calls = host.world.calls();
    assert_eq!(calls, [format!("start_container {AGENT}")], "nothing else is touched");
    let part = host.part(AGENT);
    assert_eq!((part.restarts, part.health), (1, PartHealth::Healthy));
    assert_eq!(part.last_failure.unwrap().exit_code, Some(137));
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_death_that_nobody_told_is_found_within_half_a_minute() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(35 * SECOND, async { host.world.ends_silently(SYNC) }).await;
    let kinds = host.kinds(before);
    assert_eq!(kinds[0], "container.exited", "{kinds:?}");
    assert_eq!((host.starts_of(SYNC), host.part(SYNC).state.as_str()), (1, "running"));
}

#[tokio::test(start_paused = true)]
async fn repeats_and_disorder_do_no_harm() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(MINUTE, async {
        let started = host.world.says_of(AGENT, EngineContainerFact::Started);
        let died = host.world.ends(AGENT, 1);
        for _ in 0..3 {
            host.world.says_again(died.clone());
            host.world.says_again(started.clone());
        }
    })
    .await;
    let kinds = host.kinds(before);
    let exits = kinds.iter().filter(|kind| *kind == "container.exited").count();
    assert_eq!((exits, host.starts_of(AGENT)), (1, 1), "{kinds:?}");
    assert_eq!(host.part(AGENT).restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_stopped_by_hand_is_reported_and_left_alone() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(10 * MINUTE, async { host.world.is_stopped_by_hand(AGENT) }).await;
    let told = host.told().split_off(before);
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["container.exited", "team.degraded"], "{told:?}");
    assert!(told[0].1["cause"].as_str().unwrap().contains("by hand"), "{told:?}");
    assert_eq!(host.starts_of(AGENT), 0);
    let part = host.part(AGENT);
    assert!(part.stopped_by_hand && part.next_try_unix_ms.is_none());
    // Whoever stopped it starts it, and all is well.
    host.during(5 * SECOND, async {
        host.world.restart(AGENT);
        host.world.says_of(AGENT, EngineContainerFact::Started);
    })
    .await;
    assert!(!host.part(AGENT).stopped_by_hand);
    assert_eq!(host.picture().state, TeamState::Running);
    assert_eq!(host.kinds(before).last().unwrap(), "team.running");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_paused_is_told_as_that_and_left_alone_until_somebody_lets_it_go_on() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(2 * MINUTE, async { host.world.is_paused_by_hand(AGENT) }).await;
    let told = host.told().split_off(before);
    assert_eq!(told[0].0, "container.unhealthy", "{told:?}");
    assert!(told[0].1["cause"].as_str().unwrap().contains("paused it by hand"), "{told:?}");
    let part = host.part(AGENT);
    assert!(part.stopped_by_hand && part.state == "paused", "{part:?}");
    assert_eq!(host.picture().state, TeamState::Degraded);
    assert!(!host.kinds(before).iter().any(|kind| kind.starts_with("job.")), "{told:?}");

    host.during(20 * SECOND, async { host.world.is_unpaused_by_hand(AGENT) }).await;
    assert_eq!(host.picture().state, TeamState::Running);
    assert!(host.kinds(before).contains(&"container.healthy".to_owned()));

    host.during(5 * SECOND, async { host.world.is_paused_by_hand(AGENT) }).await;
    host.done(&start(spec(&["main"]))).await;
    assert_eq!(host.world.state_of(AGENT), "running");
    // The start said that it runs, so that it is news when it does not.
    let before = host.told().len();
    host.during(20 * SECOND, async { host.world.is_paused_by_hand(AGENT) }).await;
    assert!(host.kinds(before).contains(&"team.degraded".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_job_starts_what_somebody_stopped_by_hand() {
    let host = Host::with_team(spec(&["main"])).await;
    host.during(5 * SECOND, async { host.world.is_stopped_by_hand(AGENT) }).await;
    host.done(&start(spec(&["main"]))).await;
    host.during(5 * SECOND, async {}).await;
    assert!(!host.part(AGENT).stopped_by_hand && host.part(AGENT).state == "running");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_somebody_removed_is_made_anew() {
    let host = Host::with_team(spec(&["main"])).await;
    let network = "covibes_agent_net_team_alpha";
    host.during(20 * SECOND, async { host.world.loses_network(network) }).await;
    assert!(host.world.leftovers(TEAM).iter().any(|name| name == network));
    let calls = host.world.calls();
    for wanted in [
        format!("create_network {network}"),
        format!("create_container {AGENT}"),
        format!("create_container {SYNC}"),
    ] {
        assert!(calls.contains(&wanted), "{wanted}: {calls:?}");
    }
    assert!(!calls.iter().any(|call| call.ends_with(PREVIEW)), "{calls:?}");
    let picture = host.picture();
    assert_eq!((picture.state, picture.missing), (TeamState::Running, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_somebody_removed_is_made_anew() {
    let host = Host::with_team(spec(&["main"])).await;
    host.during(20 * SECOND, async {
        host.world.says_of(PREVIEW, EngineContainerFact::Signalled { signal: 9 });
        host.world.ends(PREVIEW, 137);
        let gone = host.world.says_of(PREVIEW, EngineContainerFact::Removed);
        host.world.vanishes(PREVIEW);
        drop(gone);
    })
    .await;
    assert!(host.world.has_container(PREVIEW));
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_told_once_with_its_log_and_tried_ever_more_slowly() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.world.is_broken(Some(AGENT));
    host.during(10 * MINUTE, async { host.world.ends(AGENT, 1) }).await;
    let told = host.told().split_off(before);
    let loops: Vec<_> = told.iter().filter(|(_, data)| data["log"].is_array()).collect();
    assert_eq!(loops.len(), 1, "{told:?}");
    assert!(loops[0].1["cause"].as_str().unwrap().contains("again and again"));
    assert_eq!(loops[0].1["log"][0], "last words");
    let starts = host.starts_of(AGENT);
    // 1, 2, 4, ... 256 s, each shortened by a quarter.
    assert!((6..=12).contains(&starts), "{starts} starts");
    assert!(host.part(AGENT).crash_loop);
    let states: Vec<_> = told.iter().filter(|(kind, _)| kind.starts_with("team.")).collect();
    assert!(states.len() <= 2, "a team does not flap with its part: {states:?}");

    host.world.is_broken(None);
    host.during(11 * MINUTE, async {}).await;
    assert_eq!(host.picture().state, TeamState::Running);
    assert!(!host.part(AGENT).crash_loop);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_falls_silent_is_restarted_and_one_hiccup_is_not_told() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.world.services_answer(Some(ProbeAnswer::TimedOut));
    host.during(33 * SECOND, async {}).await;
    assert_eq!(host.kinds(before), [""; 0], "one bad answer is none");
    host.during(30 * SECOND, async {}).await;
    let kinds = host.kinds(before);
    assert!(kinds.contains(&"container.unhealthy".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"container.restarted".to_owned()), "{kinds:?}");
    let calls = host.world.calls();
    assert!(calls.contains(&format!("restart_container {SYNC}")), "{calls:?}");
    host.world.services_answer(None);
    host.during(5 * MINUTE, async {}).await;
    assert_eq!(host.picture().state, TeamState::Running);
    assert_eq!(host.kinds(before).last().unwrap(), "team.running");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_is_waited_for_and_nothing_piles_up() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    for hangs in ["probe", "list"] {
        let probes = host.world.probes();
        host.world.hangs(Some(hangs));
        host.during(3 * MINUTE, async {}).await;
        assert_eq!(host.kinds(before), [""; 0], "no answer yet is no bad answer");
        let asked = host.world.probes() - probes;
        assert!(hangs != "probe" || asked <= 3, "{asked} probes of three parts wait");
        host.world.hangs(None);
        host.during(MINUTE, async {}).await;
    }
    assert_eq!((host.kinds(before), host.world.calls()), (Vec::new(), Vec::new()));
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_ends_no_team_and_hides_no_death() {
    let host = Host::with_team(Spec { ttl: Some(60 * MINUTE), ..spec(&["main"]) }).await;
    let day = 24 * 3_600_000;
    for step in [day, -2 * day] {
        host.world.pass(step);
        host.world.sets_clock(step * 1_000_000);
        let before = host.told().len();
        host.during(10 * SECOND, async { host.world.ends(AGENT, 1) }).await;
        let kinds = host.kinds(before);
        assert_eq!(kinds[0], "container.exited", "{step}: {kinds:?}");
        assert!(kinds.contains(&"container.restarted".to_owned()), "{step}: {kinds:?}");
    }
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_is_reported() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.world.loses_directories(true);
    host.during(40 * SECOND, async {}).await;
    let picture = host.picture();
    assert_eq!(picture.state, TeamState::Degraded);
    assert!(picture.missing[0].contains("the directory behind"), "{:?}", picture.missing);
    assert_eq!(host.kinds(before), ["team.degraded"]);
    assert_eq!(host.world.calls(), [""; 0], "nothing is made over it");
    host.world.loses_directories(false);
    host.during(40 * SECOND, async {}).await;
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_finds_its_teams_and_starts_what_should_run() {
    let host = Host::with_team(spec(&["main"])).await;
    host.done(&job_of("other", Action::Start(Box::new(spec(&["main"]))))).await;
    host.done(&job_of("other", Action::Stop)).await;
    let world = host.world.clone();
    drop(host);
    for name in [AGENT, SYNC, PREVIEW] {
        world.ends_silently(name);
    }
    world.forget_calls();
    let host = Host::new(&world).await;
    host.during(20 * SECOND, async {}).await;
    let found = host.runner.reconciled().await.unwrap();
    assert_eq!((found.adopted, found.restarting, found.stopped), (0, 1, 1), "{found:?}");
    for name in [AGENT, SYNC, PREVIEW] {
        assert_eq!(host.starts_of(name), 1, "{:?}", world.calls());
    }
    assert_eq!(host.picture().state, TeamState::Running);
    assert!(world.containers("other").is_empty(), "a stopped team stays stopped");

    // And one whose containers the host lost.
    for name in [AGENT, SYNC, PREVIEW] {
        world.vanishes(name);
    }
    let host = Host::new(&world).await;
    host.during(30 * SECOND, async {}).await;
    assert_eq!(world.containers(TEAM).len(), 3);
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_nothing_is_not_believed_at_once() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(10 * SECOND, async { host.world.shows_nothing(true) }).await;
    host.world.shows_nothing(false);
    host.during(35 * SECOND, async {}).await;
    assert_eq!(host.kinds(before), [""; 0]);
    assert_eq!(host.world.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_owns_is_removed_after_five_minutes_and_nothing_else() {
    let host = Host::with_team(spec(&["main"])).await;
    let orphan = "covibes_preview_team_alpha_left";
    host.world.puts_beside(PREVIEW, orphan);
    host.world.put_foreign("somebody-elses");
    host.during(4 * MINUTE, async {}).await;
    assert!(host.world.has_container(orphan), "it may be about to be owned");
    host.during(4 * MINUTE, async {}).await;
    assert!(!host.world.has_container(orphan));
    assert!(host.world.has_container("somebody-elses"));
    assert_eq!(host.world.containers(TEAM).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_that_is_too_large_makes_its_team_degraded_until_it_is_not() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.world.fills_workspaces(WORKSPACE_BYTES_MAX);
    host.during(2 * MINUTE, async {}).await;
    assert_eq!(host.kinds(before), Vec::<String>::new(), "it may be as large as that");
    host.world.fills_workspaces(WORKSPACE_BYTES_MAX + 1);
    host.during(2 * MINUTE, async {}).await;
    let told = host.told().split_off(before);
    assert_eq!((told.len(), told[0].0.as_str()), (1, "team.degraded"), "once: {told:?}");
    assert!(told[0].1["cause"].to_string().contains("more than 10 GB"), "{told:?}");
    assert_eq!(host.world.calls(), Vec::<String>::new(), "nothing is done about it");
    host.world.fills_workspaces(1 << 20);
    host.during(2 * MINUTE, async {}).await;
    assert_eq!(host.kinds(before), ["team.degraded", "team.running"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_failed_is_not_repeated_by_itself() {
    let host = Host::with_team(spec(&["main"])).await;
    // Its second preview never comes up; what worked stays.
    host.world.preview_state("failing");
    let job = start(spec(&["main", "second"]));
    assert!(matches!(run(&host.runner, &job).await.unwrap(), Finished::Dead(_)));
    host.world.preview_state("running");
    host.world.forget_calls();
    host.during(5 * MINUTE, async {}).await;
    let second = "covibes_preview_team_alpha_second";
    assert!(!host.world.has_container(second), "{:?}", host.world.calls());
    assert_eq!(host.picture().state, TeamState::Degraded);
}
