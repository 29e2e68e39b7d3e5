//! Signals that somebody sent to a part: a kill is told as soon as its process is gone,
//! which Docker says later.

use covibes::domain::event::TeamState;
use covibes::ports::engine::EngineContainerFact;

use super::{AGENT, Host, MINUTE, SECOND};
use crate::pipeline::spec;

/// A host on which processes can be seen, with a team that was looked at.
async fn host_with_processes() -> Host {
    let host = Host::with_team(spec(&["main"])).await;
    host.world.has_processes();
    // A listing finds the process, a reading what it uses.
    host.during(MINUTE, async { host.world.says_of(AGENT, EngineContainerFact::Started) }).await;
    host
}

#[tokio::test(start_paused = true)]
async fn a_killed_part_is_told_before_docker_says_so_and_once() {
    let host = host_with_processes().await;
    let before = host.told().len();
    host.during(20 * SECOND, async {
        host.world.says_of(AGENT, EngineContainerFact::Signalled { signal: 9 });
        tokio::time::sleep(SECOND / 10).await;
        assert_eq!(host.kinds(before), ["container.exited"], "Docker has said nothing yet");
        // Whoever asks Docker meanwhile hears of what was.
        host.world.loses_network("covibes_agent_net_team_alpha");
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(host.kinds(before), ["container.exited"]);
        host.world.ends(AGENT, 137);
    })
    .await;
    let told = host.told().split_off(before);
    assert_eq!(told[0].1["exit_code"], 137, "{told:?}");
    assert_eq!(told[0].1["cause"], "somebody sent it signal 9");
    let exits = told
        .iter()
        .filter(|(kind, data)| kind == "container.exited" && data["part"] == told[0].1["part"]);
    assert_eq!(exits.count(), 1, "{told:?}");
    assert_eq!(host.part(AGENT).state, "running");
    assert_eq!(host.picture().state, TeamState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_signal_from_outside_that_ends_a_part_is_no_stop() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.during(20 * SECOND, async {
        host.world.says_of(AGENT, EngineContainerFact::Signalled { signal: 15 });
        host.world.ends(AGENT, 143);
    })
    .await;
    let told = host.told().split_off(before);
    assert_eq!(told[0].0, "container.exited", "{told:?}");
    assert_eq!(told[0].1["cause"], "somebody sent it signal 15");
    assert_eq!(told[1].0, "container.restarted", "{told:?}");
    assert!(!host.part(AGENT).stopped_by_hand);
}

#[tokio::test(start_paused = true)]
async fn a_stop_whose_grace_is_over_is_told_as_a_stop() {
    let host = host_with_processes().await;
    let before = host.told().len();
    host.during(20 * SECOND, async {
        host.world.says_of(AGENT, EngineContainerFact::Signalled { signal: 15 });
        tokio::time::sleep(10 * SECOND).await;
        host.world.says_of(AGENT, EngineContainerFact::Signalled { signal: 9 });
        tokio::time::sleep(SECOND / 10).await;
        assert!(host.kinds(before).is_empty(), "{:?}", host.told());
        host.world.ends(AGENT, 137);
        host.world.says_of(AGENT, EngineContainerFact::Stopped);
    })
    .await;
    let told = host.told().split_off(before);
    let exits: Vec<_> = told.iter().filter(|(kind, _)| kind == "container.exited").collect();
    assert_eq!(exits.len(), 1, "{told:?}");
    assert!(exits[0].1["cause"].as_str().unwrap().contains("stopped it by hand"), "{told:?}");
    assert!(host.part(AGENT).stopped_by_hand);
}

#[tokio::test(start_paused = true)]
async fn a_killed_part_that_docker_goes_on_to_call_running_is_believed_in_the_end() {
    let host = host_with_processes().await;
    host.during(2 * MINUTE, async {
        host.world.says_of(AGENT, EngineContainerFact::Signalled { signal: 9 });
    })
    .await;
    assert_eq!(host.part(AGENT).state, "running");
    assert_eq!(host.picture().state, TeamState::Running);
}
