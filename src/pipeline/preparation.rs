//! Host preparation: what every run needs and all instances share. Images, the
//! egress proxy, the host's firewall rules.
//!
//! Idempotent, remembered for a while, and removed by nobody: its things carry
//! the instance `host`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ports;
use super::image_catalog::{ImageCatalog, ImageKind};
use super::{egress, oneshot};
use crate::config::hash;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{InstanceName, TeamId};
use crate::domain::limits::{self, Limits, PROXY_PORT};
use crate::domain::names::{ContainerName, ImageRef};
use crate::domain::plan::{
    ContainerPlan, Mount, MountSource, NetworkChoice, Owner, ProbeKind, Restart, Role, Tmpfs,
};
use crate::ports::engine::label;
use crate::ports::host::{Finding, HostRules};
use crate::ports::probe::ProbeAnswer;

/// How long a preparation is believed. A start that changes nothing should not
/// pay for it; a daemon that lost its rules gets them back within a minute.
const BELIEVED: Duration = Duration::from_secs(60);

/// How often a worker confirms its egress policy.
const POLICY_CONFIRMED_EVERY: Duration = Duration::from_secs(3700);

/// How often the proxy is looked after before a refusal is taken as one.
const PROXY_TRIES: u32 = 3;

/// Prepares the host.
pub struct Preparation {
    catalog: ImageCatalog,
    /// Registries by group, as this host's own clients are configured.
    client_hosts: BTreeMap<String, BTreeSet<String>>,
    /// Of teams that have hosts of their own; the record knows those of before.
    slots: Mutex<BTreeMap<TeamId, u16>>,
    /// When the host was last prepared, and what it lacks.
    done: Mutex<Option<(Instant, Vec<Finding>)>>,
    /// One build at a time: they share layers.
    building: Mutex<()>,
}

impl Preparation {
    /// Prepares with these images.
    #[must_use]
    pub fn new(catalog: ImageCatalog) -> Self {
        let client_hosts = BTreeMap::new();
        let slots = Mutex::default();
        Self { catalog, client_hosts, slots, done: Mutex::new(None), building: Mutex::new(()) }
    }

    /// The same, with registries that clients on this host are configured for.
    #[must_use]
    pub fn with_client_hosts(mut self, hosts: BTreeMap<String, BTreeSet<String>>) -> Self {
        self.client_hosts = hosts;
        self
    }

    /// Confirms this instance's egress policy every hour until `end`: those of
    /// instances that are gone are forgotten some day.
    pub async fn keep_policy(&self, ports: &Ports, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = ports.clock.sleep(POLICY_CONFIRMED_EVERY) => {}
            }
            // Not before the first preparation: a worker without a team allows nothing.
            if self.done.lock().await.is_some()
                && let Err(failure) = self.ensure_proxy(ports, &|_| {}).await
            {
                tracing::warn!(%failure, "the egress policy could not be confirmed");
            }
        }
    }

    /// Has the proxy know what the host policy allows to one team, before it needs it.
    ///
    /// # Errors
    /// The proxy does not come up.
    pub async fn allow_team(&self, ports: &Ports, team: &TeamId, slot: u16) -> Result<(), Failure> {
        if !ports.settings.egress.teams.contains_key(team) {
            return Ok(());
        }
        self.slots.lock().await.insert(team.clone(), slot);
        self.ensure_proxy(ports, &|_| {}).await
    }

    /// The images.
    #[must_use]
    pub fn catalog(&self) -> &ImageCatalog {
        &self.catalog
    }

    /// Makes the host ready, or finds that it is; tells what the host lacks.
    ///
    /// # Errors
    /// An image cannot be built, or the proxy does not come up.
    pub async fn ensure(
        &self,
        ports: &Ports,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Vec<Finding>, Failure> {
        let mut done = self.done.lock().await;
        if let Some((at, findings)) = done.as_ref()
            && at.elapsed() < BELIEVED
        {
            return Ok(findings.clone());
        }
        for kind in [ImageKind::Base, ImageKind::Sync, ImageKind::Agent, ImageKind::Egress] {
            self.ensure_image(ports, &kind, say).await?;
        }
        say("setting the host's firewall rules".to_owned());
        let findings = self.ensure_rules(ports).await?;
        // Another instance may be doing the same to the same container: what
        // it took meanwhile is found as it should be at the next look.
        let mut tries = 1;
        while let Err(failure) = self.ensure_proxy(ports, say).await {
            if tries == PROXY_TRIES || failure.code != Code::DockerFailed {
                return Err(failure);
            }
            tries += 1;
            ports.clock.sleep(Duration::from_millis(500)).await;
        }
        *done = Some((Instant::now(), findings.clone()));
        Ok(findings)
    }

    /// Believes no earlier preparation: the daemon went, and the proxy with it.
    pub async fn doubt(&self) {
        *self.done.lock().await = None;
    }

    /// Sets the host's firewall rules; also at boot, before any job.
    ///
    /// # Errors
    /// The host cannot be asked; what it merely denies is a finding.
    pub async fn ensure_rules(&self, ports: &Ports) -> Result<Vec<Finding>, Failure> {
        let rules = HostRules {
            resolvers: ports.host.resolvers().await,
            allow_private: ports.settings.egress.allow_private.clone(),
        };
        let findings = ports.host.ensure_rules(&rules).await?;
        for finding in &findings {
            tracing::warn!(subject = finding.subject, "{}", finding.message);
        }
        Ok(findings)
    }

    /// Builds an image if it is missing.
    ///
    /// # Errors
    /// `image.missing` without a Debian to build from, `build.image_failed`
    /// with the build's last lines.
    pub async fn ensure_image(
        &self,
        ports: &Ports,
        kind: &ImageKind,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ImageRef, Failure> {
        let image = self.catalog.image(kind);
        if ports.engine.image_exists(&image).await? {
            return Ok(image);
        }
        if let Some(parent) = self.catalog.made_parent(kind) {
            Box::pin(self.ensure_image(ports, &parent, say)).await?;
        }
        let _one = self.building.lock().await;
        if ports.engine.image_exists(&image).await? {
            return Ok(image);
        }
        let parent = self.catalog.parent(kind);
        if !ports.engine.image_exists(&parent).await? {
            return Err(Failure::new(
                Code::ImageMissing,
                format!("the image {parent} is missing on this host"),
            ));
        }
        tracing::info!(image = %image, "building an image");
        // Every line of a build is a sign of life, but only its steps are news.
        let news = std::sync::Mutex::new(format!("building the image {}", kind.name()));
        say(format!("building the image {}", kind.name()));
        let build = self.catalog.build(&*ports.host, kind).await?;
        let last = std::sync::Mutex::new(std::collections::VecDeque::new());
        let started = Instant::now();
        let result = ports
            .engine
            .build_image(&build, &|line| {
                if let Ok(mut last) = last.lock() {
                    if last.len() == 100 {
                        last.pop_front();
                    }
                    last.push_back(line.to_owned());
                }
                // `Step 3/12 : RUN ...`: the counter is enough for people.
                let step = line.strip_prefix("Step ").and_then(|l| l.split(' ').next());
                if let Ok(mut news) = news.lock() {
                    if let Some(step) = step {
                        *news = format!("building the image {}, step {step}", kind.name());
                    }
                    say(news.clone());
                }
            })
            .await;
        ports.metrics.image_built(result.is_ok(), started.elapsed());
        result.map_err(|error| {
            let log = last.into_inner().unwrap_or_default().into();
            Failure::from(error).with_log(log)
        })?;
        Ok(image)
    }

    async fn ensure_proxy(
        &self,
        ports: &Ports,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), Failure> {
        say("starting the egress proxy".to_owned());
        let groups = self.registry_hosts(ports).await?;
        let directory = ports.settings.host_dir.join("egress");
        let policy = egress::policy_of(ports, &groups, &*self.slots.lock().await).await?;
        let changed = egress::write_lists(ports, &directory, &policy).await?;
        let plan = proxy_plan(self.catalog.image(&ImageKind::Egress), &directory);
        let wanted = hash::container(&plan);
        let state = ports.engine.inspect_container(&plan.name).await?;
        match state {
            Some(state)
                if state.labels.get(label::INSTANCE).map(String::as_str) != Some("host") =>
            {
                return Err(Failure::new(
                    Code::DockerForeignResource,
                    format!("a container named {} exists that Covibes did not make", plan.name),
                ));
            }
            Some(state)
                if state.running && state.labels.get(label::CONFIG_HASH) == Some(&wanted) =>
            {
                if changed {
                    ports.engine.hangup_container(&plan.name).await?;
                    egress::note_read(ports, &directory).await?;
                }
            }
            _ => {
                egress::note_read(ports, &directory).await?;
                ports.engine.remove_container(&plan.name).await?;
                ports.engine.create_container(&plan, &wanted).await?;
                ports.engine.start_container(&plan.name).await?;
            }
        }
        self.wait_for_proxy(ports, &plan.name).await
    }

    async fn wait_for_proxy(&self, ports: &Ports, name: &ContainerName) -> Result<(), Failure> {
        let address = (IpAddr::from([127, 0, 0, 1]), PROXY_PORT).into();
        // Squid answers after a second; ten allow for a busy host.
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if ports.probe.tcp(address, Duration::from_secs(1)).await == ProbeAnswer::Connected {
                return Ok(());
            }
            ports.clock.sleep(Duration::from_millis(100)).await;
        }
        let log = ports.engine.log_tail(name, 30).await.unwrap_or_default();
        Err(Failure::new(Code::ServiceUnhealthy, "the egress proxy does not answer").with_log(log))
    }

    /// The hosts of the registry groups, as the clients in the agent image
    /// name them under this host's own client configuration.
    async fn registry_hosts(
        &self,
        ports: &Ports,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
        let image = self.catalog.image(&ImageKind::Agent);
        let cache = ports.settings.host_dir.join("registry-hosts.txt");
        let known = ports.host.read_file(&cache).await?.unwrap_or_default();
        let known = String::from_utf8_lossy(&known).into_owned();
        let text = if known.lines().next() == Some(image.as_str()) {
            known
        } else {
            let nonce = ports.clock.new_id().simple().to_string();
            let plan = ask_registries_plan(image.clone(), &nonce[24..]);
            let ended = oneshot::run(ports, &plan, &|_| {}).await?;
            let text = format!("{image}\n{}\n", ended.lines.join("\n"));
            ports.host.write_file(&cache, text.as_bytes(), 0o644, 0).await?;
            text
        };
        let mut groups = self.client_hosts.clone();
        for (group, url) in text.lines().skip(1).filter_map(|l| l.split_once(' ')) {
            if let Some(host) =
                url::Url::parse(url.trim()).ok().and_then(|u| Some(u.host_str()?.to_owned()))
            {
                groups.entry(group.to_owned()).or_default().insert(host);
            }
        }
        Ok(groups)
    }
}

/// Asks the package managers themselves, so that no host is named here.
const ASK_REGISTRIES: &str = r#"
echo "npm $(npm config get registry)"
python3 - <<'END'
import configparser
from pip._internal.models.index import PyPI
config = configparser.ConfigParser()
config.read("/etc/pip.conf")
urls = [v for s in config.sections() for k, v in config.items(s) if k.endswith("index-url")]
for url in urls or [PyPI.url, "https://" + PyPI.file_storage_domain]:
    print("pypi", url)
END
"#;

fn host_owner(role: Role) -> Owner {
    Owner {
        instance: InstanceName::parse("host").expect("the literal matches the pattern"),
        team: None,
        role,
        part: None,
        generation: 0,
        job: None,
        run: None,
    }
}

fn tmpfs(target: &str) -> Tmpfs {
    Tmpfs { target: target.to_owned(), bytes: 32 << 20, executable: false }
}

fn host_plan(name: &str, role: Role, image: ImageRef, command: &[&str]) -> ContainerPlan {
    ContainerPlan {
        name: ContainerName::from_engine(name).expect("the literal is a name"),
        owner: host_owner(role),
        image,
        user: (limits::CONTAINER_UID, limits::CONTAINER_UID),
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        env: BTreeMap::new(),
        working_dir: "/".to_owned(),
        hostname: role.as_str().to_owned(),
        network: NetworkChoice::None,
        mounts: Vec::new(),
        tmpfs: vec![tmpfs("/tmp"), tmpfs("/run")],
        limits: Limits { cpu_reserved_millis: 0, ..limits::ONESHOT },
        publish: None,
        probe: ProbeKind::None,
        healthcheck: Vec::new(),
        restart: Restart::Never,
        stop_grace: Duration::from_secs(5),
    }
}

fn ask_registries_plan(image: ImageRef, nonce: &str) -> ContainerPlan {
    let command = ["/bin/sh", "-c", ASK_REGISTRIES];
    // A name of its own: other instances may ask at the same moment.
    let name = format!("covibes_ask_registries_{nonce}");
    let mut plan = host_plan(&name, Role::Oneshot, image, &command);
    plan.env.insert("HOME".to_owned(), "/tmp".to_owned());
    plan
}

fn proxy_plan(image: ImageRef, directory: &Path) -> ContainerPlan {
    let command = ["squid", "-N", "-d", "1", "-f", "/etc/covibes/squid.conf"];
    let mut plan = host_plan("covibes_egress", Role::Egress, image, &command);
    // Debian's user `proxy`.
    plan.user = (13, 13);
    // The one exception to "no host network" (DESIGN 1).
    plan.network = NetworkChoice::Host;
    plan.restart = Restart::OnFailure;
    plan.limits.memory_bytes = 256 << 20;
    plan.tmpfs.extend([tmpfs("/var/log/squid"), tmpfs("/var/spool/squid")]);
    plan.mounts.push(Mount {
        source: MountSource::Bind(directory.to_owned()),
        target: "/etc/covibes".to_owned(),
        read_only: true,
    });
    plan
}

/// Whether an address is one that a hostile name could point at to reach the
/// inside.
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_unspecified()
                || ip.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || (a == 192 && b == 0 && c == 0)
        }
        IpAddr::V6(ip) => {
            if let Some(mapped) = ip.to_ipv4_mapped() {
                return is_private(IpAddr::V4(mapped));
            }
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}
