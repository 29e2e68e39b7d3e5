//! Nx: projects of a workspace that have a `project.json` but no manifest of their own.
//!
//! Their dependencies stand in the root's `package.json`, all together, so a project is what its
//! own target runs or what its own configuration files are for, not what is merely listed there.

use serde_json::Value;

use super::look::Look;
use super::manifest::Manifest;
use super::rules::config_file;
use super::tree::{join, parent};
use super::workspaces::{Workspace, json};

const PROJECT: &str = "project.json";
const WORKSPACE: &str = "nx.json";

/// Projects lie at most this deep.
const DEPTH_MAX: usize = 4;
const PROJECTS_MAX: usize = 256;

/// Targets that serve for development, the most telling first.
const TARGETS: [&str; 5] = ["serve", "dev", "start", "develop", "serve-static"];

/// Executors, by their end behind the scope, with the package that they stand for, and the command
/// that they run.
const EXECUTORS: &[(&str, &str, &str)] = &[
    ("/next:server", "next", "next dev"),
    ("/next:dev-server", "next", "next dev"),
    ("/nuxt:serve", "nuxt", "nuxt dev"),
    ("/remix:serve", "@remix-run/dev", "remix dev"),
    ("/vite:dev-server", "vite", "vite"),
    ("/build-angular:dev-server", "@angular/cli", "ng serve"),
    ("/angular/build:dev-server", "@angular/cli", "ng serve"),
    ("/angular:dev-server", "@angular/cli", "ng serve"),
    ("/angular:webpack-server", "@angular/cli", "ng serve"),
    ("/angular:webpack-dev-server", "@angular/cli", "ng serve"),
    ("/expo:start", "expo", "expo start"),
    ("/webpack:dev-server", "", "webpack serve"),
    ("/rspack:dev-server", "", "rspack serve"),
    ("/web:dev-server", "", "webpack serve"),
    ("/storybook:storybook", "storybook", "storybook dev"),
];

/// Configuration files of a project, with the package that they stand for and its command, where
/// targets are inferred from them.
const CONFIGS: &[(&str, &str, &str)] = &[
    ("next.config", "next", "next dev"),
    ("nuxt.config", "nuxt", "nuxt dev"),
    ("astro.config", "astro", "astro dev"),
    ("react-router.config", "@react-router/dev", "react-router dev"),
    ("remix.config", "@remix-run/dev", "remix dev"),
    ("vite.config", "vite", "vite"),
    ("rsbuild.config", "", "rsbuild dev"),
    ("rspack.config", "", "rspack serve"),
];

/// Packages that name a framework wherever they are listed: at the root they do not say whose.
const NAMING: [&str; 22] = [
    "next",
    "nuxt",
    "astro",
    "vite",
    "@angular/cli",
    "@angular/core",
    "@remix-run/dev",
    "@remix-run/react",
    "@remix-run/node",
    "@react-router/dev",
    "@sveltejs/kit",
    "gatsby",
    "expo",
    "react-scripts",
    "@vue/cli-service",
    "storybook",
    "vitepress",
    "@docusaurus/core",
    "parcel",
    "@ionic/angular",
    "@ionic/react",
    "@11ty/eleventy",
];

/// How a project's server is started through Nx.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// `project:target`.
    pub(crate) target: String,
    /// The port in the target's options, or the one that Nx gives its servers.
    pub(crate) port: Option<u16>,
}

/// Returns the projects of an Nx workspace.
pub(crate) fn workspace(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    if !look.has(dir, WORKSPACE) {
        return None;
    }
    let mut members = Vec::new();
    walk(look, dir, DEPTH_MAX, &mut members);
    members.sort();
    // An app with its browser tests is still one app.
    let counts = members.iter().any(|member| !is_e2e(member));
    counts.then(|| Workspace { file: join(dir, WORKSPACE), members, several: true })
}

fn is_e2e(member: &str) -> bool {
    member.rsplit('/').next().is_some_and(|name| name == "e2e" || name.ends_with("-e2e"))
}

fn walk(look: &Look<'_>, dir: &str, depth: usize, members: &mut Vec<String>) {
    for name in look.directories(dir) {
        if members.len() == PROJECTS_MAX || name == "dist" {
            return;
        }
        let inner = join(dir, &name);
        if look.has(&inner, PROJECT) {
            members.push(inner.clone());
        }
        if depth > 1 && name != "src" {
            walk(look, &inner, depth - 1, members);
        }
    }
}

/// Returns the manifest of a project that has none of its own.
pub(crate) fn manifest(look: &Look<'_>, dir: &str) -> Option<Manifest> {
    let mut above = std::iter::successors(parent(dir), |place| parent(place));
    if !look.has(dir, PROJECT) {
        return None;
    }
    let root = above.find(|place| look.has(place, WORKSPACE))?;
    let mut manifest = Manifest::read_hint(look, root)?;
    let (file, project) = json(look, dir, PROJECT)?;
    let listed = manifest.dependencies.clone();
    manifest.dependencies.retain(|name, _| !NAMING.contains(&name.as_str()));
    manifest.file = file;
    manifest.main = None;
    manifest.bin = Vec::new();
    manifest.scripts.clear();
    manifest.workspaces = None;
    let name = project["name"].as_str().map(str::to_owned);
    let name = name.or_else(|| dir.rsplit('/').next().map(str::to_owned));
    let targets = TARGETS.iter().find_map(|target| {
        let found = &project["targets"][*target];
        found.is_object().then_some((*target, found))
    });
    let by_target = targets.map(|(target, found)| (target, command(found), port(found)));
    let by_config = || {
        let config = CONFIGS.iter().find(|(stem, ..)| config_file(look, dir, stem).is_some());
        let (_, package, call) = config?;
        let target = if *package == "next" { "dev" } else { "serve" };
        Some((target, Some((*package, (*call).to_owned())), None))
    };
    let (target, call, port) = by_target.or_else(by_config)?;
    if let Some((package, call)) = call {
        if !package.is_empty() {
            let version = listed.get(package).cloned().unwrap_or_else(|| "*".to_owned());
            manifest.dependencies.insert(package.to_owned(), version);
        }
        manifest.scripts.insert("dev".to_owned(), call);
    }
    manifest.nx = name.as_ref().map(|name| Run { target: format!("{name}:{target}"), port });
    manifest.name = name;
    Some(manifest)
}

/// The package and the command that a target's executor stands for.
fn command(target: &Value) -> Option<(&'static str, String)> {
    let options = &target["options"];
    if let Some(text) = options["command"].as_str().or_else(|| target["command"].as_str()) {
        let config = CONFIGS.iter().find(|(_, _, call)| text.contains(call));
        return Some((config.map_or("", |(_, package, _)| package), text.to_owned()));
    }
    let executor = target["executor"].as_str()?;
    let known = EXECUTORS.iter().find(|(end, ..)| executor.ends_with(end));
    known.map(|(_, package, call)| (*package, (*call).to_owned()))
}

fn port(target: &Value) -> Option<u16> {
    let port = &target["options"]["port"];
    let said = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let executor = target["executor"].as_str().unwrap_or_default();
    // Nx starts what it serves for a browser where Angular does.
    let web =
        ["next:", "web:", "webpack:", "rspack:", "vite:"].iter().any(|end| executor.contains(end));
    said.or_else(|| web.then_some(4200))
}
