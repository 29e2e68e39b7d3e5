//! `covibes plan`: what a start would do here, without doing it.
//!
//! If Docker answers, the plan is held against what the team has there; else against an empty
//! host. Slot, ports and generation are those of the team's record, if there is one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::explain::{Decision, decisions};
use super::explained;
use crate::adapters::host::LinuxHost;
use crate::adapters::records;
use crate::app::configuration::Configuration;
use crate::app::local::{agent, as_local};
use crate::app::stdout::outln;
use crate::app::wiring::{image_sources, open_tree};
use crate::app::worker::teams::engine;
use crate::config::hash;
use crate::config::layout::Layout;
use crate::config::plan::{PlanInput, PreviewInput};
use crate::config::project::ProjectFile;
use crate::domain::findings::{Findings, Language};
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::job::Action;
use crate::domain::limits::CONTAINER_UID;
use crate::domain::message::RawMessage;
use crate::domain::names::ImageRef;
use crate::domain::plan::{MountSource, NetworkChoice, Plan, Role, VolumeSource};
use crate::domain::settings::Settings;
use crate::domain::spec::{PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec, WorkspaceSource};
use crate::pipeline::calls::{Call, calls};
use crate::pipeline::image_catalog::{ImageCatalog, ImageKind};
use crate::pipeline::{own_image, steps};
use crate::ports::engine::{Engine, Filter, Observed};
use crate::ports::host::Host;

/// How long Docker has to answer before the plan is held against nothing.
const DOCKER_MAX: Duration = Duration::from_secs(5);

/// What is to be planned.
#[derive(Debug, Clone)]
pub struct Request {
    /// The project.
    pub directory: PathBuf,
    /// The team's name, if given.
    pub team: Option<String>,
    /// A start job whose spec is planned in place of what `up` would ask for.
    pub job: Option<PathBuf>,
}

/// A plan, and what would be done for it.
pub struct Dry {
    /// The plan.
    pub plan: Plan,
    /// What it was made from.
    pub spec: Spec,
    /// What is bound at `/workspace` when nothing has been copied.
    pub directory: PathBuf,
    /// Numeric user and group of the directory.
    pub directory_owner: (u32, u32),
    /// Files of the workspace that previews may write, below it, and where each leads.
    pub links: Vec<(String, String)>,
    calls: Vec<Call>,
    decisions: Vec<Decision>,
    against: String,
    notes: Vec<String>,
}

/// Plans a start.
///
/// # Errors
/// The project or the job is not fit to be started.
pub async fn plan(configuration: Configuration, request: &Request) -> anyhow::Result<Dry> {
    let configuration = as_local(configuration)?;
    let settings = &configuration.settings;
    let directory = request.directory.canonicalize().context("cannot find the directory")?;
    let tree = open_tree(&directory).map_err(|failure| explained(&failure))?;
    let project =
        steps::detect::project_file(tree.as_ref()).map_err(|failure| explained(&failure))?;
    let project = project.unwrap_or_default();
    let job = request.job.as_deref().map(read_job).transpose()?;
    let (job_team, spec) = match job {
        Some((team, spec)) => (Some(team), spec),
        None => (None, local_spec(&project, 1)?),
    };
    let team = match (&request.team, job_team) {
        (Some(raw), _) => TeamId::parse(raw)?,
        (None, Some(team)) => team,
        (None, None) => TeamId::parse("plan")?,
    };
    let host = LinuxHost::new(Vec::new());
    let mut notes = Vec::new();
    let images = Images::load(&configuration, &host, &mut notes).await;
    let metadata = directory.metadata().context("cannot look at the directory")?;
    let directory_owner = (metadata.uid(), metadata.gid());
    let layout = Layout::new(settings, &team);
    // As step 1 decides it: root's directory and a repository have a workspace of their own.
    let is_bound = spec.workspace == WorkspaceSource::Local && directory_owner.0 != 0;
    let workspace = if is_bound { directory.clone() } else { layout.workspace() };
    let owner = if is_bound { directory_owner } else { (CONTAINER_UID, CONTAINER_UID) };
    let copied = !is_bound && spec.workspace == WorkspaceSource::Local;

    let mut previews = Vec::new();
    for wanted in &spec.previews {
        let worktree = is_worktree(&spec, wanted);
        let mut found = steps::detect::look(open_tree, directory.clone(), wanted.clone(), worktree)
            .map_err(|failure| explained(&failure))?;
        crate::detect::lines::locate(tree.as_ref(), &mut found.findings);
        let runs = Findings { install: None, ..found.findings.clone() };
        steps::config::check(&runs, &wanted.name).map_err(|failure| explained(&failure))?;
        let (image, is_own) = images.runtime(settings, &found)?;
        notes.extend(found.findings.warnings.iter().cloned());
        let mut preview = steps::config::input(&found, image);
        if is_own {
            preview.findings.install = None;
        }
        steps::config::check(&preview.findings, &wanted.name)
            .map_err(|failure| explained(&failure))?;
        previews.push(preview);
    }
    let record = records::peek(&settings.state_dir.join("teams"), &team);
    let ports = ports(&configuration, &previews, record.as_ref().map(|record| &record.ports))?;
    let nil = uuid::Uuid::nil();
    let input = PlanInput {
        settings,
        team: &team,
        spec: &spec,
        generation: record.as_ref().map_or(1, |record| record.generation.max(1)),
        job: JobId(nil),
        run: RunId(nil),
        slot: record.as_ref().and_then(|record| record.slot).unwrap_or(0),
        ports: &ports,
        mtu: host.uplink_mtu().await,
        owner,
        workspace: &workspace,
        mirror_source: copied.then_some(directory.as_path()),
        agent_image: &images.own(&ImageKind::Agent)?,
        sync_image: &images.own(&ImageKind::Sync)?,
        previews: &previews,
        project: &project,
    };
    let plan = crate::config::plan::build(&input);
    let (observed, against) = observe(&configuration, &team).await;
    let needs_install = |install: &crate::domain::plan::InstallPlan| {
        let key = std::fs::read_to_string(install.modules.with_file_name("modules.key"));
        key.ok().as_ref() != Some(&install.key)
    };
    let calls = calls(&plan, &observed, needs_install);
    let job = request.job.as_ref().map(|path| path.display().to_string());
    let decisions = decisions(&input, job.as_deref());
    let mut links = BTreeMap::new();
    for preview in previews.iter().filter(|preview| !preview.worktree) {
        let app = &preview.findings.app_dir;
        for (name, target) in preview.writable_links() {
            let path = if app == "." { name } else { format!("{app}/{name}") };
            links.entry(path).or_insert(target);
        }
    }
    let links = links.into_iter().collect();
    notes.dedup();
    Ok(Dry { plan, spec, directory, directory_owner, links, calls, decisions, against, notes })
}

/// What `covibes up` asks for: the previews and agents that the project file names, else one of
/// each.
///
/// # Errors
/// A name of the project file is none.
pub fn local_spec(project: &ProjectFile, agents: usize) -> anyhow::Result<Spec> {
    let mut previews: Vec<PartName> = Vec::new();
    for name in project.previews.iter().filter_map(|preview| preview.name.as_deref()) {
        previews.push(PartName::parse(name)?);
    }
    if previews.is_empty() {
        previews.push(PartName::parse("main")?);
    }
    let mut parts: Vec<_> = (1..=agents).map(agent).collect::<anyhow::Result<_>>()?;
    if agents == 1 && !project.agents.is_empty() {
        parts.clear();
        for said in &project.agents {
            let mut part = agent(1)?;
            part.name = PartName::parse(&said.name)?;
            parts.push(part);
        }
    }
    Ok(Spec {
        workspace: WorkspaceSource::Local,
        agents: parts,
        previews: previews
            .into_iter()
            .map(|name| PreviewSpec { name, branch: None, ttl: None })
            .collect(),
        sync_interval: SYNC_INTERVAL_DEFAULT,
        ttl: None,
        idle_stop: None,
    })
}

/// Whether a preview shows another branch than the workspace does.
fn is_worktree(spec: &Spec, preview: &PreviewSpec) -> bool {
    let WorkspaceSource::Git(git) = &spec.workspace else { return false };
    preview.branch.is_some() && preview.branch != git.reference
}

fn read_job(path: &Path) -> anyhow::Result<(TeamId, Spec)> {
    let body = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value = serde_json::from_slice(&body).context("the job is not JSON")?;
    let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let message = RawMessage {
        body,
        content_type: Some("application/json".to_owned()),
        routing_key: format!("team.{}.{}", word("team_id"), word("action")),
        message_id: None,
        attempt: 1,
        redelivered: false,
        traceparent: None,
        tracestate: None,
    };
    let job = crate::wire::job::parse_job(&message)
        .map_err(|rejected| explained(&rejected.failure))
        .with_context(|| format!("{} is not a job", path.display()))?;
    match job.action {
        Action::Start(spec) => Ok((job.team, *spec)),
        _ => bail!("only a start can be planned"),
    }
}

/// The images of this program, or names that stand for them.
enum Images {
    Named(ImageCatalog),
    Planned,
}

impl Images {
    async fn load(
        configuration: &Configuration,
        host: &LinuxHost,
        notes: &mut Vec<String>,
    ) -> Self {
        let sources = image_sources(configuration);
        let loaded = match sources {
            Ok(sources) => {
                ImageCatalog::load(host, sources).await.map_err(|failure| failure.message)
            }
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok(catalog) => Self::Named(catalog),
            Err(why) => {
                notes.push(format!("images have no tags here: {why}"));
                Self::Planned
            }
        }
    }

    fn own(&self, kind: &ImageKind) -> anyhow::Result<ImageRef> {
        match self {
            Self::Named(catalog) => Ok(catalog.image(kind)),
            Self::Planned => planned(kind.name()),
        }
    }

    /// What runs a preview, and whether it is the repository's own.
    fn runtime(
        &self,
        settings: &Settings,
        found: &steps::detect::Found,
    ) -> anyhow::Result<(ImageRef, bool)> {
        match self {
            Self::Named(catalog) => {
                let explained = |failure| explained(&failure);
                match own_image::wanted(settings, catalog, &found.findings).map_err(explained)? {
                    // Its name is a digest of its content, which a start reads.
                    Some(_) => Ok((planned("own")?, true)),
                    None => {
                        let kind = catalog.runtime(&found.findings).map_err(explained)?;
                        Ok((catalog.image(&kind), false))
                    }
                }
            }
            Self::Planned => Ok((
                planned(match found.findings.language {
                    Language::Python => "preview-python",
                    Language::Static => "preview-static",
                    _ => "preview-node",
                })?,
                false,
            )),
        }
    }
}

fn planned(name: &str) -> anyhow::Result<ImageRef> {
    ImageRef::local(name, "planned").context("an image name of our own is not plain")
}

fn ports(
    configuration: &Configuration,
    previews: &[PreviewInput],
    known: Option<&BTreeMap<PartName, u16>>,
) -> anyhow::Result<BTreeMap<PartName, u16>> {
    let settings = &configuration.settings;
    let mut ports = BTreeMap::new();
    for preview in previews {
        let name = &preview.spec.name;
        let taken = |port: &u16| ports.values().any(|other| other == port);
        let kept = known.and_then(|known| known.get(name)).copied();
        let port = kept.or_else(|| {
            let mut range = settings.preview_ports.0..=settings.preview_ports.1;
            range.find(|port| settings.is_preview_port(*port) && !taken(port))
        });
        ports.insert(name.clone(), port.context("`preview.ports` leaves no port")?);
    }
    Ok(ports)
}

/// What the team has on this host now; nothing if Docker does not answer.
async fn observe(configuration: &Configuration, team: &TeamId) -> (Observed, String) {
    let instance = configuration.settings.instance.clone();
    let filter = Filter { instance, team: Some(team.clone()) };
    let engine = engine(configuration);
    match tokio::time::timeout(DOCKER_MAX, engine.list(&filter)).await {
        Ok(Ok(observed)) if observed == Observed::default() => {
            (observed, "this host, on which the team has nothing".to_owned())
        }
        Ok(Ok(observed)) => (observed, "what the team has on this host".to_owned()),
        Ok(Err(_)) | Err(_) => {
            (Observed::default(), "an empty host, because Docker does not answer".to_owned())
        }
    }
}

/// Prints a plan for a person.
pub fn print(dry: &Dry, explain: bool) {
    let plan = &dry.plan;
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
    outln!("\ncalls to the Engine, against {}", dry.against);
    if dry.calls.is_empty() {
        outln!("  none: everything is as planned");
    }
    for call in &dry.calls {
        outln!("  {:<17}  {}  ({})", call.call, call.on, call.cause);
    }
    if explain {
        outln!("\nvalues, and who decided each");
        for decision in &dry.decisions {
            outln!("  {}", decision.line());
        }
    }
    for note in &dry.notes {
        outln!("\nnote: {note}");
    }
}

/// Prints a plan for a script, as one object.
pub fn print_json(dry: &Dry, explain: bool) {
    let plan = &dry.plan;
    let containers: Vec<Value> = plan.containers.iter().map(container).collect();
    let networks: Vec<Value> = plan
        .networks
        .iter()
        .map(|network| {
            json!({"name": network.name.as_str(), "subnet": network.subnet.to_string(),
                "bridge": network.bridge, "internal": network.internal})
        })
        .collect();
    let volumes: Vec<Value> = plan
        .volumes
        .iter()
        .map(|volume| {
            let bound = match &volume.source {
                VolumeSource::Bind(path) => Some(path.display().to_string()),
                VolumeSource::Managed | VolumeSource::Overlay { .. } => None,
            };
            json!({"name": volume.name.as_str(), "bind": bound})
        })
        .collect();
    let installs: Vec<Value> = plan
        .installs
        .iter()
        .map(|install| {
            json!({"preview": install.preview.as_str(), "key": install.key,
            "command": install.container.command})
        })
        .collect();
    let calls: Vec<Value> = dry
        .calls
        .iter()
        .map(|call| json!({"call": call.call, "on": call.on, "cause": call.cause}))
        .collect();
    let links: BTreeMap<&str, &String> =
        plan.links.iter().map(|(name, link)| (name.as_str(), link)).collect();
    let mut value = json!({"team": plan.team.as_str(), "instance": plan.instance.as_str(),
        "generation": plan.generation, "against": dry.against, "networks": networks,
        "volumes": volumes, "installs": installs, "containers": containers, "links": links,
        "calls": calls, "notes": dry.notes});
    if explain {
        value["values"] = dry.decisions.iter().map(Decision::json).collect();
    }
    outln!("{value}");
}

fn container(container: &crate::domain::plan::ContainerPlan) -> Value {
    let mounts: Vec<Value> = container
        .mounts
        .iter()
        .map(|mount| {
            let source = match &mount.source {
                MountSource::Volume(name) => name.to_string(),
                MountSource::Bind(path) => path.display().to_string(),
            };
            json!({"source": source, "target": mount.target, "read_only": mount.read_only})
        })
        .collect();
    let network = match &container.network {
        NetworkChoice::Team(name) => name.to_string(),
        NetworkChoice::Host => "host".to_owned(),
        NetworkChoice::None => "none".to_owned(),
    };
    let publish = container.publish.as_ref().map(|publish| {
        json!({"ip": publish.host_ip.to_string(), "port": publish.host_port,
            "container_port": publish.container_port})
    });
    let role: Role = container.owner.role;
    json!({"name": container.name.as_str(), "role": role.as_str(),
        "part": container.owner.part.as_ref().map(PartName::as_str),
        "image": container.image.as_str(), "user": format!("{}:{}", container.user.0, container.user.1),
        "network": network, "command": container.command, "env": container.env, "mounts": mounts,
        "memory_bytes": container.limits.memory_bytes, "cpu_millis": container.limits.cpu_millis,
        "publish": publish, "config_hash": hash::container(container)})
}
