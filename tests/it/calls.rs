//! The list of calls that `covibes plan` prints is the list that a run makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use covibes::config::hash;
use covibes::config::plan::{PlanInput, build};
use covibes::config::project::ProjectFile;
use covibes::domain::ids::{JobId, PartName, RunId, TeamId};
use covibes::domain::names::{ContainerName, ImageRef};
use covibes::domain::plan::Plan;
use covibes::domain::settings::Settings;
use covibes::domain::spec::Spec;
use covibes::pipeline::calls::calls;
use covibes::pipeline::steps;
use covibes::ports::engine::{Observed, ObservedContainer, ObservedNetwork, ObservedVolume, label};
use uuid::Uuid;

use crate::pipeline::{run, spec, start};
use crate::world::{World, open_tree};

/// The plan of a team as `covibes plan` makes it: names are right, tags and ports need not be.
fn planned(team: &TeamId, spec: &Spec) -> Plan {
    let image = ImageRef::local("planned", "planned").unwrap();
    let previews: Vec<_> = spec
        .previews
        .iter()
        .map(|preview| {
            let found = steps::detect::look(open_tree, PathBuf::new(), preview.clone(), false);
            steps::config::input(&found.unwrap(), image.clone())
        })
        .collect();
    build(&PlanInput {
        settings: &Settings::default(),
        team,
        spec,
        generation: 1,
        job: JobId(Uuid::nil()),
        run: RunId(Uuid::nil()),
        slot: 0,
        ports: &BTreeMap::from([(PartName::parse("main").unwrap(), 5000)]),
        mtu: 1500,
        owner: (1000, 1000),
        workspace: Path::new("/var/covibes/workspaces/team_alpha"),
        mirror_source: None,
        agent_image: &image,
        sync_image: &image,
        previews: &previews,
        project: &ProjectFile::default(),
    })
}

/// A run's own id stands in some names.
fn without_run(name: &str) -> String {
    match name.len().checked_sub(8).map(|at| name.split_at(at)) {
        Some((head, run)) if run.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{head}<run>")
        }
        _ => name.to_owned(),
    }
}

/// What the Engine was asked to change, sorted: some of it happens at the same time.
fn made(world: &World) -> Vec<String> {
    let kinds = ["network", "volume", "container"];
    let calls = world.calls();
    let mut made: Vec<String> = calls
        .iter()
        .filter_map(|call| {
            let (operation, name) = call.split_once(' ')?;
            let (verb, kind) = operation.split_once('_')?;
            let name = without_run(name.split(' ').next()?);
            // Waiting changes nothing.
            let changes = kinds.contains(&kind) && verb != "wait";
            changes.then(|| format!("{kind} {verb} {name}"))
        })
        .collect();
    made.sort();
    made
}

fn told(plan: &Plan, observed: &Observed) -> Vec<String> {
    let calls = calls(plan, observed, |_| true);
    assert!(calls.iter().all(|call| !call.cause.is_empty()), "{calls:?}");
    let mut told: Vec<String> =
        calls.iter().map(|call| format!("{} {}", call.call, without_run(&call.on))).collect();
    told.sort();
    told
}

#[tokio::test(start_paused = true)]
async fn a_first_start_makes_the_calls_that_were_told() {
    let world = World::new();
    let runner = world.runner().await;
    let job = start(&["main"]);
    run(&runner, &job).await.unwrap();
    let team = job.team.clone();
    let told = told(&planned(&team, &spec(&["main"])), &Observed::default());
    // Images and the proxy are the host's, whatever the team.
    let made: Vec<String> =
        made(&world).into_iter().filter(|call| call.contains(team.as_str())).collect();
    assert_eq!(made, told);
}

#[test]
fn what_is_right_is_left_alone_and_what_is_not_has_its_cause() {
    let team = TeamId::parse("team_alpha").unwrap();
    let plan = planned(&team, &spec(&["main"]));
    let container = |name: &ContainerName, hash: String, state: &str| ObservedContainer {
        id: String::new(),
        name: name.clone(),
        state: state.to_owned(),
        labels: BTreeMap::from([(label::CONFIG_HASH.to_owned(), hash)]),
        host_ports: Vec::new(),
        addresses: Vec::new(),
        networks: Vec::new(),
    };
    let [sync, agent, preview] = plan.containers.as_slice() else { panic!("three containers") };
    let gone = ContainerName::from_engine("covibes_agent_team_alpha_gone").unwrap();
    let mut observed = Observed {
        containers: vec![
            container(&sync.name, hash::container(sync), "running"),
            container(&agent.name, "another".to_owned(), "running"),
            container(&preview.name, hash::container(preview), "exited"),
            container(&gone, "x".to_owned(), "running"),
        ],
        ..Observed::default()
    };
    observed.networks = plan
        .networks
        .iter()
        .map(|network| ObservedNetwork {
            name: network.name.clone(),
            labels: BTreeMap::new(),
            subnets: vec![network.subnet],
            created_unix_ms: 0,
        })
        .collect();
    observed.volumes = plan
        .volumes
        .iter()
        .map(|volume| ObservedVolume {
            name: volume.name.clone(),
            labels: BTreeMap::new(),
            device: None,
        })
        .collect();
    let told: Vec<String> = calls(&plan, &observed, |_| false)
        .into_iter()
        .map(|call| format!("{} {}: {}", call.call, call.on, call.cause))
        .collect();
    assert_eq!(
        told,
        [
            "container remove covibes_agent_team_alpha_gone: the spec no longer asks for it",
            "container stop covibes_agent_team_alpha_agent-1: its config changed",
            "container rename covibes_agent_team_alpha_agent-1: it is kept until its successor is ready",
            "container create covibes_agent_team_alpha_agent-1: its config changed",
            "container start covibes_agent_team_alpha_agent-1: its config changed",
            "container start covibes_preview_team_alpha_main: it does not run",
            "container remove covibes_agent_team_alpha_agent-1.old-<run>: its successor is ready",
        ]
    );
}
