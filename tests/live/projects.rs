//! Small projects without dependencies, so that nothing is fetched.

use std::path::{Path, PathBuf};

use crate::place::Place;

/// A page on every address, at the port it is told.
pub(crate) const SERVER: &str = r#"
require('http')
  .createServer((_request, response) => response.end('<h1>served</h1>'))
  .listen(process.env.PORT, '0.0.0.0');
"#;

/// Waits for the file `gate/open`. The directory is read, not the file looked
/// up: an install sees the workspace through an overlay, which may remember
/// that a file was not there.
const GATE: &str = r#"
console.log('waiting at the gate');
setInterval(() => {
  if (require('fs').readdirSync('gate').includes('open')) process.exit(0);
}, 100);
"#;

/// Writes a Node project with these scripts.
pub(crate) fn node(path: &Path, scripts: &serde_json::Value, files: &[(&str, &str)]) {
    let manifest = serde_json::json!({
        "name": "live", "version": "1.0.0", "private": true, "scripts": scripts,
    });
    let lock = serde_json::json!({
        "name": "live", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
        "packages": {"": {
            "name": "live", "version": "1.0.0",
            "hasInstallScript": scripts.get("postinstall").is_some(),
        }},
    });
    std::fs::write(path.join("package.json"), manifest.to_string()).unwrap();
    std::fs::write(path.join("package-lock.json"), lock.to_string()).unwrap();
    for (name, content) in files {
        std::fs::write(path.join(name), content).unwrap();
    }
}

/// One that comes up at once.
pub(crate) fn plain(place: &Place, name: &str) -> PathBuf {
    let path = place.directory(name);
    node(&path, &serde_json::json!({"dev": "node server.js"}), &[("server.js", SERVER)]);
    path
}

/// One whose install waits until [`open_gate`].
pub(crate) fn gated(place: &Place, name: &str) -> PathBuf {
    let path = place.directory(name);
    let scripts = serde_json::json!({"dev": "node server.js", "postinstall": "node gate.js"});
    node(&path, &scripts, &[("server.js", SERVER), ("gate.js", GATE)]);
    std::fs::create_dir(path.join("gate")).unwrap();
    path
}

/// Lets the install of a gated workspace end.
pub(crate) fn open_gate(workspace: &Path) {
    std::fs::write(workspace.join("gate/open"), "").unwrap();
}

/// Gives a project to the containers' user, so that it is bound as it is and not copied.
pub(crate) fn give(path: &Path) {
    let status = std::process::Command::new("chown").args(["-R", "1000:1000"]).arg(path).status();
    assert!(status.unwrap().success());
}
