//! Every runtime on offer runs a project that asks for it, and says so itself.

use crate::docker::{docker, ids, inspect};
use crate::net::until_page_holds;
use crate::place::{Place, is_full};
use crate::projects;

const NODE_SERVER: &str = "require('http')\
    .createServer((_, response) => response.end(process.version))\
    .listen(process.env.PORT, '0.0.0.0');";

const PYTHON_SERVER: &str = "import http.server, os, platform\n\n\
    class Page(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        \
    self.send_response(200)\n        self.end_headers()\n        \
    self.wfile.write(platform.python_version().encode())\n\n\
    http.server.ThreadingHTTPServer(('0.0.0.0', 8000), Page).serve_forever()\n";

/// What the detect step must warn of, if anything, and the beginning of the version that runs.
async fn check(place: &Place, pin: &str, version: &str, warned: bool, runs: &str) {
    let name = version.replace('.', "-");
    let path = place.directory(&name);
    if pin == ".nvmrc" {
        let scripts = serde_json::json!({"dev": "node server.js"});
        projects::node(&path, &scripts, &[("server.js", NODE_SERVER)]);
    } else {
        std::fs::write(path.join("main.py"), PYTHON_SERVER).unwrap();
    }
    std::fs::write(path.join(pin), version).unwrap();
    let team = format!("r-{name}");
    let up = ["up", path.to_str().unwrap(), "--team", &team, "--agents", "0", "--json"];
    let events = place.done(&up).await;
    let told = events.step_message("detect");
    assert_eq!(told.contains("is not on offer here"), warned, "{told}");
    until_page_holds(&events.link("main"), "/", runs).await;

    // The image is the host's: another team's preview has the same one.
    let container = ids(&place.instance, &team).await;
    let container = container.keys().find(|name| name.contains("_preview_")).unwrap();
    let image = inspect(container).await["Config"]["Image"].as_str().unwrap().to_owned();
    let label = "--format={{index .Config.Labels \"covibes.instance\"}}";
    assert_eq!(docker(&["image", "inspect", label, &image]).await.trim(), "host");
    place.done(&["destroy", &team, "--json"]).await;
}

#[tokio::test]
async fn full_every_runtime_on_offer_runs_its_projects() {
    if !is_full("runtimes") {
        return;
    }
    let place = Place::new().await;
    check(&place, ".nvmrc", "20", false, "v20.").await;
    check(&place, ".nvmrc", "v22.12.0", false, "v22.").await;
    check(&place, ".nvmrc", "24", false, "v24.").await;
    check(&place, ".nvmrc", "18", true, "v20.").await;
    check(&place, ".python-version", "3.11", false, "3.11.").await;
    check(&place, ".python-version", "3.13", false, "3.13.").await;
    check(&place, ".python-version", "3.12.4", true, "3.13.").await;
}

#[tokio::test]
async fn full_a_runtime_that_nobody_has_is_named() {
    if !is_full("no such runtime") {
        return;
    }
    let place = Place::new().await;
    let path = projects::plain(&place, "old");
    let manifest = std::fs::read_to_string(path.join("package.json")).unwrap();
    let manifest = manifest.replacen('{', r#"{"engines":{"node":"16.x"},"#, 1);
    std::fs::write(path.join("package.json"), manifest).unwrap();
    let ended = place.run(&["up", path.to_str().unwrap(), "--team", "old", "--json"]).await;
    let events = ended.events();
    let failure = &events.one("job.failed")["data"]["failure"];
    assert_eq!(failure["code"], "runtime.unavailable", "{failure}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("16.x") && message.contains("22, 20, 24"), "{message}");
    place.assert_gone("old").await;
}
