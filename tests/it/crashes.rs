//! Deaths of the worker: each job has one end, a job that kills the worker is
//! put aside, and nobody beside it is.

use covibes::domain::failure::Code;
use covibes::domain::ids::TeamId;
use covibes::domain::job::Action;

use crate::process::{Broker, Settled, job_of, start_of};
use crate::world::World;

fn final_events(world: &World, job: &covibes::domain::job::Job) -> Vec<(String, String)> {
    let id = job.id.to_string();
    let finals = ["succeeded", "failed", "cancelled", "superseded", "rejected"];
    world
        .events()
        .into_iter()
        .filter(|event| event.body.contains(&id))
        .filter(|event| finals.iter().any(|f| event.routing_key.ends_with(&format!("job.{f}"))))
        .map(|event| (event.id, event.routing_key))
        .collect()
}

#[test]
fn poison_is_put_aside_and_nobody_beside_it() {
    let world = World::new();
    world.is_deadly("poison");
    world.is_slow("install_long");
    let broker = Broker::new(&world);
    let mut poison = Vec::new();
    let mut healthy = Vec::new();
    healthy.push(broker.publish(start_of("team_long")));
    for n in 0..24 {
        healthy.push(broker.publish(start_of(&format!("team_{n}"))));
        if n % 6 == 0 {
            poison.push(broker.publish(start_of(&format!("team_poison_{n}"))));
        }
    }
    broker.run_to_the_end();
    for index in healthy {
        assert_eq!(broker.settled(index), Some(Settled::Done), "message {index}");
    }
    for index in &poison {
        let Some(Settled::Dead(letter)) = broker.settled(*index) else { panic!("{index} lives") };
        assert_eq!(letter.reason, Code::JobPoisoned.as_str());
    }
    assert_eq!(broker.dead_letters().len(), poison.len());
    // Once unsuspected, at most once beside others, and three times alone.
    assert!(world.died() <= 5 * poison.len() as u32, "{} deaths", world.died());
    for n in [0, 6, 12, 18] {
        let team = TeamId::parse(&format!("team_poison_{n}")).unwrap();
        let record = world.record(&team).unwrap();
        let job = record.jobs.last().unwrap();
        assert_eq!(job.outcome.as_deref(), Some("failed:job.poisoned"));
        assert_eq!(job.trial.strikes, 3);
        assert_eq!(world.leftovers(team.as_str()), Vec::<String>::new());
    }
}

#[test]
fn deaths_beside_others_are_no_strikes() {
    let world = World::new();
    world.is_slow("install_long");
    let broker = Broker::new(&world);
    let long = broker.publish(start_of("team_long"));
    // Each time a new one kills the worker while that one runs, as a suspect
    // from the second time on.
    for n in 0..5 {
        broker.publish(start_of(&format!("team_{n}")));
        world.die_at(&format!("create_container covibes_agent_team_{n}_agent-1"));
        assert!(broker.run_until_deaths(1));
        let record = world.record(&TeamId::parse("team_long").unwrap()).unwrap();
        assert_eq!(record.jobs[0].trial.strikes, 0, "death {n}");
        if record.jobs[0].outcome.is_some() {
            break;
        }
    }
    broker.run_to_the_end();
    assert_eq!(broker.settled(long), Some(Settled::Done));
    assert_eq!(broker.dead_letters(), []);
    // Twice beside it; then it was alone, and ended.
    assert!(world.died() >= 3, "{}", world.died());
}

#[test]
fn a_crash_between_any_two_of_record_event_dead_letter_and_ack_gives_one_end() {
    let failing = ["saved failed:preview.exited", "told job.failed", "dead letter", "ack"];
    for moment in failing {
        let world = World::new();
        world.preview_state("failing");
        world.die_at(moment);
        let broker = Broker::new(&world);
        let job = start_of("team_a");
        let index = broker.publish(job.clone());
        broker.run_to_the_end();
        assert_eq!(world.died(), 1, "{moment}");
        let Some(Settled::Dead(letter)) = broker.settled(index) else { panic!("{moment}") };
        assert_eq!(letter.reason, "preview.exited", "{moment}");
        assert_eq!(letter.step.as_deref(), Some("health"), "{moment}");
        let said = "the dev server ended with exit code 3: Error: the last one";
        assert_eq!(letter.message, said, "{moment}");
        // Each copy says the same.
        assert!(broker.dead_letters().iter().all(|(_, copy)| *copy == letter), "{moment}");
        let ends = final_events(&world, &job);
        assert!(ends.iter().all(|end| *end == ends[0]), "{moment}: {ends:?}");
        assert_eq!(world.leftovers("team_a"), Vec::<String>::new(), "{moment}");
    }
    for moment in ["saved succeeded", "told job.succeeded", "ack"] {
        let world = World::new();
        world.die_at(moment);
        let broker = Broker::new(&world);
        let job = start_of("team_a");
        let index = broker.publish(job.clone());
        broker.run_to_the_end();
        assert_eq!((world.died(), broker.settled(index)), (1, Some(Settled::Done)), "{moment}");
        let ends = final_events(&world, &job);
        assert!(ends.iter().all(|end| *end == ends[0]), "{moment}: {ends:?}");
    }
}

#[test]
fn a_job_that_ended_before_a_crash_is_not_cancelled_after_it() {
    let world = World::new();
    let broker = Broker::new(&world);
    let start = start_of("team_a");
    broker.publish(start.clone());
    world.die_at("told job.succeeded");
    assert!(broker.run_until_deaths(1));
    // It comes again with a stop right behind it.
    let stop = broker.publish(job_of("team_a", Action::Stop));
    broker.run_to_the_end();
    assert_eq!(broker.settled(stop), Some(Settled::Done));
    let ends = final_events(&world, &start);
    assert!(ends.len() >= 2 && ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    assert!(world.containers("team_a").is_empty());
}

#[test]
fn a_start_that_fails_after_a_crash_takes_back_what_its_first_run_made() {
    let world = World::new();
    world.die_at("create_container covibes_preview_team_a_main");
    world.preview_state("failing");
    let broker = Broker::new(&world);
    let index = broker.publish(start_of("team_a"));
    broker.run_to_the_end();
    assert_eq!(world.died(), 1);
    assert!(matches!(broker.settled(index), Some(Settled::Dead(_))));
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
    assert_eq!(world.paths("team_a"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_job_whose_time_is_over_after_a_crash_leaves_nothing() {
    let world = World::new();
    world.die_at("create_container covibes_preview_team_a_main");
    let broker = Broker::new(&world);
    let mut job = start_of("team_a");
    job.deadline_unix_ms = Some(1_795_435_200_000 + 60_000);
    let index = broker.publish(job);
    assert!(broker.run_until_deaths(1));
    assert_ne!(world.leftovers("team_a"), Vec::<String>::new());
    world.pass(120_000);
    broker.run_to_the_end();
    let Some(Settled::Dead(letter)) = broker.settled(index) else { panic!("it was done") };
    assert_eq!(letter.reason, "job.deadline");
    assert_eq!(world.leftovers("team_a"), Vec::<String>::new());
    assert_eq!(world.paths("team_a"), Vec::<std::path::PathBuf>::new());
}
