//! Builds the plan: the one place that turns wishes into containers.
//!
//! Pure: the same input gives the same plan, so plans are compared, hashed and
//! printed without touching Docker.

mod frameworks;
mod preview;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::Layout;
use super::project::{PreviewMode, ProjectFile};
use crate::domain::findings::Findings;
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::limits::{self};
use crate::domain::names::{ImageRef, Names, VolumeName};
use crate::domain::plan::{
    AGENT_NETWORKS, ContainerPlan, Mount, MountSource, NetworkChoice, NetworkPlan, Owner,
    PREVIEW_NETWORKS, Plan, ProbeKind, Restart, Role, Tmpfs, VolumePlan, VolumeSource, slot_subnet,
};
use crate::domain::settings::Settings;
use crate::domain::spec::{AgentSpec, GitSource, PreviewSpec, Spec, WorkspaceSource};

pub use frameworks::{
    framework_declarations, framework_links, framework_mode, framework_writables,
};

/// One preview with what was found out about it.
#[derive(Debug, Clone)]
pub struct PreviewInput {
    /// What the spec asks for.
    pub spec: PreviewSpec,
    /// What the project is, the project file applied.
    pub findings: Findings,
    /// Where it runs.
    pub image: ImageRef,
    /// Whether it shows a worktree and not the workspace itself.
    pub worktree: bool,
    /// Digest of the manifests and lockfiles.
    pub inputs_digest: String,
    /// Limits that the project file lowers.
    pub limits: crate::domain::spec::LimitsWish,
    /// What the project file wants to be writable, below the app.
    pub writable: Writable,
    /// How its dev server sees the workspace.
    pub mode: PreviewMode,
}

/// Places below an app that its dev server writes. They begin empty and are kept apart from the
/// repository, beside the preview's cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writable {
    /// Directories, each a mount of its own.
    pub directories: Vec<String>,
    /// Files that do not exist, each a link into the cache, as a database has it.
    pub files: Vec<String>,
    /// Files that exist and that a tool writes anew: over each, one of the preview's own is mounted.
    pub covered: Vec<String>,
}

impl PreviewInput {
    /// Every directory below the app that is mounted writable: the framework's and the project's.
    /// A mirror is writable everywhere.
    pub fn writable_directories(&self) -> impl Iterator<Item = &str> {
        let own = self.writable.directories.iter().map(String::as_str);
        let frameworks = framework_writables(self.findings.framework).iter().copied();
        frameworks
            .chain(own.filter(|own| !framework_writables(self.findings.framework).contains(own)))
            .filter(|_| self.mode == PreviewMode::Direct)
    }

    /// Every file below the app that is a link into the cache, and where it leads.
    #[must_use]
    pub fn writable_links(&self) -> Vec<(String, String)> {
        if self.mode == PreviewMode::Mirror {
            return Vec::new();
        }
        let frameworks = framework_links(self.findings.framework).iter();
        let frameworks =
            frameworks.map(|(name, target)| ((*name).to_owned(), (*target).to_owned()));
        let own = self
            .writable
            .files
            .iter()
            .map(|name| (name.clone(), format!("/app/.cache/{}", name.replace('/', "--"))));
        let mut links: Vec<_> = frameworks.chain(own).collect();
        links.dedup_by(|later, first| later.0 == first.0);
        links
    }

    /// Every file over which one of the preview's own is mounted.
    pub fn covered_files(&self) -> impl Iterator<Item = &str> {
        let covered = self.writable.covered.iter().map(String::as_str);
        covered.filter(|_| self.mode == PreviewMode::Direct)
    }

    /// Where a covering file lies on the host, below the preview's places.
    #[must_use]
    pub fn file_of(file: &str) -> PathBuf {
        Path::new(COVERS).join(file.replace('/', "--"))
    }

    /// Where a writable directory lies on the host, below the preview's places.
    #[must_use]
    pub fn place_of(directory: &str) -> String {
        // One child per mount point, also for `storage/logs`; `cache` and `modules` are taken.
        let flat = directory.replace('/', "--");
        if directory.starts_with('.') { flat } else { format!("writable-{flat}") }
    }
}

/// All that a plan depends on.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// The operator's decisions.
    pub settings: &'a Settings,
    /// The team.
    pub team: &'a TeamId,
    /// What is asked for.
    pub spec: &'a Spec,
    /// Counts the accepted specs.
    pub generation: u64,
    /// The job; not part of any hash.
    pub job: JobId,
    /// The run; not part of any hash.
    pub run: RunId,
    /// Index of the team's /27s.
    pub slot: u16,
    /// Host ports by preview.
    pub ports: &'a BTreeMap<PartName, u16>,
    /// The uplink's MTU.
    pub mtu: u32,
    /// Numeric user and group of the containers.
    pub owner: (u32, u32),
    /// What is bound at `/workspace`.
    pub workspace: &'a Path,
    /// A directory that sync copies into the workspace, one way.
    pub mirror_source: Option<&'a Path>,
    /// The agent's image.
    pub agent_image: &'a ImageRef,
    /// The sync service's image.
    pub sync_image: &'a ImageRef,
    /// The previews.
    pub previews: &'a [PreviewInput],
    /// What the workspace's project file says, for agents and their limits.
    pub project: &'a ProjectFile,
}

const MIB: u64 = 1 << 20;

/// The directory of root's that holds covering files, below the preview's places.
pub const COVERS: &str = "covers";

/// Where a preview that runs on a copy of the workspace has it, with what
/// belongs to the copying beside it.
const MIRROR: &str = "/app/mirror";

/// How long a container has to end by itself. Compose's own default.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl PlanInput<'_> {
    fn owner(&self, role: Role, part: Option<&PartName>) -> Owner {
        Owner {
            instance: self.settings.instance.clone(),
            team: Some(self.team.clone()),
            role,
            part: part.cloned(),
            generation: self.generation,
            job: Some(self.job),
            run: Some(self.run),
        }
    }

    fn names(&self) -> Names<'_> {
        Names::new(&self.settings.instance, self.team)
    }

    fn layout(&self) -> Layout<'_> {
        Layout::new(self.settings, self.team)
    }

    /// The proxy as containers on the agent network reach it: the gateway is
    /// the first address of the /27.
    fn proxy_url(&self, space: ipnet::Ipv4Net) -> String {
        let gateway = slot_subnet(space, self.slot).hosts().next();
        let gateway = gateway.unwrap_or(space.network());
        format!("http://{gateway}:{}", limits::PROXY_PORT)
    }

    /// How what runs on the networks of a space finds the way out.
    #[must_use]
    pub fn proxy_env(&self, space: ipnet::Ipv4Net) -> BTreeMap<String, String> {
        let url = self.proxy_url(space);
        let mut env = BTreeMap::new();
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            env.insert(name.to_owned(), url.clone());
        }
        for name in ["NO_PROXY", "no_proxy"] {
            env.insert(name.to_owned(), "localhost,127.0.0.1,::1".to_owned());
        }
        env
    }

    /// The directory in which a preview's dev server finds the project.
    fn running_root(preview: &PreviewInput) -> String {
        match preview.mode {
            PreviewMode::Direct => Self::preview_root(preview),
            PreviewMode::Mirror => format!("{MIRROR}/tree"),
        }
    }

    /// The workspace as the container of a preview sees it.
    fn preview_root(preview: &PreviewInput) -> String {
        if preview.worktree {
            format!("/worktrees/{}", preview.spec.name)
        } else {
            "/workspace".to_owned()
        }
    }
}

fn below(root: &str, relative: &str) -> String {
    if relative == "." { root.to_owned() } else { format!("{root}/{relative}") }
}

fn bind(source: PathBuf, target: impl Into<String>, read_only: bool) -> Mount {
    Mount { source: MountSource::Bind(source), target: target.into(), read_only }
}

fn volume(name: &VolumeName, target: impl Into<String>, read_only: bool) -> Mount {
    Mount { source: MountSource::Volume(name.clone()), target: target.into(), read_only }
}

fn tmpfs(target: &str, mebibytes: u64, executable: bool) -> Tmpfs {
    Tmpfs { target: target.to_owned(), bytes: mebibytes * MIB, executable }
}

/// Resolves a team.
#[must_use]
pub fn build(input: &PlanInput<'_>) -> Plan {
    let names = input.names();
    let layout = input.layout();
    let workspace = names.workspace_volume();
    let mut volumes = vec![VolumePlan {
        name: workspace.clone(),
        owner: input.owner(Role::Sync, None),
        source: VolumeSource::Bind(input.workspace.to_owned()),
    }];
    let networks = vec![
        NetworkPlan {
            name: names.agent_network(),
            owner: input.owner(Role::Agent, None),
            internal: true,
            subnet: slot_subnet(AGENT_NETWORKS, input.slot),
            bridge: format!("cvi-{}", input.slot),
            mtu: input.mtu,
        },
        NetworkPlan {
            name: names.preview_network(),
            owner: input.owner(Role::Preview, None),
            internal: false,
            subnet: slot_subnet(PREVIEW_NETWORKS, input.slot),
            bridge: format!("cvp-{}", input.slot),
            mtu: input.mtu,
        },
    ];
    let mut containers = vec![sync(input, &workspace)];
    for spec in &input.spec.agents {
        let name = names.agent_temp_volume(&spec.name);
        volumes.push(VolumePlan {
            name: name.clone(),
            owner: input.owner(Role::Agent, Some(&spec.name)),
            source: VolumeSource::Bind(layout.agent(&spec.name).join("temp")),
        });
        containers.push(agent(input, spec, &workspace, &name));
    }
    let mut installs = Vec::new();
    let mut links = BTreeMap::new();
    for preview_input in input.previews {
        let name = &preview_input.spec.name;
        let places = layout.preview(name);
        for (volume, child) in [
            (names.preview_cache_volume(name), "cache"),
            (names.preview_modules_volume(name), "modules"),
        ] {
            volumes.push(VolumePlan {
                name: volume,
                owner: input.owner(Role::Preview, Some(name)),
                source: VolumeSource::Bind(places.join(child)),
            });
        }
        let install = preview::install(input, preview_input);
        containers.push(preview::container(input, preview_input, &workspace, install.as_ref()));
        installs.extend(install);
        if let Some(port) = input.ports.get(name) {
            links.insert(name.clone(), input.settings.preview_link(name, input.team, *port));
        }
    }
    Plan {
        instance: input.settings.instance.clone(),
        team: input.team.clone(),
        generation: input.generation,
        networks,
        volumes,
        containers,
        installs,
        links,
    }
}

fn sync(input: &PlanInput<'_>, workspace: &VolumeName) -> ContainerPlan {
    let layout = input.layout();
    let mut env = input.proxy_env(AGENT_NETWORKS);
    env.extend([
        ("HOME".to_owned(), "/home/sync".to_owned()),
        ("COVIBES_TEAM".to_owned(), input.team.to_string()),
        ("COVIBES_TOKEN_FILE".to_owned(), "/run/covibes/token".to_owned()),
        (
            "COVIBES_SYNC_INTERVAL_SECONDS".to_owned(),
            input.spec.sync_interval.as_secs().max(1).to_string(),
        ),
    ]);
    let mut mounts = vec![
        volume(workspace, "/workspace", false),
        bind(layout.worktrees(), "/worktrees", false),
        bind(Layout::token_dir(&layout.sync()), "/run/covibes", true),
        bind(layout.sync_state(), SYNC_STATE, false),
    ];
    if let WorkspaceSource::Git(git) = &input.spec.workspace {
        env.extend(git_env(git));
        let shown = input.previews.iter().filter(|preview| preview.worktree).filter_map(|p| {
            p.spec.branch.as_deref().map(|branch| format!("{}={branch}", p.spec.name))
        });
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            env.insert("COVIBES_WORKTREES".to_owned(), shown.join(" "));
        }
        if git.credentials.is_some() {
            mounts.push(bind(layout.cache().join("git"), GIT_CREDENTIALS, true));
        }
    }
    if input.workspace != layout.workspace() {
        // A person's own directory: nothing is moved or committed there.
        env.insert("COVIBES_REPORT_ONLY".to_owned(), "1".to_owned());
    }
    if let Some(source) = input.mirror_source {
        mounts.push(bind(source.to_owned(), "/source", true));
        env.insert("COVIBES_MIRROR_SOURCE".to_owned(), "/source".to_owned());
    }
    ContainerPlan {
        name: input.names().container(Role::Sync, None),
        owner: input.owner(Role::Sync, None),
        image: input.sync_image.clone(),
        user: input.owner,
        command: vec!["/usr/local/bin/covibes-sync".to_owned()],
        env,
        working_dir: "/workspace".to_owned(),
        hostname: "sync".to_owned(),
        network: NetworkChoice::Team(input.names().agent_network()),
        mounts,
        tmpfs: vec![
            tmpfs("/tmp", 32, false),
            tmpfs("/run", 4, false),
            tmpfs("/home/sync", 8, false),
        ],
        limits: limits::SYNC,
        publish: None,
        probe: ProbeKind::Http { port: limits::SERVICE_PORT, path: "/health".to_owned() },
        healthcheck: own_healthcheck("covibes-sync"),
        restart: Restart::OnFailure,
        stop_grace: STOP_GRACE,
    }
}

/// Where the sync service notes what it is about to move, out of the agents' reach.
pub const SYNC_STATE: &str = "/state";

/// Where a repository's key or token and the pinned host keys are mounted.
pub const GIT_CREDENTIALS: &str = "/run/covibes-git";

/// What `covibes-sync` is told of a repository.
#[must_use]
pub fn git_env(git: &GitSource) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("COVIBES_GIT_REMOTE".to_owned(), git.url.clone())]);
    if let Some(reference) = &git.reference {
        env.insert("COVIBES_GIT_REF".to_owned(), reference.clone());
    }
    if git.credentials.is_some() {
        let variable =
            if git.has_token() { "COVIBES_GIT_TOKEN_FILE" } else { "COVIBES_GIT_KEY_FILE" };
        env.insert(variable.to_owned(), format!("{GIT_CREDENTIALS}/key"));
        let known = format!("{GIT_CREDENTIALS}/known_hosts");
        env.insert("COVIBES_KNOWN_HOSTS_FILE".to_owned(), known);
    }
    env
}

/// Where an agent's key and the pinned hosts are.
const AGENT_SSH: &str = "/home/claude/.ssh";

/// SSH through the proxy, to pinned hosts only, with the team's key only.
fn agent_ssh(input: &PlanInput<'_>) -> String {
    let url = input.proxy_url(AGENT_NETWORKS);
    let proxy = url.trim_start_matches("http://");
    format!(
        "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
         -oUserKnownHostsFile={AGENT_SSH}/known_hosts -oIdentitiesOnly=yes \
         -oIdentityFile={AGENT_SSH}/id_rsa -oForwardAgent=no -oConnectTimeout=10 \
         -oProxyCommand='nc -X connect -x {proxy} %h %p'"
    )
}

fn own_healthcheck(binary: &str) -> Vec<String> {
    vec![format!("/usr/local/bin/{binary}"), "--healthcheck".to_owned()]
}

fn agent(
    input: &PlanInput<'_>,
    spec: &AgentSpec,
    workspace: &VolumeName,
    temp: &VolumeName,
) -> ContainerPlan {
    let layout = input.layout();
    let files = layout.agent(&spec.name);
    let mut env = input.proxy_env(AGENT_NETWORKS);
    // The job stands above the project file.
    env.extend(
        input.project.agent(spec.name.as_str()).map(|said| said.env.clone()).unwrap_or_default(),
    );
    env.extend(spec.env.clone());
    env.extend([
        ("HOME".to_owned(), "/home/claude".to_owned()),
        ("COVIBES_TEAM".to_owned(), input.team.to_string()),
        ("COVIBES_AGENT".to_owned(), spec.name.to_string()),
        ("COVIBES_TOKEN_FILE".to_owned(), "/run/covibes/token".to_owned()),
        ("COVIBES_SECRETS_DIR".to_owned(), "/run/secrets/covibes".to_owned()),
    ]);
    let policy = &input.settings.agent;
    let mode = policy.permission_mode.as_str();
    env.insert("COVIBES_PERMISSION_MODE".to_owned(), mode.to_owned());
    if let Some(url) = &policy.api_base_url {
        env.insert("ANTHROPIC_BASE_URL".to_owned(), url.as_str().trim_end_matches('/').to_owned());
    }
    let mut mounts = vec![
        volume(workspace, "/workspace", false),
        bind(layout.worktrees(), "/worktrees", false),
        volume(temp, "/tmp/agent", false),
        bind(Layout::token_dir(&files), "/run/covibes", true),
        bind(files.join("secrets"), "/run/secrets/covibes", true),
    ];
    // A token is for sync alone: agents ask it to push.
    if let WorkspaceSource::Git(git) = &input.spec.workspace
        && git.credentials.is_some()
        && !git.has_token()
    {
        let git = layout.cache().join("git");
        for (file, name) in [("key", "id_rsa"), ("known_hosts", "known_hosts")] {
            mounts.push(bind(git.join(file), format!("{AGENT_SSH}/{name}"), true));
        }
        env.insert("GIT_SSH_COMMAND".to_owned(), agent_ssh(input));
    }
    ContainerPlan {
        name: input.names().container(Role::Agent, Some(&spec.name)),
        owner: input.owner(Role::Agent, Some(&spec.name)),
        image: input.agent_image.clone(),
        user: input.owner,
        command: vec!["/usr/local/bin/covibes-agent".to_owned()],
        env,
        working_dir: "/workspace".to_owned(),
        hostname: spec.name.to_string(),
        network: NetworkChoice::Team(input.names().agent_network()),
        mounts,
        // Agents build and run what they write, so /tmp and home are executable.
        tmpfs: vec![
            tmpfs("/tmp", 512, true),
            tmpfs("/run", 16, false),
            tmpfs("/home/claude", 512, true),
        ],
        limits: spec.limits.lower(input.project.limits.agent.wish().lower(limits::AGENT)),
        publish: None,
        probe: ProbeKind::Http { port: limits::SERVICE_PORT, path: "/health".to_owned() },
        healthcheck: own_healthcheck("covibes-agent"),
        restart: Restart::OnFailure,
        stop_grace: STOP_GRACE,
    }
}
