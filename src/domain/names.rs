//! Names of Docker resources, built from checked identifiers only.
//!
//! Every instance other than the default one has its name in every resource,
//! so two workers on one daemon cannot meet.

use std::fmt;

use super::ids::{InstanceName, PartName, TeamId};
use super::plan::Role;

macro_rules! docker_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as the Engine knows it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Takes a name that the Engine reported, or that this program
            /// made, if it can stand in a request path.
            #[must_use]
            pub fn from_engine(raw: &str) -> Option<Self> {
                let ok = !raw.is_empty()
                    && raw.len() <= 200
                    && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
                    && raw.as_bytes()[0].is_ascii_alphanumeric();
                ok.then(|| Self(raw.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

docker_name!(
    /// A container's name, or its id where the Engine reported one.
    ContainerName
);
docker_name!(
    /// A network's name.
    NetworkName
);
docker_name!(
    /// A volume's name.
    VolumeName
);

/// A reference to a local image, `covibes/<name>:<tag>`, or an image id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef(String);

impl ImageRef {
    /// Names an image of this project by its content tag.
    ///
    /// Returns `None` when either part could break out of a request path.
    #[must_use]
    pub fn local(name: &str, tag: &str) -> Option<Self> {
        let plain = |s: &str| {
            !s.is_empty()
                && s.len() <= 64
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
                && !s.contains("..")
        };
        (plain(name) && plain(tag)).then(|| Self(format!("covibes/{name}:{tag}")))
    }

    /// Reads what the Engine calls an image, if it is one of this project's.
    #[must_use]
    pub fn from_engine(raw: &str) -> Option<Self> {
        let (name, tag) = raw.strip_prefix("covibes/")?.split_once(':')?;
        Self::local(name, tag)
    }

    /// The reference as the Engine knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Builds the names of one team's resources in one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names<'a> {
    instance: &'a InstanceName,
    team: &'a TeamId,
}

impl<'a> Names<'a> {
    /// Names for `team` in `instance`.
    #[must_use]
    pub fn new(instance: &'a InstanceName, team: &'a TeamId) -> Self {
        Self { instance, team }
    }

    fn prefix(&self) -> String {
        if self.instance.is_default() {
            "covibes".to_owned()
        } else {
            format!("covibes.{}", self.instance)
        }
    }

    fn volume_prefix(&self) -> String {
        if self.instance.is_default() { String::new() } else { format!("{}.", self.instance) }
    }

    /// `covibes_agent_<team>_<name>`, `covibes_preview_<team>_<name>` or
    /// `covibes_sync_<team>`.
    #[must_use]
    pub fn container(&self, role: Role, part: Option<&PartName>) -> ContainerName {
        let (prefix, role) = (self.prefix(), role.as_str());
        ContainerName(match part {
            Some(part) => format!("{prefix}_{role}_{}_{part}", self.team),
            None => format!("{prefix}_{role}_{}", self.team),
        })
    }

    /// The container of a one-shot task of a run.
    #[must_use]
    pub fn oneshot(&self, task: &str, part: Option<&PartName>, run_short: &str) -> ContainerName {
        let task: String = task.chars().filter(char::is_ascii_alphanumeric).collect();
        let part = part.map_or_else(String::new, |p| format!("_{p}"));
        ContainerName(format!("{}_{task}_{}{part}_{run_short}", self.prefix(), self.team))
    }

    /// The internal network of agents and sync.
    #[must_use]
    pub fn agent_network(&self) -> NetworkName {
        NetworkName(format!("{}_agent_net_{}", self.prefix(), self.team))
    }

    /// The external network of previews.
    #[must_use]
    pub fn preview_network(&self) -> NetworkName {
        NetworkName(format!("{}_preview_net_{}", self.prefix(), self.team))
    }

    /// The volume that binds the team's workspace.
    #[must_use]
    pub fn workspace_volume(&self) -> VolumeName {
        VolumeName(format!("{}workspace_{}", self.volume_prefix(), self.team))
    }

    /// An agent's temporary directory.
    #[must_use]
    pub fn agent_temp_volume(&self, agent: &PartName) -> VolumeName {
        VolumeName(format!("{}agent_temp_{}_{agent}", self.volume_prefix(), self.team))
    }

    /// A preview's cache.
    #[must_use]
    pub fn preview_cache_volume(&self, preview: &PartName) -> VolumeName {
        VolumeName(format!("{}preview_cache_{}_{preview}", self.volume_prefix(), self.team))
    }

    /// A preview's installed modules.
    #[must_use]
    pub fn preview_modules_volume(&self, preview: &PartName) -> VolumeName {
        VolumeName(format!("{}preview_modules_{}_{preview}", self.volume_prefix(), self.team))
    }

    /// The throw-away overlay that an install sees the workspace through.
    #[must_use]
    pub fn overlay_volume(&self, preview: &PartName, run_short: &str) -> VolumeName {
        VolumeName(format!(
            "{}install_overlay_{}_{preview}_{run_short}",
            self.volume_prefix(),
            self.team
        ))
    }
}

/// The side name under which a replaced container waits for its successor.
#[must_use]
pub fn side_name(name: &ContainerName, run_short: &str) -> ContainerName {
    ContainerName(format!("{name}.old-{run_short}"))
}

/// The host name under which a preview is reached: `<preview>--<team>`, with
/// `_` as `-`. 20 + 2 + 40 characters at most, within the 63 of a host name.
/// Two teams that differ only in `_` and `-` share it; their ports differ.
#[must_use]
pub fn host_label(preview: &PartName, team: &TeamId) -> String {
    format!("{preview}--{}", team.as_str().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_instance_keeps_the_plain_names() {
        let team = TeamId::parse("team_alpha").unwrap();
        let part = PartName::parse("main").unwrap();
        let names = InstanceName::default_worker();
        let names = Names::new(&names, &team);
        assert_eq!(
            names.container(Role::Preview, Some(&part)).as_str(),
            "covibes_preview_team_alpha_main"
        );
        assert_eq!(names.container(Role::Sync, None).as_str(), "covibes_sync_team_alpha");
        assert_eq!(names.agent_network().as_str(), "covibes_agent_net_team_alpha");
        assert_eq!(names.workspace_volume().as_str(), "workspace_team_alpha");
    }

    #[test]
    fn another_instance_is_in_every_name() {
        let team = TeamId::parse("a").unwrap();
        let instance = InstanceName::parse("local").unwrap();
        let names = Names::new(&instance, &team);
        assert_eq!(names.container(Role::Sync, None).as_str(), "covibes.local_sync_a");
        assert_eq!(names.workspace_volume().as_str(), "local.workspace_a");
    }

    #[test]
    fn names_that_could_leave_a_request_path_do_not_exist() {
        for bad in ["", "a/b", "a?b", "..", "a%2f", "a b", "-a", "a\n"] {
            assert!(ContainerName::from_engine(bad).is_none(), "{bad:?}");
        }
        assert!(ImageRef::local("agent", "../x").is_none());
        assert!(ImageRef::local("agent", "0f").is_some());
    }
}
