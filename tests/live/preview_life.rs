//! Previews on the real daemon: what is told of them, a dev server that writes
//! beside its sources, a lockfile that changes, a second branch.

use std::path::Path;

use serde_json::{Value, json};

use crate::docker;
use crate::net::until_page_holds;
use crate::place::{Place, STATE_MAX, until};
use crate::projects::{SERVER, node, plain};
use crate::worker::{Follower, Message, Worker};

/// Serves `page.txt`, after it has written beside its sources.
const WRITER: &str = r#"
const fs = require('fs');
fs.writeFileSync('written-at-start.txt', 'mine');
require('http')
  .createServer((_request, response) => response.end(fs.readFileSync('page.txt')))
  .listen(process.env.PORT, '0.0.0.0');
"#;

async fn started(place: &Place, events: &mut Follower, job: &Message) -> Value {
    job.publish(place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    end
}

fn link(end: &Value, preview: &str) -> url::Url {
    end["data"]["links"][preview].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_dev_server_that_writes_beside_its_sources_runs_on_a_copy_that_follows() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let app = place.directory("app");
    let scripts = json!({"dev": "node server.js"});
    node(&app, &scripts, &[("server.js", WRITER), ("page.txt", "first")]);
    let workspace = place.workspace("mirror", &app);

    // Read-only, it cannot run.
    let direct = Message::start("mirror", &["main"]);
    direct.publish(&place).await;
    let end = events.end_of(&direct.id).await;
    assert_eq!(end["data"]["failure"]["code"], "preview.exited", "{end}");
    let message = end["data"]["failure"]["message"].as_str().unwrap();
    assert!(message.contains("EROFS") && message.contains("`preview.mode: mirror`"), "{end}");

    let workspace = match workspace.exists() {
        true => workspace,
        false => place.workspace("mirror", &app),
    };
    std::fs::write(workspace.join(".covibes.yml"), "preview: {mode: mirror}\n").unwrap();
    let end = started(&place, &mut events, &Message::start("mirror", &["main"])).await;
    let link = link(&end, "main");
    until_page_holds(&link, "/", "first").await;
    std::fs::write(workspace.join("page.txt"), "second").unwrap();
    until_page_holds(&link, "/", "second").await;
    let copy = place.data().join("cache/mirror/preview-main/mirror/tree");
    assert_eq!(std::fs::read_to_string(copy.join("written-at-start.txt")).unwrap(), "mine");
    assert!(!workspace.join("written-at-start.txt").exists());
    assert!(!workspace.join("node_modules").exists(), "the mount point is in the copy");

    let destroy = Message::new("mirror", "destroy");
    destroy.publish(&place).await;
    events.end_of(&destroy.id).await;
    assert!(!copy.exists());
}

#[tokio::test]
async fn what_a_running_preview_does_is_told_and_shown() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("told", &plain(&place, "app"));
    started(&place, &mut events, &Message::start("told", &["main"])).await;
    let shown = place.run(&["teams", "show", "told"]).await;
    assert!(shown.stdout.contains("ready"), "{}", shown.stdout);

    // Somebody looks on from now on.
    let looking = place.start(&["teams", "logs", "told", "main", "-f"]);

    // The dev server ends, and its files keep it from coming back.
    std::fs::write(workspace.join("server.js"), "throw new TypeError('broken by an edit');")
        .unwrap();
    end_dev_server(&place, "told").await;
    // It is tried again after a rest, and says more then than that it was killed.
    let told = events
        .until("it fails with its first line", |event| {
            event["type"] == "covibes.preview.failing"
                && event["data"]["error"] == "TypeError: broken by an edit"
        })
        .await;
    let shown = place.run(&["teams", "show", "told", "--json"]).await;
    let lines = shown.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let preview = lines.into_iter().find(|line| line["role"] == "preview").unwrap();
    assert_eq!(
        (&preview["preview"], &preview["error"]),
        (&"failing".into(), &told["data"]["error"])
    );
    let logs = place.run(&["teams", "logs", "told", "main"]).await;
    assert!(logs.stdout.contains("broken by an edit"), "{}", logs.stdout);
    until("it comes to whoever looks on", STATE_MAX, async || {
        looking.stdout().contains("broken by an edit").then_some(())
    })
    .await;
    assert!(looking.is_running());
    looking.terminate();

    // Nobody but the edit starts it again.
    std::fs::write(workspace.join("server.js"), SERVER).unwrap();
    let told = events.until("it is ready", |e| e["type"] == "covibes.preview.ready").await;
    assert!(told["data"]["url"].as_str().is_some(), "{told}");
}

#[tokio::test]
async fn a_changed_lockfile_is_installed_and_a_second_branch_gets_its_modules() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let app = place.directory("app");
    let scripts = json!({"dev": "node server.js", "postinstall": "node mark.js"});
    let mark = "require('fs').writeFileSync('node_modules/mark', String(Math.random()));";
    node(&app, &scripts, &[("server.js", SERVER), ("mark.js", mark)]);
    let workspace = place.workspace("lock", &app);
    started(&place, &mut events, &Message::start("lock", &["main"])).await;
    let before = docker::ids(&place.instance, "lock").await;
    let marked = |preview: &str| {
        let places = place.data().join("cache/lock");
        std::fs::read_to_string(places.join(format!("preview-{preview}/modules/mark"))).ok()
    };
    let first = marked("main");
    assert!(first.is_some());

    started(&place, &mut events, &Message::start("lock", &["main", "second"])).await;
    assert_eq!(marked("second"), first, "copied, not installed");

    bump(&workspace);
    until("both are installed anew", STATE_MAX, async || {
        let (main, second) = (marked("main"), marked("second"));
        (main.is_some() && main != first && second == main).then_some(())
    })
    .await;
    let after = until("both run again", STATE_MAX, async || {
        let after = docker::ids(&place.instance, "lock").await;
        (after.len() == 3 && after.keys().all(|name| !name.contains(".old-"))).then_some(after)
    })
    .await;
    let sync = before.keys().find(|name| name.contains("_sync_")).unwrap();
    assert_eq!(before.get(sync), after.get(sync), "nothing else was touched");
    let logs = place.run(&["teams", "logs", "lock"]).await;
    assert!(logs.stdout.contains("install main"), "{}", logs.stdout);
}

/// Ends the dev server of preview `main`, as a crash does.
async fn end_dev_server(place: &Place, team: &str) {
    let all = docker::ids(&place.instance, team).await;
    let container = all.keys().find(|name| name.contains("_preview_")).unwrap();
    let address = docker::address(&docker::inspect(container).await);
    let address = format!("{address}:9300").parse().unwrap();
    let state = crate::net::get(address, "localhost", "/state").await.unwrap().body;
    let state: Value = serde_json::from_str(&state).unwrap();
    let kill = format!("kill -9 {}", state["pid"]);
    let killed = docker::exec(container, &["sh", "-c", &kill]).await;
    assert_eq!(killed.code, 0, "{}", killed.output);
}

/// Another version of the project itself, in both files.
fn bump(workspace: &Path) {
    for name in ["package.json", "package-lock.json"] {
        let path = workspace.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("1.0.0", "1.0.1")).unwrap();
    }
}
