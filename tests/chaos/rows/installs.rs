//! What dies while dependencies are installed: the real Docker daemon, as by its
//! service manager or as by the kernel, and the worker. What runs afterwards has
//! all of them or does not run.
//!
//! The dev command refuses to run on half of them, so that the start would fail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Scale, Trouble, judge, kill_and_start, teams};
use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::table::Row;
use crate::wait::{until, within};

/// Two dozen parts, one after the other, with the shell's own words.
const INSTALL: &str = "n=0
while [ $n -lt 24 ]; do
  : > node_modules/part-$n
  n=$((n + 1))
  echo part $n
  sleep 0.25
done
: > node_modules/whole
";

/// Serves only what is whole.
const SERVE: &str = "if ! [ -e node_modules/whole ]; then echo half an install; exit 3; fi
exec /usr/local/bin/covibes-preview static --dir . --port 3000
";

/// What dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// The daemon is asked to end, and ends its containers.
    Daemon,
    /// The daemon is killed: the install goes on without it.
    DaemonKilled,
    Worker,
}

const DEATHS: [Death; 3] = [Death::Daemon, Death::DaemonKilled, Death::Worker];

/// Makes a workspace a project with dependencies.
pub(crate) fn make_project(lab: &Lab, team: &str) -> PathBuf {
    lab.workers[0].make_workspace(team);
    let path = lab.workers[0].data().join("workspaces").join(team);
    let manifest = json!({"name": "app", "version": "1.0.0", "scripts": {"dev": "sh serve.sh"}});
    let lock = json!({"name": "app", "version": "1.0.0", "lockfileVersion": 3, "packages": {}});
    let settings = "preview:\n  install: sh install.sh\n  command: sh serve.sh\n  port: 3000\n";
    for (name, text) in [
        ("package.json", manifest.to_string()),
        ("package-lock.json", lock.to_string()),
        (".covibes.yml", settings.to_owned()),
        ("install.sh", INSTALL.to_owned()),
        ("serve.sh", SERVE.to_owned()),
    ] {
        std::fs::write(path.join(name), text).unwrap();
    }
    path
}

/// The start of a team with one preview.
pub(crate) fn spec() -> Value {
    json!({"spec": {"workspace": {"local": true}, "agents": [], "previews": [{"name": "main"}]}})
}

pub(crate) async fn interrupted(lab: &Lab, daemon: &Arc<Daemon>, scale: Scale) -> Row {
    let teams = teams(1);
    let team = &teams[0];
    let preview = lab.workers[0].data().join("cache").join(team).join("preview-main");
    let deaths = match scale.full {
        true => DEATHS.repeat(3),
        false => DEATHS.to_vec(),
    };
    let (mut moments, mut broken, mut mended) = (Vec::new(), Vec::new(), 0);
    for death in deaths {
        let path = make_project(lab, team);
        let start = lab.publish(team, "start", spec()).await;
        until("some parts are installed", async || {
            let names = list(&preview);
            let staging = names.iter().find(|name| name.starts_with("modules.new-"))?;
            preview.join(staging).join("part-5").exists().then_some(())
        })
        .await;
        match death {
            Death::Daemon => daemon.stop().await,
            Death::DaemonKilled => daemon.kill().await,
            Death::Worker => moments.push(kill_and_start(&lab.workers[0])),
        }
        if !matches!(death, Death::Worker) {
            mended += usize::from(daemon.run_again().await);
            moments.push(Trouble::over());
        }
        let end = lab.until_end_of(&start).await;
        if end.kind != "job.succeeded" {
            broken.push(format!("{death:?}: the start ended as {}", end.kind));
        }
        if !preview.join("modules/whole").exists() {
            broken.push(format!("{death:?}: it runs with half an install"));
        }
        let scratch = |name: &String| {
            ["modules.new-", "packages.new-", "overlay-"].iter().any(|p| name.starts_with(p))
        };
        broken.extend(
            list(&preview)
                .into_iter()
                .filter(scratch)
                .map(|name| format!("{death:?}: {name} is left")),
        );
        if path.join("node_modules/part-0").exists() {
            broken.push(format!("{death:?}: the install wrote to the workspace"));
        }
        let runs = within(Duration::from_secs(30), async || {
            let things = lab.workers[0].things().await;
            things.iter().any(|t| t.runs && t.name.contains("_preview_")).then_some(())
        });
        if runs.await.is_none() {
            broken.push(format!("{death:?}: no preview runs"));
        }
        let things = lab.workers[0].things().await;
        let left = things.iter().filter(|thing| thing.kind == "container" && !thing.runs);
        broken.extend(left.map(|thing| format!("{death:?}: {} is left", thing.name)));
        let destroy = lab.publish(team, "destroy", Value::Null).await;
        lab.until_end_of(&destroy).await;
    }
    let failing = lab.told().into_iter().filter(|told| told.kind == "preview.failing").count();
    lab.settle(&teams).await;
    let mut row = judge("a death during an install", lab, &teams, &moments).await;
    row.broken = broken;
    // With half an install the start would not have succeeded; what else is told is noted.
    row.note = format!(
        "{mended} times networks were forgotten; a preview was told to fail {failing} times"
    );
    row
}

fn list(path: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
