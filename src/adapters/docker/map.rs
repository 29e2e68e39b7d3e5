//! From bollard's words to ours.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use bollard::errors::Error;
use bollard::models;

use crate::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use crate::domain::plan::Owner;
use crate::ports::engine::{
    ContainerState, EngineError, ObservedContainer, ObservedImage, ObservedNetwork, ObservedVolume,
    OnLine, label,
};

/// What the daemon says when its helpers still hold a container that it takes for
/// stopped: after a restart of the daemon, at each start (Docker 20.10).
const LOST: [&str; 2] = [": already exists", "container with given id already exists"];

/// Classifies an error once.
pub(super) fn error(error: Error, what: &str) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            let lower = message.to_ascii_lowercase();
            if lower.contains("pool overlaps") {
                EngineError::SubnetOverlap
            } else if lower.contains("port is already allocated")
                || lower.contains("address already in use")
                || lower.contains("ports are not available")
            {
                EngineError::PortTaken
            } else if LOST.iter().any(|words| lower.contains(words)) {
                EngineError::Lost { what: what.to_owned() }
            } else if status_code == 404 {
                EngineError::NotFound { what: what.to_owned() }
            } else if status_code == 409 && lower.contains("already in use") {
                EngineError::Conflict { what: what.to_owned() }
            } else {
                EngineError::Refused { status: status_code, message }
            }
        }
        // Everything else happened on the way: no daemon, a cut connection, a
        // body that ended early.
        other => EngineError::Unreachable { source: Box::new(other) },
    }
}

pub(super) fn is_not_found(error: &EngineError) -> bool {
    matches!(error, EngineError::NotFound { .. })
}

/// Turns the statuses that mean "already so" into success.
pub(super) fn already(
    result: Result<(), EngineError>,
    statuses: &[u16],
) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound { .. }) if statuses.contains(&404) => Ok(()),
        Err(EngineError::Refused { status, .. }) if statuses.contains(&status) => Ok(()),
        other => other,
    }
}

/// Whether labels say that a thing belongs to the same instance and team.
pub(super) fn owned(labels: &BTreeMap<String, String>, owner: &Owner) -> bool {
    labels.get(label::INSTANCE).map(String::as_str) == Some(owner.instance.as_str())
        && labels.get(label::TEAM).map(String::as_str)
            == owner.team.as_ref().map(crate::domain::ids::TeamId::as_str)
}

pub(super) fn container(summary: models::ContainerSummary) -> Option<ObservedContainer> {
    let names = summary.names.unwrap_or_default();
    let name = names.first()?.trim_start_matches('/').to_owned();
    let networks = summary.network_settings.and_then(|s| s.networks).unwrap_or_default();
    Some(ObservedContainer {
        id: summary.id.unwrap_or_default(),
        name: ContainerName::from_engine(&name)?,
        state: summary.state.map(|s| s.to_string()).unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        host_ports: summary
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|p| p.public_port)
            .collect(),
        addresses: networks.values().filter_map(|n| n.ip_address.as_ref()?.parse().ok()).collect(),
        networks: networks.into_keys().collect(),
    })
}

pub(super) fn network(network: models::Network) -> Option<ObservedNetwork> {
    let configs = network.ipam.and_then(|i| i.config).unwrap_or_default();
    let created = network.created.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    Some(ObservedNetwork {
        name: NetworkName::from_engine(&network.name?)?,
        labels: network.labels.unwrap_or_default().into_iter().collect(),
        subnets: configs.into_iter().filter_map(|c| c.subnet?.parse().ok()).collect(),
        created_unix_ms: created.map_or(0, jiff::Timestamp::as_millisecond),
    })
}

pub(super) fn volume(volume: models::Volume) -> Option<ObservedVolume> {
    Some(ObservedVolume {
        name: VolumeName::from_engine(&volume.name)?,
        labels: volume.labels.into_iter().collect(),
        device: volume.options.get("device").map(PathBuf::from),
    })
}

/// Each name of an image that is this project's.
/// One for each name of an image.
pub(super) fn images(
    image: models::ImageSummary,
    used: &HashSet<String>,
) -> impl Iterator<Item = ObservedImage> + use<> {
    let in_use = used.contains(&image.id);
    let (created_unix_s, bytes) = (image.created, u64::try_from(image.size).unwrap_or(0));
    let names = image.repo_tags.into_iter().filter_map(|tag| ImageRef::from_engine(&tag));
    names.map(move |name| ObservedImage { name, created_unix_s, bytes, in_use })
}

pub(super) fn container_state(found: models::ContainerInspectResponse) -> ContainerState {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|s| s.networks).unwrap_or_default();
    ContainerState {
        // Docker says so also of what is paused, or waits to be started again.
        running: state.running.unwrap_or(false)
            && !state.restarting.unwrap_or(false)
            && !state.paused.unwrap_or(false),
        status: state.status.map(|s| s.to_string()).unwrap_or_default(),
        exit_code: state.exit_code,
        oom_killed: state.oom_killed.unwrap_or(false),
        restart_count: u64::try_from(found.restart_count.unwrap_or(0)).unwrap_or(0),
        pid: state.pid.and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 0),
        address: networks.into_values().find_map(|n| n.ip_address?.parse().ok()),
        labels: found.config.and_then(|c| c.labels).unwrap_or_default().into_iter().collect(),
    }
}

/// Longest line that is passed on; the rest of a longer one is dropped.
const LINE_BYTES_MAX: usize = 4096;

/// Splits output into lines, whatever its chunks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn push(&mut self, chunk: &[u8], on_line: OnLine<'_>) {
        for byte in chunk {
            if matches!(byte, b'\n' | b'\r') {
                self.finish(on_line);
            } else if self.partial.len() < LINE_BYTES_MAX {
                self.partial.push(*byte);
            }
        }
    }

    pub(super) fn finish(&mut self, on_line: OnLine<'_>) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if !line.is_empty() {
            on_line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_survive_any_chunking() {
        let seen = Mutex::new(Vec::new());
        let mut lines = Lines::default();
        for chunk in ["ab", "c\nde", "\r\n", "f"] {
            lines.push(chunk.as_bytes(), &|l| seen.lock().unwrap().push(l.to_owned()));
        }
        lines.finish(&|l| seen.lock().unwrap().push(l.to_owned()));
        assert_eq!(seen.into_inner().unwrap(), ["abc", "de", "f"]);
    }

    #[test]
    fn the_daemons_words_become_one_class_each() {
        let answer = |status_code, message: &str| {
            error(
                Error::DockerResponseServerError { status_code, message: message.to_owned() },
                "x",
            )
        };
        assert!(matches!(answer(404, "No such container"), EngineError::NotFound { .. }));
        assert!(matches!(answer(500, "port is already allocated"), EngineError::PortTaken));
        assert!(matches!(answer(403, "Pool overlaps with other one"), EngineError::SubnetOverlap));
        assert!(matches!(
            answer(409, "The container name \"/x\" is already in use by container y"),
            EngineError::Conflict { .. }
        ));
        assert!(matches!(
            answer(500, "Cannot restart container x: task 67452a1e760e: already exists"),
            EngineError::Lost { .. }
        ));
        assert!(matches!(answer(500, "boom"), EngineError::Refused { status: 500, .. }));
    }
}
