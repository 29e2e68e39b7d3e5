//! The cache of a preview: held to its size by a file system of its own, which survives whatever
//! takes its mount away; watched, and emptied of downloads, where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::docker::{self, exec};
use crate::net::until_page_holds;
use crate::place::{Place, mounts_below};
use crate::projects::{give, plain};

const SIZE: u64 = 500 << 20;

fn cache_of(place: &Place, team: &str) -> PathBuf {
    place.data().join("cache").join(team).join("preview-main/cache")
}

fn is_mounted(path: &Path) -> bool {
    mounts_below(path).iter().any(|mount| Path::new(mount) == path)
}

async fn preview(place: &Place, team: &str) -> String {
    let all = docker::ids(&place.instance, team).await;
    all.keys().find(|name| name.contains("_preview_")).unwrap().clone()
}

/// What `doctor` says of something.
async fn doctor(place: &Place, what: &str) -> Value {
    let ended = place.run(&["doctor", "--json"]).await;
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == what).cloned().unwrap()
}

#[tokio::test]
async fn a_cache_has_its_size_and_keeps_it_when_the_mount_is_gone() {
    let place = Place::new().await;
    let said = doctor(&place, "preview caches").await;
    assert_eq!(said["ok"], true, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("loop mount"), "{said}");

    let app = plain(&place, "app");
    let up = ["up", app.to_str().unwrap(), "--team", "sized", "--agents", "0", "--json"];
    place.done(&up).await;
    let cache = cache_of(&place, "sized");
    assert!(is_mounted(&cache));
    let size = rustix::fs::statvfs(&cache).unwrap();
    let bytes = size.f_blocks * size.f_frsize;
    assert!((SIZE * 8 / 10..=SIZE).contains(&bytes), "{bytes}");
    let container = preview(&place, "sized").await;
    let fill = "head -c 600M /dev/zero > /app/.cache/all; ls -l /app/.cache/all";
    let filled = exec(&container, &["sh", "-c", fill]).await;
    assert!(filled.output.contains("No space left on device"), "{}", filled.output);
    let held = std::fs::metadata(cache.join("all")).unwrap().len();
    assert!(held < SIZE, "{held}");
    // 150 MB directly to the host's disk, at 50 MB a second; at least, whatever else runs.
    let write =
        ["dd", "if=/dev/zero", "of=/app/node_modules/x", "bs=1M", "count=143", "oflag=direct"];
    let began = std::time::Instant::now();
    let written = exec(&container, &write).await;
    assert_eq!(written.code, 0, "{}", written.output);
    assert!(began.elapsed().as_secs_f64() > 2.5, "{}", written.output);
    let said = doctor(&place, "disk limits").await;
    assert!(said["detail"].as_str().unwrap().contains("(cgroup v"), "{said}");
    exec(&container, &["sh", "-c", "rm /app/.cache/all; echo mine > /app/.cache/kept"]).await;

    // As after a restart of the host: the mount is gone, and Docker started the container by
    // itself, on the directory below. The next run makes it right.
    docker::docker(&["stop", "--time", "1", &container]).await;
    let status = Command::new("umount").arg(&cache).status().unwrap();
    assert!(status.success());
    assert!(!cache.join("kept").exists());
    docker::docker(&["start", &container]).await;
    let events = place.done(&up).await;
    assert!(is_mounted(&cache));
    let container = preview(&place, "sized").await;
    let kept = exec(&container, &["cat", "/app/.cache/kept"]).await;
    assert_eq!(kept.output, "mine");
    until_page_holds(&events.link("main"), "/", "<h1>served</h1>").await;
    assert!(!place.done(&up).await.changed(), "and nothing more is to do");

    // A stopped team keeps it, a destroyed one has nothing.
    place.done(&["down", "sized", "--json"]).await;
    assert_eq!(std::fs::read_to_string(cache.join("kept")).unwrap(), "mine\n");
    place.done(&["destroy", "sized", "--json"]).await;
    place.assert_gone("sized").await;
    let loops = Command::new("losetup").args(["--list", "--output=BACK-FILE"]).output().unwrap();
    let loops = String::from_utf8_lossy(&loops.stdout).into_owned();
    assert!(!loops.contains(&place.instance), "{loops}");
}

#[tokio::test]
async fn a_cache_without_a_size_loses_its_downloads_before_an_install() {
    let mut place = Place::new().await;
    place.set("COVIBES_PREVIEW_CACHE_SIZED", "false");
    let said = doctor(&place, "preview caches").await;
    assert!(said["detail"].as_str().unwrap().contains("not enforced"), "{said}");
    let app = plain(&place, "app");
    give(&app);
    let up = ["up", app.to_str().unwrap(), "--team", "watched", "--agents", "0", "--json"];
    place.done(&up).await;
    let cache = cache_of(&place, "watched");
    assert!(!is_mounted(&cache));
    for (name, megabytes) in [("npm/_cacache/big", 320_u64), ("mine.sqlite3", 1)] {
        let path = cache.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = vec![1_u8; 1 << 20];
        let mut file = std::fs::File::create(&path).unwrap();
        for _ in 0..megabytes {
            std::io::Write::write_all(&mut file, &bytes).unwrap();
        }
    }
    for name in ["package.json", "package-lock.json"] {
        let text = std::fs::read_to_string(app.join(name)).unwrap();
        std::fs::write(app.join(name), text.replace("1.0.0", "1.0.1")).unwrap();
    }
    place.done(&up).await;
    assert!(!cache.join("npm/_cacache/big").exists(), "downloads go");
    assert!(cache.join("mine.sqlite3").exists(), "what the dev server keeps stays");
    place.done(&["destroy", "watched", "--json"]).await;
    place.assert_gone("watched").await;
}
