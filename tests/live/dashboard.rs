//! The reference dashboard in a browser: what it shows is true or marked as old,
//! while containers, the stream and the worker are killed beneath it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::browser::{Browser, Page};
use crate::docker::{self, docker};
use crate::place::{Place, STATE_MAX, free_port, until};
use crate::projects::plain;
use crate::relay::TcpRelay;
use crate::worker::{Follower, Message, Worker};

const TOKEN: &str = "the-dashboards-own-token";

/// Serves the example's files, from another origin than the worker's.
async fn serve(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut head = vec![0; 8192];
        let Ok(read) = stream.read(&mut head).await else { continue };
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        let path = if path.is_empty() { "index.html" } else { path };
        let kind = match path.rsplit('.').next() {
            Some("html") => "text/html",
            Some("js") => "text/javascript",
            _ => "text/css",
        };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/dashboard").join(path);
        let (status, body) = match std::fs::read(file) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
    }
}

/// What the page shows of the team, and whether it says that it is old.
async fn shown(page: &Page) -> (String, bool) {
    let shown = page
        .value(
            "({state: document.querySelector('[data-team=blue]')?.dataset.state ?? 'none', \
             old: document.body?.hasAttribute('data-old') ?? true})",
        )
        .await;
    (shown["state"].as_str().unwrap().to_owned(), shown["old"] == true)
}

async fn until_shown(page: &Page, wanted: &str) {
    until(&format!("the dashboard shows {wanted}"), STATE_MAX, async || {
        (shown(page).await == (wanted.to_owned(), false)).then_some(())
    })
    .await;
}

/// Whether every part on the page is as Docker has it.
async fn parts_are_true(place: &Place, page: &Page) -> bool {
    let shown = page
        .value(
            "Object.fromEntries([...document.querySelectorAll('[data-team=blue] [data-part]')]\
             .map((part) => [part.dataset.part, part.dataset.state]))",
        )
        .await;
    let team = format!("--filter=label=covibes.instance={}", place.instance);
    let format = "--format={{.Label \"covibes.name\"}},{{.Label \"covibes.role\"}},{{.State}}";
    let listed = docker(&["ps", "-a", format, &team, "--filter=label=covibes.team=blue"]).await;
    let mut real = serde_json::Map::new();
    for line in listed.lines() {
        let [name, role, state] = line.splitn(3, ',').collect::<Vec<_>>()[..] else { continue };
        let part = if name.is_empty() { role } else { name };
        real.insert(part.to_owned(), state.into());
    }
    shown == serde_json::Value::Object(real)
}

async fn until_true(place: &Place, page: &Page) {
    until("the page shows what Docker has", STATE_MAX, async || {
        let (_, old) = shown(page).await;
        (!old && parts_are_true(place, page).await).then_some(())
    })
    .await;
}

/// Notes what the page claims, whenever it changes.
const WATCH: &str = "window.claims = []; new MutationObserver(() => { \
    const team = document.querySelector('[data-team=blue]'); \
    if (team && !document.body.hasAttribute('data-old') && team.dataset.state !== 'checking') \
      window.claims.push([Date.now(), team.dataset.state]); \
    }).observe(document.body, {subtree: true, childList: true, attributes: true}); 0";

/// Holds that no state was claimed that the team was not in a moment before.
async fn never_lied(page: &Page, events: &Follower) {
    let claims = page.value("window.claims").await;
    let told: Vec<(i64, &str)> = events
        .seen()
        .0
        .iter()
        .filter(|event| event["subject"] == "blue")
        .filter_map(|event| {
            let state = event["data"]["state"].as_str()?;
            let is_state = event["type"].as_str()?.starts_with("covibes.team.");
            let at: jiff::Timestamp = event["time"].as_str()?.parse().ok()?;
            is_state.then_some((at.as_millisecond(), state))
        })
        .collect();
    let claims = claims.as_array().unwrap();
    assert!(!claims.is_empty(), "nothing was shown");
    for claim in claims {
        let (at, state) = (claim[0].as_i64().unwrap(), claim[1].as_str().unwrap());
        // What was true within the last seconds: two cores are shared by everything.
        let since = at - 5_000;
        let before = told.iter().rev().find(|(time, _)| *time <= since).map(|(_, state)| *state);
        let within = told.iter().filter(|(time, _)| *time > since && *time <= at + 50);
        let possible: Vec<_> = before.into_iter().chain(within.map(|(_, state)| *state)).collect();
        assert!(possible.contains(&state), "{state} at {at} was claimed, of {possible:?}");
    }
}

#[tokio::test]
async fn the_dashboard_is_true_or_says_that_it_is_old() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files: SocketAddr = listener.local_addr().unwrap();
    let _files = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve(listener)));
    let mut place = Place::new().await;
    std::fs::write(place.dir.join("token"), TOKEN).unwrap();
    place.set("COVIBES_HTTP_TOKEN_FILE", place.dir.join("token").display().to_string());
    place.set("COVIBES_HTTP_CORS_ORIGINS", format!("[\"http://{files}\"]"));
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace("blue", &plain(&place, "app"));
    let start = Message::start("blue", &["main"]);
    start.publish(&place).await;
    assert_eq!(events.end_of(&start.id).await["type"], "covibes.job.succeeded");

    let port = free_port();
    let worker_at = ("127.0.0.1".to_owned(), place.http().port());
    let relay = TcpRelay::start(port, worker_at.clone()).await;
    let browser = Browser::start(&[]);
    let page = browser.page().await;
    page.open(&format!("http://{files}/#url=http://127.0.0.1:{port}&token={TOKEN}")).await;
    until_shown(&page, "running").await;
    page.value(WATCH).await;
    until_true(&place, &page).await;

    // A container dies, twice; whatever becomes of it is shown.
    for _ in 0..2 {
        for name in docker::ids(&place.instance, "blue").await.keys() {
            // One that is just being started again is not there to be killed.
            let mut kill = tokio::process::Command::new("docker");
            let _ = kill.args(["kill", name]).output().await;
        }
        until_true(&place, &page).await;
    }

    // An event was missed: nothing is claimed until the team was read again.
    let missed = json!({"type": "covibes.team.failed", "subject": "blue",
        "sequence": "09999999999999999999", "prevsequence": "00000000000000000001",
        "data": {"state": "failed", "cause": "forged"}});
    let asked = format!(
        "(() => {{ const team = subscriber.teams.get('blue'); \
         const event = {missed}; \
         event.sequence = String(BigInt(team.sequence) + 5n).padStart(20, '0'); \
         subscriber.take(event); return team.unsure; }})()"
    );
    assert_eq!(page.value(&asked).await, true);

    // Cut off, the page says so; what happened meanwhile is known afterwards.
    drop(relay);
    until("the page says that it is old", STATE_MAX, async || shown(&page).await.1.then_some(()))
        .await;
    page.screenshot("dashboard-old").await;
    let stop = Message::new("blue", "stop");
    stop.publish(&place).await;
    assert_eq!(events.end_of(&stop.id).await["type"], "covibes.job.succeeded");
    // More than the worker keeps for those who come back.
    let client = place.client();
    for _ in 0..1100 {
        let asked = Message::new("nobody", "status");
        let body = asked.body.to_string();
        client.publish_job(body.as_bytes(), &asked.key, &asked.id, &[]).await.unwrap();
    }
    let relay = TcpRelay::start(port, worker_at.clone()).await;
    until_shown(&page, "stopped").await;
    until_true(&place, &page).await;

    // Another process of the worker goes on.
    worker.process.kill();
    let worker = Worker::ready(&place).await;
    let again = Message::start("blue", &["main"]);
    again.publish(&place).await;
    assert_eq!(events.end_of(&again.id).await["type"], "covibes.job.succeeded");
    until_shown(&page, "running").await;
    until_true(&place, &page).await;
    page.screenshot("dashboard").await;

    let destroy = Message::new("blue", "destroy");
    destroy.publish(&place).await;
    events.end_of(&destroy.id).await;
    until_shown(&page, "none").await;
    // A last word about it that comes after its end brings nothing back.
    for late in ["1", "99999999999999999990"] {
        let late = format!(
            "subscriber.take({{type: 'covibes.job.succeeded', subject: 'blue', \
             sequence: '{late}'.padStart(20, '0'), data: {{action: 'destroy'}}}}); \
             subscriber.teams.has('blue')"
        );
        assert_eq!(page.value(&late).await, false);
    }
    // Another team of its name is not claimed to be anything until it was read; what is
    // none then was none.
    let anew = "subscriber.ended.set('blue', '5'.padStart(20, '0')); \
        subscriber.take({type: 'covibes.job.accepted', subject: 'blue', \
        sequence: '6'.padStart(20, '0'), data: {action: 'start'}}); \
        subscriber.teams.get('blue').unsure";
    assert_eq!(page.value(anew).await, true);
    until("the worker knows of none", STATE_MAX, async || {
        (page.value("subscriber.teams.has('blue')").await == false).then_some(())
    })
    .await;
    until_shown(&page, "none").await;
    // JSON may hold what ends a line for others.
    let line = "subscriber.message('id: x.1\\ndata: ' + JSON.stringify({type: \
        'covibes.team.failed', subject: 'green', sequence: '7'.padStart(20, '0'), \
        data: {state: 'failed', cause: 'a\\u2028b'}})).then(() => { \
        const green = subscriber.teams.get('green'); subscriber.teams.delete('green'); \
        return green?.cause; })";
    assert_eq!(page.value(line).await, "a\u{2028}b");
    // Nor does a word that says nothing of its state take it from a team.
    let expiring = "subscriber.teams.set('red', {team: 'red', state: 'running', parts: []}); \
        subscriber.take({type: 'covibes.team.expiring', subject: 'red', \
        sequence: '1'.padStart(20, '0'), data: {reason: 'ttl'}}); \
        subscriber.teams.get('red').state";
    assert_eq!(page.value(expiring).await, "running");
    never_lied(&page, &events).await;
    drop(relay);
    browser.end().await;
    worker.process.terminate();
    assert!(place.is_gone("blue").await, "something is left in Docker");
}
