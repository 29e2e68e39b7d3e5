//! `covibes host` and `doctor`: what this host has and lacks.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::adapters::host::LinuxHost;
use crate::adapters::memory_queue::MemoryEvents;
use crate::app::configuration::Configuration;
use crate::app::exit;
use crate::app::stdout::outln;
use crate::app::wiring::wire;
use crate::domain::ids::{HostId, InstanceName, TeamId};
use crate::domain::limits::{CONTAINER_UID, PREVIEW_CACHE_BYTES};
use crate::pipeline::image_catalog::{ImageCatalog, ImageKind};
use crate::pipeline::runtimes;
use crate::ports::engine::Engine;
use crate::ports::host::Host as _;

/// A dev server takes one or two, and kernels give 128 to a user by default.
const INSTANCES_WANTED: u64 = 512;

/// Looks after the host.
#[derive(Debug, clap::Subcommand)]
pub enum Host {
    /// Build the images, start the egress proxy, set the firewall rules.
    Prepare,
    /// Remove what of the disk nobody needs any more. A worker does so by itself every
    /// ten minutes.
    Gc {
        /// Only print what would be removed, and why; also beside a worker.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// List the hosts on the broker: how they are and how much room they have.
    Ls {
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Give up a host that is gone for good: its waiting jobs go on elsewhere,
    /// in order, and its teams begin anew.
    Evict {
        /// The host's id.
        host: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Make a stopped team another host's. Its workspace must be clean and
    /// pushed: the next start clones it there.
    Move {
        /// The team's id.
        team: String,
        /// The id of the host that is to have it.
        host: String,
    },
}

/// The instance under which preparation and doctor keep their (empty) state,
/// apart from any worker's lock.
fn apart(mut configuration: Configuration, name: &str) -> anyhow::Result<Configuration> {
    let instance = InstanceName::parse(name)?;
    let policy_of = configuration.settings.policy_of.clone();
    configuration.settings = configuration.settings.for_instance(instance);
    configuration.settings.policy_of = policy_of;
    Ok(configuration)
}

/// Runs a command.
///
/// # Errors
/// An image cannot be built, or the host refuses.
pub async fn run(configuration: Configuration, command: Host) -> anyhow::Result<ExitCode> {
    crate::app::logs::of_command();
    match command {
        Host::Prepare => prepare(configuration).await,
        Host::Gc { dry_run: true, json } => super::gc::show(configuration, json).await,
        Host::Gc { dry_run: false, json } => super::gc::clean(configuration, json).await,
        Host::Ls { json } => super::cluster::list(configuration, json).await,
        Host::Evict { host, yes } => {
            super::cluster::evict(configuration, &HostId::parse(&host)?, yes).await
        }
        Host::Move { team, host } => {
            let (team, host) = (TeamId::parse(&team)?, HostId::parse(&host)?);
            super::cluster::move_team(configuration, &team, &host).await
        }
    }
}

async fn prepare(configuration: Configuration) -> anyhow::Result<ExitCode> {
    let configuration = apart(configuration, "prepare")?;
    let wired = wire(&configuration, Arc::new(MemoryEvents::new(1))).await?;
    let said = std::sync::Mutex::new(String::new());
    let say = |line: String| {
        if let Ok(mut last) = said.lock()
            && *last != line
        {
            eprintln!("  {line}");
            *last = line;
        }
    };
    let preview = [
        ImageKind::Base,
        ImageKind::PreviewPython(runtimes::PYTHON.default_line().to_owned()),
        ImageKind::PreviewNode(runtimes::NODE.default_line().to_owned()),
        ImageKind::PreviewStatic,
    ];
    for kind in preview {
        if let Err(failure) = wired.preparation.ensure_image(&wired.ports, &kind, &say).await {
            return Ok(report(&failure));
        }
    }
    match wired.preparation.ensure(&wired.ports, &say).await {
        Err(failure) => Ok(report(&failure)),
        Ok(findings) => {
            for finding in findings {
                eprintln!("  {}: {}", finding.subject, finding.message);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn report(failure: &crate::domain::failure::Failure) -> ExitCode {
    for line in &failure.log {
        eprintln!("  | {line}");
    }
    eprintln!("covibes: {} ({}). {}", failure.message, failure.code, failure.code.hint());
    ExitCode::from(exit::FAILED)
}

/// Says what this host lacks: exit 0 for nothing, 1 otherwise.
///
/// # Errors
/// The configuration is not fit to look with.
pub async fn doctor(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    crate::app::logs::of_command();
    let mut checks: Vec<(&str, bool, String)> = Vec::new();
    let engine = super::teams::engine(&configuration);
    match engine.version().await {
        Ok(version) => {
            checks.push(("docker", true, format!("{} (API {})", version.version, version.api)));
            let debian = engine.image_exists(&ImageCatalog::debian()).await.unwrap_or(false);
            let hint = if debian { "is there" } else { "is missing: run ops/setup.sh" };
            checks.push(("base image", debian, hint.to_owned()));
        }
        Err(error) => checks.push(("docker", false, error.to_string())),
    }
    checks.push(data_check(&LinuxHost::new(Vec::new()), &configuration.settings.data_dir).await);
    checks.extend(broker_checks(&configuration).await);
    for program in ["nft", "iptables", "tc", "nsenter", "mkfs.ext4", "mount", "umount"] {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|d| Path::new(d).join(program).exists());
        let hint = if found { "is there" } else { "is missing: its limits are not enforced" };
        checks.push((program, found, hint.to_owned()));
    }
    checks.extend(rules().await);
    checks.extend(ways_out(&configuration.settings.host_dir));
    checks.extend(limits(&configuration).await);
    let ok = checks.iter().all(|(_, ok, _)| *ok);
    if as_json {
        let list: Vec<_> = checks
            .iter()
            .map(|(name, ok, detail)| json!({"check": name, "ok": ok, "detail": detail}))
            .collect();
        outln!("{}", json!({"ok": ok, "checks": list}));
    } else {
        for (name, ok, detail) in &checks {
            outln!("{} {name:<18} {detail}", if *ok { "ok  " } else { "FAIL" });
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Whether teams are really kept from this host, and really reach the proxy.
async fn rules() -> Vec<(&'static str, bool, String)> {
    let findings = LinuxHost::new(Vec::new()).verify_rules().await;
    if findings.is_empty() {
        let detail = "tried: a team reaches the egress proxy and nothing else of this host";
        return vec![("host rules", true, detail.to_owned())];
    }
    findings.into_iter().map(|finding| ("host rules", false, finding.message)).collect()
}

/// What the proxy lets everybody through to, private addresses by name.
fn ways_out(host_dir: &Path) -> Option<(&'static str, bool, String)> {
    let list = |name: &str| {
        let text = std::fs::read_to_string(host_dir.join("egress").join(name)).ok()?;
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (hosts, private) = (list("allowed-hosts.txt")?, list("allow-private.txt")?);
    let private: Vec<_> = private.into_iter().filter(|net| net != "255.255.255.255").collect();
    let mut detail = format!("the proxy lets through to {}", hosts.join(", "));
    if !private.is_empty() {
        detail.push_str(&format!("; at private addresses {}", private.join(", ")));
    }
    Some(("egress", true, detail))
}

/// What this host holds previews to: file watches, and the size of a cache.
async fn limits(configuration: &Configuration) -> Vec<(&'static str, bool, String)> {
    let settings = &configuration.settings;
    let host = LinuxHost::new(vec![settings.data_dir.clone()]);
    let watches = host.watch_use(CONTAINER_UID).await;
    let detail = format!(
        "{} of {} watches and {} of {} instances in use{}",
        watches.watches,
        watches.watches_max,
        watches.instances,
        watches.instances_max,
        if watches.instances_max < INSTANCES_WANTED {
            "; raise fs.inotify.max_user_instances before many teams run here"
        } else {
            ""
        }
    );
    let is_used_up = watches.watches > watches.watches_max / 10 * 9
        || watches.instances + 2 > watches.instances_max;
    let megabytes = PREVIEW_CACHE_BYTES >> 20;
    let watched = format!("its downloads are removed as it comes to {megabytes} MB");
    let cache = if settings.cache_sized {
        // Tried, because too much can stand in the way of a loop mount.
        let path = settings.data_dir.join(format!(".doctor-{}", std::process::id()));
        let tried = host.ensure_sized_dir(&path, 16 << 20, CONTAINER_UID, CONTAINER_UID).await;
        let removed = host.remove_tree(&path).await;
        match (tried, removed) {
            (Ok(None), Ok(())) => {
                (true, format!("{megabytes} MB each, a file system of its own in a loop mount"))
            }
            (Ok(Some(finding)), _) => (false, format!("{}; {watched}", finding.message)),
            (Err(failure), _) | (_, Err(failure)) => {
                (false, format!("{}; {watched}", failure.message))
            }
        }
    } else {
        (true, format!("not enforced (`preview.cache_sized` is off); {watched}"))
    };
    // A host with the second version of control groups has this file at its top.
    let second = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let disk = match second {
        true => "reads and writes are held (cgroup v2)",
        false => {
            "only direct reads and writes are held: buffered writes go out in the kernel's own name \
             (cgroup v1)"
        }
    };
    vec![
        ("inotify", !is_used_up, detail),
        ("preview caches", cache.0, cache.1),
        ("disk limits", true, disk.to_owned()),
    ]
}

/// Whether installs can run where the teams' files lie.
async fn data_check(
    host: &dyn crate::ports::host::Host,
    data: &Path,
) -> (&'static str, bool, String) {
    match host.overlay_finding(data).await {
        Some(finding) => ("paths.data", false, finding.message),
        None => ("paths.data", true, format!("{} can hold overlays", data.display())),
    }
}

/// Whether each address of the broker can be used, and what a split of the
/// cluster would do, as far as that can be seen.
async fn broker_checks(configuration: &Configuration) -> Vec<(&'static str, bool, String)> {
    let client = match crate::app::submit::client(configuration) {
        Ok(client) => client,
        Err(error) => return vec![("rabbitmq", false, format!("{error:#}"))],
    };
    let mut checks = Vec::new();
    let mut clusters = BTreeSet::new();
    let mut may_split = false;
    for (at, found) in client.look_at_nodes().await {
        match found {
            Ok(node) => {
                let detail = format!("{} at {at}, cluster {}", node.version, node.cluster);
                checks.push(("rabbitmq", true, detail));
                may_split |= node.needs_partition_handling();
                clusters.insert(node.cluster);
            }
            Err(error) => checks.push(("rabbitmq", false, format!("{at}: {error}"))),
        }
    }
    if clusters.len() > 1 {
        let all = clusters.into_iter().collect::<Vec<_>>().join(", ");
        checks.push(("cluster", false, format!("the addresses of `amqp.url` belong to {all}")));
    } else if may_split && configuration.amqp_urls.len() > 1 {
        // A node tells its partition handling to nobody over AMQP.
        let how = "before 4.x each node needs `cluster_partition_handling = pause_minority`; \
                   look with: rabbitmqctl environment | grep cluster_partition_handling";
        checks.push(("cluster", true, how.to_owned()));
    }
    checks
}
