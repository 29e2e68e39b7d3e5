//! The user's own directory: bound or copied, never chowned or deleted.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::docker;
use crate::net::until_page_holds;
use crate::place::Place;
use crate::projects;

/// Path to owner, mode and content of everything below a directory.
fn listing(root: &Path) -> BTreeMap<String, (u32, u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, (meta.uid(), meta.gid(), meta.mode(), content));
    }
    found
}

#[tokio::test]
async fn a_directory_of_roots_is_copied_and_kept_in_step() {
    let place = Place::new().await;
    let path = place.directory("site");
    std::fs::write(path.join("index.html"), "<h1>first</h1>").unwrap();
    let before = listing(&path);
    let up = ["up", path.to_str().unwrap(), "--team", "mine", "--agents", "0", "--json"];
    let link = place.done(&up).await.link("main");
    until_page_holds(&link, "/", "first").await;
    assert_eq!(listing(&path), before);
    std::fs::write(path.join("index.html"), "<h1>second</h1>").unwrap();
    until_page_holds(&link, "/", "second").await;
    place.done(&["destroy", "mine", "--json"]).await;
    place.assert_gone("mine").await;
    std::fs::write(path.join("index.html"), "<h1>first</h1>").unwrap();
    assert_eq!(listing(&path), before);
}

#[tokio::test]
async fn a_directory_of_somebodys_is_bound_as_it_is() {
    let place = Place::new().await;
    let path = projects::plain(&place, "theirs");
    for name in listing(&path).keys() {
        chown(path.join(name), Some(1234), Some(1234)).unwrap();
    }
    let before = listing(&path);
    let up = ["up", path.to_str().unwrap(), "--team", "theirs", "--agents", "0", "--json"];
    place.done(&up).await;
    let preview = format!("covibes.{}_preview_theirs_main", place.instance);
    assert_eq!(docker::inspect(&preview).await["Config"]["User"], "1234:1234");
    place.done(&["down", "theirs", "--json"]).await;
    place.done(&["destroy", "theirs", "--json"]).await;
    place.assert_gone("theirs").await;
    assert_eq!(listing(&path), before);
}
