//! The operator page in a browser, on a team that runs: every section, every
//! action, both themes, a phone's width, and what happens when the worker is gone.

mod lasting;
mod terminal;

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::net::{Reply, send};
use crate::place::{Place, STATE_MAX, until};
use crate::projects;
use crate::worker::{Follower, Message, Worker, publish};

const TOKEN: &str = "the-pages-own-token";

/// Prints what a page or terminal could obey, and goes on printing.
const SERVER: &str = r#"
console.log('first line \u001b[31mred\u001b[0m \u0000 </pre><script>document.title="taken"</script>');
console.log('x'.repeat(1 << 20));
let count = 0;
setInterval(() => console.log(`tick ${++count}`), 500);
require('http')
  .createServer((_request, response) => response.end('<h1>served</h1>'))
  .listen(process.env.PORT, '0.0.0.0');
"#;

/// Asks as a browser with the token would.
async fn ask(place: &Place, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Reply {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("tester:{TOKEN}"));
    let basic = format!("Basic {basic}");
    let mut headers = vec![("authorization", basic.as_str()), ("accept", "text/html")];
    headers.extend_from_slice(more);
    send(place.http(), method, path, &headers, body, |_| false).await
}

async fn place() -> Place {
    let mut place = Place::new().await;
    std::fs::write(place.dir.join("token"), TOKEN).unwrap();
    let token = place.dir.join("token").display().to_string();
    place.set("COVIBES_HTTP_TOKEN_FILE", token);
    place
}

/// Opens the page as a person does who types the token.
async fn open(browser: &Browser, place: &Place, path: &str) -> Page {
    let page = browser.page().await;
    page.open(&format!("http://tester:{TOKEN}@{}{path}", place.http())).await;
    page
}

async fn go(page: &Page, place: &Place, path: &str) {
    page.open(&format!("http://{}{path}", place.http())).await;
}

/// What axe finds to be serious on the page that is open.
async fn inaccessible(page: &Page, path: &str) -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("target/axe-core/package/axe.min.js");
    let source = std::fs::read_to_string(&source).unwrap_or_else(|_| {
        panic!("{} is missing; `ops/setup.sh --tests` fetches it", source.display())
    });
    page.value(&format!("{source}; 0")).await;
    let found = page
        .value(
            "axe.run().then((result) => result.violations.filter((v) => v.impact === 'serious' \
             || v.impact === 'critical').map((v) => `${v.id}: ${v.nodes.map((n) => n.html).slice(0, 3)}`))",
        )
        .await;
    let found = found.as_array().unwrap().iter();
    found.map(|what| format!("{path}: {}", what.as_str().unwrap())).collect()
}

/// Every section in both themes and at a phone's width.
async fn looked_at(page: &Page, place: &Place, sections: &[(&str, &str)]) {
    let mut faults = Vec::new();
    for (name, path) in sections {
        for (theme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
            page.look(width, 844, theme == "dark").await;
            go(page, place, path).await;
            page.until_shows("Covibes").await;
            let at = format!("{path} {theme} {width}");
            faults.extend(inaccessible(page, &at).await);
            let wide = page.value("document.documentElement.scrollWidth - innerWidth").await;
            if wide.as_i64().unwrap() > 0 {
                faults.push(format!("{at}: too wide by {wide}"));
            }
            page.screenshot(&format!("page-{name}-{theme}-{width}")).await;
        }
    }
    page.look(1280, 900, false).await;
    // All at once: each look takes its time.
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Clicks what an expression gives, as soon as the page has it.
async fn click(page: &Page, what: &str, expression: &str) {
    until(&format!("there is {what} to click"), STATE_MAX, async || {
        let clicked = format!(
            "(() => {{ const it = {expression}; if (it) it.click(); return Boolean(it); }})()"
        );
        (page.value(&clicked).await == true).then_some(())
    })
    .await;
}

/// Waits until a page shows a text by itself. It is loaded again now and then: while
/// Docker makes and removes networks, Chromium gives up what it is just loading.
async fn until_comes(page: &Page, place: &Place, path: &str, text: &str) {
    until(&format!("{path} shows {text}"), 2 * STATE_MAX, async || {
        go(page, place, path).await;
        let seen = async {
            while !page.text().await.contains(text) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.ok()
    })
    .await;
}

/// Follows a link or button by its words.
async fn press(page: &Page, words: &str) {
    let all = "[...document.querySelectorAll('main a, main button')]";
    click(page, words, &format!("{all}.find((e) => e.textContent.trim() === {words:?})")).await;
}

#[tokio::test]
async fn a_person_sees_and_steers_a_team() {
    let place = place().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let path = place.directory("app");
    projects::node(&path, &json!({"dev": "node server.js"}), &[("server.js", SERVER)]);
    place.workspace("blue", &path);
    let start = Message::start("blue", &["main"]);
    start.publish(&place).await;
    assert_eq!(events.end_of(&start.id).await["type"], "covibes.job.succeeded");
    // One that no worker can read, with a page in its fields.
    let bad = Message::new("blue", "start");
    let body =
        bad.body.to_string().replace("covibes.job.v1", "<script>document.title='x'</script>");
    publish(&place, &bad.id, &bad.key, body.as_bytes()).await;
    events.end_of(&bad.id).await;

    only_whoever_may(&place).await;

    let browser = Browser::start(&[]);
    let page = open(&browser, &place, "/").await;
    page.until_shows("Last hour").await;
    page.until_shows("live").await;
    go(&page, &place, "/teams/blue").await;
    page.until_shows("running").await;
    page.until_shows("ready").await;
    let log = page.value("document.querySelector('[aria-label=\"Log of main\"]').pathname").await;
    let log = log.as_str().unwrap().to_owned();
    let (job, letter) = (format!("/jobs/{}", start.id), format!("/dead-letters/{}", bad.id));
    looked_at(
        &page,
        &place,
        &[
            ("overview", "/"),
            ("teams", "/teams"),
            ("team", "/teams/blue"),
            ("jobs", "/jobs"),
            ("job", &job),
            ("letters", "/dead-letters"),
            ("letter", &letter),
            ("hosts", "/hosts"),
            ("log", &log),
            ("confirm", "/teams/blue/destroy"),
            ("nothing", "/teams?q=nobody"),
            ("missing", "/teams/nobody"),
        ],
    )
    .await;
    log_is_shown(&page, &place, &log).await;
    team_is_steered(&page, &place).await;
    letters_are_settled(&page, &place, &mut events, &bad).await;
    terminal::says_the_same(&place).await;
    terminal::fits_and_ends(&place).await;
    listeners_who_never_read(&page, &place, &worker).await;
    lasting::read_without_scripts(&place).await;
    lasting::comes_back_by_itself(&page, &place).await;
    lasting::catches_up(&page, &place, &mut events).await;
    lasting::letters_come_and_go(&page, &place, &mut events).await;
    what_is_old_says_so(&page, &place, worker).await;
    let problems = page.problems();
    let is_of_page = |p: &&String| p.contains("exceptionId") || p.contains("Security Policy");
    let of_page: Vec<_> = problems.iter().filter(is_of_page).collect();
    assert!(of_page.is_empty(), "{of_page:?}");
    assert_ne!(page.value("document.title").await, "taken");
    browser.end().await;
    let destroy = Message::new("blue", "destroy");
    let _worker = Worker::ready(&place).await;
    destroy.publish(&place).await;
    events.end_of(&destroy.id).await;
    assert!(place.is_gone("blue").await, "something is left in Docker");
}

/// 401, 403 and 421, and what a page is allowed to do.
async fn only_whoever_may(place: &Place) {
    let http = place.http();
    let own = "http://localhost".to_owned();
    let html = [("accept", "text/html")];
    for path in ["/", "/teams", "/events", "/api/teams", "/dead-letters", "/teams/blue/stop"] {
        let closed = send(http, "GET", path, &html, "", |_| false).await;
        assert_eq!(closed.status, 401, "{path}");
        assert!(closed.header("www-authenticate").starts_with("Basic"), "{closed:?}");
    }
    let foreign = crate::net::get(http, "evil.example", "/").await.unwrap();
    assert_eq!(foreign.status, 421);
    let page = ask(place, "GET", "/", &[], "").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.body.contains("style=") && !page.body.contains("onclick"), "{}", page.body);
    // Read without JavaScript: the state stands in the page itself.
    let team = ask(place, "GET", "/teams/blue", &[], "").await.body;
    assert!(team.contains("running") && team.contains("main"), "{team}");

    for origin in ["http://evil.example", "http://localhost:5000", "null"] {
        for (method, path) in [("GET", "/"), ("POST", "/teams/blue/stop"), ("GET", "/events")] {
            let refused = ask(place, method, path, &[("origin", origin)], "").await;
            assert_eq!(refused.status, 403, "{origin} {method} {path}");
        }
    }
    // A browser's own key without a page of ours behind it.
    let bare = ask(place, "POST", "/teams/blue/stop", &[], "").await;
    assert_eq!(bare.status, 403, "{bare:?}");
    let host = [("origin", own.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(ask(place, "POST", "/teams/blue/stop", &host, "").await.status, 403);
    let image = [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")];
    assert_eq!(ask(place, "GET", "/teams/blue", &image, "").await.status, 403);
    let state: Value = ask(place, "GET", "/api/teams/blue", &[], "").await.json();
    assert_eq!(state["state"], "running", "nobody stopped it: {state}");
}

async fn log_is_shown(page: &Page, place: &Place, log: &str) {
    go(page, place, log).await;
    page.until_shows("first line red").await;
    page.until_shows("</pre><script>").await;
    page.until_shows("(").await;
    page.until_shows("following").await;
    let before = page.value("document.getElementById('log').textContent.length").await;
    until("the log goes on", STATE_MAX, async || {
        let now = page.value("document.getElementById('log').textContent.length").await;
        (now.as_u64() > before.as_u64()).then_some(())
    })
    .await;
    go(page, place, &format!("{log}?q=TICK%201")).await;
    page.until_shows("tick 1").await;
    assert!(!page.text().await.contains("first line"), "only what was looked for");
    let file = ask(place, "GET", &format!("{log}?download"), &[], "").await;
    assert!(file.header("content-disposition").starts_with("attachment"), "{file:?}");
    let compose = ask(place, "GET", "/teams/blue/compose.yaml", &[], "").await;
    assert!(compose.status == 200 && compose.body.contains("services:"), "{compose:?}");
}

/// Stop and start again, each confirmed, followed live to its end.
async fn team_is_steered(page: &Page, place: &Place) {
    for (action, state) in [("Stop", "stopped"), ("Start", "running")] {
        go(page, place, "/teams/blue").await;
        page.until_shows("Asked for").await;
        press(page, action).await;
        page.until_shows("Cancel").await;
        press(page, &format!("{action} blue")).await;
        page.until_shows("Job ").await;
        let job = page.value("location.pathname").await.as_str().unwrap().to_owned();
        until_comes(page, place, &job, "succeeded").await;
        until_comes(page, place, "/teams/blue", state).await;
    }
    // Asked, and not meant.
    press(page, "Destroy").await;
    page.until_shows("Cancel").await;
    press(page, "Cancel").await;
    page.until_shows("running").await;
    let audit = std::path::Path::new("/var/lib/covibes/instances").join(&place.instance);
    let audit = std::fs::read_to_string(audit.join("audit.jsonl")).unwrap();
    let deeds: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = deeds.iter().map(|deed| deed["deed"].as_str().unwrap()).collect();
    assert_eq!(named, ["stop", "start"], "{audit}");
    assert_eq!((&deeds[0]["by"], &deeds[0]["target"]), (&"tester".into(), &"blue".into()));
    assert!(deeds[0]["job"].is_string() && deeds[0]["from"] == "127.0.0.1", "{audit}");
}

/// One is sent again, one of two dropped, and then all that fit.
async fn letters_are_settled(page: &Page, place: &Place, events: &mut Follower, bad: &Message) {
    go(page, place, &format!("/dead-letters/{}", bad.id)).await;
    page.until_shows("<script>document.title").await;
    press(page, "Send again").await;
    page.until_shows("Cancel").await;
    press(page, "Send again").await;
    page.until_shows("1 sent again").await;
    // It is as bad as before, and comes back.
    events.end_of(&bad.id).await;
    let mut ids = vec![bad.id.clone()];
    for _ in 0..3 {
        let more = Message::new("blue", "explode");
        publish(place, &more.id, &more.key, more.body.to_string().as_bytes()).await;
        events.end_of(&more.id).await;
        ids.push(more.id);
    }
    until("all are there", STATE_MAX, async || {
        go(page, place, "/dead-letters").await;
        let boxes = page.value("document.querySelectorAll('input[type=checkbox]').length").await;
        (boxes == 4).then_some(())
    })
    .await;
    press(page, "Drop chosen").await;
    page.until_shows("Nothing is chosen").await;
    go(page, place, "/dead-letters").await;
    for id in &ids[1..3] {
        let tick = format!("document.querySelector('input[type=checkbox][value=\"{id}\"]')");
        click(page, id, &tick).await;
    }
    press(page, "Drop chosen").await;
    page.until_shows("Drop: 2 of the dead letters?").await;
    press(page, "Drop").await;
    page.until_shows("2 dropped").await;
    go(page, place, "/dead-letters?team=blue").await;
    press(page, "Drop all that fit").await;
    page.until_shows("Drop: 2 of the dead letters?").await;
    press(page, "Drop").await;
    page.until_shows("2 dropped").await;
    go(page, place, "/dead-letters").await;
    page.until_shows("No message was put aside.").await;
}

/// A thousand listeners who never read cost little, and nobody else anything.
async fn listeners_who_never_read(page: &Page, place: &Place, worker: &Worker<'_>) {
    use tokio::io::AsyncWriteExt as _;
    let limit = rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let before = worker.memory();
    let mut listeners = Vec::new();
    for _ in 0..1000 {
        let mut stream = tokio::net::TcpStream::connect(place.http()).await.unwrap();
        let head = format!(
            "GET /events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        listeners.push(stream);
    }
    let client = place.client();
    for _ in 0..600 {
        let asked = Message::new("nobody", "status");
        let body = asked.body.to_string();
        client.publish_job(body.as_bytes(), &asked.key, &asked.id, &[]).await.unwrap();
    }
    worker.until_metric("covibes_jobs_received_total{action=\"status\"}", 600.0).await;
    assert_eq!(worker.get("/livez").await.unwrap().status, 200);
    let grown = worker.memory().saturating_sub(before) >> 20;
    // Sixteen kilobytes each, and the ring; a debug build needs more for each task.
    assert!(grown < 160, "{grown} MiB for a thousand who never read");
    go(page, place, "/jobs").await;
    page.until_shows("nobody").await;
    let paint = page.value("performance.getEntriesByType('paint').map((e) => e.startTime)").await;
    until("the page was put in place once", STATE_MAX, async || {
        Message::new("nobody", "status").publish(place).await;
        let count = page.value("performance.getEntriesByName('covibes-update').length").await;
        (count.as_u64() > Some(2)).then_some(())
    })
    .await;
    let updates =
        "performance.getEntriesByName('covibes-update').map((e) => Math.round(e.duration))";
    let updates = page.value(updates).await;
    eprintln!(
        "{grown} MiB for 1,000 listeners; /jobs with 200 rows: paint {paint}, updates {updates} ms"
    );
    drop(listeners);
}

/// Hidden, cut off, and back.
async fn what_is_old_says_so(page: &Page, place: &Place, worker: Worker<'_>) {
    go(page, place, "/teams/blue").await;
    page.until_shows("live").await;
    page.value(&lasting::hide(true)).await;
    page.until_shows("paused").await;
    page.value(&lasting::hide(false)).await;
    page.until_shows("live").await;
    worker.process.kill();
    page.until_shows("stale since").await;
    let worker = Worker::ready(place).await;
    page.until_shows("live").await;
    page.until_shows("running").await;
    worker.process.terminate();
    until("the worker has ended", Duration::from_secs(90), async || {
        (!worker.process.is_running()).then_some(())
    })
    .await;
}
