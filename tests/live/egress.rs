//! The one way out, as several teams and several instances share it.

use serde_json::json;

use crate::docker::{self, exec};
use crate::git_server::GitServer;
use crate::place::{Place, STATE_MAX, until};
use crate::policy::GIT_SERVER;
use crate::projects;
use crate::worker::{Follower, Message, Worker};

/// In the network that clones may reach, and nobody is there.
const NOBODY: &str = "198.19.77.3";

/// The same, for another instance to allow.
const ADDED: &str = "198.19.77.4";

/// What a container's request was answered by the proxy.
async fn asked(container: &str, host: &str) -> String {
    let curl = "curl -s -k -m 20 -o /dev/null -w '%{http_connect}'";
    exec(container, &["sh", "-c", &format!("{curl} https://{host}/")]).await.output
}

/// Opens a tunnel, waits, and only then speaks.
const HOLD: &str = r#"
import os, socket, ssl, sys, time
proxy = os.environ["HTTPS_PROXY"].split("//")[1].split(":")
raw = socket.create_connection((proxy[0], int(proxy[1])), 20)
raw.sendall(f"CONNECT {sys.argv[1]}:443 HTTP/1.1\r\n\r\n".encode())
head = raw.recv(4096)
assert b" 200 " in head, head
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
context.check_hostname = False
tls = context.wrap_socket(raw)
open("/tmp/held", "w").close()
end = time.monotonic() + 120
while not os.path.exists("/tmp/go") and time.monotonic() < end:
    time.sleep(0.05)
tls.sendall(b"GET /app.git/info/refs?service=git-upload-pack HTTP/1.0\r\n\r\n")
print(tls.recv(15).decode())
"#;

#[tokio::test]
async fn teams_and_instances_share_the_proxy_without_taking_from_each_other() {
    let mut place = Place::new().await;
    place.set("COVIBES_EGRESS_TEAMS", format!("{{ ann = [\"{NOBODY}\"] }}"));
    let server = GitServer::new(&place).await;
    server.project(&place);
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let project = projects::plain(&place, "app");
    for team in ["ann", "bob"] {
        place.workspace(team, &project);
        let mut job = Message::start(team, &[]);
        job.body["spec"]["agents"] = json!([{"name": "one"}]);
        job.publish(&place).await;
        let end = events.end_of(&job.id).await;
        assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    }
    let agent = async |team: &str| {
        let ids = docker::ids(&place.instance, team).await;
        ids.keys().find(|name| name.contains("_agent_")).unwrap().clone()
    };
    let (ann, bob) = (agent("ann").await, agent("bob").await);

    // What one team alone may reach: nobody is there, but the proxy tried.
    assert_eq!(asked(&ann, NOBODY).await, "503");
    assert_eq!(asked(&bob, NOBODY).await, "403");
    assert_eq!(asked(&ann, GIT_SERVER).await, "200");

    // Another instance, with another policy, prepares the host: nothing is taken
    // away, and what is open stays open.
    let holding = exec(&ann, &["python3", "-c", HOLD, GIT_SERVER]);
    let meanwhile = async {
        until("the tunnel is open", STATE_MAX, async || {
            (exec(&ann, &["test", "-e", "/tmp/held"]).await.code == 0).then_some(())
        })
        .await;
        let mut other = Place::unprepared();
        other.set("COVIBES_EGRESS_ALLOW", format!("[\"{ADDED}\"]"));
        other.set("COVIBES_GIT_HOSTS", "[\"github.com\"]");
        other.set("COVIBES_GIT_ALLOW_PRIVATE", "[]");
        other.unset("COVIBES_AGENT_API_BASE_URL");
        let prepared = other.run(&["host", "prepare"]).await;
        assert_eq!(prepared.code, Some(0), "{prepared:?}");
        until("the other's host is allowed", STATE_MAX, async || {
            (asked(&bob, ADDED).await == "503").then_some(())
        })
        .await;
        assert_eq!(asked(&ann, GIT_SERVER).await, "200");
        assert_eq!(asked(&ann, NOBODY).await, "503");
        assert_eq!(exec(&ann, &["touch", "/tmp/go"]).await.code, 0);
    };
    let (held, ()) = tokio::join!(holding, meanwhile);
    assert_eq!((held.code, held.output.as_str()), (0, "HTTP/1.0 200 OK"), "{held:?}");
    // And back.
    assert_eq!(place.run(&["host", "prepare"]).await.code, Some(0));

    // The worker has counted it, and says who was denied what.
    worker.until_metric("covibes_egress_tunnels_total{outcome=\"denied\"}", 1.0).await;
    worker.until_metric("covibes_egress_tunnels_total{outcome=\"opened\"}", 3.0).await;
    worker.until_metric("covibes_egress_tunnels_total{outcome=\"failed\"}", 2.0).await;
    until("the log says it", STATE_MAX, async || {
        let log = worker.process.stderr();
        let line = log.lines().find(|line| line.contains("denied a way out"))?;
        (line.contains("bob") && line.contains(NOBODY)).then_some(())
    })
    .await;
    let logs = place.run(&["teams", "logs", "bob", "egress"]).await;
    assert!(logs.stdout.contains(&format!("{NOBODY}:443")), "{logs:?}");
    assert!(!logs.stdout.contains(GIT_SERVER), "that was another team: {logs:?}");
}
