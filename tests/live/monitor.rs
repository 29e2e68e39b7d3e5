//! What a worker notices of its running teams on the real daemon, and mends: a kill,
//! a stop by hand, memory that runs out, networks taken away; what it shows of them.

use serde_json::{Value, json};

#[expect(dead_code, reason = "the hermetic tests' own, of which this needs a part")]
#[path = "../it/logql.rs"]
mod logql;

use crate::docker::{self, docker};
use crate::events::kind;
use crate::net::until_page_holds;
use crate::place::{Place, STATE_MAX, until};
use crate::projects::plain;
use crate::worker::{Follower, Message, Worker};

const TEAM: &str = "watched";
const TOKEN: &str = "a-token-of-the-tests-own";

/// Waits for a fact about a part of the team.
async fn told(events: &mut Follower, wanted: &str, role: &str, cause: &str) -> Value {
    let what = format!("{wanted} of {role}: {cause}");
    events
        .until(&what, |event| {
            kind(event) == wanted
                && event["data"]["role"] == role
                && event["data"]["cause"].as_str().is_some_and(|text| text.contains(cause))
        })
        .await
}

async fn team_is(events: &mut Follower, state: &str) -> Value {
    events.until(&format!("the team is {state}"), |e| kind(e) == format!("team.{state}")).await
}

/// What the worker's API says of the team.
async fn health(place: &Place) -> Option<Value> {
    let url = format!("http://{}/api/teams/{TEAM}", place.http());
    let header = format!("authorization: Bearer {TOKEN}");
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--max-time", "10", "--header", &header, &url])
        .output()
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

async fn until_health(place: &Place, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, STATE_MAX, async || health(place).await.filter(|health| fits(health))).await
}

fn part<'a>(health: &'a Value, role: &str) -> &'a Value {
    let mut parts = health["parts"].as_array().unwrap().iter();
    parts.find(|part| part["role"] == role).unwrap()
}

/// Every field that a dashboard's query over the log names is in real lines.
async fn assert_log_has_what_dashboards_ask(
    place: &Place,
    events: &mut Follower,
    worker: &Worker<'_>,
) {
    // A step that fails, and one that does not.
    let nowhere = Message::start("nowhere", &["main"]);
    nowhere.publish(place).await;
    let end = events.end_of(&nowhere.id).await;
    assert_eq!(end["type"], "covibes.job.failed", "{end}");
    place.workspace(TEAM, &plain(place, "again"));
    let job = Message::start(TEAM, &[]);
    job.publish(place).await;
    events.end_of(&job.id).await;
    let destroy = Message::new(TEAM, "destroy");
    destroy.publish(place).await;
    events.end_of(&destroy.id).await;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = root.join("ops/grafana/dashboards/covibes-team.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(text).unwrap()).unwrap();
    let queries = logql::queries(&dashboard, "loki").into_iter();
    let queries = queries.map(|(text, _)| logql::LogQuery::read(&text));
    let wanted: std::collections::BTreeSet<_> =
        queries.filter(|query| query.source == "log").flat_map(|query| query.fields).collect();
    assert!(wanted.contains("team_id") && wanted.contains("run_id"), "{wanted:?}");
    let lines = worker.process.stderr();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let has: std::collections::BTreeSet<_> =
        lines.flat_map(|line| logql::fields_of(&line)).collect();
    let missing: Vec<_> = wanted.difference(&has).collect();
    assert!(missing.is_empty(), "no line of the log has {missing:?}, only {has:?}");
}

#[tokio::test]
async fn a_running_team_is_watched_and_mended() {
    let mut place = Place::new().await;
    let token = place.dir.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    place.set("COVIBES_HTTP_TOKEN_FILE", token.to_str().unwrap());
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace(TEAM, &plain(&place, "app"));
    let mut job = Message::start(TEAM, &["main"]);
    job.body["spec"]["agents"] = json!([{"name": "agent-1"}]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link: url::Url = end["data"]["links"]["main"].as_str().unwrap().parse().unwrap();
    let name = |role: &str| format!("covibes.{}_{role}_{TEAM}", place.instance);
    let (agent, sync, preview) =
        (format!("{}_agent-1", name("agent")), name("sync"), format!("{}_main", name("preview")));

    // It shows what each part uses of what it may.
    let shown = until_health(&place, "all parts are measured", |health| {
        let parts = health["parts"].as_array().map_or(&[][..], Vec::as_slice);
        parts.len() == 3 && parts.iter().all(|part| part["cpu_millis"].is_u64())
    })
    .await;
    assert_eq!((&shown["state"], &shown["wanted"]), (&json!("running"), &json!(true)), "{shown}");
    assert_eq!(part(&shown, "sync")["memory_bytes_max"], 128 << 20);
    assert_eq!(part(&shown, "preview")["cpu_millis_max"], 500);
    assert!(part(&shown, "agent")["memory_bytes"].as_u64().unwrap() > 100_000, "{shown}");

    // A kill.
    docker(&["kill", &agent]).await;
    told(&mut events, "container.exited", "agent", "signal 9").await;
    told(&mut events, "container.restarted", "agent", "started it again").await;
    until_health(&place, "the agent is well again", |health| {
        let agent = part(health, "agent");
        // Told as whole again as well, if it was told otherwise.
        let is_whole = health["state"] == "running";
        is_whole && agent["health"] == "healthy" && agent["restarts"] == 1
    })
    .await;

    // A pause by hand stays, and is told as one; a start ends it.
    docker(&["pause", &preview]).await;
    told(&mut events, "container.unhealthy", "preview", "paused it by hand").await;
    team_is(&mut events, "degraded").await;
    let again = Message::start(TEAM, &["main"]);
    again.publish(&place).await;
    let end = events.end_of(&again.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let state = docker(&["inspect", "--format={{.State.Status}}", &preview]).await;
    assert_eq!(state.trim(), "running");

    // A stop by hand stays, and is told as one.
    docker(&["stop", &preview]).await;
    let stopped = told(&mut events, "container.exited", "preview", "by hand").await;
    team_is(&mut events, "degraded").await;
    let shown = health(&place).await.unwrap();
    assert_eq!(part(&shown, "preview")["stopped_by_hand"], true, "{shown}");
    assert!(stopped["data"]["exit_code"].is_i64(), "{stopped}");
    docker(&["start", &preview]).await;
    team_is(&mut events, "running").await;
    until_page_holds(&link, "/", "<h1>served</h1>").await;

    // Memory that runs out takes a process, not the part.
    let greedy = docker::exec(&sync, &["sh", "-c", "head -c 400m /dev/zero | tail -c 300m"]).await;
    assert_ne!(greedy.code, 0, "{}", greedy.output);
    told(&mut events, "container.oom", "sync", "memory").await;
    let ooms = "covibes_container_oom_kills_total{role=\"sync\"}";
    worker.until_metric(ooms, 1.0).await;

    // A network that somebody removes is made anew, with what stood on it.
    let network = format!("covibes.{}_preview_net_{TEAM}", place.instance);
    docker(&["network", "disconnect", "--force", &network, &preview]).await;
    docker(&["network", "rm", &network]).await;
    until("the network is there again", STATE_MAX, async || {
        docker::of_team(&place.instance, TEAM).await.networks.contains(&network).then_some(())
    })
    .await;
    until_page_holds(&link, "/", "<h1>served</h1>").await;
    let shown = until_health(&place, "the team is whole", |health| {
        health["state"] == "running" && health["missing"] == json!([]) && health["busy"] == false
    })
    .await;
    assert_eq!(part(&shown, "sync")["oom_kills"], 1, "{shown}");

    // A worker that is killed is followed by one that finds all of it, and starts
    // what ended meanwhile.
    worker.process.kill();
    docker(&["kill", &sync]).await;
    let next = Worker::ready(&place).await;
    let found = events.until("the host says what it found", |e| kind(e) == "host.reconciled").await;
    let found = &found["data"];
    assert_eq!((&found["adopted"], &found["restarting"]), (&json!(0), &json!(1)), "{found}");
    told(&mut events, "container.restarted", "sync", "started it again").await;
    until_health(&place, "the team is whole again", |health| health["state"] == "running").await;
    let gc = place.run(&["host", "gc", "--dry-run", "--json"]).await;
    assert_eq!(gc.code, Some(0), "{}", gc.stderr);
    let destroy = Message::new(TEAM, "destroy");
    destroy.publish(&place).await;
    events.end_of(&destroy.id).await;
    assert!(place.is_gone(TEAM).await);
    assert_log_has_what_dashboards_ask(&place, &mut events, &next).await;
    // It watches, and does not grow.
    let status = std::fs::read_to_string(format!("/proc/{}/status", next.process.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 200 * 1024, "{kib} kB");
}
