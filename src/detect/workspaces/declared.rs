//! Who declares a workspace of JavaScript: every tool's own file, and which manifest its packages
//! have. `languages::workspaces` knows those of other languages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::json5;
use super::super::look::Look;
use super::super::manifest::{self, Manifest};
use super::super::tree::join;

/// What a directory says about the packages below it.
pub(super) struct Declared {
    /// The file that says it.
    pub(super) file: String,
    /// Their directories, as globs.
    pub(super) globs: Vec<String>,
    /// The files of which each package has one.
    pub(super) manifests: &'static [&'static str],
}

#[derive(Deserialize)]
struct PnpmWorkspace {
    packages: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct MoonWorkspace {
    projects: Option<MoonProjects>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MoonProjects {
    Globs(Vec<String>),
    Named(BTreeMap<String, String>),
    Both {
        #[serde(default)]
        globs: Vec<String>,
        #[serde(default)]
        sources: BTreeMap<String, String>,
    },
}

/// Returns the workspace that a directory declares; the order is that of how plainly it is said.
pub(super) fn by(look: &Look<'_>, dir: &str) -> Option<Declared> {
    let ways = [pnpm, npm, lerna, rush, deno, moon];
    ways.into_iter().find_map(|way| way(look, dir).filter(|declared| !declared.globs.is_empty()))
}

fn pnpm(look: &Look<'_>, dir: &str) -> Option<Declared> {
    let (file, text) = read(look, dir, "pnpm-workspace.yaml")?;
    let budget = serde_saphyr::budget! { max_depth: 16, max_nodes: 20_000, max_documents: 1 };
    let options = serde_saphyr::options! { budget: budget };
    // pnpm also uses the file without packages, for settings: that is no workspace.
    match serde_saphyr::from_str_with_options::<PnpmWorkspace>(&text, options) {
        Ok(workspace) => node(file, workspace.packages?),
        // An empty file has no type at all.
        Err(_) if text.trim().is_empty() => None,
        Err(_) => {
            look.warn(format!("{file} is not valid YAML; it was set aside"));
            None
        }
    }
}

fn npm(look: &Look<'_>, dir: &str) -> Option<Declared> {
    look.first(dir, &manifest::NAMES)?;
    let manifest = Manifest::read_hint(look, dir)?;
    node(manifest.file.clone(), manifest.workspaces?)
}

fn lerna(look: &Look<'_>, dir: &str) -> Option<Declared> {
    let (file, value) = json(look, dir, "lerna.json")?;
    match value["packages"].as_array() {
        Some(list) => node(file, texts(list)),
        None => node(file, vec!["packages/*".to_owned()]),
    }
}

fn rush(look: &Look<'_>, dir: &str) -> Option<Declared> {
    let (file, value) = json(look, dir, "rush.json")?;
    let projects = value["projects"].as_array()?.iter();
    let folders = projects.filter_map(|project| project["projectFolder"].as_str());
    node(file, folders.map(str::to_owned).collect())
}

fn deno(look: &Look<'_>, dir: &str) -> Option<Declared> {
    let (file, value) =
        ["deno.json", "deno.jsonc"].iter().find_map(|name| json(look, dir, name))?;
    let members = &value["workspace"];
    let list = members.as_array().or_else(|| members["members"].as_array())?;
    let manifests = &["deno.json", "deno.jsonc", "package.json"];
    Some(Declared { file, globs: texts(list), manifests })
}

/// `projects` of moon: a list of globs, a map of names, or both of them by name.
fn moon(look: &Look<'_>, dir: &str) -> Option<Declared> {
    if !look.holds(dir, ".moon") {
        return None;
    }
    let (file, text) = read(look, &join(dir, ".moon"), "workspace.yml")?;
    let budget = serde_saphyr::budget! { max_depth: 16, max_nodes: 20_000, max_documents: 1 };
    let options = serde_saphyr::options! { budget: budget };
    let workspace: MoonWorkspace = serde_saphyr::from_str_with_options(&text, options).ok()?;
    let globs = match workspace.projects? {
        MoonProjects::Globs(globs) => globs,
        MoonProjects::Named(named) => named.into_values().collect(),
        MoonProjects::Both { globs, sources } => {
            globs.into_iter().chain(sources.into_values()).collect()
        }
    };
    node(file, globs)
}

fn node(file: String, globs: Vec<String>) -> Option<Declared> {
    Some(Declared { file, globs, manifests: &manifest::NAMES })
}

fn read(look: &Look<'_>, dir: &str, name: &str) -> Option<(String, String)> {
    let file = look.has(dir, name).then(|| join(dir, name))?;
    let text = look.hint(&file)?;
    Some((file, text))
}

/// Reads a file of JSON with comments.
pub(crate) fn json(look: &Look<'_>, dir: &str, name: &str) -> Option<(String, Value)> {
    let (file, text) = read(look, dir, name)?;
    match json5::parse(&text) {
        Ok(value) => Some((file, value)),
        Err(wrong) => {
            look.warn(format!(
                "{file} is not valid JSON (line {}, column {}); it was set aside",
                wrong.line, wrong.column
            ));
            None
        }
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
