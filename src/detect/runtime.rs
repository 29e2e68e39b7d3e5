//! Which version of Node or Python an app asks for, and who says so.
//!
//! What the developer's own machine is pinned to comes before the range a package supports
//! (`reference/detection.md` 4). A range keeps the default if it can, else it gets the highest
//! release line on offer.

use crate::domain::findings::{Runtime, RuntimeName};

use super::look::Look;
use super::manifest::Manifest;
use super::ranges::{Partial, Range};
use super::tree::{join, parent};

/// Node release lines on offer; the first is the default (docs/adr/0038), the rest are tried from
/// the highest down.
const NODE_LINES: [&str; 3] = ["22", "24", "20"];

/// Python release lines on offer; the default is what the images carry (DESIGN 6).
const PYTHON_LINES: [&str; 5] = ["3.11", "3.14", "3.13", "3.12", "3.10"];

/// Node's code names of long-term releases, which `.nvmrc` may hold.
const NODE_NAMES: [(&str, &str); 10] = [
    ("lts/*", "24"),
    ("lts/krypton", "24"),
    ("lts/jod", "22"),
    ("lts/iron", "20"),
    ("lts/hydrogen", "18"),
    ("node", "24"),
    ("latest", "24"),
    ("stable", "24"),
    ("current", "24"),
    ("lts", "24"),
];

/// Why the default is taken.
const DEFAULT: &str = "default, nothing that is on offer is pinned";

/// What is said of a pin or range that nothing on offer fits.
fn unfit(file: &str, why: &str, text: &str, what: &str, lines: &[&str]) -> String {
    let text: String = text.trim().chars().take(40).collect();
    let (default, offered) = (lines[0], lines.join(", "));
    format!("{file}: {why} asks for {what} `{text}`, and there are {offered}: {default} is tried")
}

/// A runtime and the evidence for its version.
pub(crate) struct Choice {
    pub(crate) runtime: Runtime,
    pub(crate) file: String,
    pub(crate) why: String,
}

/// Decides the Node version of the app in `dir`.
pub(crate) fn node(look: &Look<'_>, dir: &str, manifest: &Manifest) -> Choice {
    let pinned = first_upward(look, dir, &[".nvmrc", ".node-version"])
        .or_else(|| tool_versions(look, dir, &["node", "nodejs"]));
    let stated = pinned.into_iter().chain([
        (manifest.volta_node.clone().unwrap_or_default(), manifest.file.clone(), "volta.node"),
        (dev_runtime(manifest), manifest.file.clone(), "devEngines.runtime"),
        (
            manifest.engines.get("node").cloned().unwrap_or_default(),
            manifest.file.clone(),
            "engines.node",
        ),
    ]);
    let parents = parents_engines(look, dir);
    for (text, file, why) in stated.chain(parents).filter(|(text, ..)| !text.trim().is_empty()) {
        match version(&text, &NODE_LINES, Range::npm, &NODE_NAMES) {
            Some((version, range)) => {
                let runtime = Runtime { name: RuntimeName::Node, version, range };
                return Choice { runtime, file, why: why.into() };
            }
            None => look.warn(unfit(&file, why, &text, "Node", &NODE_LINES)),
        }
    }
    let version = NODE_LINES[0].to_owned();
    let runtime = Runtime { name: RuntimeName::Node, version, range: None };
    Choice { runtime, file: manifest.file.clone(), why: DEFAULT.into() }
}

fn dev_runtime(manifest: &Manifest) -> String {
    let mut runtimes = manifest.dev_runtimes.iter();
    let node = runtimes.find(|(name, _)| name == "node");
    node.and_then(|(_, version)| version.clone()).unwrap_or_default()
}

/// The engines of the workspace root hold for its packages too.
fn parents_engines(look: &Look<'_>, dir: &str) -> Vec<(String, String, &'static str)> {
    let above = std::iter::successors(parent(dir), |place| parent(place));
    let manifests = above.filter_map(|place| Manifest::read_hint(look, place));
    manifests
        .filter_map(|manifest| {
            Some((manifest.engines.get("node")?.clone(), manifest.file, "engines.node"))
        })
        .collect()
}

/// Decides the Python version of the app in `dir`; `ranges` are what its manifests declare.
pub(crate) fn python(
    look: &Look<'_>,
    dir: &str,
    pins: &[(String, String, &'static str)],
    ranges: &[(String, String, &'static str)],
) -> Choice {
    let runtime_txt =
        first_upward(look, dir, &["runtime.txt"]).filter(|(text, ..)| text.starts_with("python-"));
    let stated = first_upward(look, dir, &[".python-version"])
        .into_iter()
        .chain(runtime_txt)
        .chain(pins.iter().cloned())
        .chain(tool_versions(look, dir, &["python"]))
        .chain(ranges.iter().cloned());
    let latest = [("latest", "3.14")];
    for (text, file, why) in stated {
        let text = text.trim().trim_start_matches("python-").trim_start_matches("cpython-");
        match version(text, &PYTHON_LINES, Range::python, &latest) {
            Some((version, range)) => {
                let runtime = Runtime { name: RuntimeName::Python, version, range };
                return Choice { runtime, file, why: why.into() };
            }
            None => look.warn(unfit(&file, why, text, "Python", &PYTHON_LINES)),
        }
    }
    let version = PYTHON_LINES[0].to_owned();
    let runtime = Runtime { name: RuntimeName::Python, version, range: None };
    Choice { runtime, file: join(dir, ""), why: DEFAULT.into() }
}

/// Reads a pin or a range: the version to run, and the range it was chosen from.
fn version(
    text: &str,
    lines: &[&str],
    range: fn(&str) -> Option<Range>,
    names: &[(&str, &str)],
) -> Option<(String, Option<String>)> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if let Some((_, version)) = names.iter().find(|(name, _)| *name == lower) {
        return Some(((*version).to_owned(), None));
    }
    let open = text.contains(['x', 'X', '*']);
    if let (Some(pin), false) = (Partial::parse(text), open) {
        return Some((pin.text(), None));
    }
    let allowed = range(text)?;
    let line =
        lines.iter().find(|line| Partial::parse(line).is_some_and(|line| allowed.allows(line)));
    // `18.x` is on no offer, yet it names a release line; the build step decides about it.
    let line =
        line.map(|line| (*line).to_owned()).or_else(|| Some(Partial::parse(text)?.text()))?;
    Some((line, Some(text.to_owned())))
}

/// The first line that says something in the nearest of these files, upward from the app.
fn first_upward(
    look: &Look<'_>,
    dir: &str,
    names: &[&'static str],
) -> Option<(String, String, &'static str)> {
    std::iter::successors(Some(dir), |place| parent(place)).find_map(|place| {
        let name = look.first(place, names)?;
        let text = look.hint(&join(place, name))?;
        let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let line = lines.find(|line| !line.is_empty())?.to_owned();
        Some((line, join(place, name), "version file"))
    })
}

/// A tool's line in `mise.toml` or `.tool-versions`, upward from the app.
fn tool_versions(
    look: &Look<'_>,
    dir: &str,
    tools: &[&str],
) -> Option<(String, String, &'static str)> {
    std::iter::successors(Some(dir), |place| parent(place)).find_map(|place| {
        let mise = look.first(place, &["mise.toml", ".mise.toml"]).and_then(|name| {
            let table: toml::Table = look.hint(&join(place, name))?.parse().ok()?;
            let tools = tools.iter().find_map(|tool| table.get("tools")?.get(tool))?;
            let first = tools.as_array().and_then(|list| list.first()).unwrap_or(tools);
            let text = first.as_str().map(str::to_owned).unwrap_or_else(|| first.to_string());
            Some((text, join(place, name), "mise tool"))
        });
        mise.or_else(|| {
            let name = look.first(place, &[".tool-versions"])?;
            let text = look.hint(&join(place, name))?;
            let version = text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                let tool = words.next()?;
                tools.contains(&tool).then(|| words.next())?
            })?;
            Some((version.to_owned(), join(place, name), "asdf tool"))
        })
    })
}
