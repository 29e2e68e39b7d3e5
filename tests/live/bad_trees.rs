//! Workspaces that nobody expects, and that change under a running preview.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::docker::{self, exec};
use crate::net::until_page_holds;
use crate::place::{Place, STATE_MAX, is_full, until};
use crate::projects::{give, node, plain};
use crate::worker::{Follower, Message, Worker};

/// Says what a file holds whose name has two lines, and whether committed modules are seen.
const READER: &str = r#"
const fs = require('fs');
require('http')
  .createServer((_request, response) => response.end(
    `${fs.readFileSync('two\nlines.txt')}, stale: ${fs.existsSync('node_modules/stale')}`))
  .listen(process.env.PORT, '0.0.0.0');
"#;

fn odd(path: &Path, files: usize) {
    node(path, &json!({"dev": "node server.js"}), &[("server.js", READER)]);
    std::fs::write(path.join("two\nlines.txt"), "first").unwrap();
    std::fs::create_dir_all(path.join("node_modules/stale")).unwrap();
    std::fs::write(path.join("node_modules/stale/index.js"), "").unwrap();
    for number in 0..files {
        let directory = path.join(format!("many/{}", number / 1000));
        if number % 1000 == 0 {
            std::fs::create_dir_all(&directory).unwrap();
        }
        std::fs::write(directory.join(number.to_string()), "x").unwrap();
    }
}

/// Brings up the same odd tree as it is and on a copy, and edits it.
async fn check_odd(files: usize) {
    let place = Place::new().await;
    for mode in ["direct", "mirror"] {
        let path = place.directory(mode);
        odd(&path, files);
        std::fs::write(path.join(".covibes.yml"), format!("preview: {{mode: {mode}}}\n")).unwrap();
        give(&path);
        let up = ["up", path.to_str().unwrap(), "--team", mode, "--agents", "0", "--json"];
        let link = place.done(&up).await.link("main");
        until_page_holds(&link, "/", "first, stale: false").await;
        std::fs::write(path.join("two\nlines.txt"), "second").unwrap();
        until_page_holds(&link, "/", "second, stale: false").await;
        place.done(&["destroy", mode, "--json"]).await;
        place.assert_gone(mode).await;
    }
}

#[tokio::test]
async fn committed_modules_and_names_of_two_lines_are_no_trouble() {
    check_odd(0).await;
}

#[tokio::test]
async fn full_a_project_of_a_hundred_thousand_files_is_served_and_followed() {
    if is_full("a hundred thousand files") {
        check_odd(100_000).await;
    }
}

/// Serves `page.txt`.
const PAGE: &str = r#"
require('http')
  .createServer((_request, response) => response.end(require('fs').readFileSync('page.txt')))
  .listen(process.env.PORT, '0.0.0.0');
"#;

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn another_branch_under_a_running_preview_is_shown_with_its_own_modules() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let app = place.directory("app");
    let mark =
        "require('fs').writeFileSync('node_modules/mark', require('./package.json').version);";
    let scripts = json!({"dev": "node server.js", "postinstall": "node mark.js"});
    node(&app, &scripts, &[("server.js", PAGE), ("mark.js", mark), ("page.txt", "on main")]);
    git(&app, &["init", "--quiet"]);
    std::fs::write(app.join(".gitignore"), "node_modules\n").unwrap();
    git(&app, &["add", "."]);
    git(&app, &["commit", "--quiet", "--message", "main"]);
    git(&app, &["checkout", "--quiet", "-b", "other"]);
    for name in ["package.json", "package-lock.json"] {
        let text = std::fs::read_to_string(app.join(name)).unwrap();
        std::fs::write(app.join(name), text.replace("1.0.0", "2.0.0")).unwrap();
    }
    std::fs::write(app.join("page.txt"), "on the other").unwrap();
    git(&app, &["commit", "--quiet", "--all", "--message", "other"]);
    git(&app, &["checkout", "--quiet", "main"]);
    place.workspace("moved", &app);

    let job = Message::start("moved", &["main"]);
    job.publish(&place).await;
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let link: url::Url = end["data"]["links"]["main"].as_str().unwrap().parse().unwrap();
    until_page_holds(&link, "/", "on main").await;
    let modules = place.data().join("cache/moved/preview-main/modules/mark");
    assert_eq!(std::fs::read_to_string(&modules).unwrap(), "1.0.0");

    // As an agent does it, in a container of its own.
    let all = docker::ids(&place.instance, "moved").await;
    let sync = all.keys().find(|name| name.contains("_sync_")).unwrap();
    let moved = exec(sync, &["git", "-C", "/workspace", "checkout", "--quiet", "other"]).await;
    assert_eq!(moved.code, 0, "{}", moved.output);
    until_page_holds(&link, "/", "on the other").await;
    until("its own modules are there", 2 * STATE_MAX, async || {
        (std::fs::read_to_string(&modules).ok()? == "2.0.0").then_some(())
    })
    .await;
    until_page_holds(&link, "/", "on the other").await;
}

#[tokio::test]
async fn what_is_planted_at_a_mount_point_gains_nothing_and_a_taken_port_is_left() {
    let place = Place::new().await;
    let app = plain(&place, "app");
    std::fs::write(app.join(".covibes.yml"), "preview: {writable: [data, app.log]}\n").unwrap();
    give(&app);
    let up = ["up", app.to_str().unwrap(), "--team", "planted", "--agents", "0", "--json"];
    let first = place.done(&up).await.link("main");
    let all = docker::ids(&place.instance, "planted").await;
    let preview = all.keys().find(|name| name.contains("_preview_")).unwrap().clone();
    let mounts = async || {
        let inspected = docker::inspect(&preview).await;
        let mounts = inspected["Mounts"].as_array().unwrap().iter().map(ToString::to_string);
        mounts.collect::<std::collections::BTreeSet<_>>()
    };
    let before = mounts().await;

    // While it runs, what is mounted gives way to links to the host's own files; then Docker
    // starts it again by itself, without anybody who looks.
    let bait = place.directory("bait");
    for name in ["node_modules", "data"] {
        std::fs::remove_dir(app.join(name)).unwrap();
        symlink(&bait, app.join(name)).unwrap();
    }
    std::fs::remove_file(app.join("app.log")).unwrap();
    symlink("/etc/shadow", app.join("app.log")).unwrap();
    let again = tokio::process::Command::new("docker")
        .args(["restart", "--time", "1", &preview])
        .output()
        .await
        .unwrap();
    if again.status.success() {
        for name in ["node_modules", "data"] {
            exec(&preview, &["touch", &format!("/workspace/{name}/planted")]).await;
        }
        let read = exec(&preview, &["cat", "/workspace/app.log"]).await;
        assert_ne!(read.code, 0, "{}", read.output);
    }
    assert_eq!(std::fs::read_dir(&bait).unwrap().count(), 0, "nothing was written through a link");
    assert_eq!(mounts().await, before, "the same places are mounted");

    // Whoever starts it by a job is told what is in the way.
    let ended = place.run(&up).await;
    let events = ended.events();
    let failure = &events.one("job.failed")["data"]["failure"];
    assert_eq!(failure["code"], "workspace.mount_point", "{failure}");
    for name in ["node_modules", "data"] {
        std::fs::remove_file(app.join(name)).unwrap();
    }

    // Meanwhile somebody else listens on the port that it had.
    place.done(&["down", "planted", "--json"]).await;
    let port = first.port().unwrap();
    let _somebody = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let second = place.done(&up).await.link("main");
    assert_ne!(second.port(), first.port());
    until_page_holds(&second, "/", "<h1>served</h1>").await;
    place.done(&["destroy", "planted", "--json"]).await;
    place.assert_gone("planted").await;
}
