//! Reads the operator's configuration: flags > `COVIBES_*` > `covibes.toml` >
//! defaults. Unknown keys fail; secrets only come from files.
//!
//! A variable `COVIBES_<SECTION>_<KEY>` sets `[section] key`; its value is read
//! as TOML if it is TOML, and as text otherwise.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::cluster::{Cluster, ClusterSection};
use crate::domain::ids::{HostId, InstanceName};
use crate::domain::settings::{Capacity, PreviewEgress, Settings};

mod agent;
mod amqp;
pub mod cluster;
mod egress;
mod http;
mod tracing;

pub use self::agent::{AgentSection, PermissionWord};
pub use self::amqp::{AmqpSection, OneOrMore};
pub use self::egress::{EgressSection, GitSection};
pub use self::http::{HttpSection, HttpSettings};
pub use self::tracing::TracingSection;

/// Where the file is looked for when nothing names one.
const DEFAULT_FILE: &str = "/etc/covibes/covibes.toml";

/// The sections of the file; variables of other names belong to others.
const SECTIONS: &[&str] = &[
    "host", "paths", "docker", "amqp", "cluster", "http", "preview", "agent", "egress", "git",
    "capacity", "images", "tracing",
];

/// The file, every value optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// This host.
    pub host: HostSection,
    /// Directories.
    pub paths: PathsSection,
    /// The Docker daemon.
    pub docker: DockerSection,
    /// The broker.
    pub amqp: AmqpSection,
    /// Several hosts on one broker.
    pub cluster: ClusterSection,
    /// The worker's own HTTP.
    pub http: HttpSection,
    /// Previews.
    pub preview: PreviewSection,
    /// Agents.
    pub agent: AgentSection,
    /// What agents, sync and installs may reach.
    pub egress: EgressSection,
    /// Which repositories may be cloned.
    pub git: GitSection,
    /// How much the host takes on.
    pub capacity: CapacitySection,
    /// What goes into images.
    pub images: ImagesSection,
    /// Traces.
    pub tracing: TracingSection,
}

/// This host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HostSection {
    /// Its name in the placement table; the host name if absent.
    pub id: Option<String>,
    /// The worker's share of the host; `main` if absent.
    pub instance: Option<String>,
}

/// Directories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathsSection {
    /// Workspaces, worktrees and caches.
    pub data: PathBuf,
    /// Records, evidence and logs.
    pub state: PathBuf,
    /// Secret files.
    pub secrets: PathBuf,
}

impl Default for PathsSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self { data: settings.data_dir, state: settings.state_dir, secrets: settings.secret_dir }
    }
}

/// The Docker daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSection {
    /// Path of its unix socket.
    pub socket: String,
}

impl Default for DockerSection {
    fn default() -> Self {
        Self { socket: "/var/run/docker.sock".to_owned() }
    }
}

/// Previews.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreviewSection {
    /// First and last port.
    pub ports: [u16; 2],
    /// Ports in that range that belong to others.
    pub ports_excluded: Vec<u16>,
    /// The address on which previews are published.
    pub ip: String,
    /// The domain of preview links.
    pub domain: String,
    /// Links of previews behind a reverse proxy, such as `https://{host}-{port}.example.org`; also
    /// with `{preview}` and `{team}`. docs/PREVIEWS.md has the proxy's side.
    pub public_url: Option<String>,
    /// `open` lets a project's code talk to anyone; `proxy` does not.
    pub egress: EgressWord,
    /// Whether a cache gets a file system of its own size.
    pub cache_sized: bool,
    /// Images that a repository's own Dockerfile may be built upon, without tags, such as
    /// `golang`; `ruby*` is all that begin so. It is built only for projects that no image of
    /// Covibes runs; empty, not at all.
    pub dockerfile_bases: Vec<String>,
}

/// Where previews may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressWord {
    /// To public addresses.
    Open,
    /// Through the egress proxy.
    Proxy,
}

impl Default for PreviewSection {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            ports: [settings.preview_ports.0, settings.preview_ports.1],
            ports_excluded: Vec::new(),
            ip: settings.preview_ip.to_string(),
            domain: settings.preview_domain,
            public_url: None,
            egress: EgressWord::Open,
            cache_sized: settings.cache_sized,
            dockerfile_bases: Vec::new(),
        }
    }
}

/// How much the host takes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CapacitySection {
    /// Teams.
    pub teams_max: u32,
    /// Previews of one team, 16 at most.
    pub previews_per_team: usize,
    /// Reserved memory may be this many times the host's.
    pub memory_overcommit: f64,
    /// Reserved CPUs may be this many times the host's.
    pub cpu_overcommit: f64,
    /// Starts are refused above this share of the disk.
    pub disk_used_max: f64,
    /// Containers started at once.
    pub starts_at_once: usize,
    /// Builds and installs at once.
    pub builds_at_once: usize,
}

impl Default for CapacitySection {
    fn default() -> Self {
        let capacity = Settings::default().capacity;
        Self {
            teams_max: capacity.teams_max,
            previews_per_team: capacity.previews_per_team,
            memory_overcommit: capacity.memory_overcommit,
            cpu_overcommit: capacity.cpu_overcommit,
            disk_used_max: capacity.disk_used_max,
            starts_at_once: capacity.starts_at_once,
            builds_at_once: capacity.builds_at_once,
        }
    }
}

/// What goes into images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesSection {
    /// The host's CA bundle, so that package managers inside trust what the
    /// host trusts.
    pub ca_bundle: PathBuf,
    /// Where the service binaries lie; beside `covibes` if absent.
    pub binaries: Option<PathBuf>,
}

impl Default for ImagesSection {
    fn default() -> Self {
        Self { ca_bundle: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"), binaries: None }
    }
}

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// As it was written, merged.
    pub file: File,
    /// What the lower floors see.
    pub settings: Settings,
    /// The broker's addresses, with their passwords and authorities.
    pub amqp_urls: Vec<String>,
    /// Several hosts on one broker.
    pub cluster: Cluster,
    /// How the worker's HTTP is served.
    pub http: HttpSettings,
    /// Where traces go, if they do.
    pub otlp: Option<url::Url>,
}

/// Reads file and environment.
///
/// # Errors
/// Names the file or variable and the key that is wrong.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Configuration> {
    let mut table = match path {
        Some(path) => read(path)?,
        None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
        None => toml::Table::new(),
    };
    for (name, value) in environment {
        merge_variable(&mut table, &name, &value)?;
    }
    let file: File = toml::Value::Table(table).try_into().context(
        "the configuration is not valid; `covibes config schema` lists what it may hold",
    )?;
    check(file)
}

fn read(path: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not valid TOML", path.display()))
}

fn merge_variable(table: &mut toml::Table, name: &str, value: &str) -> anyhow::Result<()> {
    let Some(rest) = name.strip_prefix("COVIBES_") else { return Ok(()) };
    let lower = rest.to_ascii_lowercase();
    let Some((section, key)) = lower.split_once('_').filter(|(s, _)| SECTIONS.contains(s)) else {
        return Ok(());
    };
    let parsed = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let section = table
        .entry(section.to_owned())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
        .as_table_mut()
        .with_context(|| format!("[{section}] in the configuration is not a section"))?;
    section.insert(key.to_owned(), parsed);
    Ok(())
}

fn check(file: File) -> anyhow::Result<Configuration> {
    let host = match &file.host.id {
        Some(id) => HostId::parse(id).context("`host.id`")?,
        None => host_name(),
    };
    let instance = match &file.host.instance {
        Some(name) => InstanceName::parse(name).context("`host.instance`")?,
        None => InstanceName::default_worker(),
    };
    let [first, last] = file.preview.ports;
    if first < 1025 || first > last {
        bail!("`preview.ports` must be two ports from 1025 up, the first not after the last");
    }
    if !(0.0..=1.0).contains(&file.capacity.disk_used_max) {
        bail!("`capacity.disk_used_max` is a share between 0 and 1");
    }
    for path in [&file.paths.data, &file.paths.state, &file.paths.secrets] {
        if !path.is_absolute() {
            bail!("`paths`: {} is not absolute", path.display());
        }
    }
    let amqp_urls = amqp::urls(&file.amqp)?;
    let settings = Settings {
        instance: InstanceName::default_worker(),
        policy_of: InstanceName::default_worker(),
        host,
        // Not below `paths.data`: what all instances of a host share lies where
        // all of them look (docs/adr/0026).
        host_dir: Settings::default().host_dir,
        data_dir: file.paths.data.clone(),
        state_dir: file.paths.state.clone(),
        secret_dir: file.paths.secrets.clone(),
        preview_ports: (first, last),
        preview_ports_excluded: file.preview.ports_excluded.clone(),
        preview_ip: file.preview.ip.parse().context("`preview.ip` is not an address")?,
        preview_domain: file.preview.domain.clone(),
        preview_public_url: file.preview.public_url.as_deref().map(public_url).transpose()?,
        preview_egress: match file.preview.egress {
            EgressWord::Open => PreviewEgress::Open,
            EgressWord::Proxy => PreviewEgress::Proxy,
        },
        agent: file.agent.check()?,
        egress: file.egress.check()?,
        git: file.git.check()?,
        capacity: Capacity {
            teams_max: file.capacity.teams_max,
            previews_per_team: file.capacity.previews_per_team,
            memory_overcommit: file.capacity.memory_overcommit,
            cpu_overcommit: file.capacity.cpu_overcommit,
            disk_used_max: file.capacity.disk_used_max,
            starts_at_once: file.capacity.starts_at_once,
            builds_at_once: file.capacity.builds_at_once,
        },
        cache_sized: file.preview.cache_sized,
        dockerfile_bases: file.preview.dockerfile_bases.clone(),
    };
    let http = file.http.check()?;
    let otlp = file.tracing.check()?;
    let cluster = file.cluster.check()?;
    let settings = settings.for_instance(instance);
    Ok(Configuration { settings, amqp_urls, cluster, http, otlp, file })
}

/// The machine's name as a host id: what does not fit becomes `-`.
fn host_name() -> HostId {
    let raw = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let mapped: String = raw
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    let mapped = mapped.trim_matches('-').chars().take(40).collect::<String>();
    HostId::parse(mapped.trim_matches('-'))
        .unwrap_or_else(|_| HostId::parse("localhost").expect("the literal matches the pattern"))
}

/// Reads the template of public links; a link of it must be one, and every preview's its own.
fn public_url(template: &str) -> anyhow::Result<String> {
    let example = template
        .replace("{host}", "main--team")
        .replace("{preview}", "main")
        .replace("{team}", "team")
        .replace("{port}", "5000");
    let link: url::Url = example.parse().context("`preview.public_url` is not a URL")?;
    if !matches!(link.scheme(), "http" | "https") || link.host_str().is_none() {
        bail!("`preview.public_url` must begin with http:// or https://");
    }
    if example.contains(['{', '}']) {
        bail!("`preview.public_url` knows {{host}}, {{preview}}, {{team}} and {{port}}");
    }
    if link.path() != "/" || link.query().is_some() || link.fragment().is_some() {
        bail!("`preview.public_url` must end with the host: dev servers serve from the root");
    }
    let is_own = ["{host}", "{port}"].iter().any(|name| template.contains(name))
        || (template.contains("{preview}") && template.contains("{team}"));
    if !is_own {
        bail!("`preview.public_url` must hold {{host}} or {{port}}, or previews share a link");
    }
    Ok(template.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PartName, TeamId};

    fn with(variables: &[(&str, &str)]) -> anyhow::Result<Configuration> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load(Some(file.path()), variables)
    }

    #[test]
    fn defaults_are_valid() {
        let configuration = with(&[]).unwrap();
        assert!(configuration.settings.instance.is_default());
        assert_eq!(configuration.http.listen.port(), 9464);
    }

    #[test]
    fn variables_override_the_file_and_are_read_as_toml_or_text() {
        let configuration = with(&[
            ("COVIBES_HOST_ID", "h1"),
            ("COVIBES_GIT_ALLOW_PRIVATE", "[\"127.0.0.1\"]"),
            ("COVIBES_CAPACITY_TEAMS_MAX", "3"),
            ("OTHER", "x"),
        ])
        .unwrap();
        assert_eq!(configuration.settings.host.as_str(), "h1");
        assert_eq!(configuration.settings.capacity.teams_max, 3);
        assert_eq!(configuration.settings.git.allow_private.len(), 1);
    }

    #[test]
    fn public_links_are_a_template_that_tells_previews_apart() {
        let url = |template| with(&[("COVIBES_PREVIEW_PUBLIC_URL", template)]);
        let configuration = url("https://{host}-{port}.example.org/").unwrap();
        let (preview, team) = (PartName::parse("main").unwrap(), TeamId::parse("a_b").unwrap());
        let link = configuration.settings.preview_link(&preview, &team, 5001);
        assert_eq!(link, "https://main--a-b-5001.example.org");
        for template in [
            "https://example.org",
            "https://{preview}.example.org",
            "https://{host}.example.org/below",
            "https://{name}-{port}.example.org",
            "ftp://{host}.example.org",
            "{host}",
        ] {
            assert!(url(template).is_err(), "{template}");
        }
    }

    #[test]
    fn unknown_keys_fail_and_are_named() {
        let error = with(&[("COVIBES_GIT_HOST", "x")]).unwrap_err();
        assert!(format!("{error:#}").contains("host"), "{error:#}");
    }

    #[test]
    fn what_a_host_shares_does_not_move_with_an_instances_data() {
        let moved = with(&[("COVIBES_PATHS_DATA", "/elsewhere")]).unwrap();
        assert!(moved.settings.data_dir.starts_with("/elsewhere"));
        assert_eq!(moved.settings.host_dir, with(&[]).unwrap().settings.host_dir);
    }

    #[test]
    fn another_instance_has_directories_of_its_own() {
        let configuration = with(&[("COVIBES_HOST_INSTANCE", "local")]).unwrap();
        assert!(configuration.settings.data_dir.ends_with("instances/local"));
        assert!(!configuration.settings.host_dir.ends_with("instances/local"));
    }
}
