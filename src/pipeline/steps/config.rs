//! Step 3, config: spec and findings in, the plan out.
//!
//! The merging is pure (`config::plan`); what this step adds is the choice of
//! ports, which needs a look at who has which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::layout::Layout;
use crate::config::plan::{self, PlanInput, PreviewInput};
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::Findings;
use crate::domain::ids::PartName;
use crate::domain::names::ImageRef;
use crate::domain::plan::Plan;
use crate::domain::spec::Spec;
use crate::pipeline::admission;
use crate::pipeline::own_image::{self, OwnBuilds};
use crate::pipeline::preparation::Preparation;
use crate::pipeline::run::Run;
use crate::pipeline::steps::detect::Found;
use crate::ports::engine::{Filter, label};

/// Previews with the images that run them, and those that are their repositories' own.
///
/// # Errors
/// `detect.unknown_project` without a command, `build.missing_lockfile`,
/// `build.unsupported`, `build.dockerfile_*`.
pub async fn previews(
    run: &Run<'_>,
    preparation: &Preparation,
    found: &[Found],
    workspace: &Path,
) -> Result<(Vec<PreviewInput>, OwnBuilds), Failure> {
    let catalog = preparation.catalog();
    let layout = Layout::new(&run.ports.settings, run.team());
    let (mut previews, mut own_builds) = (Vec::new(), OwnBuilds::new());
    for found in found {
        let name = &found.spec.name;
        check(&Findings { install: None, ..found.findings.clone() }, name)?;
        let worktree = layout.worktrees().join(name.as_str());
        let root = if found.worktree { worktree.as_path() } else { workspace };
        let image = match own_image::read(run, catalog, found, root).await? {
            None => catalog.image(&catalog.runtime(&found.findings)?),
            Some(own) => {
                let image = own.image.clone();
                own_builds.insert(name.clone(), own);
                image
            }
        };
        let mut preview = input(found, image);
        if own_builds.contains_key(name) {
            // Its Dockerfile installs.
            preview.findings.install = None;
        }
        check(&preview.findings, name)?;
        previews.push(preview);
    }
    Ok((previews, own_builds))
}

/// What was found out about a preview, with the image that runs it.
#[must_use]
pub fn input(found: &Found, image: ImageRef) -> PreviewInput {
    PreviewInput {
        spec: found.spec.clone(),
        findings: found.findings.clone(),
        image,
        worktree: found.worktree,
        inputs_digest: found.inputs_digest.clone(),
        limits: found.limits,
        writable: found.writable.clone(),
        mode: found.mode,
    }
}

/// Whether a preview can be built and run at all.
///
/// # Errors
/// `detect.unknown_project` without a command, `build.missing_lockfile`.
pub fn check(findings: &Findings, preview: &PartName) -> Result<(), Failure> {
    let is_static = findings.language == crate::domain::findings::Language::Static;
    if findings.dev.is_none() && !is_static {
        return Err(Failure::new(
            Code::DetectUnknownProject,
            format!("nothing says how to run preview {preview}"),
        ));
    }
    if findings.install.is_some() && findings.lockfile.is_none() {
        return Err(Failure::new(
            Code::BuildMissingLockfile,
            format!("the project of preview {preview} has dependencies and no lockfile"),
        ));
    }
    Ok(())
}

/// Chooses host ports and remembers them as a preference. `avoid` holds ports
/// that turned out to be taken.
///
/// # Errors
/// `port.exhausted`.
pub async fn assign_ports(
    run: &Run<'_>,
    spec: &Spec,
    avoid: &BTreeSet<u16>,
) -> Result<(), Failure> {
    let ports = run.ports;
    let settings = &ports.settings;
    let names: Vec<PartName> = spec.previews.iter().map(|p| p.name.clone()).collect();
    let record = run.reporter.record().await;
    if avoid.is_empty() && has_ports(run, &names, &record.ports) {
        return Ok(());
    }
    let filter = Filter { instance: settings.instance.clone(), team: None };
    let observed = ports.engine.list(&filter).await?;
    let own = |labels: &BTreeMap<String, String>| {
        labels.get(label::TEAM).map(String::as_str) == Some(run.team().as_str())
    };
    let mut taken: BTreeSet<u16> = BTreeSet::new();
    let mut held: BTreeSet<u16> = BTreeSet::new();
    for container in &observed.containers {
        if own(&container.labels) {
            held.extend(&container.host_ports);
        } else {
            taken.extend(&container.host_ports);
        }
    }
    // One preview's port was taken, and which is not known: those that this
    // team's running containers publish it cannot have been.
    taken.extend(avoid.difference(&held));
    let start = admission::spread(settings.instance.as_str(), run.team().as_str());
    let mut preferred = BTreeSet::new();
    for team in ports.records.teams().await? {
        // A preference only: one team's bad file is no trouble of the others.
        if team != *run.team()
            && let Ok(Some(other)) = ports.records.load(&team).await
        {
            preferred.extend(other.ports.values());
        }
    }
    loop {
        let chosen =
            admission::choose_ports(settings, &names, &record.ports, start, &taken, &preferred)?;
        // What this team's own containers hold is not free and still right.
        let mut all_free = true;
        for port in chosen.values().filter(|p| !held.contains(p)) {
            if !ports.host.port_is_free(settings.preview_ip, *port).await {
                taken.insert(*port);
                all_free = false;
            }
        }
        if all_free {
            run.reporter.update(|record| record.ports = chosen).await;
            return Ok(());
        }
    }
}

/// Whether the team's own containers hold just the ports that its previews
/// should have.
fn has_ports(run: &Run<'_>, names: &[PartName], chosen: &BTreeMap<PartName, u16>) -> bool {
    let Some(found) = run.found() else { return false };
    let held: BTreeSet<u16> =
        found.containers.iter().flat_map(|c| c.host_ports.iter().copied()).collect();
    chosen.len() == names.len()
        && names.iter().all(|name| chosen.get(name).is_some_and(|port| held.contains(port)))
        && chosen.values().all(|port| run.ports.settings.is_preview_port(*port))
}

/// Resolves the plan and writes the compose file that shows it.
///
/// # Errors
/// The compose file cannot be written.
pub async fn resolve(run: &Run<'_>, input: &PlanInput<'_>) -> Result<(Plan, String), Failure> {
    let plan = plan::build(input);
    let text = crate::config::compose::render(&plan);
    let path = Layout::new(&run.ports.settings, run.team()).compose();
    // Unchanged text is not written again: a start that changes nothing should
    // cost no disk write.
    if run.ports.host.read_file(&path).await?.as_deref() != Some(text.as_bytes()) {
        run.ports.host.write_file(&path, text.as_bytes(), 0o600, 0).await?;
    }
    let message = format!(
        "{} containers, {} volumes, generation {}",
        plan.containers.len(),
        plan.volumes.len(),
        plan.generation
    );
    Ok((plan, message))
}
