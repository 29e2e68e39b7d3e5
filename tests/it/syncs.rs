//! What a team hears of its sync service: by itself, and when a job asks.

use std::sync::Arc;
use std::time::Duration;

use covibes::domain::failure::Code;
use covibes::domain::job::{Action, Job};
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::JobRunner as _;
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::ports::syncs::SyncLook;
use covibes::wire::event_body::Body;
use covibes::wire::event_reader::{JobEnd, decode_event};
use tokio_util::sync::CancellationToken;

use crate::process::{job_of, start_of};
use crate::world::World;

async fn run(runner: &Runner, job: Job) {
    let (_interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    let _ = runner.run(lease, &job, interrupt).await;
}

fn in_step(head: &str, moved: bool) -> SyncLook {
    SyncLook::InStep { head: Some(head.to_owned()), moved }
}

fn conflict(message: &str) -> SyncLook {
    let (ahead, behind) = (Some(1), Some(2));
    SyncLook::Conflict { message: message.to_owned(), ahead, behind, paths: vec!["a".to_owned()] }
}

fn failed(words: &str) -> SyncLook {
    SyncLook::Failed { words: words.to_owned() }
}

/// Every `sync.*` event so far, in a few words.
fn told(world: &World) -> Vec<String> {
    let events = world.events().into_iter().map(|event| decode_event(&event.body).unwrap());
    let told = events.filter_map(|event| match event.data {
        Body::SyncSynced(data) => Some(format!("synced {}", data.head.unwrap_or_default())),
        Body::SyncConflict(data) => {
            Some(format!("conflict {} {:?} {:?}", data.message, data.behind, data.paths))
        }
        Body::SyncFailed(data) => Some(format!("failed {}", data.failure.code)),
        _ => None,
    });
    told.collect()
}

/// Follows for a while, during which the service stands like this, one after the other.
async fn follow(world: &World, runner: &Arc<Runner>, looks: &[SyncLook]) {
    let end = CancellationToken::new();
    let following = Arc::clone(runner).follow_syncs(end.clone());
    let showing = async {
        for look in looks {
            world.show_sync(look.clone());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        end.cancel();
    };
    tokio::join!(following, showing);
}

#[tokio::test(start_paused = true)]
async fn a_team_hears_what_is_news_and_hears_a_conflict_again_from_a_new_worker() {
    let world = World::new();
    let runner = Arc::new(world.runner().await);
    run(&runner, start_of("team_a")).await;
    let looks = [
        in_step("one", false),
        in_step("two", true),
        conflict("work"),
        conflict("work"),
        failed("git fetch failed: Could not resolve host: x"),
        in_step("two", false),
        SyncLook::Idle,
        conflict("work"),
    ];
    follow(&world, &runner, &looks).await;
    let conflict_told = "conflict work Some(2) [\"a\"]";
    let expected =
        ["synced two", conflict_told, "failed git.unreachable", "synced two", conflict_told];
    assert_eq!(told(&world), expected);

    // What is still so is said again by whoever comes anew, and only that.
    let again = Arc::new(world.runner().await);
    follow(&world, &again, &[conflict("work"), in_step("three", true)]).await;
    assert_eq!(told(&world)[5..], [conflict_told, "synced three"]);
}

#[tokio::test(start_paused = true)]
async fn a_sync_job_ends_as_git_did() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, start_of("team_a")).await;
    for (look, message, code) in [
        (in_step("one", true), "synced", None),
        (in_step("one", false), "in step already", None),
        (conflict("work"), "local work is in the way; nothing was touched", None),
        (SyncLook::Idle, "there is nothing to be in step with", None),
        (failed("fatal: Authentication failed for 'x'"), "", Some(Code::GitAuthFailed)),
        (failed("Host key verification failed."), "", Some(Code::GitHostKey)),
    ] {
        world.show_sync(look);
        run(&runner, job_of("team_a", Action::Sync)).await;
        let last = decode_event(&world.events().last().unwrap().body).unwrap();
        match (last.end().unwrap(), code) {
            (JobEnd::Succeeded { message: said, .. }, None) => assert_eq!(said, message),
            (JobEnd::Failed(failure), Some(code)) => assert_eq!(failure.code, code.as_str()),
            (end, _) => panic!("{end:?}"),
        }
    }
}
