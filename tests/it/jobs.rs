//! Jobs through lanes and pipeline together: room, deadlines, what joins and
//! what comes again.

use std::time::Duration;

use covibes::domain::event::EncodedEvent;
use covibes::domain::ids::TeamId;
use covibes::domain::job::{Action, Job};
use covibes::pipeline::job_runner::JobRunner as _;
use covibes::wire::event_reader::decode_event;
use tokio::time::Instant;

use crate::process::{Process, Settled, job_of, start_of};
use crate::world::World;

fn reason(settled: Settled) -> String {
    match settled {
        Settled::Dead(letter) => letter.reason,
        Settled::Done => panic!("it was done"),
    }
}

/// The types of a job's events, without `covibes.`.
fn facts(world: &World, job: &Job) -> Vec<String> {
    let id = job.id.to_string();
    let of_job = world.events().into_iter().filter(|event| event.body.contains(&id));
    of_job.map(|event| decode_event(&event.body).unwrap().short_type().to_owned()).collect()
}

async fn until_short(world: &World, job: &Job, short: &str) {
    let (id, short) = (job.id.to_string(), format!("\"short\":\"{short}\""));
    world
        .until_told(|event| (event.body.contains(&id) && event.body.contains(&short)).then_some(()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_start_without_room_waits_for_another_team_to_stop() {
    let world = World::new();
    world.has_memory(1);
    let process = Process::new(&world).await;
    let first = process.submit(&start_of("team_a"));
    assert_eq!(process.broker.until_settled(first).await, Settled::Done);
    let second = start_of("team_b");
    let waiting = process.submit(&second);
    until_short(&world, &second, "capacity.memory").await;
    assert_eq!(world.leftovers("team_b"), Vec::<String>::new());
    let record = world.record(&second.team);
    assert!(record.is_none_or(|r| r.jobs.is_empty()), "it has not begun");
    let began = Instant::now();
    process.submit(&job_of("team_a", Action::Stop));
    assert_eq!(process.broker.until_settled(waiting).await, Settled::Done);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(world.containers("team_b").len(), 3);
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_behind_a_start_that_waits_for_room_cancels_it_at_once() {
    let world = World::new();
    world.has_memory(1);
    let process = Process::new(&world).await;
    let first = process.submit(&start_of("team_a"));
    process.broker.until_settled(first).await;
    let second = start_of("team_b");
    let waiting = process.submit(&second);
    until_short(&world, &second, "capacity.memory").await;
    let began = Instant::now();
    let stop = process.submit(&job_of("team_b", Action::Stop));
    assert_eq!(process.broker.until_settled(waiting).await, Settled::Done);
    assert_eq!(process.broker.until_settled(stop).await, Settled::Done);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(facts(&world, &second), ["job.accepted", "job.accepted", "job.cancelled"]);
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_starts_that_each_fit_only_one_is_let_in() {
    let world = World::new();
    world.has_memory(1);
    let process = Process::new(&world).await;
    let jobs = [start_of("team_a"), start_of("team_b")];
    let [a, b] = [process.submit(&jobs[0]), process.submit(&jobs[1])];
    tokio::select! {
        settled = process.broker.until_settled(a) => assert_eq!(settled, Settled::Done),
        settled = process.broker.until_settled(b) => assert_eq!(settled, Settled::Done),
    }
    let up = ["team_a", "team_b"].map(|team| world.containers(team).len());
    assert!(up == [3, 0] || up == [0, 3], "{up:?}");
    let late = if up[0] == 3 { b } else { a };
    let began = Instant::now();
    let settled = process.broker.until_settled(late).await;
    assert_eq!(reason(settled), "capacity.memory");
    assert!(began.elapsed() > Duration::from_secs(19 * 60), "{:?}", began.elapsed());
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_a_start_before_anything_is_written() {
    let world = World::new();
    world.has_disk_used(0.81);
    let process = Process::new(&world).await;
    let index = process.submit(&start_of("team_a"));
    assert_eq!(reason(process.broker.until_settled(index).await), "host.disk_low");
    assert_eq!(world.paths("team_a"), Vec::<std::path::PathBuf>::new());
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_past_its_own_deadline_is_refused_unless_it_was_done() {
    let world = World::new();
    let process = Process::new(&world).await;
    let mut late = start_of("team_a");
    late.deadline_unix_ms = Some(1_795_435_200_000);
    let index = process.submit(&late);
    assert_eq!(reason(process.broker.until_settled(index).await), "job.deadline");
    assert_eq!(facts(&world, &late), ["job.accepted", "job.rejected"]);
    assert!(world.calls().is_empty());

    let mut timely = start_of("team_a");
    timely.deadline_unix_ms = Some(1_795_435_200_000 + 60_000);
    let index = process.submit(&timely);
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    world.pass(120_000);
    let again = process.submit(&timely);
    assert_eq!(process.broker.until_settled(again).await, Settled::Done);
    let ends = facts(&world, &timely);
    assert_eq!(ends.last().unwrap(), "job.succeeded");
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_waiting_and_ends_a_run_in_the_middle() {
    let world = World::new();
    world.is_slow("install");
    let process = Process::new(&world).await;
    let mut job = start_of("team_a");
    job.deadline_unix_ms = Some(1_795_435_200_000 + 100_000);
    let began = Instant::now();
    let index = process.submit(&job);
    assert_eq!(reason(process.broker.until_settled(index).await), "job.deadline");
    let took = began.elapsed();
    assert!((100..105).contains(&took.as_secs()), "{took:?}");
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_jobs_deadline_and_say_what_was_wrong() {
    let world = World::new();
    world.refuse_starts();
    let process = Process::new(&world).await;
    let mut job = start_of("team_a");
    job.deadline_unix_ms = Some(1_795_435_200_000 + 60_000);
    let began = Instant::now();
    let index = process.submit(&job);
    assert_eq!(reason(process.broker.until_settled(index).await), "docker.unreachable");
    assert!(began.elapsed() < Duration::from_secs(62), "{:?}", began.elapsed());
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_run_fails_its_job_and_is_undone() {
    let world = World::new();
    world.panics("create_container covibes_preview");
    let process = Process::new(&world).await;
    let job = start_of("team_a");
    let index = process.submit(&job);
    assert_eq!(reason(process.broker.until_settled(index).await), "internal.bug");
    let record = world.record(&job.team).unwrap();
    assert_eq!(record.jobs[0].outcome.as_deref(), Some("failed:internal.bug"));
    assert!(facts(&world, &job).contains(&"job.failed".to_owned()));
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
    let next = process.submit(&start_of("team_a"));
    assert_eq!(process.broker.until_settled(next).await, Settled::Done);
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn identical_starts_have_one_run_and_one_end() {
    for failing in [false, true] {
        let world = World::new();
        world.is_slow("install");
        if failing {
            world.preview_state("failing");
        }
        let process = Process::new(&world).await;
        let [first, second] = [start_of("team_a"), start_of("team_a")];
        let one = process.submit(&first);
        world.until_told(|event| event.routing_key.ends_with("step.started").then_some(())).await;
        let two = process.submit(&second);
        let ends =
            [process.broker.until_settled(one).await, process.broker.until_settled(two).await];
        assert_eq!(ends[0], ends[1]);
        let expected = if failing { "job.failed" } else { "job.succeeded" };
        assert_eq!(facts(&world, &second), ["job.accepted", expected]);
        process.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_requeued_job_runs_again_unless_a_later_one_was_applied() {
    let world = World::new();
    world.preview_state("failing");
    let process = Process::new(&world).await;
    let [first, second] = [start_of("team_a"), start_of("team_a")];
    for job in [&first, &second] {
        let index = process.submit(job);
        assert_eq!(reason(process.broker.until_settled(index).await), "preview.exited");
    }
    world.preview_state("running");
    let requeued = |job: &Job, attempt| Job { attempt, ..job.clone() };
    // The second failed too, so nothing was applied after the first.
    let index = process.submit(&requeued(&first, 2));
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    assert_eq!(world.containers("team_a").len(), 3);
    let stop = process.submit(&job_of("team_a", Action::Stop));
    process.broker.until_settled(stop).await;
    let index = process.submit(&requeued(&second, 2));
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    assert_eq!(facts(&world, &second).last().unwrap(), "job.superseded");
    assert!(world.containers("team_a").is_empty());
    // The first succeeded at last: a higher attempt is only told again.
    let index = process.submit(&requeued(&first, 3));
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    assert!(world.containers("team_a").is_empty());
    process.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_anything_does_not_keep_a_stop_waiting() {
    for flood in ["starts", "statuses", "refused"] {
        let world = World::new();
        world.is_slow("install");
        let process = Process::new(&world).await;
        process.submit(&start_of("team_a"));
        world.until_told(|event| event.routing_key.ends_with("step.started").then_some(())).await;
        let mut last = 0;
        for n in 0..300 {
            let mut job = start_of("team_a");
            if flood == "refused" {
                last = process.refuse(&job);
                continue;
            } else if flood == "statuses" {
                job.action = Action::Status;
            } else if let Action::Start(spec) = &mut job.action {
                // Each asks for something else.
                spec.sync_interval = Duration::from_secs(30 + n);
            }
            last = process.submit(&job);
        }
        let began = Instant::now();
        let stop = job_of("team_a", Action::Stop);
        let index = process.submit(&stop);
        let id = stop.id.to_string();
        let is_end = |event: &EncodedEvent| {
            event.routing_key.ends_with("job.succeeded") && event.body.contains(&id)
        };
        world.until_told(|event| is_end(event).then_some(())).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{flood}: {:?}", began.elapsed());
        assert!(world.containers("team_a").is_empty());
        // Its message is kept until those that it overtook are settled.
        assert_eq!(process.broker.until_settled(index).await, Settled::Done);
        for index in 0..=last {
            process.broker.until_settled(index).await;
        }
        process.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_handed_back_in_good_order_is_no_suspect() {
    let world = World::new();
    world.is_slow("install");
    let process = Process::new(&world).await;
    let job = start_of("team_a");
    process.submit(&job);
    world.until_told(|event| event.routing_key.ends_with("step.started").then_some(())).await;
    process.lanes.abandon().await;
    let trial = world.record(&job.team).unwrap().jobs[0].trial;
    assert!(!trial.open && !trial.suspect, "{trial:?}");
    let runner = world.runner().await;
    let standing = runner.standing(&job).await.unwrap();
    assert_eq!(standing, covibes::pipeline::job_runner::Standing::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_team_whose_record_was_lost_is_adopted() {
    let world = World::new();
    let team = TeamId::parse("team_a").unwrap();
    let process = Process::new(&world).await;
    let index = process.submit(&start_of("team_a"));
    process.broker.until_settled(index).await;
    process.end().await;
    let before = world.record(&team).unwrap();
    world.lose_records();
    let process = Process::new(&world).await;
    let index = process.submit(&job_of("team_a", Action::Restart { targets: Vec::new() }));
    assert_eq!(reason(process.broker.until_settled(index).await), "record.lost");
    let record = world.record(&team).unwrap();
    assert!(record.adopted);
    let of = |r: &covibes::domain::record::TeamRecord| (r.generation, r.slot, r.ports.clone());
    assert_eq!(of(&record), of(&before));
    // A start with the same spec finds everything as it should be.
    world.forget_calls();
    let index = process.submit(&start_of("team_a"));
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    assert!(world.record(&team).is_some_and(|record| !record.adopted));
    process.end().await;
    for action in [Action::Stop, Action::Destroy] {
        world.lose_records();
        one_job(&world, start_of("team_a")).await;
        world.lose_records();
        one_job(&world, job_of("team_a", action)).await;
        assert!(world.containers("team_a").is_empty());
    }
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
}

/// One job in a process of its own, which must work.
async fn one_job(world: &World, job: Job) {
    let process = Process::new(world).await;
    let index = process.submit(&job);
    assert_eq!(process.broker.until_settled(index).await, Settled::Done);
    process.end().await;
}
