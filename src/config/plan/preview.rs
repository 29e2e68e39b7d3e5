//! The plan of one preview: its container, and the install before it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{MIRROR, PlanInput, PreviewInput, STOP_GRACE, below, bind, tmpfs, tools, volume};
use crate::config::project::PreviewMode;
use crate::domain::findings::{Framework, Health, Language, PROJECT_FILE};
use crate::domain::ids::PartName;
use crate::domain::limits;
use crate::domain::names::VolumeName;
use crate::domain::plan::{
    AGENT_NETWORKS, ContainerPlan, InstallPlan, NetworkChoice, PREVIEW_NETWORKS, PackagesPlan,
    ProbeKind, Publish, Restart, Role,
};
use crate::domain::settings::PreviewEgress;

/// The port a preview's dev server gets when the project does not say.
const PREVIEW_PORT_DEFAULT: u16 = 3000;

/// Where a Python project's packages are: a virtual environment holds its own
/// path, so it stands at the same one at install and at run time.
const VENV: &str = "/app/venv";

/// Where the modules of a workspace's packages are kept, below the preview's places.
const PACKAGES: &str = "packages";

/// The name of a package's modules there: a path may be longer than a name, and hold anything.
fn child_of(package: &str) -> String {
    crate::config::hash::digest(package.as_bytes())
}

/// Where the installed modules stand for the app.
fn modules_target(preview: &PreviewInput, app: &str) -> String {
    match preview.findings.language {
        Language::Python => VENV.to_owned(),
        _ => format!("{app}/node_modules"),
    }
}

/// What install and dev server read alike; `modules` is where they find the modules.
fn runtime_env(preview: &PreviewInput, modules: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from(
        [
            ("HOME", "/home/preview"),
            ("NODE_ENV", "development"),
            ("BROWSER", "none"),
            ("NEXT_TELEMETRY_DISABLED", "1"),
            ("ASTRO_TELEMETRY_DISABLED", "1"),
            ("NUXT_TELEMETRY_DISABLED", "1"),
            ("NG_CLI_ANALYTICS", "false"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
            ("XDG_CACHE_HOME", "/app/.cache"),
            ("NPM_CONFIG_CACHE", "/app/.cache/npm"),
            ("PIP_CACHE_DIR", "/app/.cache/pip"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    if preview.findings.language == Language::Python {
        env.insert("VIRTUAL_ENV".to_owned(), VENV.to_owned());
        let path = format!("{VENV}/bin:/usr/local/bin:/usr/bin:/bin");
        env.insert("PATH".to_owned(), path);
    }
    let tools = tools::env(&preview.findings, modules, VENV).into_iter();
    env.extend(tools.map(|(name, value)| (name.to_owned(), value)));
    env
}

pub(super) fn container(
    input: &PlanInput<'_>,
    preview: &PreviewInput,
    workspace: &VolumeName,
    install: Option<&InstallPlan>,
) -> ContainerPlan {
    let names = input.names();
    let name = &preview.spec.name;
    let findings = &preview.findings;
    let root = PlanInput::running_root(preview);
    let app = below(&root, &findings.app_dir);
    let port = findings.port.unwrap_or(PREVIEW_PORT_DEFAULT);
    let hosts = Hosts::of(input, name);

    let install_dir = install.map_or(app.clone(), |install| below(&root, &install.app_dir));
    let mut env = runtime_env(preview, &format!("{install_dir}/node_modules"));
    env.extend(findings.env.iter().map(|(k, v)| (k.clone(), v.render(Some(port)))));
    env.extend([
        ("PORT".to_owned(), port.to_string()),
        ("HOST".to_owned(), "0.0.0.0".to_owned()),
        ("COVIBES_TEAM".to_owned(), input.team.to_string()),
        ("COVIBES_PREVIEW".to_owned(), name.to_string()),
        ("COVIBES_COMMAND".to_owned(), command(preview, &app, port)),
        ("COVIBES_STATE_PORT".to_owned(), limits::PREVIEW_STATE_PORT.to_string()),
        (
            "COVIBES_HEALTH".to_owned(),
            match &findings.health {
                Health::Http { path } => path.clone(),
                Health::Tcp => "tcp".to_owned(),
            },
        ),
        // Hosts under which the page is asked for, for frameworks that check.
        ("COVIBES_ALLOWED_HOSTS".to_owned(), hosts.all()),
        ("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS".to_owned(), hosts.unusual()),
    ]);
    if let Some(install) = install {
        // Other modules mean another container: the bind shows the tree that
        // was there when it started.
        env.insert("COVIBES_INSTALL_KEY".to_owned(), install.key.clone());
    }
    if input.settings.preview_egress == PreviewEgress::Proxy {
        env.extend(input.proxy_env(PREVIEW_NETWORKS));
    }

    let modules = names.preview_modules_volume(name);
    let places = input.layout().preview(name);
    let mut mounts = vec![
        volume(workspace, "/workspace", true),
        bind(input.layout().worktrees(), "/worktrees", true),
        volume(&names.preview_cache_volume(name), "/app/.cache", false),
        volume(&modules, "/app/node_modules", false),
    ];
    let mut command_line = vec!["/usr/local/bin/covibes-preview".to_owned(), "run".to_owned()];
    if preview.mode == PreviewMode::Mirror {
        mounts.push(bind(input.layout().mirror(name), MIRROR, false));
        let source = PlanInput::preview_root(preview);
        let flags = ["--mirror-source", &source, "--mirror-place", MIRROR];
        command_line.extend(flags.map(str::to_owned));
    }
    if install.is_some() || findings.language == Language::Python {
        mounts.push(volume(&modules, modules_target(preview, &install_dir), false));
    }
    for package in install.iter().flat_map(|_| &findings.packages) {
        let place = places.join(PACKAGES).join(child_of(package));
        mounts.push(bind(place, format!("{}/node_modules", below(&root, package)), false));
    }
    for directory in preview.writable_directories() {
        let place = places.join(PreviewInput::place_of(directory));
        mounts.push(bind(place, format!("{app}/{directory}"), false));
    }

    for file in preview.covered_files() {
        let place = places.join(PreviewInput::file_of(file));
        mounts.push(bind(place, format!("{app}/{file}"), false));
    }

    let (listens, state_port) = (port.to_string(), limits::PREVIEW_STATE_PORT.to_string());
    let rest = ["--dir", &app, "--port", &listens, "--state-port", &state_port];
    command_line.extend(rest.map(str::to_owned));
    ContainerPlan {
        name: names.container(Role::Preview, Some(name)),
        owner: input.owner(Role::Preview, Some(name)),
        image: preview.image.clone(),
        user: input.owner,
        command: command_line,
        env,
        // The supervisor changes into the app itself: a missing directory is
        // its error to tell, not the Engine's.
        working_dir: "/app".to_owned(),
        hostname: name.to_string(),
        network: NetworkChoice::Team(names.preview_network()),
        mounts,
        tmpfs: vec![
            tmpfs("/tmp", 256, true),
            tmpfs("/run", 16, false),
            tmpfs("/home/preview", 64, true),
        ],
        limits: preview.limits.lower(limits::PREVIEW),
        publish: input.ports.get(name).map(|host_port| Publish {
            container_port: port,
            host_ip: input.settings.preview_ip,
            host_port: *host_port,
        }),
        probe: match &findings.health {
            Health::Http { path } => ProbeKind::Http { port, path: path.clone() },
            Health::Tcp => ProbeKind::Tcp { port },
        },
        healthcheck: vec!["/usr/local/bin/covibes-preview".to_owned(), "--healthcheck".to_owned()],
        restart: Restart::OnFailure,
        stop_grace: STOP_GRACE,
    }
}

/// Under which names the page is asked for.
struct Hosts {
    domain: String,
    /// Behind a reverse proxy that hands its own name on.
    public: Option<String>,
}

impl Hosts {
    fn of(input: &PlanInput<'_>, name: &PartName) -> Self {
        let settings = input.settings;
        let port = input.ports.get(name).copied().unwrap_or_default();
        let public = settings.preview_public_url.is_some().then(|| {
            let link = settings.preview_link(name, input.team, port);
            let link = url::Url::parse(&link).ok()?;
            link.host_str().map(str::to_owned)
        });
        let domain = format!(".{}", settings.preview_domain);
        Self { domain, public: public.flatten() }
    }

    fn all(&self) -> String {
        let public = self.public.iter().map(String::as_str);
        let usual = [self.domain.as_str(), "localhost", "127.0.0.1"];
        usual.into_iter().chain(public).collect::<Vec<_>>().join(",")
    }

    /// Those that dev servers do not allow by themselves. Before 8.1 Vite read one name here.
    fn unusual(&self) -> String {
        let domain = (self.domain != ".localhost").then_some(self.domain.as_str());
        let names: Vec<_> = self.public.as_deref().into_iter().chain(domain).collect();
        if names.is_empty() { self.domain.clone() } else { names.join(",") }
    }
}

/// The dev server's command line, or the built-in file server's.
fn command(preview: &PreviewInput, app: &str, port: u16) -> String {
    let findings = &preview.findings;
    // Files without a server are served by the supervisor's own, which the image
    // holds; a command in the project file still wins.
    let own_server =
        findings.language == Language::Static && findings.decided_by("dev") != Some(PROJECT_FILE);
    let dev = findings.dev.as_ref().filter(|_| !own_server);
    match dev.map(|dev| dev.render(Some(port))) {
        None => format!("exec /usr/local/bin/covibes-preview static --dir {app} --port {port}"),
        // Its database is new and empty in a team's own cache.
        Some(dev) if findings.framework == Framework::Django => {
            format!("python manage.py migrate --noinput && exec {dev}")
        }
        Some(dev) => dev,
    }
}

pub(super) fn install(input: &PlanInput<'_>, preview: &PreviewInput) -> Option<InstallPlan> {
    let names = input.names();
    let layout = input.layout();
    let findings = &preview.findings;
    let name = &preview.spec.name;
    let wanted = findings.install.as_ref()?;
    let run_short = input.run.short();
    let app_dir = findings.install_dir.clone();
    // The one-shot always sees its project at /workspace, through the overlay.
    let app = below("/workspace", &app_dir);
    let shell = match findings.language {
        Language::Python => format!("set -e; python3 -m venv {VENV}; {wanted}"),
        _ => {
            let modules = modules_target(preview, &app);
            format!("set -e; {}", tools::install(findings, &modules, wanted))
        }
    };
    let mut env = runtime_env(preview, &modules_target(preview, &app));
    env.extend(input.proxy_env(AGENT_NETWORKS));
    let overlay = names.overlay_volume(name, &run_short);
    let staging = layout.preview(name).join(format!("modules.new-{run_short}"));
    let key = crate::config::hash::digest(
        format!(
            "{shell}\n{}\n{app_dir}\n{}\n{:?}{}",
            preview.image,
            preview.inputs_digest,
            input.owner,
            findings.packages.iter().map(|package| format!("\n{package}")).collect::<String>()
        )
        .as_bytes(),
    );
    let packages = (!findings.packages.is_empty()).then(|| PackagesPlan {
        kept: layout.preview(name).join(PACKAGES),
        staging: layout.preview(name).join(format!("{PACKAGES}.new-{run_short}")),
        children: findings.packages.iter().map(|package| child_of(package)).collect(),
    });
    let mut mounts = vec![
        volume(&overlay, "/workspace", false),
        volume(&names.preview_cache_volume(name), "/app/.cache", false),
        bind(staging, modules_target(preview, &app), false),
    ];
    for (package, plan) in findings.packages.iter().zip(packages.iter().cycle()) {
        let target = format!("{}/node_modules", below("/workspace", package));
        mounts.push(bind(plan.staging.join(child_of(package)), target, false));
    }
    let lower = if preview.worktree {
        layout.worktrees().join(name.as_str())
    } else {
        input.workspace.to_owned()
    };
    let container = ContainerPlan {
        name: names.oneshot("install", Some(name), &run_short),
        owner: input.owner(Role::Oneshot, Some(name)),
        image: preview.image.clone(),
        user: input.owner,
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), shell],
        env,
        working_dir: app.clone(),
        hostname: "install".to_owned(),
        network: NetworkChoice::Team(names.agent_network()),
        mounts,
        tmpfs: vec![
            tmpfs("/tmp", 256, true),
            tmpfs("/run", 16, false),
            tmpfs("/home/preview", 128, true),
        ],
        limits: limits::ONESHOT,
        publish: None,
        probe: ProbeKind::None,
        healthcheck: Vec::new(),
        restart: Restart::Never,
        stop_grace: Duration::from_secs(1),
    };
    Some(InstallPlan {
        preview: name.clone(),
        lower,
        app_dir,
        container,
        modules: layout.preview(name).join("modules"),
        key,
        packages,
        overlay,
    })
}
