//! A dev server on a writable copy of the workspace.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::preview::settings::MirrorSettings;

/// A workspace with some files, and a supervisor that runs `script` in its copy.
async fn mirrored(dir: tempfile::TempDir, script: &str, polling: bool) -> World {
    let root = dir.path().to_owned();
    std::fs::create_dir_all(root.join("workspace")).unwrap();
    let mirror = MirrorSettings { source: root.join("workspace"), place: root.join("mirror") };
    World::with(dir, script, |settings| {
        settings.dir = mirror.tree();
        settings.mirror = Some(mirror);
        settings.force_polling = polling;
    })
    .await
}

fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(&dir.path().join("workspace").join(name), text);
    }
    dir
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn holds(path: &Path, text: &str) {
    let what = format!("{} holds {text:?}", path.display());
    eventually(&what, || async { (std::fs::read_to_string(path).ok()? == text).then_some(()) })
        .await;
}

async fn gone(path: &Path) {
    let what = format!("{} is gone", path.display());
    eventually(&what, || async { path.symlink_metadata().is_err().then_some(()) }).await;
}

async fn check_following(polling: bool) {
    let dir = workspace(&[
        ("src/main.js", "1"),
        ("src/a\nb", "newline"),
        ("node_modules/x/index.js", "no"),
        (".git/HEAD", "no"),
        (".next/built", "no"),
    ]);
    symlink("src/main.js", dir.path().join("workspace/inside")).unwrap();
    symlink("/etc/hostname", dir.path().join("workspace/outside")).unwrap();
    // The server starts on a whole copy, and sees it as its own directory.
    let script = "cat src/main.js > made-by-the-server; exec sleep 600";
    let world = mirrored(dir, script, polling).await;
    let (from, to) = (world.path("workspace"), world.path("mirror/tree"));
    holds(&to.join("made-by-the-server"), "1").await;
    holds(&to.join("src/a\nb"), "newline").await;
    for name in ["node_modules", ".git", ".next"] {
        assert!(!to.join(name).exists(), "{name}");
    }
    let leads = |name: &str| std::fs::read_link(to.join(name)).unwrap();
    assert_eq!(leads("inside"), Path::new("src/main.js"));
    assert_eq!(leads("outside"), Path::new("/etc/hostname"));
    let state = world.state("starting").await;
    let mode = if polling { "polling" } else { "inotify" };
    assert_eq!(
        (&state["mirror"]["state"], &state["mirror"]["mode"]),
        (&json!("in_step"), &json!(mode))
    );

    write(&from.join("src/main.js"), "two");
    write(&from.join("new/deep/c"), "3");
    holds(&to.join("src/main.js"), "two").await;
    holds(&to.join("new/deep/c"), "3").await;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(from.join("src/main.js"), executable).unwrap();
    eventually("executable", || async {
        let mode = to.join("src/main.js").metadata().ok()?.permissions().mode();
        (mode & 0o777 == 0o755).then_some(())
    })
    .await;
    std::fs::rename(from.join("new"), from.join("moved")).unwrap();
    std::fs::rename(from.join("src/a\nb"), from.join("src/c\nd")).unwrap();
    holds(&to.join("moved/deep/c"), "3").await;
    holds(&to.join("src/c\nd"), "newline").await;
    gone(&to.join("new")).await;
    gone(&to.join("src/a\nb")).await;
    std::fs::remove_file(from.join("inside")).unwrap();
    symlink("moved", from.join("inside")).unwrap();
    std::fs::remove_dir_all(from.join("src")).unwrap();
    gone(&to.join("src")).await;
    eventually("the link leads elsewhere", || async {
        (std::fs::read_link(to.join("inside")).ok()? == Path::new("moved")).then_some(())
    })
    .await;
    // Nobody told it to touch what it did not copy.
    holds(&to.join("made-by-the-server"), "1").await;
    world.end().await;
}

#[tokio::test]
async fn the_copy_follows_the_workspace() {
    check_following(false).await;
}

#[tokio::test]
async fn the_copy_follows_by_polling_where_inotify_cannot_work() {
    check_following(true).await;
}

#[tokio::test]
async fn the_workspace_decides_over_what_it_has_and_the_server_over_the_rest() {
    let dir = workspace(&[("kept", "1"), ("edited", "1"), ("dropped", "1"), ("app/x", "1")]);
    let world = mirrored(dir, "exec sleep 600", false).await;
    let (from, to) = (world.path("workspace"), world.path("mirror/tree"));
    holds(&to.join("app/x"), "1").await;
    world.state("starting").await;
    // As a dev server writes: beside its sources, into them, and in the place of files to come.
    write(&to.join("db.sqlite3"), "rows");
    write(&to.join("edited"), "by the server");
    write(&to.join("dropped"), "by the server");
    write(&to.join("later/by/the/server"), "1");
    write(&to.join("app/node_modules/x"), "installed");
    write(&from.join("edited"), "by the agent");
    std::fs::remove_file(from.join("dropped")).unwrap();
    write(&from.join("later"), "a file");
    holds(&to.join("edited"), "by the agent").await;
    holds(&to.join("later"), "a file").await;
    gone(&to.join("dropped")).await;
    std::fs::remove_dir_all(from.join("app")).unwrap();
    gone(&to.join("app/x")).await;
    let dir = world.end().await;

    // Another container begins with what is there.
    write(&dir.path().join("workspace/while-down"), "1");
    std::fs::remove_file(dir.path().join("workspace/kept")).unwrap();
    let world = mirrored(dir, "exec sleep 600", false).await;
    holds(&to.join("while-down"), "1").await;
    gone(&to.join("kept")).await;
    world.state("starting").await;
    for (name, text) in [("db.sqlite3", "rows"), ("app/node_modules/x", "installed")] {
        assert_eq!(std::fs::read_to_string(to.join(name)).unwrap(), text, "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_link_in_the_copy_leads_no_write_out_of_it() {
    let world = mirrored(workspace(&[("app/a", "1"), ("b", "1")]), "exec sleep 600", false).await;
    let (from, to) = (world.path("workspace"), world.path("mirror/tree"));
    holds(&to.join("app/a"), "1").await;
    let outside = world.path("outside");
    for name in ["a", "b"] {
        write(&outside.join(name), "untouched");
    }
    std::fs::remove_dir_all(to.join("app")).unwrap();
    symlink(&outside, to.join("app")).unwrap();
    std::fs::remove_file(to.join("b")).unwrap();
    symlink(outside.join("b"), to.join("b")).unwrap();
    write(&from.join("app/a"), "two");
    write(&from.join("b"), "two");
    eventually("both are in step", || async {
        let is_file = |name: &str| to.join(name).symlink_metadata().is_ok_and(|m| m.is_file());
        (is_file("b") && to.join("app").symlink_metadata().ok()?.is_dir() && is_file("app/a"))
            .then_some(())
    })
    .await;
    for name in ["a", "b"] {
        assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "untouched");
    }
    world.end().await;
}

#[tokio::test]
async fn a_workspace_that_cannot_be_copied_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mirror =
        MirrorSettings { source: dir.path().join("missing"), place: dir.path().join("mirror") };
    let world = World::with(dir, "exec sleep 600", |settings| settings.mirror = Some(mirror)).await;
    let state = world.state("failing").await;
    let error = state["error"].as_str().unwrap();
    assert!(error.starts_with("cannot copy the workspace: cannot read the source"), "{error}");
    assert_eq!(state["restarts"], 0);
    world.end().await;
}
