//! Commands that change nothing: `detect`, `plan`, `compose`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::app::configuration::Configuration;
use crate::app::local::as_local;
use crate::app::stdout::outln;
use crate::app::wiring::open_tree;
use crate::config::plan::{PlanInput, PreviewInput};
use crate::domain::failure::Code;
use crate::domain::findings::{Findings, Language};
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::names::ImageRef;
use crate::domain::plan::Plan;
use crate::domain::spec::{
    AgentSpec, LimitsWish, PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource,
};
use crate::pipeline::steps::detect;

/// Says what a directory is.
///
/// # Errors
/// It is nothing that is known, or cannot be read.
pub fn findings(directory: &Path) -> anyhow::Result<Findings> {
    let tree = open_tree(directory).map_err(explain)?;
    let file = detect::project_file(tree.as_ref()).map_err(explain)?;
    let project = file.as_ref().and_then(|f| f.preview("main"));
    detect::findings(tree.as_ref(), project).map_err(explain)
}

/// As [`findings`], but a directory that is nothing known is said to be that: for a person or a
/// script that asks, this is an answer.
///
/// # Errors
/// It cannot be read.
pub fn answer(directory: &Path) -> anyhow::Result<Findings> {
    let tree = open_tree(directory).map_err(explain)?;
    let file = detect::project_file(tree.as_ref()).map_err(explain)?;
    let project = file.as_ref().and_then(|f| f.preview("main"));
    match detect::findings(tree.as_ref(), project) {
        Err(failure) if failure.code == Code::DetectUnknownProject => {
            let mut findings = Findings::blank(".");
            let hint = failure.code.hint();
            findings.warnings.push(format!("{}. {hint}", failure.message));
            Ok(findings)
        }
        found => found.map_err(explain),
    }
}

/// A failure as a person reads it.
fn explain(failure: crate::domain::failure::Failure) -> anyhow::Error {
    anyhow::anyhow!("{} ({}). {}", failure.message, failure.code, failure.code.hint())
}

/// Prints findings for a person.
pub fn print_findings(findings: &Findings) {
    outln!("language         {}", findings.language.as_str());
    outln!("framework        {}", findings.framework.as_str());
    outln!("package manager  {}", findings.package_manager.as_str());
    if let Some(runtime) = &findings.runtime {
        outln!("runtime          {} {}", runtime.name.as_str(), runtime.version);
    }
    outln!("app              {}", findings.app_dir);
    outln!("install          {}", findings.install.as_deref().unwrap_or("-"));
    outln!("dev              {}", findings.dev_command().as_deref().unwrap_or("-"));
    outln!("port             {}", findings.port.map_or("-".to_owned(), |p| p.to_string()));
    outln!();
    for evidence in &findings.evidence {
        outln!("{}: {} ({}: {})", evidence.field, evidence.value, evidence.file, evidence.why);
    }
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
}

/// The plan that `covibes up` would begin with for a directory: first subnets,
/// first port, image tags left open.
///
/// # Errors
/// As [`findings`].
pub fn plan(configuration: Configuration, directory: &Path, team: &str) -> anyhow::Result<Plan> {
    let configuration = as_local(configuration)?;
    let settings = &configuration.settings;
    let directory = directory.canonicalize().context("cannot find the directory")?;
    let findings = findings(&directory)?;
    let team = TeamId::parse(team)?;
    let main = PartName::parse("main")?;
    let image = |name: &str| {
        ImageRef::local(name, "planned").context("an image name of our own is not plain")
    };
    let runtime = match findings.language {
        Language::Python => "preview-python",
        Language::Static => "preview-static",
        _ => "preview-node",
    };
    let spec = Spec {
        workspace: WorkspaceSource::Local,
        agents: vec![AgentSpec {
            name: PartName::parse("agent-1")?,
            secrets: BTreeMap::new(),
            env: BTreeMap::new(),
            limits: LimitsWish::default(),
            prompt: None,
        }],
        previews: vec![PreviewSpec { name: main.clone(), branch: None, ttl: None }],
        sync_interval: SYNC_INTERVAL_DEFAULT,
        ttl: None,
        idle_stop: None,
    };
    let previews = [PreviewInput {
        spec: spec.previews[0].clone(),
        findings,
        image: image(runtime)?,
        worktree: false,
        inputs_digest: String::new(),
        limits: LimitsWish::default(),
    }];
    let first_port = (settings.preview_ports.0..=settings.preview_ports.1)
        .find(|p| settings.is_preview_port(*p))
        .context("`preview.ports` leaves no port")?;
    let nil = uuid::Uuid::nil();
    Ok(crate::config::plan::build(&PlanInput {
        settings,
        team: &team,
        spec: &spec,
        generation: 1,
        job: JobId(nil),
        run: RunId(nil),
        slot: 0,
        ports: &BTreeMap::from([(main, first_port)]),
        mtu: 1500,
        owner: (1000, 1000),
        workspace: &directory,
        mirror_source: None,
        agent_image: &image("agent")?,
        sync_image: &image("sync")?,
        previews: &previews,
    }))
}

/// Prints a plan for a person.
pub fn print_plan(plan: &Plan) {
    outln!("team {}", plan.team);
    for network in &plan.networks {
        outln!("  network    {}  {}  {}", network.name, network.subnet, network.bridge);
    }
    for volume in &plan.volumes {
        outln!("  volume     {}", volume.name);
    }
    for install in &plan.installs {
        outln!("  install    {}  {}", install.preview, install.container.command.join(" "));
    }
    for container in &plan.containers {
        outln!(
            "  container  {}  {}  {} MiB, {} CPU",
            container.name,
            container.image,
            container.limits.memory_bytes >> 20,
            f64::from(container.limits.cpu_millis) / 1000.0
        );
    }
    for (preview, link) in &plan.links {
        outln!("  preview    {preview}  {link}");
    }
}
