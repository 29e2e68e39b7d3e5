//! The host's own firewall rules, put to the test where they can be taken away: in
//! network namespaces that stand for a host, its teams and what is around it. The
//! rules are those that the worker set on this host, read and loaded there, so
//! that the shared ones are never touched.
//!
//! Docker's own isolation is not there: what holds, holds by our rules alone.

use std::process::{Command, Stdio};

use crate::place::{Place, STATE_MAX, until};

/// A listener and where it is reached.
struct Target {
    what: &'static str,
    /// The namespace in which it listens.
    at: &'static str,
    address: &'static str,
    port: u16,
}

const fn target(what: &'static str, at: &'static str, address: &'static str, port: u16) -> Target {
    Target { what, at, address, port }
}

/// All that somebody in team A may try.
const TARGETS: [Target; 11] = [
    target("A's agent", "agent-a", "172.21.0.2", 8080),
    target("A's preview", "preview-a", "172.22.0.2", 3000),
    target("B's agent", "agent-b", "172.21.0.34", 8080),
    target("B's preview", "preview-b", "172.22.0.34", 3000),
    target("the proxy", "host", "172.21.0.1", 3128),
    target("a service at the agents' gateway", "host", "172.21.0.1", 9000),
    target("a service at the previews' gateway", "host", "172.22.0.1", 9000),
    target("a published port of B's", "host", "172.22.0.33", 5001),
    target("the metadata address", "outside", "169.254.169.254", 80),
    target("a private address", "outside", "10.1.2.3", 80),
    // It is in these namespaces only.
    target("a public address", "outside", "1.2.3.4", 80),
];

/// Namespaces, gone with this.
struct World {
    prefix: String,
    listeners: Vec<std::process::Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for listener in &mut self.listeners {
            let _ = listener.kill();
            let _ = listener.wait();
        }
        for name in ["host", "outside", "agent-a", "agent-b", "preview-a", "preview-b"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(name)]).output();
        }
    }
}

impl World {
    fn new(place: &Place, directory: &str) -> Self {
        let mut world = Self { prefix: place.instance.clone(), listeners: Vec::new() };
        world.make("host");
        world.run("host", &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        for (name, bridge, subnet) in [
            ("agent-a", "cvi-0", "172.21.0"),
            ("preview-a", "cvp-0", "172.22.0"),
            ("agent-b", "cvi-1", "172.21.0"),
            ("preview-b", "cvp-1", "172.22.0"),
        ] {
            world.make(name);
            let first = if name.ends_with('a') { 1 } else { 33 };
            let (gateway, own) = (format!("{subnet}.{first}"), format!("{subnet}.{}", first + 1));
            world.run("host", &["ip", "link", "add", bridge, "type", "bridge"]);
            world.run("host", &["ip", "addr", "add", &format!("{gateway}/27"), "dev", bridge]);
            world.run("host", &["ip", "link", "set", bridge, "up"]);
            world.join(name, &format!("v{bridge}"), &format!("{own}/27"), &gateway);
            world.run("host", &["ip", "link", "set", &format!("v{bridge}"), "master", bridge]);
        }
        world.make("outside");
        world.join("outside", "uplink", "192.168.99.2/30", "192.168.99.1");
        world.run("host", &["ip", "addr", "add", "192.168.99.1/30", "dev", "uplink"]);
        world.run("host", &["ip", "route", "add", "default", "via", "192.168.99.2"]);
        for address in ["169.254.169.254", "10.1.2.3", "1.2.3.4"] {
            world.run("outside", &["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        for Target { at, port, .. } in TARGETS {
            world.listen(at, port, directory);
        }
        world
    }

    fn name(&self, namespace: &str) -> String {
        format!("covibes-{}-{namespace}", self.prefix)
    }

    fn make(&self, name: &str) {
        let output = Command::new("ip").args(["netns", "add", &self.name(name)]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.run(name, &["ip", "link", "set", "lo", "up"]);
    }

    /// Ties a namespace to the host's.
    fn join(&self, name: &str, at_host: &str, address: &str, gateway: &str) {
        let (host, other) = (self.name("host"), self.name(name));
        let veth = ["link", "add", at_host, "netns", &host, "type", "veth"];
        let peer = ["peer", "name", "eth0", "netns", &other];
        let output = Command::new("ip").args(veth).args(peer).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.run("host", &["ip", "link", "set", at_host, "up"]);
        self.run(name, &["ip", "addr", "add", address, "dev", "eth0"]);
        self.run(name, &["ip", "link", "set", "eth0", "up"]);
        self.run(name, &["ip", "route", "add", "default", "via", gateway]);
    }

    fn inside(&self, namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(namespace)]);
        command
    }

    fn run(&self, namespace: &str, arguments: &[&str]) {
        let output = self.inside(namespace).args(arguments).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{namespace}: {arguments:?}: {words}");
    }

    fn listen(&mut self, namespace: &str, port: u16, directory: &str) {
        let mut command = self.inside(namespace);
        command.arg(env!("CARGO_BIN_EXE_covibes-preview"));
        command.args(["static", "--address", "0.0.0.0", "--dir", directory]);
        command.args(["--port", &port.to_string()]);
        // Two targets may be one listener: the second cannot bind, and ends.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.listeners.push(child);
    }

    fn reaches(&self, from: &str, target: &Target) -> bool {
        let connect = format!("</dev/tcp/{}/{}", target.address, target.port);
        let mut command = self.inside(from);
        command.args(["timeout", "2", "bash", "-c", &connect]).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    fn reached(&self, from: &str) -> Vec<&'static str> {
        let found = TARGETS.iter().filter(|target| self.reaches(from, target));
        found.map(|target| target.what).collect()
    }

    fn load(&self, directory: &std::path::Path, rules: &str) {
        let path = directory.join("rules");
        std::fs::write(&path, rules).unwrap();
        self.run("host", &["nft", "-f", path.to_str().unwrap()]);
    }
}

#[tokio::test]
async fn every_way_is_open_without_the_rules_and_closed_with_them() {
    let place = Place::new().await;
    let listed = Command::new("nft").args(["list", "table", "inet", "covibes"]).output().unwrap();
    assert!(listed.status.success(), "the host's rules are set");
    let rules = String::from_utf8(listed.stdout).unwrap();
    let world = World::new(&place, place.dir.to_str().unwrap());
    let everything: Vec<&str> = TARGETS.iter().map(|target| target.what).collect();
    let all_open = async || {
        until("every way is open", STATE_MAX, async || {
            let froms = ["agent-a", "preview-a"];
            froms.iter().all(|from| world.reached(from) == everything).then_some(())
        })
        .await;
    };
    all_open().await;
    world.load(&place.dir, &rules);
    assert_eq!(world.reached("agent-a"), ["A's agent", "the proxy"]);
    let of_preview = ["A's preview", "the proxy", "a public address"];
    assert_eq!(world.reached("preview-a"), of_preview);
    // The host itself still asks everybody: its probes.
    assert!(TARGETS[..4].iter().all(|target| world.reaches("host", target)));
    world.run("host", &["nft", "delete", "table", "inet", "covibes"]);
    all_open().await;
}
