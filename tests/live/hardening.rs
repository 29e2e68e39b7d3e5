//! Every container of a team against the table of the CIS benchmark and the
//! table of roles, read from the Engine and from inside.

use serde_json::{Value, json};

use crate::docker;
use crate::place::Place;
use crate::projects;

struct Role {
    container: String,
    memory: u64,
    nano_cpus: u64,
    pids: u64,
    writable: &'static [&'static str],
    read_only: &'static [&'static str],
    publishes: usize,
}

fn check(role: &Role, inspected: &Value) {
    let name = &role.container;
    let host = &inspected["HostConfig"];
    assert_eq!(host["CapDrop"], json!(["ALL"]), "5.4 {name}");
    assert!(host["CapAdd"].as_array().is_none_or(Vec::is_empty), "5.4 {name}");
    assert_eq!(host["Privileged"], false, "5.5 {name}");
    assert_eq!(host["Memory"], role.memory, "5.11 {name}");
    assert_eq!(host["MemorySwap"], role.memory, "5.11 {name}");
    assert_eq!(host["NanoCpus"], role.nano_cpus, "5.12 {name}");
    assert_eq!(host["ReadonlyRootfs"], true, "5.13 {name}");
    assert_eq!(host["RestartPolicy"]["MaximumRetryCount"], 5, "5.15 {name}");
    assert_ne!(host["PidMode"], "host", "5.16 {name}");
    assert_eq!(host["IpcMode"], "private", "5.17 {name}");
    assert!(host["Devices"].as_array().is_none_or(Vec::is_empty), "5.18 {name}");
    assert_ne!(host["UTSMode"], "host", "5.21 {name}");
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]), "5.22, 5.26 {name}");
    assert_eq!(host["CgroupParent"], "", "5.25 {name}");
    assert!(inspected["State"]["Health"].is_object(), "5.27 {name}");
    assert_eq!(host["PidsLimit"], role.pids, "5.29 {name}");
    assert_ne!(host["NetworkMode"], "host", "5.10 {name}");
    assert_ne!(host["NetworkMode"], "default", "5.30 {name}");
    assert_ne!(host["UsernsMode"], "host", "5.31 {name}");
    assert_eq!(host["Init"], true, "{name}");
    assert_eq!(host["LogConfig"]["Config"], json!({"max-size": "10m", "max-file": "3"}), "{name}");
    let user = inspected["Config"]["User"].as_str().unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{name} runs as {user}");
    let bindings = host["PortBindings"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(bindings, role.publishes, "5.9 {name}");
    for binding in host["PortBindings"].as_object().into_iter().flatten() {
        assert_eq!(binding.1[0]["HostIp"], "127.0.0.1", "5.14 {name}");
        let port: u16 = binding.1[0]["HostPort"].as_str().unwrap().parse().unwrap();
        assert!((5000..=8999).contains(&port), "5.8 {name}");
    }
    let mounts = inspected["Mounts"].as_array().unwrap();
    for mount in mounts {
        let source = mount["Source"].as_str().unwrap();
        assert!(!source.contains("docker.sock"), "5.32 {name}");
        assert_ne!(mount["Propagation"], "shared", "5.20 {name}");
        assert!(
            source.starts_with("/var/covibes/") || source.starts_with("/var/lib/docker/volumes/"),
            "5.6 {name}: {source}"
        );
    }
    let is = |target: &str, writable: bool| {
        mounts.iter().any(|m| m["Destination"] == target && m["RW"] == writable)
    };
    for target in role.writable {
        assert!(is(target, true), "{name} writes {target}: {mounts:?}");
    }
    for target in role.read_only {
        assert!(is(target, false), "{name} only reads {target}: {mounts:?}");
    }
}

#[tokio::test]
async fn every_role_is_hardened_and_limited() {
    let place = Place::new().await;
    let project = projects::plain(&place, "app");
    place.done(&["up", project.to_str().unwrap(), "--team", "hard", "--json"]).await;
    let name = |role: &str, part: &str| format!("covibes.{}_{role}_hard{part}", place.instance);
    let roles = [
        Role {
            container: name("agent", "_agent-1"),
            memory: 2 << 30,
            nano_cpus: 1_000_000_000,
            pids: 256,
            writable: &["/workspace", "/worktrees", "/tmp/agent"],
            read_only: &["/run/covibes", "/run/secrets/covibes"],
            publishes: 0,
        },
        Role {
            container: name("preview", "_main"),
            memory: 1 << 30,
            nano_cpus: 500_000_000,
            pids: 512,
            writable: &["/app/.cache", "/app/node_modules"],
            read_only: &["/workspace", "/worktrees"],
            publishes: 1,
        },
        Role {
            container: name("sync", ""),
            memory: 128 << 20,
            nano_cpus: 100_000_000,
            pids: 128,
            writable: &["/workspace", "/worktrees"],
            read_only: &["/run/covibes"],
            publishes: 0,
        },
    ];
    for role in &roles {
        check(role, &docker::inspect(&role.container).await);
        let status = docker::exec(&role.container, &["cat", "/proc/self/status"]).await.output;
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(u64::from_str_radix(&field("CapEff"), 16), Ok(0), "{}", role.container);
        assert_eq!(field("NoNewPrivs"), "1", "{}", role.container);
        assert_eq!(field("Seccomp"), "2", "{}", role.container);
        let write = docker::exec(&role.container, &["touch", "/etc/x"]).await;
        assert_ne!(write.code, 0, "{}", role.container);
    }
    let preview = docker::exec(&roles[1].container, &["touch", "/workspace/x"]).await;
    assert!(preview.output.contains("Read-only"), "{}", preview.output);
    for tool in [
        &["node", "--version"][..],
        &["python3", "--version"],
        &["git", "--version"],
        &["ssh", "-V"],
        &["curl", "--version"],
        &["claude", "--version"],
    ] {
        let ran = docker::exec(&roles[0].container, tool).await;
        assert_eq!(ran.code, 0, "{tool:?}: {}", ran.output);
    }
    let node = docker::exec(&roles[0].container, &["node", "--version"]).await.output;
    assert!(node.starts_with("v20."), "{node}");
    place.done(&["destroy", "hard", "--json"]).await;
    place.assert_gone("hard").await;
}
