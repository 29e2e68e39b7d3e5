//! What becomes of previews: what is told of them, whose modules they get, when
//! they are installed anew, and when they end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use covibes::detect::tree::{MemoryTree, Tree};
use covibes::domain::failure::Failure;
use covibes::domain::ids::{PartName, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::domain::settings::Settings;
use covibes::domain::spec::Spec;
use covibes::pipeline::job_runner::Finished;
use covibes::pipeline::runner::Runner;
use covibes::pipeline::unused_images;
use covibes::ports::host::WatchUse;
use covibes::worker::lanes::{LaneLoad, Lanes, LanesConfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::pipeline::{run, spec};
use crate::process::job_of;
use crate::world::{World, open_tree};

const TEAM: &str = "team_alpha";

fn team() -> TeamId {
    TeamId::parse(TEAM).unwrap()
}

fn start(spec: Spec) -> Job {
    job_of(TEAM, Action::Start(Box::new(spec)))
}

/// What was told of previews: the last words of the type, and the data.
fn told(world: &World) -> Vec<(String, Value)> {
    let events = world.events();
    let of_previews = events.iter().filter_map(|event| {
        let fact = event.routing_key.strip_prefix("team.team_alpha.preview.")?;
        let body: Value = serde_json::from_str(&event.body).unwrap();
        Some((fact.to_owned(), body["data"].clone()))
    });
    of_previews.collect()
}

fn facts(world: &World) -> Vec<String> {
    told(world).into_iter().map(|(fact, _)| fact).collect()
}

/// A worker that looks after its teams and takes its own jobs.
struct Host {
    world: World,
    runner: Arc<Runner>,
    lanes: Lanes,
}

impl Host {
    async fn new(world: &World, runner: Runner) -> Self {
        let runner = Arc::new(runner);
        let lanes = Lanes::new(
            runner.clone(),
            Arc::default(),
            LanesConfig::default(),
            Arc::new(LaneLoad::default()),
        );
        Self { world: world.clone(), runner, lanes }
    }

    async fn done(&self, job: &Job) {
        assert_eq!(run(&self.runner, job).await.unwrap(), Finished::Done);
    }

    /// Looks after the teams for a while.
    async fn tend(&self, time: Duration) {
        let end = CancellationToken::new();
        let tending = Arc::clone(&self.runner).tend(end.clone());
        let ending = async {
            tokio::time::sleep(time).await;
            end.cancel();
        };
        tokio::select! {
            _ = async { tokio::join!(tending, ending) } => {}
            never = self.lanes.take_own() => never,
        }
    }

    /// Every job that was told to have ended.
    fn ended(&self) -> usize {
        let is_end = |key: &str| key.ends_with("job.succeeded") || key.ends_with("job.failed");
        self.world.events().iter().filter(|event| is_end(&event.routing_key)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_preview_that_changes_is_told_once_with_its_first_line() {
    let world = World::new();
    let host = Host::new(&world, world.runner().await).await;
    host.done(&start(spec(&["main"]))).await;
    assert_eq!(facts(&world), ["installing", "starting", "ready"]);
    host.tend(Duration::from_secs(40)).await;
    assert_eq!(facts(&world).len(), 3, "nothing changed");

    world.preview_state("failing");
    host.tend(Duration::from_secs(70)).await;
    let all = told(&world);
    assert_eq!(all.len(), 4, "{all:?}");
    let (fact, data) = &all[3];
    assert_eq!((fact.as_str(), &data["error"]), ("failing", &"Error: the last one".into()));
    let snapshot = world.events().into_iter().rfind(|e| e.routing_key.ends_with("snapshot"));
    let body: Value = serde_json::from_str(&snapshot.unwrap().body).unwrap();
    let parts = body["data"]["parts"].as_array().unwrap();
    let preview = parts.iter().find(|part| part["role"] == "preview").unwrap();
    assert_eq!((&preview["preview"], &preview["error"]), (&"failing".into(), &data["error"]));

    world.preview_state("running");
    host.tend(Duration::from_secs(40)).await;
    let all = told(&world);
    assert_eq!((all.len(), all[4].0.as_str()), (5, "ready"));
    assert!(all[4].1["url"].as_str().unwrap().starts_with("http://main--team-alpha.localhost:"));
    host.done(&job_of(TEAM, Action::Stop)).await;
    host.tend(Duration::from_secs(40)).await;
    assert_eq!(facts(&world).len(), 5, "nobody speaks for a stopped team");
}

#[tokio::test(start_paused = true)]
async fn a_preview_that_does_not_come_up_is_told_with_its_first_line() {
    let world = World::new();
    world.preview_state("failing");
    let runner = world.runner().await;
    let Finished::Dead(letter) = run(&runner, &start(spec(&["main"]))).await.unwrap() else {
        panic!("it came up");
    };
    assert_eq!(letter.reason, "preview.exited");
    let message = "the dev server ended with exit code 3: Error: the last one";
    assert_eq!(letter.message, message);
    let (fact, data) = told(&world).pop().unwrap();
    assert_eq!((fact.as_str(), &data["error"]), ("failing", &"Error: the last one".into()));
}

fn count(world: &World, call: &str) -> usize {
    world.calls().iter().filter(|made| made.starts_with(call)).count()
}

#[tokio::test(start_paused = true)]
async fn a_branch_with_an_equal_lockfile_gets_the_others_modules() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(spec(&["main"]))).await.unwrap();
    assert_eq!(
        (count(&world, "wait_container covibes_install"), count(&world, "copy_tree")),
        (1, 0)
    );
    world.forget_calls();
    run(&runner, &start(spec(&["main", "second"]))).await.unwrap();
    assert_eq!(
        (count(&world, "wait_container covibes_install"), count(&world, "copy_tree")),
        (0, 1)
    );
    let calls = world.calls();
    assert!(
        !calls.iter().any(|call| call.contains("_main") || call.contains("agent_")),
        "{calls:?}"
    );
    assert!(world.has_container("covibes_preview_team_alpha_second"));
    // Nothing is left half way, and nothing is done again.
    let left: Vec<_> = world.paths(TEAM).into_iter().filter(|p| is_staging(p)).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
    world.forget_calls();
    run(&runner, &start(spec(&["main", "second"]))).await.unwrap();
    assert_eq!(world.calls(), Vec::<String>::new());
}

fn is_staging(path: &Path) -> bool {
    path.to_string_lossy().contains("modules.new-")
}

#[tokio::test(start_paused = true)]
async fn modules_that_a_death_left_between_two_keys_are_nobodys() {
    let world = World::new();
    run(&world.runner().await, &start(spec(&["main"]))).await.unwrap();
    // The process dies between the swap and the new key.
    world.die_at("told preview.installing");
    let runner = world.runner_that_opens(open_second).await;
    let job = start(spec(&["main"]));
    tokio::select! {
        _ = run(&runner, &job) => panic!("it lived"),
        () = world.death() => {}
    }
    // The first lockfile again: what is there is not known to be its modules.
    world.forget_calls();
    run(&world.runner().await, &start(spec(&["main"]))).await.unwrap();
    assert_eq!(count(&world, "wait_container covibes_install"), 1);
}

fn tree(lockfile: &'static str) -> Box<dyn Tree + Send> {
    let manifest = r#"{"name":"x","private":true,"scripts":{"dev":"vite"},
        "devDependencies":{"vite":"8.0.0"}}"#;
    Box::new(MemoryTree::new([("package.json", manifest), ("package-lock.json", lockfile)]))
}

pub(crate) fn open_second(_: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    Ok(tree(r#"{"lockfileVersion":3,"second":true}"#))
}

static IS_CHANGED: AtomicBool = AtomicBool::new(false);

fn open_changing(path: &Path) -> Result<Box<dyn Tree + Send>, Failure> {
    match IS_CHANGED.load(Ordering::Relaxed) {
        true => open_second(path),
        false => open_tree(path),
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_lockfile_is_installed_and_only_that_preview_started_again() {
    let world = World::new();
    let host = Host::new(&world, world.runner_that_opens(open_changing).await).await;
    host.done(&start(spec(&["main"]))).await;
    host.tend(Duration::from_secs(120)).await;
    assert_eq!(host.ended(), 1, "nothing changed");
    world.forget_calls();
    IS_CHANGED.store(true, Ordering::Relaxed);
    host.tend(Duration::from_secs(60)).await;
    assert_eq!(host.ended(), 2);
    let calls = world.calls();
    assert_eq!(count(&world, "wait_container covibes_install"), 1, "{calls:?}");
    let replaced = |name: &str| calls.iter().any(|c| *c == format!("create_container {name}"));
    assert!(replaced("covibes_preview_team_alpha_main"), "{calls:?}");
    assert!(!calls.iter().any(|c| c.contains("_agent_") || c.contains("_sync_")), "{calls:?}");
    host.tend(Duration::from_secs(300)).await;
    assert_eq!(host.ended(), 2, "once");

    // One that cannot be installed is tried once, and what runs goes on.
    IS_CHANGED.store(false, Ordering::Relaxed);
    world.exit_code("install", 1);
    world.says("install", &["npm error code E401"]);
    host.tend(Duration::from_secs(600)).await;
    assert_eq!(host.ended(), 3);
    let (fact, data) = told(&world).into_iter().rfind(|(fact, _)| fact == "failing").unwrap();
    assert_eq!(
        (fact.as_str(), &data["error"]),
        ("failing", &"the install failed: npm error code E401".into(),)
    );
    assert!(world.has_container("covibes_preview_team_alpha_main"));
}

#[tokio::test(start_paused = true)]
async fn a_preview_ends_when_its_time_is_over_and_comes_back_when_asked_for() {
    let world = World::new();
    let host = Host::new(&world, world.runner().await).await;
    let mut both = spec(&["main", "second"]);
    both.previews[1].ttl = Some(Duration::from_secs(3600));
    host.done(&start(both.clone())).await;
    world.pass(3_599_000);
    host.tend(Duration::from_secs(60)).await;
    assert_eq!(host.ended(), 1, "its time is not over");
    // The same again does not lengthen it.
    host.done(&start(both.clone())).await;
    world.forget_calls();
    world.pass(1_000);
    host.tend(Duration::from_secs(90)).await;
    assert_eq!(host.ended(), 3);
    let containers: Vec<_> = world.containers(TEAM).into_keys().collect();
    assert_eq!(
        containers,
        [
            "covibes_agent_team_alpha_agent-1",
            "covibes_preview_team_alpha_main",
            "covibes_sync_team_alpha",
        ]
    );
    let calls = world.calls();
    let untouched = |c: &String| c.contains("_second") || !c.contains("container");
    assert!(calls.iter().all(untouched), "{calls:?}");
    let left: Vec<_> = world.leftovers(TEAM).into_iter().filter(|n| n.contains("second")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!world.paths(TEAM).iter().any(|p| p.to_string_lossy().contains("preview-second")));

    host.done(&start(both)).await;
    assert!(world.has_container("covibes_preview_team_alpha_second"));
    host.tend(Duration::from_secs(120)).await;
    assert_eq!(host.ended(), 4, "its time began anew");
}

#[tokio::test(start_paused = true)]
async fn a_job_of_the_hosts_own_never_overtakes_anybodys() {
    let world = World::new();
    let host = Host::new(&world, world.runner().await).await;
    let mut short = spec(&["main"]);
    short.previews[0].ttl = Some(Duration::from_secs(60));
    host.done(&start(short)).await;
    world.pass(61_000);
    // Somebody's start waits for Docker, and stays what the team is to be.
    world.hangs(Some("create_container covibes_preview_team_alpha_third"));
    let theirs = start(spec(&["main", "third"]));
    host.lanes.submit(covibes::ports::messages::Settle::of_nothing(), theirs.clone());
    host.tend(Duration::from_secs(60)).await;
    let accepted: Vec<_> =
        world.events().into_iter().filter(|e| e.routing_key.ends_with("job.accepted")).collect();
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    assert!(accepted[0].body.contains(&theirs.id.to_string()));
    host.lanes.abandon().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_without_watches_takes_no_new_previews_and_leaves_its_teams_alone() {
    let world = World::new();
    let runner = world.runner().await;
    run(&runner, &start(spec(&["main"]))).await.unwrap();
    let plenty = WatchUse { watches: 10, watches_max: 8192, instances: 3, instances_max: 128 };
    for short in [WatchUse { watches: 8000, ..plenty }, WatchUse { instances: 127, ..plenty }] {
        world.has_watches(short);
        let other = job_of("team_b", Action::Start(Box::new(spec(&["main"]))));
        let Finished::Dead(letter) = run(&runner, &other).await.unwrap() else { panic!("let in") };
        assert_eq!(letter.reason, "capacity.watches", "{}", letter.message);
        // Agents need none, and what runs goes on.
        let agents = job_of("team_c", Action::Start(Box::new(spec(&[]))));
        assert_eq!(run(&runner, &agents).await.unwrap(), Finished::Done);
        assert_eq!(run(&runner, &start(spec(&["main"]))).await.unwrap(), Finished::Done);
    }
    world.has_watches(plenty);
    let other = job_of("team_b", Action::Start(Box::new(spec(&["main"]))));
    assert_eq!(run(&runner, &other).await.unwrap(), Finished::Done);
}

#[tokio::test(start_paused = true)]
async fn a_host_may_allow_fewer_previews_than_a_job_asks_for() {
    let world = World::new();
    let mut settings = Settings::default();
    settings.capacity.previews_per_team = 1;
    let runner = world.runner_of(settings).await;
    let Finished::Dead(letter) = run(&runner, &start(spec(&["a", "b"]))).await.unwrap() else {
        panic!("let in");
    };
    assert_eq!(letter.reason, "capacity.previews");
    assert_eq!(letter.message, "the team asks for 2 previews, and may have 1 on this host");
    assert_eq!(run(&runner, &start(spec(&["a"]))).await.unwrap(), Finished::Done);
    assert_eq!(world.record(&team()).unwrap().ports.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_install_that_neither_prints_nor_writes_is_ended_with_its_last_lines() {
    let world = World::new();
    world.hangs(Some("wait_container covibes_install"));
    let runner = world.runner().await;
    let began = tokio::time::Instant::now();
    let Finished::Dead(letter) = run(&runner, &start(spec(&["main"]))).await.unwrap() else {
        panic!("it ended");
    };
    assert_eq!(letter.reason, "build.timeout");
    assert!(letter.message.contains("printed and wrote nothing"), "{}", letter.message);
    assert!(began.elapsed() < Duration::from_secs(170), "{:?}", began.elapsed());
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_port_that_somebody_else_listens_on_is_passed_over() {
    let world = World::new();
    let settings = Settings { preview_ports: (6100, 6102), ..Settings::default() };
    world.listens(6100);
    world.listens(6102);
    let runner = world.runner_of(settings).await;
    run(&runner, &start(spec(&["main"]))).await.unwrap();
    let main = PartName::parse("main").unwrap();
    assert_eq!(world.record(&team()).unwrap().ports, BTreeMap::from([(main, 6101)]));
    let Finished::Dead(letter) = run(&runner, &start(spec(&["main", "b"]))).await.unwrap() else {
        panic!("there is no other port");
    };
    assert_eq!(
        (letter.reason.as_str(), letter.message.as_str()),
        ("port.exhausted", "every preview port is taken",)
    );
}

/// How a preview that never comes up ends, and when.
async fn ends_after(world: &World) -> (String, String, Duration) {
    let began = tokio::time::Instant::now();
    let finished = run(&world.runner().await, &start(spec(&["main"]))).await.unwrap();
    let Finished::Dead(letter) = finished else { panic!("it came up") };
    (letter.reason, letter.message, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_dev_server_that_listens_elsewhere_is_told_so_before_the_patience_ends() {
    let world = World::new();
    world.preview_listens(4321, false);
    let (reason, message, time) = ends_after(&world).await;
    assert_eq!(reason, "preview.wrong_port", "{message}");
    assert!(message.contains("it listens on port 4321 instead of 5173"), "{message}");
    assert!(time < Duration::from_secs(60), "{time:?}");

    // One that goes on to say something is on its way to its own.
    let world = World::new();
    world.preview_listens(4321, true);
    let (reason, _, time) = ends_after(&world).await;
    assert!(time > Duration::from_secs(150), "{reason} {time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_by_itself_is_told_so_before_the_patience_ends() {
    let world = World::new();
    world.pages_answer(Some(500));
    let (reason, message, time) = ends_after(&world).await;
    assert_eq!(reason, "preview.failing", "{message}");
    assert_eq!(message, "the page answers with status 500: Error: the last one");
    assert!(time < Duration::from_secs(60), "{time:?}");

    // What it asks may still be on its way.
    world.pages_answer(Some(502));
    let (reason, _, time) = ends_after(&world).await;
    assert!(time > Duration::from_secs(150), "{reason} {time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_shows_one_branch_says_so_to_whoever_asked_for_two() {
    let world = World::new();
    let mut wanted = spec(&["main"]);
    wanted.previews[0].branch = Some("other".to_owned());
    run(&world.runner().await, &start(wanted)).await.unwrap();
    let said = "preview main shows the directory as it is, not branch other";
    assert!(world.events().iter().any(|event| event.body.contains(said)));
}

#[tokio::test(start_paused = true)]
async fn a_first_page_may_be_compiled_for_three_minutes() {
    let world = World::new();
    world.preview_listens(5173, false);
    let (reason, message, time) = ends_after(&world).await;
    assert_eq!(reason, "preview.timeout", "{message}");
    let waited = Duration::from_secs(178)..Duration::from_secs(215);
    assert!(waited.contains(&time), "{time:?}");
    let compiling = facts(&world).into_iter().filter(|fact| fact == "compiling").count();
    assert_eq!(compiling, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_the_workspace_that_goes_on_is_waited_for() {
    let world = World::new();
    world.preview_copies(true);
    let (_, _, time) = ends_after(&world).await;
    assert!(time > Duration::from_secs(200), "{time:?}");
    let said = "copying the workspace for";
    assert!(world.events().iter().any(|event| event.body.contains(said)));

    // One that stands still is not.
    let world = World::new();
    world.preview_copies(false);
    let (reason, message, time) = ends_after(&world).await;
    assert_eq!(reason, "preview.timeout", "{message}");
    assert!(time < Duration::from_secs(150), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn an_image_is_unused_since_its_last_start_and_never_while_a_container_has_it() {
    let world = World::new();
    let (runner, ports) = world.runner_and_ports().await;
    run(&runner, &start(spec(&["main"]))).await.unwrap();
    world.uses_its_images(true);
    let look = async || {
        unused_images::unused(&*ports.engine, &*ports.host, &ports.settings).await.unwrap()
    };
    assert_eq!(look().await, []);
    world.uses_its_images(false);
    let preview = async || {
        let mut found = look().await;
        found.retain(|image| image.name.as_str().starts_with("covibes/preview-node:"));
        let [unused] = &found[..] else { panic!("{found:?}") };
        unused.clone()
    };
    let first = preview().await.created_unix_s;

    // A start of anybody's is a use, noted once an hour.
    for (pass, later) in [(1_800_000, 0), (1_800_000, 3600)] {
        world.pass(pass);
        run(&runner, &start(spec(&["main"]))).await.unwrap();
        assert_eq!(preview().await.created_unix_s - first, later);
    }
    unused_images::forget(&ports, &preview().await.name).await.unwrap();
    let since = preview().await.created_unix_s;
    assert!(since < first, "only its making is known now");
}
