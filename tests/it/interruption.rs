//! A later job interrupts a start wherever it is: the step returns within a
//! second, whatever hangs in it, and then the run is undone, or left to the
//! newer start.

use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use covibes::detect::tree::Tree;
use covibes::domain::failure::Failure;
use covibes::domain::ids::JobId;
use covibes::domain::job::Job;
use covibes::domain::step::StepId;
use covibes::pipeline::interrupt::{self, Reason};
use covibes::pipeline::job_runner::{Finished, JobRunner as _};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::process::start_of;
use crate::world::{World, open_tree};

const TEAM: &str = "team_a";

/// What hangs in a step for ever.
fn call_of(step: StepId) -> &'static str {
    match step {
        StepId::Workspace => "ensure_workspace",
        // Held by the gate.
        StepId::Detect => "nothing",
        StepId::Config => "port_is_free",
        StepId::Build => "install",
        StepId::Start => "start_container covibes_agent",
        StepId::Health => "probe",
    }
}

/// Closed while the workspace cannot be read. Only one test uses it.
static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn open_behind_gate(root: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    let (open, opened) = &GATE;
    let _open = opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
    open_tree(root)
}

/// Interrupts a start in a step; how long it took from then to the run's end.
async fn interrupted(
    world: &World,
    runner: Runner,
    job: &Job,
    step: StepId,
    reason: Reason,
) -> Duration {
    let (interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    let interrupting = async {
        let begun = format!("\"step\":\"{}\"", step.as_str());
        world
            .until_told(|event| {
                let is_begin = event.routing_key.ends_with("step.started");
                (is_begin && event.body.contains(&begun)).then_some(())
            })
            .await;
        // Into the call that hangs.
        tokio::time::sleep(Duration::from_millis(50)).await;
        interrupter.interrupt(reason);
        Instant::now()
    };
    let (finished, since) = tokio::join!(runner.run(lease, job, interrupt), interrupting);
    assert_eq!(finished.unwrap(), Finished::Done, "{step:?}");
    since.elapsed()
}

fn last_fact(world: &World) -> String {
    world.events().last().unwrap().routing_key.clone()
}

#[tokio::test(start_paused = true)]
async fn each_step_returns_within_a_second_and_is_undone() {
    for step in StepId::ALL.into_iter().filter(|step| *step != StepId::Detect) {
        let world = World::new();
        world.hangs(Some(call_of(step)));
        let by = JobId(Uuid::now_v7());
        let runner = world.runner().await;
        let job = start_of(TEAM);
        let took = interrupted(&world, runner, &job, step, Reason::Cancel { by }).await;
        assert!(took < Duration::from_secs(1), "{step:?} took {took:?}");
        assert_eq!(last_fact(&world), "team.team_a.job.cancelled", "{step:?}");
        assert_eq!(world.leftovers(TEAM), Vec::<String>::new(), "{step:?}");
        assert_eq!(world.paths(TEAM), Vec::<std::path::PathBuf>::new(), "{step:?}");
    }
}

/// In real time: the paused clock stands still while a thread reads files.
#[tokio::test]
async fn reading_a_workspace_is_given_up_within_a_second() {
    let world = World::new();
    let by = JobId(Uuid::now_v7());
    let runner = world.runner_that_opens(open_behind_gate).await;
    let job = start_of(TEAM);
    let took = interrupted(&world, runner, &job, StepId::Detect, Reason::Cancel { by }).await;
    *GATE.0.lock().unwrap() = true;
    GATE.1.notify_all();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(last_fact(&world), "team.team_a.job.cancelled");
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_newer_start_converges_from_what_the_interrupted_one_made() {
    for step in StepId::ALL.into_iter().filter(|step| *step != StepId::Detect) {
        let world = World::new();
        world.hangs(Some(call_of(step)));
        let newer = start_of(TEAM);
        let older = start_of(TEAM);
        let runner = world.runner().await;
        let reason = Reason::Supersede { by: newer.id };
        let took = interrupted(&world, runner, &older, step, reason).await;
        assert!(took < Duration::from_secs(1), "{step:?} took {took:?}");
        assert_eq!(last_fact(&world), "team.team_a.job.superseded", "{step:?}");
        // A task that is done is removed on every way.
        let undoes = |call: &&String| {
            call.starts_with("remove") && call.contains(TEAM) && !call.contains("install")
        };
        assert_eq!(world.calls().iter().find(undoes), None, "{step:?}");
        let before = world.leftovers(TEAM);
        world.hangs(None);
        let runner = world.runner().await;
        let (_interrupter, interrupt) = interrupt::pair();
        let lease = TeamLeases::default().acquire(&newer.team).await;
        assert_eq!(runner.run(lease, &newer, interrupt).await.unwrap(), Finished::Done);
        let containers = world.containers(TEAM);
        assert!(containers.values().all(|state| state == "running"), "{step:?}: {containers:?}");
        assert_eq!(containers.len(), 3, "{step:?}");
        let lost: Vec<_> = before
            .iter()
            .filter(|name| !world.leftovers(TEAM).contains(name) && !name.contains("install"))
            .collect();
        assert_eq!(lost, Vec::<&String>::new(), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_lies_before_the_first_step_is_interrupted_too() {
    for call in ["all_networks", "image_exists"] {
        let world = World::new();
        world.hangs(Some(call));
        let runner = world.runner().await;
        let job = start_of(TEAM);
        let (interrupter, interrupt) = interrupt::pair();
        let lease = TeamLeases::default().acquire(&job.team).await;
        let interrupting = async {
            world
                .until_told(|event| event.routing_key.ends_with("team.starting").then_some(()))
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            interrupter.interrupt(Reason::Cancel { by: JobId(Uuid::now_v7()) });
            Instant::now()
        };
        let (finished, since) = tokio::join!(runner.run(lease, &job, interrupt), interrupting);
        assert_eq!(finished.unwrap(), Finished::Done, "{call}");
        assert!(since.elapsed() < Duration::from_secs(1), "{call}");
        assert_eq!(last_fact(&world), "team.team_a.job.cancelled", "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_between_two_tries_is_interrupted_too() {
    let world = World::new();
    world.refuse_starts();
    let runner = world.runner().await;
    let job = start_of(TEAM);
    let (interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    let interrupting = async {
        world.until_told(|event| event.routing_key.ends_with("job.retrying").then_some(())).await;
        interrupter.interrupt(Reason::Cancel { by: JobId(Uuid::now_v7()) });
        Instant::now()
    };
    let (finished, since) = tokio::join!(runner.run(lease, &job, interrupt), interrupting);
    assert_eq!(finished.unwrap(), Finished::Done);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(last_fact(&world), "team.team_a.job.cancelled");
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_run_begins_before_its_job_is_told_and_says_nothing_until_then() {
    let world = World::new();
    let runner = world.runner().await;
    let job = start_of(TEAM);
    let (_interrupter, interrupt) = interrupt::pair();
    let (told, accepted) = watch::channel(false);
    let lease = TeamLeases::default().acquire(&job.team).await;
    let telling = async {
        // Paused time moves on only when nothing else can.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = world.record(&job.team).expect("the disk did not wait");
        assert!(begun.job(job.id).is_some_and(|known| known.trial.open));
        assert_eq!(world.events(), Vec::new());
        told.send_replace(true);
    };
    let run = runner.run(lease, &job, interrupt.with_accepted(accepted));
    let (finished, ()) = tokio::join!(run, telling);
    assert_eq!(finished.unwrap(), Finished::Done);
    assert_eq!(last_fact(&world), "team.team_a.job.succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_job_is_never_told_is_nobodys_fault() {
    let world = World::new();
    let runner = world.runner().await;
    let job = start_of(TEAM);
    let (interrupter, interrupt) = interrupt::pair();
    let (_told, accepted) = watch::channel(false);
    let lease = TeamLeases::default().acquire(&job.team).await;
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        interrupter.interrupt(Reason::Abandon);
    };
    let run = runner.run(lease, &job, interrupt.with_accepted(accepted));
    let (abandoned, ()) = tokio::join!(run, ending);
    assert!(abandoned.is_err());
    assert_eq!((world.events(), world.leftovers(TEAM)), (Vec::new(), Vec::new()));
    // Whoever gets it next does not suspect it.
    let record = world.record(&job.team).unwrap();
    assert!(record.job(job.id).is_some_and(|known| !known.trial.open), "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn how_long_a_job_waited_is_measured_from_its_delivery() {
    let world = World::new();
    let runner = world.runner().await;
    let job = start_of(TEAM);
    let (_interrupter, interrupt) = interrupt::pair();
    let interrupt = interrupt.with_delivery(Instant::now());
    tokio::time::advance(Duration::from_secs(45)).await;
    let lease = TeamLeases::default().acquire(&job.team).await;
    assert_eq!(runner.run(lease, &job, interrupt).await.unwrap(), Finished::Done);
    let page = runner.ports().metrics.render();
    let of_start = "{action=\"start\",le=\"30\"} 0\n\
                    covibes_job_queue_wait_seconds_bucket{action=\"start\",le=\"60\"} 1";
    assert!(page.contains(of_start), "{page}");
}
