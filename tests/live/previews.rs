//! Frameworks, package managers and runtimes beyond the examples: made by their create tools,
//! brought up by `covibes up`, edited, and seen in a browser. `docs/PREVIEWS.md` has the results.
//!
//! Live, because each of them is a claim about somebody else's program. All in the full form: an
//! install takes its time.

mod made;
mod projects;
mod runtimes;
mod tls;

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::docker::{self, exec};
use crate::edit::{Edit, Way, see};
use crate::place::{Place, is_full};
use made::Project;

/// One project, and what must be seen of it.
struct Case {
    project: Project,
    /// Framework and package manager, as the detect step tells them.
    detected: &'static str,
    edit: Edit,
}

async fn check(case: &Case) {
    let name = case.project.name;
    if !is_full(name) {
        return;
    }
    let place = Place::new().await;
    let directory = place.dir.join(name);
    case.project.copy(&directory).await;
    let path = directory.to_str().unwrap();
    let up = ["up", path, "--team", "seen", "--agents", "0", "--json"];
    let began = Instant::now();
    let events = place.done(&up).await;
    let ready = began.elapsed();
    let told = events.step_message("detect");
    assert!(told.contains(case.detected), "{told}");
    let link = events.link("main");
    let seen = see(name, &link, &directory, &case.edit).await;
    let preview = docker::ids(&place.instance, "seen").await;
    let preview = preview.keys().find(|name| name.contains("_preview_")).unwrap();
    // Whatever it wrote, it wrote elsewhere.
    let write = exec(preview, &["touch", "/workspace/covibes-was-here"]).await;
    assert_ne!(write.code, 0, "the workspace is writable");
    note(name, case.detected, [ready, seen.first, seen.edit].map(|time| time.as_secs_f64()));

    let again = place.done(&up).await;
    assert!(!again.changed(), "{}", again.one("job.succeeded"));
    place.done(&["destroy", "seen", "--json"]).await;
    place.assert_gone("seen").await;
}

/// Adds a row to `target/tmp/previews.md`, from which the table of the docs is made.
fn note(name: &str, detected: &str, [ready, first, edit]: [f64; 3]) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("previews.md");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let detected = detected.replace(" with ", " | ");
    writeln!(file, "| {name} | {detected} | {ready:.1} | {first:.1} | {edit:.1} |").unwrap();
}

const AFTER: &str = "Edited while it runs";

const fn edit(file: &'static str, before: &'static str, way: Way) -> Edit {
    Edit { file, before, after: AFTER, way, click: None, keeps: false }
}

#[tokio::test]
async fn full_vite_vue_with_yarn_1() {
    let edit = Edit {
        click: Some(("button", "Count is 1")),
        keeps: true,
        ..edit("src/components/HelloWorld.vue", "Get started", Way::Hot)
    };
    let detected = "vite-vue with yarn1";
    check(&Case { project: projects::VITE_VUE, detected, edit }).await;
}

#[tokio::test]
async fn full_vite_svelte_with_yarn_berry() {
    let edit = Edit {
        click: Some(("button", "Count is 1")),
        ..edit("src/App.svelte", "Get started", Way::Hot)
    };
    let detected = "vite-svelte with yarn-berry";
    check(&Case { project: projects::VITE_SVELTE, detected, edit }).await;
}

#[tokio::test]
async fn full_next_with_webpack() {
    let edit = edit("src/app/page.tsx", "Looking for a starting point", Way::Hot);
    let detected = "nextjs with npm";
    check(&Case { project: projects::NEXT_WEBPACK, detected, edit }).await;
}

#[tokio::test]
async fn full_nuxt() {
    let edit = Edit {
        click: Some(("button", "Count: 1")),
        keeps: true,
        ..edit("app/app.vue", "Covibes Nuxt example", Way::Hot)
    };
    check(&Case { project: projects::NUXT, detected: "nuxt with npm", edit }).await;
}

#[tokio::test]
async fn full_sveltekit_with_pnpm() {
    let edit = Edit {
        click: Some(("button", "Count: 1")),
        ..edit("src/routes/+page.svelte", "Covibes SvelteKit example", Way::Hot)
    };
    let detected = "sveltekit with pnpm";
    check(&Case { project: projects::SVELTEKIT, detected, edit }).await;
}

#[tokio::test]
async fn full_astro_with_bun() {
    let edit = edit("src/pages/index.astro", "Covibes Astro example", Way::Reload);
    check(&Case { project: projects::ASTRO, detected: "astro with bun", edit }).await;
}

#[tokio::test]
async fn full_react_router() {
    let edit = Edit {
        click: Some(("button", "Count: 1")),
        keeps: true,
        ..edit("app/routes/home.jsx", "Covibes React Router example", Way::Hot)
    };
    let detected = "react-router with npm";
    check(&Case { project: projects::REACT_ROUTER, detected, edit }).await;
}

#[tokio::test]
async fn full_angular() {
    let edit = edit("src/app/app.html", "Congratulations!", Way::Hot);
    check(&Case { project: projects::ANGULAR, detected: "angular with npm", edit }).await;
}

#[tokio::test]
async fn full_create_react_app() {
    let edit = Edit {
        click: Some(("button", "Count: 1")),
        keeps: true,
        ..edit("src/App.js", "Covibes CRA example", Way::Hot)
    };
    check(&Case { project: projects::CRA, detected: "cra with npm", edit }).await;
}

#[tokio::test]
async fn full_fastify() {
    let edit = edit("routes/root.js", "Covibes Fastify example", Way::Visit);
    check(&Case { project: projects::FASTIFY, detected: "fastify with npm", edit }).await;
}

#[tokio::test]
async fn full_nestjs() {
    let edit = edit("src/app.service.ts", "Hello World!", Way::Visit);
    check(&Case { project: projects::NESTJS, detected: "nestjs with npm", edit }).await;
}

#[tokio::test]
async fn full_a_monorepo_with_pnpm() {
    let edit = edit("packages/lib/index.js", "Covibes monorepo example", Way::Reload);
    let detected = "vite-vanilla with pnpm";
    check(&Case { project: projects::MONOREPO, detected, edit }).await;
}

#[tokio::test]
async fn full_flask_with_poetry() {
    let edit = edit("app.py", "Covibes Flask example", Way::Visit);
    let detected = "flask with poetry";
    check(&Case { project: projects::FLASK_POETRY, detected, edit }).await;
}

#[tokio::test]
async fn full_flask_with_pipenv() {
    let edit = edit("app.py", "Covibes Flask example", Way::Visit);
    let detected = "flask with pipenv";
    check(&Case { project: projects::FLASK_PIPENV, detected, edit }).await;
}

#[tokio::test]
async fn full_fastapi_with_uv() {
    let edit = edit("main.py", "Covibes FastAPI example", Way::Visit);
    let detected = "fastapi with uv";
    check(&Case { project: projects::FASTAPI_UV, detected, edit }).await;
}

#[tokio::test]
async fn full_static_html() {
    let edit = edit("index.html", "Covibes static example", Way::Events);
    check(&Case { project: projects::STATIC, detected: "static-html", edit }).await;
}
