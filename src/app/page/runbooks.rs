//! The runbooks, so that a link to one works on a host without the repository.

macro_rules! runbooks {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each.
        const ALL: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../docs/runbooks/", $name, ".md"))),)*
        ];
    };
}

runbooks![
    "BrokerDisconnected",
    "ContainerOomKills",
    "DiskLow",
    "DockerUnavailable",
    "EventPublishFailing",
    "HostLost",
    "JobFailureRatioHigh",
    "JobStuck",
    "JobsWithoutPlace",
    "MessagesDeadLettered",
    "OrphansGrowing",
    "PreviewPortsLow",
    "QueueWaitHigh",
    "WorkerAbsent",
];

/// A runbook's text, which reads well as it is.
pub(super) fn of(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        let mut files = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(of(&name).is_some(), "{name} is not served; add it to the list");
            files += 1;
        }
        assert_eq!(files, ALL.len());
    }
}
