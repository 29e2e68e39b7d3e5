//! The proxy's lists, as instances with different policies prepare one host.

use std::collections::BTreeMap;

use covibes::domain::ids::{InstanceName, TeamId};
use covibes::domain::settings::Settings;
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::JobRunner as _;
use covibes::pipeline::lease::TeamLeases;

use crate::process::start_of;
use crate::world::World;

const LISTS: &str = "/var/covibes/host/egress";

fn settings(instance: &str, hosts: &[&str]) -> Settings {
    let mut settings = Settings::default().for_instance(InstanceName::parse(instance).unwrap());
    settings.egress.allow = hosts.iter().map(|host| (*host).to_owned()).collect();
    settings.egress.groups = BTreeMap::new();
    settings.git.hosts = Vec::new();
    settings
}

/// A start by a process of its own; says how often the proxy had to read.
async fn prepare(world: &World, settings: Settings) -> usize {
    world.forget_calls();
    let runner = world.runner_of(settings).await;
    let job = start_of("team_a");
    let (_interrupter, interrupt) = interrupt::pair();
    let lease = TeamLeases::default().acquire(&job.team).await;
    runner.run(lease, &job, interrupt).await.unwrap();
    world.calls().iter().filter(|call| call.starts_with("hangup_container")).count()
}

fn allowed(world: &World) -> Vec<String> {
    let text = world.file(&format!("{LISTS}/allowed-hosts.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn instances_with_other_policies_do_not_take_hosts_from_each_other() {
    let world = World::new();
    let one = || settings("one", &["api.one.example", "both.example"]);
    let two = || settings("two", &["api.two.example", "both.example"]);
    prepare(&world, one()).await;
    let both = ["api.one.example", "api.two.example", "both.example"];
    assert_eq!(prepare(&world, two()).await, 1);
    assert_eq!(allowed(&world), both);
    // From here on nobody has anything to read.
    for _ in 0..2 {
        assert_eq!(prepare(&world, one()).await, 0);
        assert_eq!(prepare(&world, two()).await, 0);
        assert_eq!(allowed(&world), both);
    }
    // What its instance takes back, and what nobody confirms any more, goes.
    assert_eq!(prepare(&world, settings("two", &["both.example"])).await, 1);
    assert_eq!(allowed(&world), ["api.one.example", "both.example"]);
    world.pass(8 * 24 * 3_600 * 1_000);
    assert_eq!(prepare(&world, two()).await, 1);
    assert_eq!(allowed(&world), ["api.two.example", "both.example"]);
    assert!(world.file(&format!("{LISTS}/policies/one.txt")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_team_gets_its_own_hosts_with_its_networks() {
    let world = World::new();
    let mut policy = settings("one", &["api.example"]);
    let team = TeamId::parse("team_a").unwrap();
    policy.egress.teams.insert(team.clone(), vec!["only.example".to_owned()]);
    prepare(&world, policy.clone()).await;
    let slot = world.record(&team).unwrap().slot.unwrap();
    let text = world.file(&format!("{LISTS}/teams.conf")).unwrap();
    let source = format!("src 172.21.{}.{}/27", slot / 8, slot % 8 * 32);
    assert!(text.contains(&source) && text.contains("only.example"), "{text}");
    assert!(!allowed(&world).contains(&"only.example".to_owned()));
    // A new process knows it by the record, and has nothing new to say.
    assert_eq!(prepare(&world, policy).await, 0);
}
