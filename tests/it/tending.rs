//! What a worker does for its teams without a job: snapshots, records made
//! anew, tombstones; and the numbers of a team's events over all of it.

use std::sync::Arc;
use std::time::Duration;

use covibes::domain::ids::TeamId;
use covibes::domain::job::Action;
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::{Finished, JobRunner as _};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::wire::event_reader::decode_event;
use tokio_util::sync::CancellationToken;

use crate::process::{job_of, start_of};
use crate::world::World;

const DAY: i64 = 24 * 3600 * 1000;

fn team() -> TeamId {
    TeamId::parse("team_a").unwrap()
}

async fn done(runner: &Runner, job: covibes::domain::job::Job) {
    let (_interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    assert_eq!(runner.run(lease, &job, interrupt).await.unwrap(), Finished::Done);
}

fn snapshots(world: &World) -> usize {
    world.events().iter().filter(|e| e.routing_key == "team.team_a.team.snapshot").count()
}

/// Tends for a while.
async fn tend(runner: &Arc<Runner>, time: Duration) {
    let end = CancellationToken::new();
    let tending = Arc::clone(runner).tend(end.clone());
    let ending = async {
        tokio::time::sleep(time).await;
        end.cancel();
    };
    tokio::join!(tending, ending);
}

#[tokio::test(start_paused = true)]
async fn running_teams_tell_a_snapshot_every_minute_and_on_request() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    done(&runner, start_of("team_a")).await;
    tend(&runner, Duration::from_secs(150)).await;
    assert_eq!(snapshots(&world), 3);
    runner.snapshot(Some(&team())).await.unwrap();
    runner.snapshot(None).await.unwrap();
    assert_eq!(snapshots(&world), 5);
    let events = world.events();
    let last = decode_event(&events.last().unwrap().body).unwrap();
    let before = decode_event(&events[events.len() - 2].body).unwrap();
    assert!(last.sequence > before.sequence && last.id != before.id);
    done(&runner, job_of("team_a", Action::Stop)).await;
    tend(&runner, Duration::from_secs(150)).await;
    assert_eq!(snapshots(&world), 5);
    // Whoever asks for a stopped one is told all the same.
    runner.snapshot(Some(&team())).await.unwrap();
    assert_eq!(snapshots(&world), 6);
}

#[tokio::test(start_paused = true)]
async fn nobody_tells_a_snapshot_of_another_hosts_team() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    runner.snapshot(Some(&team())).await.unwrap();
    assert_eq!((snapshots(&world), world.record(&team())), (0, None));
    // It was here once, and may be anywhere since.
    done(&runner, start_of("team_a")).await;
    done(&runner, job_of("team_a", Action::Stop)).await;
    runner.give_away(&team()).await;
    runner.snapshot(Some(&team())).await.unwrap();
    done(&runner, start_of("team_a")).await;
    assert_eq!(snapshots(&world), 0);
    done(&runner, job_of("team_a", Action::Destroy)).await;
    runner.snapshot(Some(&team())).await.unwrap();
    assert_eq!(snapshots(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_directory_is_made_anew_at_boot() {
    let world = World::new();
    done(&world.runner().await, start_of("team_a")).await;
    world.lose_records();
    let runner = Arc::new(world.runner().await);
    tend(&runner, Duration::from_secs(1)).await;
    let record = world.record(&team()).unwrap();
    assert!(record.adopted && record.slot.is_some() && record.generation == 1, "{record:?}");
    assert_eq!(snapshots(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_teams_numbers_go_on_for_seven_days() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    done(&runner, start_of("team_a")).await;
    done(&runner, job_of("team_a", Action::Destroy)).await;
    let sequence = world.record(&team()).unwrap().sequence;
    drop(runner);
    world.pass(6 * DAY);
    let runner = Arc::new(world.runner().await);
    tend(&runner, Duration::from_secs(1)).await;
    assert_eq!(world.record(&team()).unwrap().sequence, sequence);
    // It comes back: no tombstone any more.
    done(&runner, start_of("team_a")).await;
    drop(runner);
    world.pass(2 * DAY);
    let runner = Arc::new(world.runner().await);
    tend(&runner, Duration::from_secs(1)).await;
    assert!(world.record(&team()).is_some());
    done(&runner, job_of("team_a", Action::Destroy)).await;
    drop(runner);
    world.pass(8 * DAY);
    tend(&Arc::new(world.runner().await), Duration::from_secs(1)).await;
    assert_eq!(world.record(&team()), None);
}

#[tokio::test(start_paused = true)]
async fn without_a_record_numbers_go_on_above_the_logs() {
    let world = World::new();
    let ahead = 9_999_999_999_999_999;
    world.log_ends_with(ahead);
    done(&world.runner().await, start_of("team_a")).await;
    for (last, event) in (ahead..).zip(world.events()) {
        let event = decode_event(&event.body).unwrap();
        assert_eq!(event.sequence_previous, Some(last));
        assert_eq!(event.sequence, Some(last + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_that_could_get_a_lower_number() {
    let world = World::new();
    let runner = world.runner().await;
    let run = async || {
        let (_interrupter, interrupt) = interrupt::pair();
        let job = start_of("team_a");
        let lease = TeamLeases::default().acquire(&job.team).await;
        runner.run(lease, &job, interrupt).await
    };
    // Without a record here, and with one of a team that was away.
    for away in [false, true] {
        if away {
            runner.give_away(&team()).await;
        }
        let told = world.events().len();
        world.log_is_silent(true);
        assert!(run().await.is_err());
        assert_eq!(world.events().len(), told);
        world.log_is_silent(false);
        assert_eq!(run().await.unwrap(), Finished::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_no_trouble_of_other_teams() {
    let world = World::new();
    // Before the others in every list.
    done(&world.runner().await, start_of("a_team")).await;
    world.cannot_read(&TeamId::parse("a_team").unwrap());
    let runner = Arc::new(world.runner().await);
    done(&runner, start_of("team_a")).await;
    tend(&runner, Duration::from_secs(1)).await;
    assert_eq!(world.containers("team_a").len(), 3);
    assert_eq!(snapshots(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn numbers_go_on_above_those_of_a_host_that_had_the_team_meanwhile() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    done(&runner, start_of("team_a")).await;
    done(&runner, job_of("team_a", Action::Destroy)).await;
    runner.give_away(&team()).await;
    let sequence = |event: &covibes::domain::event::EncodedEvent| -> u64 {
        decode_event(&event.body).unwrap().sequence.unwrap()
    };
    let told = world.events().len();
    let elsewhere = sequence(world.events().last().unwrap()) + 3_600_000_000;
    world.log_ends_with(elsewhere);
    done(&runner, start_of("team_a")).await;
    let events = world.events();
    assert!(events[told..].iter().all(|event| sequence(event) > elsewhere));
    done(&runner, job_of("team_a", Action::Destroy)).await;
}
