//! Two teams on one host, seen from inside their containers: neither reaches
//! the other, the host, or a private address; registries are reached.

use std::net::{Ipv4Addr, SocketAddr};

use crate::docker::{self, exec};
use crate::net;
use crate::place::Place;
use crate::projects;

/// A team that runs, with the names of its containers.
struct Team {
    agent: String,
    preview: String,
    sync: String,
    port: u16,
}

async fn bring_up(place: &Place, name: &str) -> Team {
    let path = projects::plain(place, name);
    let up = ["up", path.to_str().unwrap(), "--team", name, "--json"];
    let link = place.done(&up).await.link("main");
    let ids = docker::ids(&place.instance, name).await;
    let find =
        |role: &str| ids.keys().find(|id| id.contains(&format!("_{role}_"))).unwrap().clone();
    let port = link.port().unwrap();
    Team { agent: find("agent"), preview: find("preview"), sync: find("sync"), port }
}

/// Which of these a container can open a connection to, tried all at once.
async fn reached(container: &str, targets: &[(&str, String, u16)]) -> Vec<String> {
    let script = r#"
        const targets = JSON.parse(process.argv[1]);
        for (const [what, host, port] of targets) {
          const socket = require('net').connect({ host, port });
          socket.setTimeout(5000, () => socket.destroy());
          socket.on('error', () => socket.destroy());
          socket.on('connect', () => { console.log(what); socket.destroy(); });
        }"#;
    let list = serde_json::to_string(targets).unwrap();
    let ended = exec(container, &["node", "-e", script, &list]).await;
    assert_eq!(ended.code, 0, "{container}: {ended:?}");
    let mut reached: Vec<_> = ended.output.lines().map(str::to_owned).collect();
    reached.sort();
    reached
}

/// The address by which this machine reaches others; nothing is sent.
fn uplink() -> Ipv4Addr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
    }
}

#[tokio::test]
async fn two_teams_reach_neither_each_other_nor_the_host() {
    let place = Place::new().await;
    let (a, b) = (bring_up(&place, "ann").await, bring_up(&place, "bob").await);
    // A service of the host's, on every address.
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let service = listener.local_addr().unwrap().port();
    let host = uplink();
    let _control = tokio::net::TcpStream::connect((host, service)).await.unwrap();

    let inspected = async |name: &String| docker::inspect(name).await;
    let (agent_a, preview_a) = (inspected(&a.agent).await, inspected(&a.preview).await);
    let (agent_b, preview_b) = (inspected(&b.agent).await, inspected(&b.preview).await);
    let (gateway_agent, gateway_preview) = (docker::gateway(&agent_a), docker::gateway(&preview_a));
    let gateway_of_b = docker::gateway(&preview_b);
    let address = docker::address;

    // A control: what is asked for answers to those who may ask.
    let own = net::get((Ipv4Addr::LOCALHOST, b.port).into(), "localhost", "/").await;
    assert_eq!(own.map(|answer| answer.status), Some(200));

    let host = host.to_string();
    let forbidden = [
        ("B's agent", address(&agent_b), 8080),
        ("B's preview", address(&preview_b), 3000),
        ("B's supervisor", address(&preview_b), 9300),
        ("B's port at the host", host.clone(), b.port),
        ("B's port at B's gateway", gateway_of_b, b.port),
        ("B's port at an own gateway", gateway_agent.clone(), b.port),
        ("B's port at the other own gateway", gateway_preview.clone(), b.port),
        ("a service at the host", host.clone(), service),
        ("a service at an own gateway", gateway_agent.clone(), service),
        ("a service at the other own gateway", gateway_preview, service),
        ("a service at Docker's own bridge", "172.17.0.1".to_owned(), service),
        ("the broker", host.clone(), 5672),
        ("the metadata address", "169.254.169.254".to_owned(), 80),
        ("the host's ssh", host, 22),
    ];
    // And one more: each asks what it may reach in the same breath.
    let itself = |inspected, port| ("itself", address(inspected), port);
    let to_agent = ("its team's agent", address(&agent_a), 8080);
    let proxy = ("the proxy", gateway_agent, 3128);
    let from_preview = [&forbidden[..], &[itself(&preview_a, 3000), to_agent]].concat();
    // Not even a team's own preview reaches its agent.
    assert_eq!(reached(&a.preview, &from_preview).await, ["itself"]);
    let from_agent = [&forbidden[..], &[itself(&agent_a, 8080), proxy]].concat();
    assert_eq!(reached(&a.agent, &from_agent).await, ["itself", "the proxy"]);

    // Sync, and what runs for a moment on the same network, as installs and
    // clones do: neither has Node, but a shell.
    let network = agent_a["NetworkSettings"]["Networks"].as_object().unwrap();
    let network = network.keys().next().unwrap();
    let image = agent_a["Config"]["Image"].as_str().unwrap();
    let label = docker::beside_label(&place.instance);
    let oneshot = docker::docker(&[
        "run",
        "--detach",
        "--label",
        &label,
        "--network",
        network,
        image,
        "sleep",
        "300",
    ])
    .await;
    for container in [&a.sync, oneshot.trim()] {
        let tries: String = from_agent
            .iter()
            .map(|(what, host, port)| {
                format!("(timeout 3 bash -c '</dev/tcp/{host}/{port}' && echo \"{what}\") &\n")
            })
            .collect();
        // The errors of all the others are of no interest.
        let all = format!("exec 2>/dev/null\n{tries}wait");
        let said = exec(container, &["bash", "-c", &all]).await.output;
        let mut reached: Vec<&str> = said.lines().collect();
        reached.sort_unstable();
        assert_eq!(reached, ["itself", "the proxy"], "{container}");
    }
    names_lead_nowhere(&a.agent, &docker::gateway(&agent_a)).await;
    docker::remove_beside(&place.instance);

    egress(&a.agent).await;
}

/// A name's server is no way out, whatever is asked of it: neither Docker's own,
/// which answers for the team's containers, nor any other.
async fn names_lead_nowhere(agent: &str, gateway: &str) {
    let script = r#"
import socket, struct, sys
def ask(server, kind):
    name = b"".join(bytes([len(p)]) + p for p in [b"data", b"example", b"com"]) + b"\0"
    query = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + name + struct.pack(">HH", kind, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3)
    try:
        s.sendto(query, (server, 53))
        answer = s.recv(4096)
    except OSError:
        return False
    code, count = answer[3] & 15, struct.unpack(">H", answer[6:8])[0]
    # NXDOMAIN would be an answer from outside as well.
    return code in (0, 3)
from concurrent.futures import ThreadPoolExecutor
asked = [(server, kind) for server in sys.argv[1:] for kind in (16, 10, 28, 65399)]
with ThreadPoolExecutor(32) as pool:
    for (server, kind), answered in zip(asked, pool.map(lambda pair: ask(*pair), asked)):
        if answered:
            print(server, kind)
"#;
    let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let resolvers = resolvers.lines().filter_map(|line| line.strip_prefix("nameserver "));
    let servers: Vec<&str> =
        ["127.0.0.11", gateway, "1.1.1.1"].into_iter().chain(resolvers.map(str::trim)).collect();
    let asked = exec(agent, &[&["python3", "-c", script][..], &servers].concat()).await;
    assert_eq!((asked.code, asked.output.as_str()), (0, ""), "names are answered from outside");
}

/// Docker takes its own isolation out of the firewall and puts it back whenever
/// a network is made; who asks often enough finds the moment.
#[tokio::test]
async fn nothing_opens_while_networks_come_and_go() {
    let place = Place::new().await;
    let (a, b) = (bring_up(&place, "ann").await, bring_up(&place, "bob").await);
    let address = async |name: &String| docker::address(&docker::inspect(name).await);
    let (agent_b, preview_b) = (address(&b.agent).await, address(&b.preview).await);
    // Ask until told to stop, and say how often and what answered.
    let ask = format!(
        r#"
        const targets = [['{preview_b}', 3000], ['{preview_b}', 9300], ['{agent_b}', 8080]];
        let asked = 0;
        const reached = new Set();
        const once = ([host, port]) => new Promise(done => {{
          const socket = require('net').connect({{ host, port, timeout: 50 }});
          const end = () => {{ socket.destroy(); done(); }};
          socket.on('timeout', end).on('error', end);
          socket.on('connect', () => {{ reached.add(host + ':' + port); end(); }});
        }});
        (async () => {{
          while (!require('fs').existsSync('/tmp/enough') && asked < 1e6) {{
            await Promise.all(targets.map(once));
            asked += targets.length;
          }}
          console.log(JSON.stringify({{ asked, reached: [...reached] }}));
        }})();"#
    );
    let from = async |container: &str| exec(container, &["node", "-e", &ask]).await.output;
    let churn = async {
        let label = format!("covibes.instance={}", place.instance);
        for number in 0..15 {
            let name = format!("churn-{}-{number}", place.instance);
            docker::docker(&["network", "create", "--label", &label, &name]).await;
            docker::docker(&["network", "rm", &name]).await;
        }
        for container in [&a.preview, &a.agent] {
            assert_eq!(exec(container, &["touch", "/tmp/enough"]).await.code, 0);
        }
    };
    let (by_preview, by_agent, ()) = tokio::join!(from(&a.preview), from(&a.agent), churn);
    for said in [by_preview, by_agent] {
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert!(said["asked"].as_u64().unwrap() > 100, "{said}");
        assert_eq!(said["reached"], serde_json::json!([]), "{said}");
    }
}

/// What the proxy lets through, and what not.
async fn egress(agent: &str) {
    let registry = exec(agent, &["npm", "config", "get", "registry"]).await.output;
    let asked = |url: &str, more: &str| {
        let code = "'%{http_code} %{http_connect}'";
        format!("curl -s -m 20 -o /dev/null -w {code} {more} {url}")
    };
    let curl =
        async |url: &str, more: &str| exec(agent, &["sh", "-c", &asked(url, more)]).await.output;
    let allowed = curl(&registry, "").await;
    assert!(allowed.ends_with("200 200"), "{registry}: {allowed}");
    for url in ["https://example.com/", "https://example.com:8443/", "https://169.254.169.254/"] {
        let refused = curl(url, "").await;
        assert!(refused.ends_with("000 403"), "{url}: {refused}");
    }
    // Plain requests are no tunnels.
    let plain = curl("http://example.com/", "").await;
    assert!(plain.contains("403"), "{plain}");
    let around = curl(&registry, "-m 5 --noproxy '*'").await;
    assert!(around.ends_with("000 000"), "{around}");
}
