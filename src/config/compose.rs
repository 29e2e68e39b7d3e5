//! Renders a plan as a `compose.yaml` that a person can read and run.
//!
//! Covibes itself does not run Compose (ADR 0001). The file of a team that runs
//! ([`render`]) binds the same directories, so it works on the host on which it
//! was rendered; the one for anybody ([`portable`]) needs nothing but the
//! images. JSON is valid YAML, so scalars are written as JSON strings and need
//! no YAML writer.

mod portable;

use std::fmt::Write;

use crate::domain::plan::{
    ContainerPlan, MountSource, NetworkChoice, Plan, Restart, Role, VolumeSource,
};

pub use portable::{Portable, portable};

/// A scalar that YAML reads back as the same string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            // Compose would interpolate a single dollar.
            '$' => out.push_str("$$"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
    format!("[{}]", words.join(", "))
}

/// Renders a plan. The same plan gives the same text.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |indent: usize, text: String| {
        let _ = writeln!(out, "{:indent$}{text}", "");
    };
    line(0, format!("# Rendered by Covibes for team {}; changed with every start.", plan.team));
    line(0, format!("name: {}", quoted(&format!("covibes-{}", plan.team))));
    line(0, "services:".to_owned());
    for container in &plan.containers {
        for (indent, text) in service(container, true) {
            line(indent, text);
        }
    }
    line(0, "networks:".to_owned());
    for network in &plan.networks {
        line(2, format!("{}:", quoted(network.name.as_str())));
        line(4, format!("name: {}", quoted(network.name.as_str())));
        line(4, format!("internal: {}", network.internal));
        line(4, "driver_opts:".to_owned());
        line(6, format!("com.docker.network.bridge.name: {}", quoted(&network.bridge)));
        line(6, format!("com.docker.network.driver.mtu: {}", quoted(&network.mtu.to_string())));
        line(4, "ipam:".to_owned());
        line(6, "config:".to_owned());
        line(8, format!("- subnet: {}", quoted(&network.subnet.to_string())));
    }
    line(0, "volumes:".to_owned());
    for volume in &plan.volumes {
        line(2, format!("{}:", quoted(volume.name.as_str())));
        line(4, format!("name: {}", quoted(volume.name.as_str())));
        if let VolumeSource::Bind(path) = &volume.source {
            line(4, "driver_opts:".to_owned());
            line(6, "type: none".to_owned());
            line(6, "o: bind".to_owned());
            line(6, format!("device: {}", quoted(&path.display().to_string())));
        }
    }
    out
}

/// The name of a container's service.
fn service_name(container: &ContainerPlan) -> String {
    match &container.owner.part {
        Some(part) => format!("{}-{part}", container.owner.role.as_str()),
        None => container.owner.role.as_str().to_owned(),
    }
}

/// A container as a service; `is_named` gives it the name that Covibes would.
fn service(container: &ContainerPlan, is_named: bool) -> Vec<(usize, String)> {
    let name = service_name(container);
    let mut lines = vec![(2, format!("{}:", quoted(&name)))];
    let mut line = |indent: usize, text: String| lines.push((indent, text));
    if is_named {
        line(4, format!("container_name: {}", quoted(container.name.as_str())));
    }
    line(4, format!("hostname: {}", quoted(&container.hostname)));
    line(4, format!("image: {}", quoted(container.image.as_str())));
    line(4, "pull_policy: never".to_owned());
    line(4, format!("user: {}", quoted(&format!("{}:{}", container.user.0, container.user.1))));
    line(4, format!("entrypoint: {}", list(&container.command[..1])));
    line(4, format!("command: {}", list(&container.command[1..])));
    line(4, format!("working_dir: {}", quoted(&container.working_dir)));
    line(4, "environment:".to_owned());
    for (key, value) in &container.env {
        line(6, format!("{}: {}", quoted(key), quoted(value)));
    }
    if let NetworkChoice::Team(network) = &container.network {
        line(4, format!("networks: [{}]", quoted(network.as_str())));
    }
    if !container.mounts.is_empty() {
        line(4, "volumes:".to_owned());
    }
    for mount in &container.mounts {
        let (kind, source) = match &mount.source {
            MountSource::Volume(name) => ("volume", name.as_str().to_owned()),
            MountSource::Bind(path) => ("bind", path.display().to_string()),
        };
        line(6, format!("- type: {kind}"));
        line(8, format!("source: {}", quoted(&source)));
        line(8, format!("target: {}", quoted(&mount.target)));
        line(8, format!("read_only: {}", mount.read_only));
        if kind == "volume" {
            line(8, "volume: {nocopy: true}".to_owned());
        } else {
            line(8, "bind: {create_host_path: false}".to_owned());
        }
    }
    line(4, "tmpfs:".to_owned());
    for tmpfs in &container.tmpfs {
        let exec = if tmpfs.executable { "exec" } else { "noexec" };
        let options = format!(
            "{}:rw,nosuid,nodev,{exec},size={},mode=1777,uid={},gid={}",
            tmpfs.target, tmpfs.bytes, container.user.0, container.user.1
        );
        line(6, format!("- {}", quoted(&options)));
    }
    if let Some(publish) = &container.publish {
        let text = format!("{}:{}:{}", publish.host_ip, publish.host_port, publish.container_port);
        line(4, format!("ports: [{}]", quoted(&text)));
    }
    let limits = &container.limits;
    line(4, format!("mem_limit: {}", limits.memory_bytes));
    line(4, format!("memswap_limit: {}", limits.memory_bytes));
    line(4, format!("mem_reservation: {}", limits.memory_reserved_bytes));
    line(4, format!("cpus: {}", f64::from(limits.cpu_millis) / 1000.0));
    line(4, format!("pids_limit: {}", limits.pids));
    line(4, "init: true".to_owned());
    line(4, "read_only: true".to_owned());
    line(4, "cap_drop: [ALL]".to_owned());
    line(4, "security_opt: [\"no-new-privileges:true\"]".to_owned());
    line(4, "ipc: private".to_owned());
    // Open files stay the daemon's: a number above its own hard limit fails
    // every start where root lacks CAP_SYS_RESOURCE.
    line(4, "ulimits: {core: 0}".to_owned());
    let restart = match container.restart {
        Restart::OnFailure => "on-failure:5",
        Restart::Never => "no",
    };
    line(4, format!("restart: {}", quoted(restart)));
    line(4, format!("stop_grace_period: {}s", container.stop_grace.as_secs()));
    line(4, "logging:".to_owned());
    line(6, "driver: json-file".to_owned());
    line(6, "options: {max-size: \"10m\", max-file: \"3\"}".to_owned());
    if !container.healthcheck.is_empty() {
        // Without a worker these are the only probes, so they are closer.
        let interval = if container.owner.role == Role::Preview { 15 } else { 30 };
        let mut test = vec!["CMD".to_owned()];
        test.extend(container.healthcheck.iter().cloned());
        line(4, "healthcheck:".to_owned());
        line(6, format!("test: {}", list(&test)));
        line(6, format!("interval: {interval}s"));
        line(6, "timeout: 10s".to_owned());
        line(6, "retries: 3".to_owned());
        line(6, "start_period: 60s".to_owned());
    }
    lines
}
