//! The daemon's stream of events.
//!
//! Not filtered by label, because events about networks and volumes carry none;
//! by kind, so that the many execs of health checks stay away.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;

use super::map::error;
use crate::domain::names::ContainerName;
use crate::ports::engine::{
    EngineContainerFact, EngineEvent, EngineEvents, EngineFact, EngineMoment,
};

const NANOS: i64 = 1_000_000_000;

/// What is listened for.
const ACTIONS: [&str; 9] =
    ["start", "die", "kill", "stop", "pause", "unpause", "oom", "destroy", "disconnect"];

/// Follows from `since` on.
pub(super) fn follow(docker: Docker, since: Option<EngineMoment>) -> EngineEvents {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let options = EventsOptions {
        since: since.map(|EngineMoment(nanos)| moment_text(nanos)),
        until: None,
        filters: Some(HashMap::from([
            ("type".to_owned(), list(&["container", "network", "volume"])),
            ("event".to_owned(), list(&ACTIONS)),
        ])),
    };
    read(docker, options)
}

fn read(docker: Docker, options: EventsOptions) -> EngineEvents {
    docker
        .events(Some(options))
        .filter_map(async |message| match message {
            Ok(message) => event(message).map(Ok),
            Err(e) => Some(Err(error(e, "the stream of events"))),
        })
        .boxed()
}

/// Seconds and nanoseconds, as the daemon reads them.
fn moment_text(nanos: i64) -> String {
    format!("{}.{:09}", nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS))
}

/// What a message says, if it is one that counts.
fn event(message: EventMessage) -> Option<EngineEvent> {
    let at = message.time_nano.or(message.time.map(|seconds| seconds.saturating_mul(NANOS)))?;
    let actor = message.actor?;
    let attributes: BTreeMap<String, String> =
        actor.attributes.unwrap_or_default().into_iter().collect();
    let action = message.action?;
    let name = || attributes.get("name").cloned().unwrap_or_default();
    let number = |key: &str| attributes.get(key).and_then(|text| text.parse::<i64>().ok());
    let fact = match message.typ? {
        EventMessageTypeEnum::CONTAINER => {
            let fact = match action.as_str() {
                "start" => EngineContainerFact::Started,
                "die" => EngineContainerFact::Died { exit_code: number("exitCode").unwrap_or(-1) },
                "kill" => EngineContainerFact::Signalled {
                    signal: number("signal").and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
                },
                "stop" => EngineContainerFact::Stopped,
                "pause" => EngineContainerFact::Paused,
                "unpause" => EngineContainerFact::Unpaused,
                "oom" => EngineContainerFact::OutOfMemory,
                "destroy" => EngineContainerFact::Removed,
                _ => return None,
            };
            let name = ContainerName::from_engine(&name())?;
            EngineFact::Container { id: actor.id?, name, labels: attributes, fact }
        }
        EventMessageTypeEnum::NETWORK => EngineFact::Network { name: name() },
        EventMessageTypeEnum::VOLUME => EngineFact::Volume { name: actor.id? },
        _ => return None,
    };
    Some(EngineEvent { at: EngineMoment(at), fact })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<EngineEvent> {
        event(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn what_the_daemon_says_is_read() {
        let died = read(
            r#"{"Type":"container","Action":"die","time":1,"timeNano":1500000000,
                "Actor":{"ID":"abc","Attributes":{"name":"covibes_sync_a","exitCode":"137",
                "covibes.team":"a"}}}"#,
        )
        .unwrap();
        assert_eq!(died.at, EngineMoment(1_500_000_000));
        let EngineFact::Container { id, labels, fact, .. } = died.fact else { panic!() };
        assert_eq!((id.as_str(), fact), ("abc", EngineContainerFact::Died { exit_code: 137 }));
        assert_eq!(labels["covibes.team"], "a");
        let gone = r#"{"Type":"network","Action":"destroy","timeNano":7,
            "Actor":{"ID":"x","Attributes":{"name":"covibes_agent_net_a","type":"bridge"}}}"#;
        let fact = EngineFact::Network { name: "covibes_agent_net_a".to_owned() };
        assert_eq!(read(gone), Some(EngineEvent { at: EngineMoment(7), fact }));
    }

    #[test]
    fn what_does_not_count_is_passed_over() {
        for message in [
            r#"{"Type":"image","Action":"pull","timeNano":7,"Actor":{"ID":"x","Attributes":{}}}"#,
            r#"{"Type":"container","Action":"exec_die","timeNano":7,
                "Actor":{"ID":"x","Attributes":{"name":"y"}}}"#,
            r#"{"Type":"container","Action":"die","timeNano":7,
                "Actor":{"ID":"x","Attributes":{"name":"../y"}}}"#,
            r#"{"Type":"container","Action":"die","timeNano":7}"#,
            r#"{}"#,
        ] {
            assert_eq!(read(message), None, "{message}");
        }
        assert_eq!(moment_text(1_500_000_001), "1.500000001");
    }
}
