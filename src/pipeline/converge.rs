//! Convergence: plan and observed state in, a list of single Engine calls with
//! their causes out. The list is what `covibes plan` prints and what tests
//! compare; the executor is elsewhere.

use std::collections::BTreeSet;

use crate::config::hash;
use crate::domain::names::ContainerName;
use crate::domain::plan::{Plan, Role};
use crate::ports::engine::{Observed, ObservedContainer, label};

/// One thing to do to one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which container.
    pub name: ContainerName,
    /// What to do.
    pub kind: ChangeKind,
    /// Why, for people.
    pub cause: &'static str,
}

/// What to do to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Create and start it.
    Create,
    /// Set the old one aside, then create and start the new one.
    Replace,
    /// Start the one that is there.
    Start,
    /// Remove it.
    Remove,
}

impl ChangeKind {
    /// The verb, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Start => "start",
            Self::Remove => "remove",
        }
    }
}

/// The container under a role and part, if it has its proper name.
fn find<'a>(observed: &'a Observed, name: &ContainerName) -> Option<&'a ObservedContainer> {
    observed.containers.iter().find(|c| c.name == *name)
}

/// Whether a container is one that was set aside for its successor.
#[must_use]
pub fn is_side_name(name: &ContainerName) -> bool {
    name.as_str().contains(".old-")
}

/// What has to be done so that the containers are as planned. Empty when
/// nothing has.
#[must_use]
pub fn difference(plan: &Plan, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    for container in &plan.containers {
        let change = |kind, cause| Change { name: container.name.clone(), kind, cause };
        match find(observed, &container.name) {
            None => changes.push(change(ChangeKind::Create, "it does not exist")),
            Some(found) => {
                let planned = hash::container(container);
                let same = found.labels.get(label::CONFIG_HASH) == Some(&planned);
                match (same, found.state.as_str()) {
                    (false, _) => changes.push(change(ChangeKind::Replace, "its config changed")),
                    (true, "running") => {}
                    (true, "dead" | "removing") => {
                        changes.push(change(ChangeKind::Replace, "it is dead"));
                    }
                    (true, _) => changes.push(change(ChangeKind::Start, "it does not run")),
                }
            }
        }
    }
    let planned: BTreeSet<&ContainerName> = plan.containers.iter().map(|c| &c.name).collect();
    for found in &observed.containers {
        let role = found.labels.get(label::ROLE).and_then(|r| Role::parse(r));
        let cause = if planned.contains(&found.name) {
            continue;
        } else if is_side_name(&found.name) {
            // Its successor decides about it, at the end of the run.
            continue;
        } else if role == Some(Role::Oneshot) {
            "it was left behind by an interrupted run"
        } else {
            "the spec no longer asks for it"
        };
        changes.push(Change { name: found.name.clone(), kind: ChangeKind::Remove, cause });
    }
    changes
}
