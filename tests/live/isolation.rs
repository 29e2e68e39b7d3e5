//! What a container of one team reaches: its own and the allow-list, and
//! neither the host nor another team.

use crate::docker;
use crate::place::Place;
use crate::projects;

/// Whether a connection from a container is made, by curl's own word.
async fn reaches(container: &str, url: &str) -> bool {
    let curl = ["curl", "--noproxy", "*", "--silent", "--max-time", "3", "--output", "/dev/null"];
    let ran = docker::exec(container, &[&curl[..], &[url]].concat()).await;
    // 7: refused or unreachable; 28: no answer.
    assert!([0, 7, 28, 52, 56].contains(&ran.code), "{}: {}", ran.code, ran.output);
    ran.code == 0
}

#[tokio::test]
async fn teams_reach_neither_each_other_nor_the_host() {
    let place = Place::new().await;
    let project = projects::plain(&place, "app");
    let project = project.to_str().unwrap();
    place.done(&["up", project, "--team", "one", "--json"]).await;
    let second = place.done(&["up", project, "--team", "two", "--json"]).await;
    let published = second.link("main").port().unwrap();
    let name = |role: &str| format!("covibes.{}_{role}", place.instance);
    let (agent, preview) = (name("agent_one_agent-1"), name("preview_one_main"));
    let other_agent = docker::inspect(&name("agent_two_agent-1")).await;
    let other_preview = docker::inspect(&name("preview_two_main")).await;
    let own_sync = docker::inspect(&name("sync_one")).await;

    // A listener of the host on every address.
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let host_port = listener.local_addr().unwrap().port();

    let own = format!("http://{}:8080/health", docker::address(&own_sync));
    assert!(reaches(&agent, &own).await, "an agent reaches its own team's sync");
    for (from, gateway) in [
        (&agent, docker::gateway(&docker::inspect(&agent).await)),
        (&preview, docker::gateway(&docker::inspect(&preview).await)),
    ] {
        for url in [
            format!("http://{}:8080/health", docker::address(&other_agent)),
            format!("http://{}:3000/", docker::address(&other_preview)),
            format!("http://{gateway}:{published}/"),
            format!("http://{gateway}:{host_port}/"),
        ] {
            assert!(!reaches(from, &url).await, "{from} reached {url}");
        }
    }

    // Out through the proxy: the allow-list and nothing else.
    let connect = async |url: &str| {
        let curl = ["curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--write-out"];
        let ran = docker::exec(&agent, &[&curl[..], &["%{http_connect}", url]].concat()).await;
        ran.output
    };
    let registry = docker::exec(&agent, &["npm", "config", "get", "registry"]).await.output;
    assert_eq!(connect(&registry).await, "200", "{registry}");
    assert_eq!(connect("https://not-listed.invalid/").await, "403");
    assert_eq!(connect("https://127.0.0.1/").await, "403");
    for team in ["one", "two"] {
        place.done(&["destroy", team, "--json"]).await;
        place.assert_gone(team).await;
    }
}
