//! A compose file that `docker compose up` runs without Covibes: the images, the project's
//! directory, and nothing else of the host.
//!
//! What Covibes does around the containers is done by one-shot services: `prepare` makes the
//! mount points and the links of writable files and gives new volumes to the containers' user, `install-<preview>` installs the
//! dependencies. There is no egress proxy, so installs go out directly and agents, on their
//! internal network, reach nobody; they and sync need tokens, so that both wait in the profile
//! `agents`. Secrets are references to files and never text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::{list, quoted, service, service_name};
use crate::config::plan::COVERS;
use crate::domain::plan::{ContainerPlan, InstallPlan, MountSource, NetworkChoice, Plan, Role};
use crate::domain::spec::Spec;

/// What the file is made from.
#[derive(Debug, Clone, Copy)]
pub struct Portable<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The spec behind it, for the references to secrets.
    pub spec: &'a Spec,
    /// The project.
    pub directory: &'a Path,
    /// Numeric user and group of the directory.
    pub owner: (u32, u32),
    /// Where the files of secrets lie.
    pub secret_dir: &'a Path,
    /// Files of the workspace that a preview may write: below `/workspace`, and where each leads.
    pub links: &'a [(String, String)],
}

/// A mount of the file: a named volume, or the project itself.
struct Place {
    source: Option<String>,
    target: String,
    read_only: bool,
}

/// Renders the file. The same input gives the same text.
#[must_use]
pub fn portable(input: &Portable<'_>) -> String {
    let mut file = File { input, volumes: BTreeSet::new(), secrets: BTreeMap::new() };
    let mut services = Vec::new();
    for install in &input.plan.installs {
        services.extend(file.install(install));
    }
    for container in &input.plan.containers {
        services.extend(file.part(container));
    }
    let mut lines: Vec<(usize, String)> = HEAD.lines().map(|line| (0, line.to_owned())).collect();
    lines.push((0, format!("name: {}", quoted(&format!("covibes-{}", input.plan.team)))));
    lines.push((0, "services:".into()));
    lines.extend(file.prepare());
    lines.extend(services);
    lines.extend(file.rest());
    let mut out = String::new();
    for (indent, text) in lines {
        let _ = writeln!(out, "{:indent$}{text}", "");
    }
    out
}

const HEAD: &str = "\
# Rendered by `covibes compose`: runs the project with Docker alone.
#   docker compose -f FILE up                     the previews
#   docker compose -f FILE --profile agents up    agents and sync too; first write a random
#                                                 token into each file that `secrets` names
# The images are Covibes' own: `covibes host prepare` makes them.";

struct File<'a> {
    input: &'a Portable<'a>,
    /// Named volumes in use.
    volumes: BTreeSet<String>,
    /// Files of secrets, by name.
    secrets: BTreeMap<String, String>,
}

impl File<'_> {
    /// Root's own directory is copied, because containers are never root.
    fn is_copied(&self) -> bool {
        self.input.owner.0 == 0
    }

    fn user(&self) -> (u32, u32) {
        let first = self.input.plan.containers.first();
        first.map_or(self.input.owner, |container| container.user)
    }

    /// The volume behind a mount of the plan; none for the project itself.
    fn volume(
        &mut self,
        container: &ContainerPlan,
        source: &MountSource,
        target: &str,
    ) -> Option<String> {
        let workspace = self.input.plan.volumes.first().map(|volume| volume.name.as_str());
        let name = match source {
            MountSource::Volume(name) if Some(name.as_str()) == workspace => {
                if !self.is_copied() {
                    return None;
                }
                "workspace".to_owned()
            }
            MountSource::Volume(name) => name.to_string(),
            MountSource::Bind(_) if target == "/worktrees" => "worktrees".to_owned(),
            MountSource::Bind(_) => {
                let plain =
                    |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
                let flat: String = target.chars().map(plain).collect();
                format!("{}{flat}", service_name(container))
            }
        };
        self.volumes.insert(name.clone());
        Some(name)
    }

    /// The services of the plan's own containers.
    fn part(&mut self, container: &ContainerPlan) -> Vec<(usize, String)> {
        let name = service_name(container);
        let mut places = Vec::new();
        let mut secrets = Vec::new();
        for mount in &container.mounts {
            match (&mount.source, mount.target.as_str()) {
                (MountSource::Bind(_), "/run/covibes") => {
                    let secret = format!("{name}-token");
                    self.secrets.insert(secret.clone(), format!("./secrets/{secret}"));
                    secrets.push((secret, "/run/covibes/token".to_owned()));
                }
                (MountSource::Bind(_), "/run/secrets/covibes") => {
                    secrets.extend(self.agent_secrets(container));
                }
                // A volume cannot stand for a single file: whoever needs it sets `mode: mirror`.
                (MountSource::Bind(path), _) if is_cover(path) => {}
                // What sync copies from is the project itself here; keys stay on the host.
                (
                    MountSource::Bind(_),
                    "/source"
                    | "/run/covibes-git"
                    | "/home/claude/.ssh/id_rsa"
                    | "/home/claude/.ssh/known_hosts",
                ) => {}
                (source, target) => places.push(Place {
                    source: self.volume(container, source, target),
                    target: target.to_owned(),
                    read_only: mount.read_only,
                }),
            }
        }
        let is_preview = container.owner.role == Role::Preview;
        let before = match &container.owner.part {
            Some(part) if is_preview && self.installs(part.as_str()) => format!("install-{part}"),
            _ => "prepare".to_owned(),
        };
        let mut lines = service(&bare(container), false);
        lines.extend(self.mounted(&places));
        if !is_preview {
            lines.push((4, "profiles: [agents]".into()));
        }
        lines.push((4, format!("networks: [{}]", if is_preview { "preview" } else { "agent" })));
        if !secrets.is_empty() {
            lines.push((4, "secrets:".into()));
        }
        for (secret, target) in secrets {
            lines.push((6, format!("- source: {}", quoted(&secret))));
            lines.push((8, format!("target: {}", quoted(&target))));
        }
        lines.extend(after(&before));
        lines
    }

    fn installs(&self, preview: &str) -> bool {
        self.input.plan.installs.iter().any(|install| install.preview.as_str() == preview)
    }

    fn agent_secrets(&mut self, container: &ContainerPlan) -> Vec<(String, String)> {
        let agents = self.input.spec.agents.iter();
        let own = agents.filter(|agent| Some(&agent.name) == container.owner.part.as_ref());
        let mut found = Vec::new();
        for (variable, reference) in own.flat_map(|agent| &agent.secrets) {
            let secret = format!("{}-{variable}", service_name(container));
            let path = self.input.secret_dir.join(reference.as_str());
            self.secrets.insert(secret.clone(), path.display().to_string());
            found.push((secret, format!("/run/secrets/covibes/{variable}")));
        }
        found
    }

    /// The one-shot that installs a preview's dependencies, once for each state of its lockfile.
    fn install(&mut self, install: &InstallPlan) -> Vec<(usize, String)> {
        let mut container = install.container.clone();
        let preview = self.input.plan.containers.iter().find(|part| {
            part.owner.role == Role::Preview && part.owner.part == container.owner.part
        });
        let mut places = Vec::new();
        let mut modules = String::new();
        for mount in &install.container.mounts {
            let (source, read_only) = match &mount.source {
                // Through its overlay an install may write everywhere; here only to the modules.
                MountSource::Volume(name) if *name == install.overlay => {
                    let workspace =
                        self.input.plan.volumes.first().map(|volume| volume.name.clone());
                    let source = workspace.map(MountSource::Volume);
                    let source =
                        source.and_then(|source| self.volume(&container, &source, &mount.target));
                    (source, true)
                }
                source @ MountSource::Volume(_) => {
                    (self.volume(&container, source, &mount.target), false)
                }
                MountSource::Bind(_) => {
                    // The first is the project's own; its packages' follow.
                    if modules.is_empty() {
                        modules.clone_from(&mount.target);
                    }
                    let own = preview.and_then(|preview| {
                        preview.mounts.iter().find(|own| {
                            own.target.ends_with(&mount.target)
                                || mount
                                    .target
                                    .strip_prefix("/workspace")
                                    .is_some_and(|rest| own.target.ends_with(rest))
                        })
                    });
                    let own = own.map(|own| own.source.clone());
                    (own.and_then(|own| self.volume(&container, &own, &mount.target)), false)
                }
            };
            places.push(Place { source, target: mount.target.clone(), read_only });
        }
        let key = format!("{modules}/.covibes-key");
        let wanted = container.command.pop().unwrap_or_default();
        container.command.push(format!(
            "if [ \"$(cat {key} 2>/dev/null)\" = {} ]; then exit 0; fi; {wanted} && echo {} > {key}",
            install.key, install.key
        ));
        let mut lines = service(&bare(&container), false);
        lines[0] = (2, format!("{}:", quoted(&format!("install-{}", install.preview))));
        lines.extend(self.mounted(&places));
        lines.push((4, "networks: [preview]".into()));
        lines.extend(after("prepare"));
        lines
    }

    fn mounted(&self, places: &[Place]) -> Vec<(usize, String)> {
        let mut lines = vec![(4, "volumes:".to_owned())];
        for place in places {
            let (kind, source) = match &place.source {
                Some(volume) => ("volume", volume.clone()),
                None => ("bind", self.input.directory.display().to_string()),
            };
            lines.push((6, format!("- type: {kind}")));
            lines.push((8, format!("source: {}", quoted(&source))));
            lines.push((8, format!("target: {}", quoted(&place.target))));
            lines.push((8, format!("read_only: {}", place.read_only)));
            if kind == "bind" {
                lines.push((8, "bind: {create_host_path: false}".into()));
            }
        }
        lines
    }

    /// The one-shot that gives volumes to the containers' user and makes mount points. It is root
    /// for just that: no network, a read-only root, and two capabilities.
    fn prepare(&self) -> Vec<(usize, String)> {
        let (uid, gid) = self.user();
        let plan = self.input.plan;
        let mut script = "set -eu\n".to_owned();
        let mut places = Vec::new();
        for (number, volume) in self.volumes.iter().enumerate() {
            let target = match volume.as_str() {
                "workspace" => "/workspace".to_owned(),
                _ => format!("/volumes/{number}"),
            };
            if volume != "workspace" {
                let _ = writeln!(script, "chown {uid}:{gid} {target}");
            }
            for path in self.below_mirror(volume) {
                let path = format!("'{target}/{}'", path.replace('\'', r"'\''"));
                let _ = writeln!(script, "mkdir -p {path}");
                let _ = writeln!(script, "chown -R {uid}:{gid} {target}/tree");
            }
            places.push(Place { source: Some(volume.clone()), target, read_only: false });
        }
        if self.is_copied() {
            places.push(Place { source: None, target: "/source".into(), read_only: true });
            // Once: what the dev server writes beside the copy is its own. Taken first and given
            // away at the end, because root without its rights may not set a mode of others' files.
            let _ = writeln!(
                script,
                "if [ -z \"$(ls -A /workspace)\" ]; then\n\
                 chown 0:0 /workspace\n\
                 cd /source\n\
                 tar --create --file - --exclude=./node_modules --exclude=./.git . | \
                 tar --extract --file - --directory /workspace --no-same-owner --no-overwrite-dir\n\
                 chown -R {uid}:{gid} /workspace\nfi"
            );
        } else {
            places.push(Place { source: None, target: "/workspace".into(), read_only: false });
        }
        let previews = plan.containers.iter().filter(|part| part.owner.role == Role::Preview);
        let mut inside: BTreeSet<&str> = BTreeSet::new();
        for mount in previews.flat_map(|preview| &preview.mounts) {
            inside.extend(mount.target.strip_prefix("/workspace/"));
        }
        for path in inside {
            let path = in_shell(&format!("/workspace/{path}"));
            let _ =
                writeln!(script, "[ -d {path} ] || {{ mkdir {path}; chown {uid}:{gid} {path}; }}");
        }
        // What the dev server writes beside the code leads into its cache; what is there stays.
        for (path, target) in self.input.links {
            let (path, target) = (in_shell(&format!("/workspace/{path}")), in_shell(target));
            let _ = writeln!(
                script,
                "[ -e {path} ] || [ -L {path} ] || [ ! -d \"$(dirname {path})\" ] || \
                 {{ ln -s {target} {path}; chown -h {uid}:{gid} {path}; }}"
            );
        }
        let image = plan.containers.iter().rfind(|part| part.owner.role == Role::Preview);
        let image = image.or(plan.containers.first()).map(|part| part.image.as_str().to_owned());
        let mut lines: Vec<(usize, String)> = vec![
            (2, "prepare:".into()),
            (4, format!("image: {}", quoted(&image.unwrap_or_default()))),
            (4, "pull_policy: never".into()),
            (4, "user: \"0:0\"".into()),
            (4, "entrypoint: [\"/bin/sh\", \"-c\"]".into()),
            (4, format!("command: {}", list(&[script]))),
            (4, "network_mode: none".into()),
            (4, "read_only: true".into()),
            (4, "cap_drop: [ALL]".into()),
            (4, "cap_add: [CHOWN, DAC_OVERRIDE]".into()),
            (4, "security_opt: [\"no-new-privileges:true\"]".into()),
            (4, "mem_limit: 268435456".into()),
            (4, "pids_limit: 64".into()),
            (4, "restart: \"no\"".into()),
        ];
        lines.extend(self.mounted(&places));
        lines
    }

    /// What is mounted below a preview's copy of the workspace, if `volume` is one.
    fn below_mirror(&self, volume: &str) -> Vec<&str> {
        let previews = self.input.plan.containers.iter().filter(|part| {
            part.owner.role == Role::Preview
                && volume == format!("{}_app_mirror", service_name(part))
        });
        let mounts = previews.flat_map(|preview| &preview.mounts);
        mounts.filter_map(|mount| mount.target.strip_prefix("/app/mirror/")).collect()
    }

    /// Networks, volumes and secrets.
    fn rest(&self) -> Vec<(usize, String)> {
        let mut lines: Vec<(usize, String)> = vec![
            (0, "networks:".into()),
            (2, "agent: {internal: true}".into()),
            (2, "preview: {}".into()),
        ];
        if !self.volumes.is_empty() {
            lines.push((0, "volumes:".into()));
        }
        lines.extend(self.volumes.iter().map(|volume| (2, format!("{}: {{}}", quoted(volume)))));
        if !self.secrets.is_empty() {
            lines.push((0, "secrets:".into()));
        }
        for (secret, path) in &self.secrets {
            lines.push((2, format!("{}: {{file: {}}}", quoted(secret), quoted(path))));
        }
        lines
    }
}

/// Whether a mount covers a single file.
fn is_cover(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name == COVERS)
}

/// A word that a shell reads as it is.
fn in_shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Waits for a one-shot to have ended well.
fn after(service: &str) -> Vec<(usize, String)> {
    vec![
        (4, "depends_on:".into()),
        (6, format!("{}: {{condition: service_completed_successfully}}", quoted(service))),
    ]
}

/// A container without what only Covibes can give it: its networks, host directories and proxy.
fn bare(container: &ContainerPlan) -> ContainerPlan {
    let mut bare = container.clone();
    bare.mounts.clear();
    bare.network = NetworkChoice::None;
    bare.env.retain(|name, _| {
        let upper = name.to_ascii_uppercase();
        !matches!(
            upper.as_str(),
            "HTTP_PROXY" | "HTTPS_PROXY" | "NO_PROXY" | "COVIBES_MIRROR_SOURCE" | "GIT_SSH_COMMAND"
        )
    });
    bare
}
