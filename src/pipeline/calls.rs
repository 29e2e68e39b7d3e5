//! What a start would ask of the Engine, as a list of single calls with their causes.
//!
//! `covibes plan` prints it, and a test compares it with the calls that a run really makes. Like
//! a run it is made of what is planned and what was observed, and like a run it leaves alone
//! what is right. Looking is not listed: nothing changes by it.

use crate::domain::plan::{InstallPlan, NetworkPlan, Plan};
use crate::ports::engine::Observed;

use super::converge::{self, ChangeKind};

/// One changing call to the Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is asked for, in the Engine's words.
    pub call: &'static str,
    /// The container, network or volume.
    pub on: String,
    /// Why, for people.
    pub cause: String,
}

impl Call {
    fn new(call: &'static str, on: impl ToString, cause: impl Into<String>) -> Self {
        Self { call, on: on.to_string(), cause: cause.into() }
    }
}

/// Lists the calls that bring a host from what was observed to the plan.
///
/// `needs_install` says whether the modules of an install are not there yet.
#[must_use]
pub fn calls(
    plan: &Plan,
    observed: &Observed,
    needs_install: impl Fn(&InstallPlan) -> bool,
) -> Vec<Call> {
    let installs: Vec<&InstallPlan> =
        plan.installs.iter().filter(|install| needs_install(install)).collect();
    let changes = converge::difference(plan, observed);
    let networks: Vec<&NetworkPlan> =
        plan.networks
            .iter()
            .filter(|planned| {
                !observed.networks.iter().any(|found| {
                    found.name == planned.name && found.subnets.contains(&planned.subnet)
                })
            })
            .collect();
    let mut calls = Vec::new();
    if !installs.is_empty() || !changes.is_empty() || !networks.is_empty() {
        for network in &networks {
            let wrong = observed.networks.iter().any(|found| found.name == network.name);
            if wrong {
                calls.push(Call::new("network remove", &network.name, "its subnet is another"));
            }
            calls.push(Call::new("network create", &network.name, "it does not exist"));
        }
        for volume in &plan.volumes {
            if !observed.volumes.iter().any(|found| found.name == volume.name) {
                calls.push(Call::new("volume create", &volume.name, "it does not exist"));
            }
        }
    }
    for install in installs {
        let name = &install.container.name;
        let cause = format!("dependencies of preview {} are not installed", install.preview);
        calls.push(Call::new("volume create", &install.overlay, cause.clone()));
        calls.push(Call::new("container create", name, cause.clone()));
        calls.push(Call::new("container start", name, cause));
        calls.push(Call::new("container remove", name, "the install has ended"));
        calls.push(Call::new("volume remove", &install.overlay, "the install has ended"));
    }
    let (removals, others): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.kind == ChangeKind::Remove);
    for change in removals {
        calls.push(Call::new("container remove", &change.name, change.cause));
    }
    for change in &others {
        if change.kind == ChangeKind::Replace {
            calls.push(Call::new("container stop", &change.name, change.cause));
            calls.push(Call::new(
                "container rename",
                &change.name,
                "it is kept until its successor is ready",
            ));
        }
        if change.kind != ChangeKind::Start {
            calls.push(Call::new("container create", &change.name, change.cause));
        }
        calls.push(Call::new("container start", &change.name, change.cause));
    }
    for change in others.iter().filter(|change| change.kind == ChangeKind::Replace) {
        let side = format!("{}.old-<run>", change.name);
        calls.push(Call::new("container remove", side, "its successor is ready"));
    }
    calls
}
