//! What a worker removes from its disk, and what never: work that is nowhere else.

use std::path::PathBuf;

use covibes::domain::failure::Code;
use covibes::domain::ids::TeamId;
use covibes::domain::job::Action;
use covibes::domain::spec::{GitSource, Spec, WorkspaceSource};
use covibes::pipeline::housekeeping::Waste;
use covibes::pipeline::job_runner::Finished;
use covibes::pipeline::runner::{Cleaned, Runner};

use crate::pipeline::{run, spec};
use crate::process::job_of;
use crate::world::World;

const TEAM: &str = "team_alpha";
const WORKSPACE: &str = "/var/covibes/workspaces/team_alpha";

fn cloned() -> Spec {
    let url = "https://github.com/owner/repository".to_owned();
    let git = GitSource { url, reference: None, credentials: None };
    Spec { workspace: WorkspaceSource::Git(git), ..spec(&["main"]) }
}

/// A team that was stopped forty days ago.
async fn long_stopped(world: &World) -> Runner {
    let runner = world.runner().await;
    for action in [Action::Start(Box::new(cloned())), Action::Stop] {
        assert_eq!(run(&runner, &job_of(TEAM, action)).await.unwrap(), Finished::Done);
    }
    world.pass(40 * 24 * 3_600_000);
    world.keeps(WORKSPACE, true, 40);
    runner
}

/// Kind, and whether it is gone.
async fn clean(runner: &Runner) -> Vec<(&'static str, bool)> {
    let mut seen = Vec::new();
    let mut said = Vec::new();
    let would = runner.would_clean(&mut |waste, end| said.push((waste.clone(), end.clone()))).await;
    let mut say = |waste: &Waste, end: &Cleaned| {
        assert_eq!(said.get(seen.len()), Some(&(waste.clone(), end.clone())), "as it was said");
        seen.push((waste.what.as_str(), *end == Cleaned::Removed));
    };
    let did = runner.clean(&mut say).await;
    assert_eq!(would, did);
    assert_eq!(said.len(), seen.len(), "all that was said: {said:?}");
    seen
}

#[tokio::test(start_paused = true)]
async fn a_workspace_goes_only_if_git_finds_nothing_that_is_nowhere_else() {
    let world = World::new();
    let runner = long_stopped(&world).await;
    for found in [
        "covibes-work uncommitted in the workspace: src/app.js",
        "covibes-work unpushed commits 1a2b3c4",
        "covibes-work stashed changes",
    ] {
        world.says("look", &[found, "covibes-looked"]);
        assert_eq!(clean(&runner).await, [("workspace", false)], "{found}");
    }
    // Git that does not come to an end says nothing.
    world.says("look", &["covibes-work half a look"]);
    assert_eq!(clean(&runner).await, [("workspace", false)]);
    assert!(world.paths(TEAM).contains(&PathBuf::from(WORKSPACE)));
    assert!(!world.leftovers(TEAM).is_empty(), "its volumes are there");

    world.says("look", &["covibes-looked"]);
    assert_eq!(clean(&runner).await, [("workspace", true)]);
    assert!(!world.paths(TEAM).contains(&PathBuf::from(WORKSPACE)));
    assert_eq!(world.leftovers(TEAM), Vec::<String>::new());
    assert!(world.record(&TeamId::parse(TEAM).unwrap()).is_some(), "the team is known still");
    // It is cloned again by its next start.
    let again = job_of(TEAM, Action::Start(Box::new(cloned())));
    assert_eq!(run(&runner, &again).await.unwrap(), Finished::Done);
}

#[tokio::test(start_paused = true)]
async fn a_team_that_runs_again_keeps_what_it_needs() {
    let world = World::new();
    world.says("look", &["covibes-looked"]);
    let runner = long_stopped(&world).await;
    let cache = "/var/covibes/cache/team_alpha/preview-main";
    world.keeps("/var/covibes/cache/team_alpha", true, 40);
    world.keeps(cache, true, 40);
    let again = job_of(TEAM, Action::Start(Box::new(cloned())));
    assert_eq!(run(&runner, &again).await.unwrap(), Finished::Done);
    assert_eq!(clean(&runner).await, []);
    let stop = job_of(TEAM, Action::Stop);
    assert_eq!(run(&runner, &stop).await.unwrap(), Finished::Done);
    assert_eq!(clean(&runner).await, [], "a stopped team is not an old one");
    world.pass(8 * 24 * 3_600_000);
    assert_eq!(clean(&runner).await, [("cache", true)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_beside_a_record_that_cannot_be_read() {
    let world = World::new();
    world.says("look", &["covibes-looked"]);
    let runner = long_stopped(&world).await;
    world.cannot_read(&TeamId::parse(TEAM).unwrap());
    assert_eq!(clean(&runner).await, []);
    let refused = runner.clean(&mut |_, _| {}).await.unwrap_err();
    assert_eq!(refused.code, Code::RecordLost);
    assert!(world.paths(TEAM).contains(&PathBuf::from(WORKSPACE)));
}
