//! Projects that cannot come up: each ends with its own code, step, hint and
//! last lines, and leaves nothing behind.

use std::path::Path;

use serde_json::json;

use crate::place::{Place, is_full};
use crate::projects::{SERVER, node};

/// What a start of a bad project must say.
struct Expected {
    code: &'static str,
    step: &'static str,
    /// A part of the last lines of output; empty where there is no output.
    log: &'static str,
}

async fn check(make: impl Fn(&Path), expected: Expected) {
    let place = Place::new().await;
    let path = place.directory("app");
    make(&path);
    let up = ["up", path.to_str().unwrap(), "--team", "bad", "--agents", "0", "--json"];
    let ended = place.run(&up).await;
    let events = ended.events();
    assert_eq!(ended.code, Some(1), "{:?}", events.kinds());
    let failed = &events.one("job.failed")["data"];
    let failure = &failed["failure"];
    assert_eq!(failure["code"], expected.code, "{failed}");
    assert_eq!(failure["step"], expected.step, "{failed}");
    assert_eq!(failure["fault"], "tenant", "{failed}");
    assert!(failure["hint"].as_str().is_some_and(|hint| hint.ends_with('.')), "{failed}");
    let log: Vec<_> = failure["log"].as_array().unwrap().iter().collect();
    let log: Vec<_> = log.into_iter().filter_map(|line| line.as_str()).collect();
    assert!(log.join("\n").contains(expected.log), "{failed}");
    assert_eq!(failed["undone"], true, "{failed}");
    // A tenant's fault is not tried again; another test's subnet may be.
    let retried = events.of("job.retrying");
    let codes: Vec<_> = retried.iter().map(|event| &event["data"]["failure"]["code"]).collect();
    assert!(codes.iter().all(|code| **code != expected.code), "{codes:?}");
    place.assert_gone("bad").await;
}

#[tokio::test]
async fn a_project_of_unknown_kind_says_so() {
    let make = |path: &Path| std::fs::write(path.join("notes.txt"), "nothing to run").unwrap();
    check(make, Expected { code: "detect.unknown_project", step: "detect", log: "" }).await;
}

#[tokio::test]
async fn a_missing_lockfile_says_so() {
    let make = |path: &Path| {
        let manifest = json!({"scripts": {"dev": "next"}, "dependencies": {"next": "16.0.0"}});
        std::fs::write(path.join("package.json"), manifest.to_string()).unwrap();
    };
    check(make, Expected { code: "build.missing_lockfile", step: "config", log: "" }).await;
}

#[tokio::test]
async fn a_failing_install_shows_its_last_lines() {
    let make = |path: &Path| {
        let fail = "console.error('the install gives up'); process.exit(3);";
        let scripts = json!({"dev": "node server.js", "postinstall": "node fail.js"});
        node(path, &scripts, &[("server.js", SERVER), ("fail.js", fail)]);
    };
    let log = "the install gives up";
    check(make, Expected { code: "build.install_failed", step: "build", log }).await;
}

#[tokio::test]
async fn a_dev_server_that_exits_shows_its_last_lines() {
    let make = |path: &Path| {
        let server = "console.error('the server gives up'); process.exit(7);";
        node(path, &json!({"dev": "node server.js"}), &[("server.js", server)]);
    };
    let log = "the server gives up";
    check(make, Expected { code: "preview.exited", step: "health", log }).await;
}

#[tokio::test]
async fn a_dev_server_on_localhost_only_says_so() {
    let make = |path: &Path| {
        let server = SERVER.replace("0.0.0.0", "127.0.0.1");
        node(path, &json!({"dev": "node server.js"}), &[("server.js", &server)]);
    };
    check(make, Expected { code: "preview.localhost_bind", step: "health", log: "" }).await;
}

#[tokio::test]
async fn a_dev_command_that_goes_into_the_background_says_so() {
    let make = |path: &Path| {
        let dev = "node server.js >/dev/null 2>&1 & echo 'it runs behind'";
        node(path, &json!({"dev": dev}), &[("server.js", SERVER)]);
    };
    let log = "it runs behind";
    check(make, Expected { code: "preview.exited", step: "health", log }).await;
}

#[tokio::test]
async fn full_a_dev_server_on_a_port_of_its_own_choice_says_so() {
    if !is_full("full_a_dev_server_on_a_port_of_its_own_choice_says_so") {
        return;
    }
    let make = |path: &Path| {
        let server = SERVER.replace("process.env.PORT", "Number(process.env.PORT) + 1");
        node(path, &json!({"dev": "node server.js"}), &[("server.js", &server)]);
    };
    check(make, Expected { code: "preview.wrong_port", step: "health", log: "" }).await;
}

#[tokio::test]
async fn full_a_dev_server_that_never_answers_says_so() {
    if !is_full("full_a_dev_server_that_never_answers_says_so") {
        return;
    }
    let make = |path: &Path| {
        let server = "console.log('thinking'); setInterval(() => {}, 1000);";
        node(path, &json!({"dev": "node server.js"}), &[("server.js", server)]);
    };
    check(make, Expected { code: "preview.timeout", step: "health", log: "thinking" }).await;
}
