//! What every container of a team may and may not: the table of CIS section 5
//! as `docker inspect` shows it, limits, mounts, and the view from inside.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::docker::{self, exec};
use crate::place::Place;
use crate::projects;
use crate::worker::{Follower, Message, Worker};

/// What one role gets (DESIGN 1).
struct Role {
    name: &'static str,
    memory: u64,
    reserved: u64,
    nano_cpus: u64,
    pids: u64,
    /// Bytes per second of the disk, each way.
    disk: Option<u64>,
    /// Target and whether it may be written to.
    mounts: &'static [(&'static str, bool)],
    tmpfs: &'static [&'static str],
    publishes: bool,
    /// Kept up by Docker, or run once.
    serves: bool,
}

const MIB: u64 = 1 << 20;

const ROLES: &[Role] = &[
    Role {
        name: "agent",
        memory: 2048 * MIB,
        reserved: 512 * MIB,
        nano_cpus: 1_000_000_000,
        pids: 256,
        disk: Some(50_000_000),
        mounts: &[
            ("/workspace", true),
            ("/worktrees", true),
            ("/tmp/agent", true),
            ("/run/covibes", false),
            ("/run/secrets/covibes", false),
        ],
        tmpfs: &["/tmp", "/run", "/home/claude"],
        publishes: false,
        serves: true,
    },
    Role {
        name: "preview",
        memory: 1024 * MIB,
        reserved: 256 * MIB,
        nano_cpus: 500_000_000,
        pids: 512,
        disk: Some(50_000_000),
        mounts: &[
            ("/workspace", false),
            ("/worktrees", false),
            ("/app/.cache", true),
            ("/app/node_modules", true),
            ("/workspace/node_modules", true),
        ],
        tmpfs: &["/tmp", "/run", "/home/preview"],
        publishes: true,
        serves: true,
    },
    Role {
        name: "sync",
        memory: 128 * MIB,
        reserved: 32 * MIB,
        nano_cpus: 100_000_000,
        pids: 128,
        disk: None,
        mounts: &[
            ("/workspace", true),
            ("/worktrees", true),
            ("/run/covibes", false),
            ("/state", true),
        ],
        tmpfs: &["/tmp", "/run", "/home/sync"],
        publishes: false,
        serves: true,
    },
    Role {
        name: "oneshot",
        memory: 1024 * MIB,
        reserved: 0,
        nano_cpus: 1_000_000_000,
        pids: 512,
        disk: None,
        mounts: &[("/workspace", true), ("/app/.cache", true), ("/workspace/node_modules", true)],
        tmpfs: &["/tmp", "/run", "/home/preview"],
        publishes: false,
        serves: false,
    },
];

/// One row of `reference/security.md` 2.1: its number and what it asks.
type Rule = (&'static str, fn(&Value, &Role) -> bool);

fn words(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value == ""
}

fn published(inspected: &Value) -> Vec<(&str, u64)> {
    let ports = inspected["HostConfig"]["PortBindings"].as_object();
    let bindings = ports.into_iter().flat_map(|ports| ports.values());
    bindings
        .flat_map(|list| list.as_array().into_iter().flatten())
        .map(|b| {
            let port = b["HostPort"].as_str().and_then(|port| port.parse().ok());
            (b["HostIp"].as_str().unwrap_or_default(), port.unwrap_or(0))
        })
        .collect()
}

const CIS: &[Rule] = &[
    ("5.2 no unconfined AppArmor", |c, _| {
        c["AppArmorProfile"] != "unconfined"
            && !words(&c["HostConfig"]["SecurityOpt"]).iter().any(|o| o.contains("apparmor"))
    }),
    ("5.3 security options", |c, _| !is_empty(&c["HostConfig"]["SecurityOpt"])),
    ("5.4 no capabilities", |c, _| {
        words(&c["HostConfig"]["CapDrop"]) == ["ALL"] && is_empty(&c["HostConfig"]["CapAdd"])
    }),
    ("5.5 not privileged", |c, _| c["HostConfig"]["Privileged"] == false),
    ("5.6 no system directories", |c, _| {
        c["Mounts"].as_array().unwrap().iter().all(|m| {
            let source = m["Source"].as_str().unwrap();
            let own = "/var/covibes/instances/";
            match m["Type"].as_str().unwrap() {
                "bind" => source.starts_with(own),
                "volume" => source.starts_with("/var/lib/docker/volumes/"),
                _ => false,
            }
        })
    }),
    ("5.8 no privileged host ports", |c, _| published(c).iter().all(|(_, port)| *port >= 1025)),
    ("5.9 one port of previews, none of others", |c, role| {
        published(c).len() == usize::from(role.publishes)
    }),
    ("5.10 not the host's network", |c, _| {
        c["HostConfig"]["NetworkMode"].as_str().unwrap().starts_with("covibes.")
    }),
    ("5.11 memory", |c, role| {
        let host = &c["HostConfig"];
        host["Memory"] == role.memory
            && host["MemorySwap"] == role.memory
            && host["MemoryReservation"] == role.reserved
    }),
    ("5.12 cpu", |c, role| c["HostConfig"]["NanoCpus"] == role.nano_cpus),
    ("5.13 read-only root", |c, _| c["HostConfig"]["ReadonlyRootfs"] == true),
    ("5.14 published on loopback", |c, _| published(c).iter().all(|(ip, _)| *ip == "127.0.0.1")),
    ("5.15 few restarts", |c, role| {
        let policy = &c["HostConfig"]["RestartPolicy"];
        let wanted = if role.serves { ("on-failure", 5) } else { ("no", 0) };
        policy["Name"] == wanted.0 && policy["MaximumRetryCount"] == wanted.1
    }),
    ("5.16 own processes", |c, _| c["HostConfig"]["PidMode"] == ""),
    ("5.17 own IPC", |c, _| c["HostConfig"]["IpcMode"] == "private"),
    ("5.18 no devices", |c, _| is_empty(&c["HostConfig"]["Devices"])),
    ("5.19 ulimits", |c, _| {
        let limits = c["HostConfig"]["Ulimits"].as_array().unwrap();
        let hard = |name| limits.iter().find(|l| l["Name"] == name).map(|l| l["Hard"].clone());
        hard("core") == Some(0.into()) && hard("nofile").is_some() && hard("nproc").is_none()
    }),
    ("5.20 mounts are not shared", |c, _| {
        let mounts = c["Mounts"].as_array().unwrap();
        mounts.iter().filter(|m| m["Type"] == "bind").all(|m| m["Propagation"] == "rprivate")
    }),
    ("5.21 own host name", |c, _| c["HostConfig"]["UTSMode"] == ""),
    ("5.22 seccomp stays", |c, _| {
        !words(&c["HostConfig"]["SecurityOpt"]).iter().any(|o| o.contains("seccomp"))
    }),
    ("5.25 own cgroup", |c, _| {
        c["HostConfig"]["CgroupParent"] == "" && c["HostConfig"]["CgroupnsMode"] == "private"
    }),
    ("5.26 no new privileges", |c, _| {
        words(&c["HostConfig"]["SecurityOpt"]).contains(&"no-new-privileges:true")
    }),
    ("5.27 health check", |c, role| {
        let test = words(&c["Config"]["Healthcheck"]["Test"]);
        if role.serves {
            !c["State"]["Health"].is_null() && test.first() == Some(&"CMD")
        } else {
            test == ["NONE"]
        }
    }),
    ("5.29 processes", |c, role| c["HostConfig"]["PidsLimit"] == role.pids),
    ("5.30 not docker0", |c, _| {
        let networks = c["NetworkSettings"]["Networks"].as_object().unwrap();
        networks.len() == 1 && !networks.contains_key("bridge")
    }),
    ("5.31 no foreign user namespace", |c, _| c["HostConfig"]["UsernsMode"] == ""),
    ("5.32 no Docker socket", |c, _| {
        let mounts = c["Mounts"].as_array().unwrap();
        !mounts.iter().any(|m| m["Source"].as_str().unwrap().ends_with("docker.sock"))
    }),
    ("4.1 not root", |c, _| c["Config"]["User"] == "1000:1000"),
    ("an init that reaps", |c, _| c["HostConfig"]["Init"] == true),
    ("logs are bounded", |c, _| {
        let log = &c["HostConfig"]["LogConfig"];
        log["Type"] == "json-file"
            && log["Config"]["max-size"] == "10m"
            && log["Config"]["max-file"] == "3"
    }),
    ("disk rate", |c, role| {
        let host = &c["HostConfig"];
        ["BlkioDeviceReadBps", "BlkioDeviceWriteBps"].iter().all(|key| match role.disk {
            None => is_empty(&host[key]),
            Some(rate) => {
                let devices = host[key].as_array().unwrap();
                devices.len() == 1 && devices[0]["Rate"] == rate
            }
        })
    }),
    ("mounts", |c, role| {
        let found: BTreeMap<&str, bool> = c["Mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| (m["Destination"].as_str().unwrap(), m["RW"] == true))
            .collect();
        found == role.mounts.iter().copied().collect()
    }),
    ("tmpfs", |c, role| {
        let tmpfs = c["HostConfig"]["Tmpfs"].as_object().unwrap();
        let bounded = tmpfs.values().all(|options| {
            let options = options.as_str().unwrap();
            ["nosuid", "nodev", "size="].iter().all(|o| options.contains(o))
        });
        let mut wanted = role.tmpfs.to_vec();
        wanted.sort_unstable();
        bounded && tmpfs.keys().map(String::as_str).collect::<Vec<_>>() == wanted
    }),
];

fn check(inspected: &Value) -> Vec<String> {
    let name = inspected["Config"]["Labels"]["covibes.role"].as_str().unwrap();
    let role = ROLES.iter().find(|role| role.name == name).expect(name);
    let broken = CIS.iter().filter(|(_, holds)| !holds(inspected, role));
    broken.map(|(rule, _)| format!("{name}: {rule}: {}", inspected["HostConfig"])).collect()
}

#[tokio::test]
async fn every_role_is_as_hard_as_the_table_says() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("hard", &projects::gated(&place, "app"));
    let mut job = Message::start("hard", &["main"]);
    job.body["spec"]["agents"] = serde_json::json!([{"name": "one"}]);
    job.publish(&place).await;

    let oneshots = crate::place::until("the install runs", crate::place::STATE_MAX, async || {
        let found = docker::running_oneshots(&place.instance, "hard").await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    let mut broken = Vec::new();
    for name in &oneshots {
        broken.extend(check(&docker::inspect(name).await));
    }
    projects::open_gate(&workspace);
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");

    let ids = docker::ids(&place.instance, "hard").await;
    assert_eq!(ids.len(), 3, "{ids:?}");
    for name in ids.keys() {
        broken.extend(check(&docker::inspect(name).await));
        broken.extend(from_inside(name).await);
    }
    assert_eq!(broken, [""; 0]);

    let container =
        |role: &str| ids.keys().find(|name| name.contains(&format!("_{role}_"))).unwrap().as_str();
    tools_are_there(container("agent")).await;
    bandwidth(container("agent"), true).await;
    bandwidth(container("sync"), true).await;
    bandwidth(container("preview"), false).await;
    cache_is_bounded(container("preview")).await;
}

/// What a process in a container can tell about itself.
async fn from_inside(container: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |what: &str, holds: bool, said: &str| {
        if !holds {
            broken.push(format!("{container}: {what}: {said}"));
        }
    };
    let id = exec(container, &["sh", "-c", "echo $(id -u):$(id -g)"]).await;
    expect("runs as 1000:1000", id.output == "1000:1000", &id.output);
    let script = "for f in /proc/1/status /proc/self/status; do \
                  grep -E '^(Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs|Seccomp):' $f; done";
    let status = exec(container, &["sh", "-c", script]).await.output;
    for line in status.lines() {
        let (key, value) = line.split_once(":\t").unwrap();
        let holds = match key {
            "NoNewPrivs" => value == "1",
            "Seccomp" => value == "2",
            _ => value.chars().all(|c| c == '0'),
        };
        expect("has nothing to escalate with", holds, line);
    }
    expect("tells its capabilities", status.lines().count() >= 12, &status);
    for path in ["/x", "/usr/x", "/etc/x", "/usr/local/bin/x"] {
        let touched = exec(container, &["touch", path]).await;
        let refused = touched.output.contains("Read-only file system");
        expect("has a read-only root", touched.code != 0 && refused, &touched.output);
    }
    let made = exec(container, &["mknod", "/tmp/node", "c", "1", "5"]).await;
    expect("makes no device", made.code != 0, &made.output);
    let socket = exec(container, &["test", "-e", "/var/run/docker.sock"]).await;
    expect("sees no Docker socket", socket.code != 0, &socket.output);
    broken
}

async fn tools_are_there(agent: &str) {
    for (command, holds) in [
        ("node --version", "v20."),
        ("python3 --version", "Python 3.11"),
        ("git --version", "git version"),
        ("ssh -V", "OpenSSH"),
        ("curl --version", "curl"),
        ("claude --version", "Claude Code"),
        ("npm --version", "1"),
    ] {
        let said = exec(agent, &["sh", "-c", command]).await;
        assert!(said.code == 0 && said.output.contains(holds), "{command}: {said:?}");
    }
    let sshd = exec(agent, &["sh", "-c", "command -v sshd"]).await;
    assert_ne!(sshd.code, 0, "{sshd:?}");
}

/// 50 Mbit/s out of the container, set on its own end.
async fn bandwidth(container: &str, is_limited: bool) {
    let inspected = docker::inspect(container).await;
    let pid = inspected["State"]["Pid"].to_string();
    let output = tokio::process::Command::new("nsenter")
        .args(["-t", &pid, "-n", "tc", "qdisc", "show", "dev", "eth0"])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.contains("tbf") && text.contains("50Mbit"), is_limited, "{container}: {text}");
}

/// 500 MB, by a file system of its own.
async fn cache_is_bounded(preview: &str) {
    let size = exec(preview, &["sh", "-c", "df -Pm /app/.cache | tail -1"]).await;
    let mib: u64 = size.output.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((400..=500).contains(&mib), "{size:?}");
}
