//! What should be there of a team, by its record.

use std::time::Duration;

use crate::domain::event::TeamState;
use crate::domain::ids::{PartName, TeamId};
use crate::domain::names::{ContainerName, Names};
use crate::domain::plan::Role;
use crate::domain::record::TeamRecord;
use crate::domain::settings::Settings;

/// One part that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPart {
    /// Its container.
    pub name: ContainerName,
    /// What it is for.
    pub role: Role,
    /// Which agent or preview.
    pub part: Option<PartName>,
    /// The host port of a preview.
    pub port: Option<u16>,
    /// The link of a preview.
    pub url: Option<String>,
}

/// What should be there of a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whether its parts should run.
    pub up: bool,
    /// The state that its last job left.
    pub state: TeamState,
    /// Counts the accepted specs.
    pub generation: u64,
    /// Its parts; nothing if only its labels are known.
    pub parts: Vec<WantedPart>,
    /// Its networks.
    pub networks: Vec<String>,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// When its `ttl` began to count, in unix milliseconds.
    pub started_unix_ms: Option<i64>,
    /// How long it may run.
    pub ttl: Option<Duration>,
    /// How long nothing may happen.
    pub idle_stop: Option<Duration>,
}

impl Wanted {
    /// Reads a record.
    #[must_use]
    pub fn of(settings: &Settings, record: &TeamRecord) -> Self {
        let names = Names::new(&settings.instance, &record.team);
        let (mut parts, mut volumes) = (Vec::new(), Vec::new());
        if let Some(spec) = &record.spec {
            let plain = |role, part: Option<&PartName>| WantedPart {
                name: names.container(role, part),
                role,
                part: part.cloned(),
                port: None,
                url: None,
            };
            volumes.push(names.workspace_volume().to_string());
            parts.push(plain(Role::Sync, None));
            for agent in &spec.agents {
                parts.push(plain(Role::Agent, Some(&agent.name)));
                volumes.push(names.agent_temp_volume(&agent.name).to_string());
            }
            for preview in &spec.previews {
                let port = record.ports.get(&preview.name).copied();
                let link = |port| settings.preview_link(&preview.name, &record.team, port);
                let url = port.map(link);
                let part = plain(Role::Preview, Some(&preview.name));
                parts.push(WantedPart { port, url, ..part });
                volumes.push(names.preview_cache_volume(&preview.name).to_string());
                volumes.push(names.preview_modules_volume(&preview.name).to_string());
            }
        }
        Self {
            up: record.up,
            state: record.state,
            generation: record.generation,
            networks: match parts.is_empty() {
                true => Vec::new(),
                false => {
                    vec![names.agent_network().to_string(), names.preview_network().to_string()]
                }
            },
            parts,
            volumes,
            started_unix_ms: record.started_unix_ms,
            ttl: record.spec.as_ref().and_then(|spec| spec.ttl),
            idle_stop: record.spec.as_ref().and_then(|spec| spec.idle_stop),
        }
    }

    /// The network that a part of this role stands on.
    #[must_use]
    pub fn network_of(settings: &Settings, team: &TeamId, role: Role) -> Option<String> {
        let names = Names::new(&settings.instance, team);
        match role {
            Role::Agent | Role::Sync => Some(names.agent_network().to_string()),
            Role::Preview => Some(names.preview_network().to_string()),
            Role::Oneshot | Role::Egress => None,
        }
    }
}
