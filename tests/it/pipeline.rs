//! Jobs through the whole pipeline in the world in memory: what is done twice,
//! fails, takes effect and fails, is cancelled, or crashes, at every call.

use std::collections::BTreeSet;
use std::time::Duration;

use covibes::app::configuration;
use covibes::domain::ids::{JobId, PartName, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::domain::spec::{
    AgentSpec, LimitsWish, PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource,
};
use covibes::pipeline::interrupt::{self, Reason};
use covibes::pipeline::job_runner::{Finished, JobRunner};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::ports::messages::SessionOver;
use covibes::wire::event_reader::{JobEnd, decode_event};
use uuid::Uuid;

use crate::world::{Fault, World};

const TEAM: &str = "team_alpha";

fn team() -> TeamId {
    TeamId::parse(TEAM).unwrap()
}

pub(crate) fn spec(previews: &[&str]) -> Spec {
    let preview =
        |name: &&str| PreviewSpec { name: PartName::parse(name).unwrap(), branch: None, ttl: None };
    Spec {
        workspace: WorkspaceSource::Local,
        agents: vec![AgentSpec {
            name: PartName::parse("agent-1").unwrap(),
            secrets: Default::default(),
            env: Default::default(),
            limits: LimitsWish::default(),
            prompt: None,
        }],
        previews: previews.iter().map(preview).collect(),
        sync_interval: SYNC_INTERVAL_DEFAULT,
        ttl: None,
        idle_stop: None,
    }
}

fn job(action: Action) -> Job {
    Job {
        id: JobId(Uuid::now_v7()),
        team: team(),
        action,
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    }
}

pub(crate) fn start(previews: &[&str]) -> Job {
    job(Action::Start(Box::new(spec(previews))))
}

pub(crate) async fn run(runner: &Runner, job: &Job) -> Result<Finished, SessionOver> {
    let (_interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    runner.run(lease, job, interrupt).await
}

/// The type of the last event, without `covibes.`.
fn last_event(world: &World) -> String {
    let events = world.events();
    decode_event(&events.last().unwrap().body).unwrap().short_type().to_owned()
}

fn running(world: &World) -> BTreeSet<String> {
    let containers = world.containers(TEAM);
    assert!(containers.values().all(|s| s == "running"), "{containers:?}");
    containers.into_keys().collect()
}

fn names(parts: &[&str]) -> BTreeSet<String> {
    parts.iter().map(|p| format!("covibes_{p}")).collect()
}

fn one_preview() -> BTreeSet<String> {
    names(&["agent_team_alpha_agent-1", "preview_team_alpha_main", "sync_team_alpha"])
}

#[tokio::test(start_paused = true)]
async fn a_second_start_does_nothing_and_says_so() {
    let world = World::new();
    let runner = world.runner().await;
    assert_eq!(run(&runner, &start(&["main"])).await.unwrap(), Finished::Done);
    assert_eq!(running(&world), one_preview());
    world.forget_calls();
    assert_eq!(run(&runner, &start(&["main"])).await.unwrap(), Finished::Done);
    assert_eq!(world.calls(), Vec::<String>::new());
    let events = world.events();
    let event = decode_event(&events.last().unwrap().body).unwrap();
    let Some(JobEnd::Succeeded { message, .. }) = event.end() else { panic!("{event:?}") };
    assert!(message.starts_with("nothing to do"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_its_data_elsewhere_leaves_the_hosts_proxy_alone() {
    let world = World::new();
    run(&world.runner().await, &start(&["main"])).await.unwrap();
    assert!(world.has_container("covibes_egress"));
    world.forget_calls();

    let file = tempfile::NamedTempFile::new().unwrap();
    let variables = [("COVIBES_PATHS_DATA", "/elsewhere"), ("COVIBES_HOST_INSTANCE", "other")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = configuration::load(Some(file.path()), variables).unwrap().settings;
    run(&world.runner_of(settings).await, &start(&["main"])).await.unwrap();
    let calls = world.calls();
    assert!(calls.iter().any(|call| call.contains("covibes.other_")), "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("covibes_egress")), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_docker_lost_is_made_anew() {
    for action in [Action::Restart { targets: Vec::new() }, start(&["main"]).action] {
        let world = World::new();
        let runner = world.runner().await;
        run(&runner, &start(&["main"])).await.unwrap();
        world.loses("covibes_sync_team_alpha");
        world.forget_calls();
        assert_eq!(run(&runner, &job(action)).await.unwrap(), Finished::Done);
        let calls = world.calls();
        let of_sync = calls.iter().filter(|call| call.contains("container covibes_sync"));
        let last: Vec<_> = of_sync.rev().take(3).collect();
        assert_eq!(
            last,
            [
                "start_container covibes_sync_team_alpha",
                "create_container covibes_sync_team_alpha",
                "remove_container covibes_sync_team_alpha",
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_preview_touches_nothing_else() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(&["main"])).await.unwrap();
    world.forget_calls();
    run(&runner, &start(&["main", "staging"])).await.unwrap();
    for call in world.calls() {
        assert!(call.contains("staging"), "{call}");
    }
    assert!(running(&world).contains("covibes_preview_team_alpha_staging"));
}

#[tokio::test(start_paused = true)]
async fn a_preview_that_is_no_longer_asked_for_goes() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(&["main", "staging"])).await.unwrap();
    run(&runner, &start(&["main"])).await.unwrap();
    assert_eq!(running(&world), one_preview());
}

/// How many changing calls a start makes in a fresh world.
async fn calls_of_a_start() -> usize {
    let world = World::new();
    run(&world.runner().await, &start(&["main"])).await.unwrap();
    world.calls().len()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_once_is_retried_and_the_team_comes_up() {
    for fault in [Fault::Fails, Fault::TakesEffectThenFails] {
        for call in 0..calls_of_a_start().await {
            let world = World::new();
            let runner = world.runner().await;
            world.fail_at(call, fault);
            let finished = run(&runner, &start(&["main"])).await.unwrap();
            let what = world.calls()[call].clone();
            // An image build is ours to retry like everything of the platform.
            assert_eq!(finished, Finished::Done, "{fault:?} at {what}");
            assert_eq!(running(&world), one_preview(), "{fault:?} at {what}");
            assert!(world.leftovers(TEAM).iter().all(|n| !n.contains("install")), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_start_leaves_nothing_wherever_it_was() {
    for call in 0..calls_of_a_start().await {
        let world = World::new();
        let runner = world.runner().await;
        let (interrupter, interrupt) = interrupt::pair();
        let by = JobId(Uuid::now_v7());
        world.interrupt_at(call, Reason::Cancel { by }, interrupter.clone());
        let job = start(&["main"]);
        let lease = TeamLeases::default().acquire(&job.team).await;
        let finished = runner.run(lease, &job, interrupt).await.unwrap();
        let what = world.calls()[call].clone();
        assert_eq!(finished, Finished::Done, "{what}");
        if last_event(&world) == "job.cancelled" {
            assert_eq!(world.leftovers(TEAM), Vec::<String>::new(), "cancelled at {what}");
            assert_eq!(world.paths(TEAM), Vec::<std::path::PathBuf>::new(), "at {what}");
        } else {
            // The interrupt came with the very last call.
            assert_eq!(last_event(&world), "job.succeeded", "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_start_is_completed_when_the_job_comes_back() {
    for call in 0..calls_of_a_start().await {
        let world = World::new();
        let runner = world.runner().await;
        let (interrupter, interrupt) = interrupt::pair();
        world.interrupt_at(call, Reason::Abandon, interrupter.clone());
        let job = start(&["main"]);
        let lease = TeamLeases::default().acquire(&job.team).await;
        let abandoned = runner.run(lease, &job, interrupt).await;
        let what = world.calls()[call].clone();
        // A new process, the same message.
        let runner = world.runner().await;
        assert_eq!(run(&runner, &job).await.unwrap(), Finished::Done, "{abandoned:?} {what}");
        assert_eq!(running(&world), one_preview(), "crashed at {what}");
        let paths = world.paths(TEAM);
        let scratch = |p: &&std::path::PathBuf| p.to_string_lossy().contains(".new-");
        assert_eq!(paths.iter().find(scratch), None, "crashed at {what}");
        assert!(world.leftovers(TEAM).iter().all(|n| !n.contains("install")), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_install_is_told_and_undone() {
    let world = World::new();
    let runner = world.runner().await;
    world.exit_code("install", 1);
    let Finished::Dead(letter) = run(&runner, &start(&["main"])).await.unwrap() else {
        panic!("a failed job is a dead letter")
    };
    assert_eq!(letter.reason, "build.install_failed");
    assert_eq!(letter.step.as_deref(), Some("build"));
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
    assert_eq!(world.paths(TEAM), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dev_server_that_ends_is_told_and_undone() {
    let world = World::new();
    let runner = world.runner().await;
    world.preview_state("failing");
    let Finished::Dead(letter) = run(&runner, &start(&["main"])).await.unwrap() else {
        panic!("a failed job is a dead letter")
    };
    assert_eq!(letter.reason, "preview.exited");
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_failed_change_keeps_what_ran() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(&["main"])).await.unwrap();
    let before = running(&world);
    world.exit_code("install", 1);
    // Of another lockfile, or its modules would be copied from the first.
    let runner = world.runner_that_opens(crate::previews::open_second).await;
    let finished = run(&runner, &start(&["main", "staging"])).await.unwrap();
    assert!(matches!(finished, Finished::Dead(_)));
    assert_eq!(running(&world), before);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_leaves_a_team_that_the_next_job_cleans() {
    let world = World::new();
    let runner = world.runner().await;
    world.preview_state("failing");
    run(&runner, &start(&["main"])).await.unwrap();
    let removals = world.calls().iter().position(|c| c.starts_with("remove_container covibes_a"));
    let first_removal = removals.expect("undo removes the agent");
    let world = World::new();
    let runner = world.runner().await;
    world.preview_state("failing");
    world.fail_at(first_removal, Fault::Fails);
    run(&runner, &start(&["main"])).await.unwrap();
    let told: Vec<String> = world.events().iter().map(|e| e.routing_key.clone()).collect();
    assert!(told.iter().any(|k| k.ends_with("team.failed")), "{told:?}");
    run(&runner, &job(Action::Destroy)).await.unwrap();
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_known_job_is_told_again_and_not_done_again() {
    let world = World::new();
    let first = start(&["main"]);
    run(&world.runner().await, &first).await.unwrap();
    let ended = world.events().last().unwrap().clone();
    world.forget_calls();
    run(&world.runner().await, &first).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
    assert_eq!(*world.events().last().unwrap(), ended);
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_volumes_and_a_destroy_leaves_nothing() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(&["main"])).await.unwrap();
    run(&runner, &job(Action::Stop)).await.unwrap();
    assert!(world.containers(TEAM).is_empty());
    let left = world.leftovers(TEAM);
    assert!(left.contains(&"workspace_team_alpha".to_owned()), "{left:?}");
    assert!(left.iter().all(|name| !name.contains("_net_")), "{left:?}");
    // A stop of a stopped team changes nothing.
    world.forget_calls();
    run(&runner, &job(Action::Stop)).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
    run(&runner, &job(Action::Destroy)).await.unwrap();
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
    assert_eq!(world.paths(TEAM), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn sequences_increase_over_jobs_and_processes_though_the_clock_stands() {
    let world = World::new();
    run(&world.runner().await, &start(&["main"])).await.unwrap();
    run(&world.runner().await, &job(Action::Stop)).await.unwrap();
    run(&world.runner().await, &start(&["main"])).await.unwrap();
    let (mut last, mut told) = (0, BTreeSet::new());
    // A process repeats the last end that it finds on disk.
    for event in world.events().into_iter().filter(|event| told.insert(event.id.clone())) {
        let event = decode_event(&event.body).unwrap();
        let sequence = event.sequence.unwrap();
        assert!(sequence > last, "{} after {last}", event.short_type());
        assert!(event.sequence_previous.is_none_or(|p| p >= last || p == 0));
        last = sequence;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_beside_a_run_is_never_numbered_twice() {
    let world = World::new();
    for _ in 0..3 {
        // Each is a process that dies after its first word.
        world.runner().await.accepted(&start(&["main"]), 1).await.unwrap();
    }
    let sequences: Vec<_> =
        world.events().iter().map(|e| decode_event(&e.body).unwrap().sequence.unwrap()).collect();
    assert_eq!(sequences.len(), 3);
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_confirmed_is_told_before_anything_else() {
    let world = World::new();
    let stop = job(Action::Stop);
    run(&world.runner().await, &stop).await.unwrap();
    let ended = world.events().last().unwrap().clone();
    let count = world.events().len();
    // The next process cannot know whether it was confirmed.
    world.runner().await.accepted(&start(&["main"]), 1).await.unwrap();
    let told: Vec<_> = world.events().drain(count..).collect();
    assert_eq!(told.first(), Some(&ended));
    assert_eq!(told.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_dropped_while_it_was_stored_is_told_before_anything_else() {
    let world = World::new();
    let runner = world.runner().await;
    let (start, stop) = (start(&["main"]), job(Action::Stop));
    // As lanes do that are abandoned for too long.
    world.die_at("saved cancelled");
    let overtaken = Reason::Cancel { by: stop.id };
    tokio::select! {
        ended = runner.skip(&start, &overtaken) => panic!("ended: {ended:?}"),
        () = world.death() => {}
    }
    assert_eq!(world.events(), Vec::new());
    runner.accepted(&stop, 1).await.unwrap();
    runner.skip(&start, &overtaken).await.unwrap();
    let told: Vec<_> = world.events().iter().map(|event| event.routing_key.clone()).collect();
    let [end, accepted] = ["job.cancelled", "job.accepted"].map(|f| format!("team.{TEAM}.{f}"));
    assert_eq!(told, [end.clone(), accepted, end]);
    let events = world.events();
    assert_eq!(events.first(), events.last());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_keeps_its_end_when_it_is_overtaken() {
    let world = World::new();
    let first = start(&["main"]);
    run(&world.runner().await, &first).await.unwrap();
    let ended = world.events().last().unwrap().clone();
    // It comes again after a crash, and a stop comes with it.
    let by = job(Action::Stop).id;
    world.runner().await.skip(&first, &Reason::Cancel { by }).await.unwrap();
    assert_eq!(*world.events().last().unwrap(), ended);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_container_of_the_same_name_is_left_alone() {
    let world = World::new();
    let runner = world.runner().await;
    let foreign = covibes::domain::names::ContainerName::from_engine("covibes_sync_team_alpha");
    world.put_foreign(foreign.unwrap().as_str());
    let Finished::Dead(letter) = run(&runner, &start(&["main"])).await.unwrap() else {
        panic!("a name that is taken fails the job")
    };
    assert_eq!(letter.reason, "docker.foreign_resource");
    assert!(world.has_container("covibes_sync_team_alpha"));
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn platform_faults_end_within_the_retry_budget() {
    let world = World::new();
    let runner = world.runner().await;
    world.refuse_starts();
    let began = tokio::time::Instant::now();
    let Finished::Dead(letter) = run(&runner, &start(&["main"])).await.unwrap() else {
        panic!("a daemon that refuses for ever fails the job")
    };
    assert_eq!(letter.reason, "docker.unreachable");
    assert!(began.elapsed() <= Duration::from_secs(11 * 60), "{:?}", began.elapsed());
    assert!(world.events().iter().any(|e| e.routing_key.ends_with("job.retrying")));
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}
