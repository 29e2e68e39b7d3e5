//! The config hash of a container: equal hashes mean that nothing needs to be
//! replaced.
//!
//! Generation, job and run are left out, or every start would replace
//! everything; so is the published host port, which is a preference.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::domain::plan::{ContainerPlan, MountSource, NetworkChoice};

/// Raised when the way containers are created changes for equal plans, so that
/// an upgraded worker replaces what an older one made.
const CREATION: u32 = 1;

/// The hash of everything about a container that cannot be changed in place.
#[must_use]
pub fn container(plan: &ContainerPlan) -> String {
    let mut text = format!("creation={CREATION}\n");
    let mut line = |key: &str, value: &dyn std::fmt::Debug| {
        // Debug quotes strings, so no value can imitate another line.
        let _ = writeln!(text, "{key}={value:?}");
    };
    line("image", &plan.image.as_str());
    line("user", &plan.user);
    line("command", &plan.command);
    line("env", &plan.env);
    line("dir", &plan.working_dir);
    line("hostname", &plan.hostname);
    match &plan.network {
        NetworkChoice::Team(name) => line("network", &name.as_str()),
        NetworkChoice::Host => line("network", &"host"),
        NetworkChoice::None => line("network", &"none"),
    }
    for mount in &plan.mounts {
        let source = match &mount.source {
            MountSource::Volume(name) => format!("volume:{name}"),
            MountSource::Bind(path) => format!("bind:{}", path.display()),
        };
        line("mount", &(source, &mount.target, mount.read_only));
    }
    for tmpfs in &plan.tmpfs {
        line("tmpfs", &(&tmpfs.target, tmpfs.bytes, tmpfs.executable));
    }
    let limits = &plan.limits;
    line("memory", &(limits.memory_bytes, limits.memory_reserved_bytes));
    line("cpu", &limits.cpu_millis);
    line("pids", &limits.pids);
    line("disk", &limits.disk_bytes_per_second);
    line("publish", &plan.publish.as_ref().map(|p| (p.container_port, p.host_ip)));
    line("healthcheck", &plan.healthcheck);
    line("restart", &plan.restart);
    line("grace", &plan.stop_grace);
    digest(text.as_bytes())
}

/// The first 16 hexadecimal digits of a SHA-256: enough to tell versions of
/// one container apart.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
