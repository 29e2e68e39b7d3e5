//! Agents' tasks as their team hears of them, and the first task of a start.

use std::sync::Arc;
use std::time::Duration;

use covibes::domain::agent_task::AgentTaskState::{Cancelled, Queued, Running, Succeeded};
use covibes::domain::ids::PartName;
use covibes::domain::job::{Action, Job};
use covibes::domain::spec::{AgentSpec, LimitsWish};
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::{Finished, JobRunner as _};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::wire::event_body::Body;
use covibes::wire::event_reader::{WireEvent, decode_event};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::process::{job_of, start_of};
use crate::world::World;

/// A start with one agent and its first task.
fn start_with(prompt: &str) -> Job {
    let mut job = start_of("team_a");
    if let Action::Start(spec) = &mut job.action {
        spec.agents = vec![AgentSpec {
            name: PartName::parse("one").unwrap(),
            secrets: Default::default(),
            env: Default::default(),
            limits: LimitsWish::default(),
            prompt: Some(prompt.to_owned()),
        }];
    }
    job
}

async fn run(runner: &Runner, job: Job) -> Finished {
    let (_interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    runner.run(lease, &job, interrupt).await.unwrap()
}

/// Follows agents for a while, during which `meanwhile` happens.
async fn follow(runner: &Arc<Runner>, meanwhile: impl Future<Output = ()>) {
    let end = CancellationToken::new();
    let following = Arc::clone(runner).follow_agents(end.clone());
    let ending = async {
        meanwhile.await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.cancel();
    };
    tokio::join!(following, ending);
}

/// The events about tasks: type and turns.
fn told(world: &World) -> Vec<(String, u64, WireEvent)> {
    let events = world.events().into_iter().map(|event| decode_event(&event.body).unwrap());
    let told = events.filter_map(|event| match &event.data {
        Body::AgentTaskChanged(task) => Some((task.fact.clone(), task.turns, event.clone())),
        _ => None,
    });
    told.collect()
}

fn facts(world: &World) -> Vec<(String, u64)> {
    told(world).into_iter().map(|(fact, turns, _)| (fact, turns)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_first_task_is_posted_once_however_often_the_start_comes() {
    let world = World::new();
    let runner = world.runner().await;
    let first = start_with("first");
    assert_eq!(run(&runner, first.clone()).await, Finished::Done);
    let posted = vec![("one".to_owned(), "first".to_owned())];
    assert_eq!(world.posted(), posted);
    // The same job, the same start as another job, and a process that begins anew.
    run(&runner, first).await;
    run(&runner, start_with("first")).await;
    run(&world.runner().await, start_with("first")).await;
    assert_eq!(world.posted(), posted);
    run(&runner, start_with("second")).await;
    assert_eq!(world.posted().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_no_task_is_asked_again_and_then_fails_the_start() {
    let world = World::new();
    let runner = world.runner().await;
    world.refuse_tasks(true);
    let job = start_with("first");
    let accepts = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.refuse_tasks(false);
    };
    let (finished, ()) = tokio::join!(run(&runner, job), accepts);
    assert_eq!(finished, Finished::Done);
    assert_eq!(world.posted().len(), 1);
    world.refuse_tasks(true);
    let Finished::Dead(dead) = run(&runner, start_with("second")).await else {
        panic!("nobody took the task");
    };
    assert!(dead.message.contains("16 tasks wait"), "{}", dead.message);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_told_from_its_begin_to_its_end_with_little_between() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    run(&runner, start_with("first")).await;
    let id = Uuid::from_u128(7);
    follow(&runner, async {
        world.show_task("one", id, Queued, 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(facts(&world), []);
        for turns in 0..100 {
            world.show_task("one", id, Running, turns);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.show_task("one", id, Succeeded, 100);
    })
    .await;
    let facts = facts(&world);
    assert_eq!(facts.first(), Some(&("started".to_owned(), 0)));
    assert_eq!(facts.last(), Some(&("finished".to_owned(), 100)));
    let progress = facts.len() - 2;
    assert!((4..=6).contains(&progress), "{facts:?}");
    assert!(facts[1..=progress].iter().all(|(fact, _)| fact == "progress"), "{facts:?}");
    let told = told(&world);
    for pair in told.windows(2) {
        assert!(pair[1].2.sequence > pair[0].2.sequence);
    }
    assert_eq!(told[0].2.short_type(), "agent.task.started");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_anew_tells_what_it_missed_and_repeats_nothing() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    run(&runner, start_with("first")).await;
    let (one, two, three) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    follow(&runner, async { world.show_task("one", one, Running, 1) }).await;
    assert_eq!(facts(&world).len(), 1);
    // While nobody looks, it ends, another begins and ends, and one is cancelled unbegun.
    world.show_task("one", one, Succeeded, 2);
    world.show_task("one", two, Succeeded, 5);
    world.show_task("one", three, Queued, 0);
    let runner = Arc::new(world.runner().await);
    follow(&runner, async { world.show_task("one", three, Cancelled, 0) }).await;
    let words: Vec<_> = facts(&world).into_iter().map(|(fact, _)| fact).collect();
    // A task that is cancelled while it waits has an end and no begin.
    assert_eq!(words, ["started", "finished", "started", "finished", "finished"]);
    let runner = Arc::new(world.runner().await);
    follow(&runner, async {}).await;
    assert_eq!(facts(&world).len(), 5);
    // Nothing is followed of a team that is gone.
    run(&runner, job_of("team_a", Action::Stop)).await;
    follow(&runner, async { world.show_task("one", Uuid::from_u128(4), Running, 0) }).await;
    assert_eq!(facts(&world).len(), 5);
}
