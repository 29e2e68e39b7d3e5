//! Brings a team's containers to the plan: networks, volumes, directories,
//! files, then containers, four at a time.

use std::path::PathBuf;

use futures::{FutureExt, StreamExt};

use super::Ports;
use super::converge::{Change, ChangeKind};
use super::run::Run;
use crate::config::hash;
use crate::config::layout::Layout;
use crate::config::plan::{PlanInput, PreviewInput};
use crate::config::project::PreviewMode;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::limits;
use crate::domain::names::side_name;
use crate::domain::plan::{ContainerPlan, NetworkPlan, Plan, Role, VolumeSource};
use crate::domain::spec::{Spec, WorkspaceSource};
use crate::ports::engine::EngineError;

/// Makes the team's networks.
///
/// # Errors
/// Docker refuses. A subnet that another instance took since it was chosen is
/// a fault of the platform: the run is repeated, and admission chooses again.
pub async fn ensure_networks(ports: &Ports, networks: &[NetworkPlan]) -> Result<(), Failure> {
    // One after the other: the Engine serialises them anyway.
    for network in networks {
        ports.engine.create_network(network).await.map_err(|error| match error {
            EngineError::SubnetOverlap => {
                Failure::new(Code::DockerFailed, "the team's subnet was taken meanwhile")
            }
            other => other.into(),
        })?;
    }
    Ok(())
}

/// Makes the directories behind a team's volumes and binds, and the volumes.
///
/// # Errors
/// The host or Docker refuses.
pub async fn ensure_volumes(
    ports: &Ports,
    plan: &Plan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let host = &ports.host;
    let (uid, gid) = input.owner;
    let layout = Layout::new(&ports.settings, &plan.team);
    host.ensure_dir(&layout.worktrees(), uid, gid).await?;
    host.ensure_dir(&layout.sync_state(), uid, gid).await?;
    for volume in &plan.volumes {
        if let VolumeSource::Bind(path) = &volume.source
            && path != input.workspace
        {
            let is_cache = volume.owner.role == Role::Preview && path.ends_with("cache");
            if is_cache && ports.settings.cache_sized {
                let bytes = limits::PREVIEW_CACHE_BYTES;
                if let Some(finding) = host.ensure_sized_dir(path, bytes, uid, gid).await? {
                    tracing::warn!(subject = finding.subject, "{}", finding.message);
                }
            } else {
                host.ensure_dir(path, uid, gid).await?;
            }
        }
        ports.engine.create_volume(volume).await?;
    }
    for preview in input.previews {
        if preview.mode == PreviewMode::Mirror {
            host.ensure_dir(&layout.mirror(&preview.spec.name), uid, gid).await?;
        }
        for file in preview.covered_files() {
            let path = layout.preview(&preview.spec.name).join(PreviewInput::file_of(file));
            // What the tool wrote there stays.
            if !host.exists(&path).await {
                host.write_file(&path, b"", 0o644, uid).await?;
            }
        }
        for directory in preview.writable_directories() {
            let place = PreviewInput::place_of(directory);
            host.ensure_dir(&layout.preview(&preview.spec.name).join(place), uid, gid).await?;
        }
    }
    Ok(())
}

/// Makes the mount points of previews in the workspace or its copy, through no
/// link, and remembers those it made in the workspace.
///
/// # Errors
/// `workspace.symlink_refused` if something is in the way.
pub async fn ensure_mount_points(run: &Run<'_>, input: &PlanInput<'_>) -> Result<(), Failure> {
    let host = &run.ports.host;
    let (uid, gid) = input.owner;
    let layout = Layout::new(&run.ports.settings, run.team());
    let mut made = Vec::new();
    for preview in input.previews {
        let mirror = layout.mirror(&preview.spec.name);
        let is_copy = preview.mode == PreviewMode::Mirror;
        let root = if is_copy {
            mirror.join("tree")
        } else if preview.worktree {
            layout.worktrees().join(preview.spec.name.as_str())
        } else {
            input.workspace.to_owned()
        };
        let findings = &preview.findings;
        let below = |directory: &str, name: &str| {
            if directory == "." { name.to_owned() } else { format!("{directory}/{name}") }
        };
        let mut wanted: Vec<String> =
            preview.writable_directories().map(|name| below(&findings.app_dir, name)).collect();
        if findings.install.is_some()
            && findings.language == crate::domain::findings::Language::Node
        {
            wanted.push(below(&findings.install_dir, "node_modules"));
            wanted.extend(findings.packages.iter().map(|dir| below(dir, "node_modules")));
        }
        if is_copy {
            // It is empty at first: the Engine would make what lies above a
            // mount point as root's.
            host.ensure_mount_point(&mirror, "tree", uid, gid).await?;
            wanted = wanted.iter().flat_map(|path| with_parents(path)).collect();
        }
        for relative in wanted {
            let is_made = host.ensure_mount_point(&root, &relative, uid, gid).await?;
            if is_made && !preview.worktree && !is_copy {
                made.push(relative);
            }
        }
        for (name, target) in preview.writable_links() {
            let relative = below(&findings.app_dir, &name);
            if host.ensure_link(&root, &relative, &target).await && !preview.worktree {
                made.push(relative);
            }
        }
    }
    run.reporter
        .update(|record| {
            for relative in made {
                if !record.mount_points.contains(&relative) {
                    record.mount_points.push(relative);
                }
            }
        })
        .await;
    Ok(())
}

/// A relative path after everything above it, the topmost first.
fn with_parents(path: &str) -> impl Iterator<Item = String> {
    path.char_indices()
        .filter(|(_, letter)| *letter == '/')
        .map(|(at, _)| path[..at].to_owned())
        .chain([path.to_owned()])
}

/// Writes tokens and secrets where containers read them: 0400, owned by the
/// container's user.
///
/// # Errors
/// `secret.not_found`.
pub async fn ensure_secrets(
    ports: &Ports,
    plan: &Plan,
    spec: &Spec,
    uid: u32,
) -> Result<(), Failure> {
    let layout = Layout::new(&ports.settings, &plan.team);
    let mut services: Vec<PathBuf> = vec![layout.sync()];
    services.extend(spec.agents.iter().map(|a| layout.agent(&a.name)));
    for parent in services {
        let path = Layout::token_dir(&parent).join("token");
        if ports.host.read_file(&path).await?.is_none() {
            let token = ports.clock.new_secret();
            ports.host.write_file(&path, token.as_bytes(), 0o400, uid).await?;
        }
    }
    for agent in &spec.agents {
        let directory = layout.agent(&agent.name).join("secrets");
        ports.host.ensure_dir(&directory, 0, 0).await?;
        for (name, reference) in &agent.secrets {
            let value = read_secret(ports, reference).await?;
            ports.host.write_file(&directory.join(name), &value, 0o400, uid).await?;
        }
    }
    ensure_git_credentials(ports, &plan.team, spec, uid).await
}

/// Writes a repository's key and the pinned host keys where Git reads them.
///
/// # Errors
/// `secret.not_found`.
pub async fn ensure_git_credentials(
    ports: &Ports,
    team: &TeamId,
    spec: &Spec,
    uid: u32,
) -> Result<(), Failure> {
    let WorkspaceSource::Git(git) = &spec.workspace else { return Ok(()) };
    let Some(reference) = &git.credentials else { return Ok(()) };
    let directory = Layout::new(&ports.settings, team).cache().join("git");
    let value = read_secret(ports, reference).await?;
    ports.host.write_file(&directory.join("key"), &value, 0o400, uid).await?;
    // Pinned host keys lie beside the secrets, one file for all teams.
    let known = ports.settings.secret_dir.join("known_hosts");
    let known = ports.host.read_file(&known).await?.unwrap_or_default();
    ports.host.write_file(&directory.join("known_hosts"), &known, 0o444, uid).await
}

async fn read_secret(
    ports: &Ports,
    reference: &crate::domain::spec::SecretRef,
) -> Result<Vec<u8>, Failure> {
    let path = ports.settings.secret_dir.join(reference.relative_path());
    ports.host.read_file(&path).await?.ok_or_else(|| {
        Failure::new(
            Code::SecretNotFound,
            format!("the secret {} does not exist", reference.as_str()),
        )
    })
}

/// Applies changes, as many at once as the host allows. On a failure the rest
/// is not begun; what began is found again by label.
///
/// # Errors
/// The first failure.
pub async fn apply(run: &Run<'_>, plan: &Plan, changes: &[Change]) -> Result<(), Failure> {
    let at_once = run.ports.settings.capacity.starts_at_once.max(1);
    // Removals first: they free names, ports and memory.
    let (removals, others): (Vec<_>, Vec<_>) =
        changes.iter().partition(|c| c.kind == ChangeKind::Remove);
    for group in [removals, others] {
        let tasks: Vec<_> =
            group.into_iter().map(|change| apply_one(run, plan, change).boxed()).collect();
        let mut tasks = futures::stream::iter(tasks).buffer_unordered(at_once);
        while let Some(result) = tasks.next().await {
            result?;
        }
    }
    Ok(())
}

async fn apply_one(run: &Run<'_>, plan: &Plan, change: &Change) -> Result<(), Failure> {
    let engine = &run.ports.engine;
    run.say(format!("{} {}: {}", change.kind.as_str(), change.name, change.cause));
    let planned = || {
        plan.containers
            .iter()
            .find(|c| c.name == change.name)
            .ok_or_else(|| Failure::new(Code::InternalBug, "a change without a planned container"))
    };
    match change.kind {
        ChangeKind::Remove => Ok(engine.remove_container(&change.name).await?),
        ChangeKind::Start => {
            let container = planned()?;
            match start(run.ports, container).await {
                // Docker has lost it, or its network: it is made anew.
                Err(EngineError::Lost { .. } | EngineError::NotFound { .. }) => {
                    engine.remove_container(&container.name).await?;
                    create_and_start(run, container).await
                }
                result => Ok(result?),
            }
        }
        ChangeKind::Create => create_and_start(run, planned()?).await,
        ChangeKind::Replace => {
            let container = planned()?;
            // Stop before setting aside: remove sends SIGKILL at once, and
            // the old one must give up its port.
            engine.stop_container(&container.name, container.stop_grace).await?;
            let side = side_name(&container.name, &run.id.short());
            engine.remove_container(&side).await?;
            engine.rename_container(&container.name, &side).await?;
            create_and_start(run, container).await
        }
    }
}

async fn create_and_start(run: &Run<'_>, container: &ContainerPlan) -> Result<(), Failure> {
    let config_hash = hash::container(container);
    match run.ports.engine.create_container(container, &config_hash).await {
        Ok(()) => {}
        // Somebody was quicker: adopt it if it is ours and the same.
        Err(EngineError::Conflict { what }) => {
            let found = run.ports.engine.inspect_container(&container.name).await?;
            let labels = found.map(|f| f.labels).unwrap_or_default();
            let label = |key: &str| labels.get(key).map(String::as_str);
            use crate::ports::engine::label as key;
            if label(key::INSTANCE) != Some(container.owner.instance.as_str())
                || label(key::TEAM) != container.owner.team.as_ref().map(|t| t.as_str())
            {
                return Err(EngineError::Conflict { what }.into());
            }
            if label(key::CONFIG_HASH) != Some(&config_hash) {
                run.ports.engine.remove_container(&container.name).await?;
                run.ports.engine.create_container(container, &config_hash).await?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(start(run.ports, container).await?)
}

async fn start(ports: &Ports, container: &ContainerPlan) -> Result<(), EngineError> {
    let result = ports.engine.start_container(&container.name).await;
    ports.metrics.container_started(container.owner.role, result.is_ok());
    if let Err(EngineError::PortTaken) = &result {
        // The port is no part of the config hash: left there, this container
        // would be taken for the right one and started again on its old port.
        ports.engine.remove_container(&container.name).await?;
    }
    result?;
    if let Some(rate) = container.limits.network_bits_per_second
        && let Some(pid) =
            ports.engine.inspect_container(&container.name).await?.and_then(|s| s.pid)
        && let Some(finding) = ports.host.limit_network(pid, rate).await
    {
        tracing::warn!(subject = finding.subject, "{}", finding.message);
    }
    Ok(())
}

/// Whether a failure means that a published port was taken meanwhile.
#[must_use]
pub fn is_port_conflict(failure: &Failure) -> bool {
    failure.code == Code::PortExhausted
}
