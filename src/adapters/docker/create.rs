//! From plans to the Engine's requests, with the hardening of DESIGN 5.

use std::collections::{BTreeMap, HashMap};

use bollard::models;
use bollard::query_parameters::BuildImageOptions;
use bytes::Bytes;

use crate::domain::limits::Limits;
use crate::domain::plan::{
    ContainerPlan, Mount, MountSource, NetworkChoice, NetworkPlan, Owner, Restart, VolumePlan,
    VolumeSource,
};
use crate::ports::engine::{EngineError, ImageBuild, label};

/// The labels of a resource.
pub(super) fn labels(owner: &Owner) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (label::INSTANCE.to_owned(), owner.instance.to_string()),
        (label::ROLE.to_owned(), owner.role.as_str().to_owned()),
        (label::GENERATION.to_owned(), owner.generation.to_string()),
    ]);
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            labels.insert(key.to_owned(), value);
        }
    };
    put(label::TEAM, owner.team.as_ref().map(ToString::to_string));
    put(label::NAME, owner.part.as_ref().map(ToString::to_string));
    put(label::JOB, owner.job.as_ref().map(ToString::to_string));
    put(label::RUN, owner.run.as_ref().map(ToString::to_string));
    labels
}

pub(super) fn network_request(plan: &NetworkPlan) -> models::NetworkCreateRequest {
    models::NetworkCreateRequest {
        name: plan.name.as_str().to_owned(),
        driver: Some("bridge".to_owned()),
        internal: Some(plan.internal),
        ipam: Some(models::Ipam {
            config: Some(vec![models::IpamConfig {
                subnet: Some(plan.subnet.to_string()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        options: Some(HashMap::from([
            ("com.docker.network.bridge.name".to_owned(), plan.bridge.clone()),
            ("com.docker.network.driver.mtu".to_owned(), plan.mtu.to_string()),
        ])),
        labels: Some(labels(&plan.owner)),
        ..Default::default()
    }
}

pub(super) fn volume_options(source: &VolumeSource) -> HashMap<String, String> {
    let options = |kind: &str, o: String, device: String| {
        HashMap::from([
            ("type".to_owned(), kind.to_owned()),
            ("o".to_owned(), o),
            ("device".to_owned(), device),
        ])
    };
    match source {
        VolumeSource::Bind(path) => options("none", "bind".to_owned(), path.display().to_string()),
        VolumeSource::Overlay { lower, upper, work } => options(
            "overlay",
            format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                upper.display(),
                work.display()
            ),
            "overlay".to_owned(),
        ),
        VolumeSource::Managed => HashMap::new(),
    }
}

pub(super) fn volume_request(plan: &VolumePlan) -> models::VolumeCreateRequest {
    models::VolumeCreateRequest {
        name: Some(plan.name.as_str().to_owned()),
        driver: Some("local".to_owned()),
        driver_opts: Some(volume_options(&plan.source)),
        labels: Some(labels(&plan.owner)),
        ..Default::default()
    }
}

pub(super) fn container_body(
    plan: &ContainerPlan,
    config_hash: &str,
    disk_device: Option<&str>,
    open_files: i64,
) -> models::ContainerCreateBody {
    let mut labels = labels(&plan.owner);
    labels.insert(label::CONFIG_HASH.to_owned(), config_hash.to_owned());
    let port_key = |port: u16| format!("{port}/tcp");
    models::ContainerCreateBody {
        hostname: match plan.network {
            NetworkChoice::Host => None,
            NetworkChoice::Team(_) | NetworkChoice::None => Some(plan.hostname.clone()),
        },
        user: Some(format!("{}:{}", plan.user.0, plan.user.1)),
        env: Some(plan.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        // The image's own entrypoint is never trusted to be there.
        entrypoint: Some(plan.command.iter().take(1).cloned().collect()),
        cmd: Some(plan.command.iter().skip(1).cloned().collect()),
        image: Some(plan.image.as_str().to_owned()),
        working_dir: Some(plan.working_dir.clone()),
        labels: Some(labels),
        stop_timeout: i64::try_from(plan.stop_grace.as_secs()).ok(),
        exposed_ports: plan.publish.as_ref().map(|p| vec![port_key(p.container_port)]),
        healthcheck: Some(healthcheck(&plan.healthcheck)),
        host_config: Some(host_config(plan, disk_device, open_files)),
        ..Default::default()
    }
}

fn healthcheck(command: &[String]) -> models::HealthConfig {
    if command.is_empty() {
        return models::HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() };
    }
    let mut test = vec!["CMD".to_owned()];
    test.extend(command.iter().cloned());
    models::HealthConfig {
        test: Some(test),
        // An exec costs 64 CPU-ms; the worker's own probes are the fast ones.
        interval: Some(300 * 1_000_000_000),
        timeout: Some(10 * 1_000_000_000),
        retries: Some(3),
        start_period: Some(60 * 1_000_000_000),
        ..Default::default()
    }
}

fn host_config(
    plan: &ContainerPlan,
    disk_device: Option<&str>,
    open_files: i64,
) -> models::HostConfig {
    let Limits { memory_bytes, memory_reserved_bytes, cpu_millis, pids, .. } = plan.limits;
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let throttle = plan.limits.disk_bytes_per_second.zip(disk_device).map(|(rate, device)| {
        vec![models::ThrottleDevice { path: Some(device.to_owned()), rate: Some(bytes(rate)) }]
    });
    models::HostConfig {
        memory: Some(bytes(memory_bytes)),
        // Equal to memory: no swap. Unset, cgroup v1 would allow twice as much.
        memory_swap: Some(bytes(memory_bytes)),
        memory_reservation: (memory_reserved_bytes > 0).then(|| bytes(memory_reserved_bytes)),
        nano_cpus: Some(i64::from(cpu_millis) * 1_000_000),
        pids_limit: Some(i64::from(pids)),
        blkio_device_read_bps: throttle.clone(),
        blkio_device_write_bps: throttle,
        ulimits: Some(vec![
            ulimit("nofile", open_files),
            // No core dumps: they would hold a team's secrets.
            ulimit("core", 0),
        ]),
        init: Some(true),
        network_mode: Some(match &plan.network {
            NetworkChoice::Team(name) => name.as_str().to_owned(),
            NetworkChoice::Host => "host".to_owned(),
            NetworkChoice::None => "none".to_owned(),
        }),
        port_bindings: plan.publish.as_ref().map(|publish| {
            HashMap::from([(
                format!("{}/tcp", publish.container_port),
                Some(vec![models::PortBinding {
                    // Omitted, the Engine would bind every address.
                    host_ip: Some(publish.host_ip.to_string()),
                    host_port: Some(publish.host_port.to_string()),
                }]),
            )])
        }),
        restart_policy: Some(match plan.restart {
            Restart::OnFailure => models::RestartPolicy {
                name: Some(models::RestartPolicyNameEnum::ON_FAILURE),
                maximum_retry_count: Some(5),
            },
            Restart::Never => models::RestartPolicy {
                name: Some(models::RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            },
        }),
        mounts: Some(plan.mounts.iter().map(mount).collect()),
        tmpfs: Some(
            plan.tmpfs
                .iter()
                .map(|t| {
                    let exec = if t.executable { "exec" } else { "noexec" };
                    let (uid, gid) = plan.user;
                    let options = format!(
                        "rw,nosuid,nodev,{exec},size={},mode=1777,uid={uid},gid={gid}",
                        t.bytes
                    );
                    (t.target.clone(), options)
                })
                .collect(),
        ),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(models::HostConfigCgroupnsModeEnum::PRIVATE),
        dns_options: match plan.network {
            // An internal network hangs for 20 s on an outside name otherwise.
            NetworkChoice::Team(_) => Some(vec!["timeout:2".to_owned(), "attempts:2".to_owned()]),
            NetworkChoice::Host | NetworkChoice::None => None,
        },
        log_config: Some(models::HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "3".to_owned()),
            ])),
        }),
        ..Default::default()
    }
}

fn ulimit(name: &str, value: i64) -> models::ResourcesUlimits {
    models::ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn mount(mount: &Mount) -> models::Mount {
    let (typ, source) = match &mount.source {
        MountSource::Volume(name) => (models::MountType::VOLUME, name.as_str().to_owned()),
        MountSource::Bind(path) => (models::MountType::BIND, path.display().to_string()),
    };
    models::Mount {
        target: Some(mount.target.clone()),
        source: Some(source),
        read_only: Some(mount.read_only),
        bind_options: (typ == models::MountType::BIND).then(|| models::MountBindOptions {
            propagation: Some(models::MountBindOptionsPropagationEnum::RPRIVATE),
            ..Default::default()
        }),
        volume_options: (typ == models::MountType::VOLUME).then(|| models::MountVolumeOptions {
            // An empty workspace must not be filled from the image.
            no_copy: Some(true),
            ..Default::default()
        }),
        typ: Some(typ),
        ..Default::default()
    }
}

/// What is sent to the builder.
pub(super) fn context(build: &ImageBuild) -> Result<Bytes, EngineError> {
    match build.held.as_ref().and_then(|held| held.context.clone()) {
        Some(context) => Ok(context),
        None => context_tar(&build.files).map(Bytes::from),
    }
}

/// The Dockerfile of a build, and what its instructions may use.
pub(super) fn build_limits(build: &ImageBuild) -> BuildImageOptions {
    let Some(held) = &build.held else {
        return BuildImageOptions { dockerfile: "Dockerfile".to_owned(), ..Default::default() };
    };
    let bytes = i32::try_from(held.limits.memory_bytes).unwrap_or(i32::MAX);
    BuildImageOptions {
        dockerfile: held.dockerfile.clone(),
        target: held.stage.clone().unwrap_or_default(),
        memory: Some(bytes),
        // Equal to memory: no swap.
        memswap: Some(bytes),
        cpuperiod: Some(100_000),
        cpuquota: i32::try_from(held.limits.cpu_millis).ok().map(|millis| millis * 100),
        networkmode: Some(held.network.as_str().to_owned()),
        ..Default::default()
    }
}

/// Packs a build context; the same files give the same bytes, so that the
/// builder's cache works.
pub(super) fn context_tar(files: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>, EngineError> {
    let sorted: BTreeMap<_, _> = files.iter().map(|(p, m, c)| (p, (m, c))).collect();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, (mode, content)) in sorted {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, content.as_slice())
            .map_err(|e| EngineError::Build { message: format!("cannot pack {path}: {e}") })?;
    }
    tar.into_inner().map_err(|e| EngineError::Build { message: format!("cannot pack: {e}") })
}
