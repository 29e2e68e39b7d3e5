//! Interfaces and traffic control.

use std::fs;
use std::path::Path;

use super::program;

/// The MTU of the interface with the default route.
pub(super) async fn uplink_mtu() -> Option<u32> {
    let routes = tokio::fs::read_to_string("/proc/net/route").await.ok()?;
    let interface = routes
        .lines()
        .skip(1)
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .find(|f| f.get(1) == Some(&"00000000"))?
        .first()?
        .to_string();
    let mtu = tokio::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).await.ok()?;
    mtu.trim().parse().ok()
}

/// Limits a container's traffic in both directions.
///
/// Into the container: a token bucket on the host's end of its veth pair. Out
/// of it: one on its own end, entered by its main process's namespace; this
/// kernel has no ingress policing. Both are lost when the container restarts.
pub(super) async fn limit(pid: u32, bits_per_second: u64) -> Result<(), String> {
    let link = fs::read_to_string(format!("/proc/{pid}/root/sys/class/net/eth0/iflink"))
        .map_err(|e| format!("the container's interface cannot be read: {e}"))?;
    let veth = interface_of(link.trim()).ok_or("the container's interface has no peer")?;
    let rate = format!("{bits_per_second}bit");
    // 64 KiB of burst and 400 ms of queue let short answers pass unhindered.
    let bucket = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", "400ms"];
    let into = [&["qdisc", "replace", "dev", &veth], &bucket[..]].concat();
    let pid = pid.to_string();
    let enter = ["-t", &pid, "-n", "tc", "qdisc", "replace", "dev", "eth0"];
    let out_of = [&enter[..], &bucket[..]].concat();
    let (into, out_of) =
        tokio::join!(program("tc", &into, None), program("nsenter", &out_of, None));
    into.and(out_of).map(drop)
}

fn interface_of(index: &str) -> Option<String> {
    fs::read_dir(Path::new("/sys/class/net")).ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("ifindex")).ok()?;
        (found.trim() == index).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}
