//! The example projects, through `covibes up`, `down` and `destroy`, and in a browser.

use crate::docker;
use crate::edit::{Edit, Way, see};
use crate::net::{until_page_holds, visit};
use crate::place::Place;

/// What a served example holds: a text at a path.
struct Page {
    path: &'static str,
    holds: &'static str,
}

async fn check(example: &str, team: &str, pages: &[Page], edit: &Edit) {
    let place = Place::new().await;
    let directory = place.example(example);
    let path = directory.to_str().unwrap();

    let first = place.done(&["up", path, "--team", team, "--json"]).await;
    first.assert_in_sequence();
    assert!(first.changed());
    let steps: Vec<_> = first.of("step.finished").iter().map(|e| &e["data"]["step"]).collect();
    assert_eq!(steps, ["workspace", "detect", "config", "build", "start", "health"]);
    let link = first.link("main");
    // Ready means that it answers now, not soon.
    assert_eq!(visit(&link, "/").await.map(|answer| answer.status), Some(200));
    for page in pages {
        until_page_holds(&link, page.path, page.holds).await;
    }
    let before = docker::ids(&place.instance, team).await;
    assert_eq!(before.len(), 3, "{before:?}");
    see(example, &link, &directory, edit).await;

    let second = place.done(&["up", path, "--team", team, "--json"]).await;
    assert!(!second.changed(), "{}", second.one("job.succeeded"));
    assert_eq!(second.step_message("build"), "dependencies unchanged");
    assert_eq!(docker::ids(&place.instance, team).await, before);

    let running = docker::of_team(&place.instance, team).await;
    place.done(&["down", team, "--json"]).await;
    let stopped = docker::of_team(&place.instance, team).await;
    assert!(stopped.containers.is_empty() && stopped.networks.is_empty(), "{stopped:?}");
    assert_eq!(stopped.volumes, running.volumes);
    assert!(place.data().join("workspaces").join(team).join("README.md").exists());

    place.done(&["destroy", team, "--json"]).await;
    place.assert_gone(team).await;
    let again = place.done(&["destroy", team, "--json"]).await;
    assert!(!again.changed());
}

#[tokio::test]
async fn vite_react_comes_up_and_goes_without_a_trace() {
    let pages = [
        Page { path: "/", holds: "<title>Covibes Vite React example</title>" },
        Page { path: "/src/App.jsx", holds: "Covibes Vite React example" },
    ];
    let edit = Edit {
        file: "src/App.jsx",
        before: "Covibes Vite React example",
        after: "Edited while it runs",
        way: Way::Hot,
        click: Some(("button", "Count: 1")),
        keeps: true,
    };
    check("vite-react", "vite", &pages, &edit).await;
}

#[tokio::test]
async fn nextjs_comes_up_and_goes_without_a_trace() {
    let pages = [Page { path: "/", holds: "Covibes Next.js example</h1>" }];
    let edit = Edit {
        file: "app/page.jsx",
        before: "Covibes Next.js example",
        after: "Edited while it runs",
        way: Way::Hot,
        click: Some(("button", "Count: 1")),
        keeps: true,
    };
    check("nextjs", "next_js", &pages, &edit).await;
}

#[tokio::test]
async fn express_comes_up_and_goes_without_a_trace() {
    let pages = [Page { path: "/", holds: "<h1>Covibes Express example</h1>" }];
    let edit = Edit {
        file: "src/server.js",
        before: "Covibes Express example",
        after: "Edited while it runs",
        way: Way::Visit,
        click: None,
        keeps: false,
    };
    check("express", "express", &pages, &edit).await;
}

#[tokio::test]
async fn django_comes_up_and_goes_without_a_trace() {
    let pages = [Page { path: "/", holds: "<h1>Covibes Django example</h1>" }];
    let edit = Edit {
        file: "example/views.py",
        before: "Covibes Django example",
        after: "Edited while it runs",
        way: Way::Visit,
        click: None,
        keeps: false,
    };
    check("django", "django", &pages, &edit).await;
}

#[tokio::test]
async fn a_stopped_team_comes_back_without_an_install() {
    let place = Place::new().await;
    let path = crate::projects::plain(&place, "app");
    let path = path.to_str().unwrap();
    place.done(&["up", path, "--team", "back", "--agents", "0", "--json"]).await;
    place.done(&["down", "back", "--json"]).await;
    let again = place.done(&["up", path, "--team", "back", "--agents", "0", "--json"]).await;
    assert!(again.changed());
    assert_eq!(again.step_message("build"), "dependencies unchanged");
    until_page_holds(&again.link("main"), "/", "<h1>served</h1>").await;
    place.done(&["destroy", "back", "--json"]).await;
    place.assert_gone("back").await;
}
