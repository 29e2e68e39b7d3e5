//! Which packages a workspace holds, and where apps lie without one.
//!
//! What is declared counts, whichever tool declares it: a workspace is a monorepo even if only one
//! of its packages exists yet, and settings of such a tool without packages are none (ADR 0028).

use super::look::Look;
use super::manifest::{self, Manifest};
use super::tree::{join, parent};
use super::{nx, script};

use globs::MEMBERS_MAX;

mod declared;
mod globs;

pub(crate) use declared::json;

/// Directory names that usually hold the app that people look at, or never do.
const PREFERRED: [&str; 10] =
    ["web", "app", "frontend", "client", "site", "www", "webapp", "front", "front-end", "website"];
const AVOIDED: [&str; 20] = [
    "docs",
    "doc",
    "storybook",
    "e2e",
    "examples",
    "example",
    "test",
    "tests",
    "playground",
    "playgrounds",
    "demo",
    "demos",
    "benchmarks",
    "fixtures",
    "templates",
    "template",
    "scripts",
    "tools",
    "samples",
    "sample",
];
/// What is looked at on a telephone.
const MOBILE: [&str; 5] = ["expo", "mobile", "native", "ios", "android"];

/// Names of directories that hold a part of an app beside a root that is one too.
const PARTS: [&str; 16] = [
    "frontend",
    "front",
    "front-end",
    "client",
    "web",
    "webapp",
    "ui",
    "backend",
    "back",
    "back-end",
    "server",
    "api",
    "app",
    "www",
    "site",
    "website",
];

/// Directories that hold apps where nothing declares a workspace.
const SHELVES: [&str; 6] = ["apps", "packages", "services", "projects", "src", "examples"];

/// A declared workspace.
pub(crate) struct Workspace {
    /// The file that declares it.
    pub(crate) file: String,
    /// Directories of its packages, sorted.
    pub(crate) members: Vec<String>,
    /// Whether it makes the repository a monorepo: some tools declare every project as one.
    pub(crate) several: bool,
}

/// Returns the workspace that `dir` declares, if it does.
pub(crate) fn members(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let Some(declared) = declared::by(look, dir) else { return nx::workspace(look, dir) };
    let (excluded, included): (Vec<_>, Vec<_>) =
        declared.globs.iter().partition(|glob| glob.starts_with('!'));
    let excluded: Vec<&str> =
        excluded.iter().map(|glob| glob[1..].trim_start_matches("./")).collect();
    let mut members = Vec::new();
    for glob in included.iter().flat_map(|glob| globs::unbraced(glob)).take(MEMBERS_MAX) {
        globs::expand(look, dir, &glob, declared.manifests, &mut members);
    }
    if included.iter().all(|glob| glob.split('/').all(|part| matches!(part, "" | "."))) {
        return None;
    }
    // Nx keeps projects without a manifest of their own beside the packages.
    if let Some(more) = nx::workspace(look, dir) {
        members.extend(more.members);
    }
    members.retain(|member| {
        let below = member.strip_prefix(&format!("{dir}/")).unwrap_or(member);
        member != dir && !excluded.iter().any(|glob| globs::covers(glob, below))
    });
    members.sort();
    members.dedup();
    members.truncate(MEMBERS_MAX);
    Some(Workspace { file: declared.file, members, several: true })
}

/// Returns the nearest directory above whose workspace holds `dir`, or `dir` if it declares one.
pub(crate) fn root_of(look: &Look<'_>, dir: &str) -> Option<String> {
    let above = std::iter::successors(Some(dir), |place| parent(place));
    above
        .filter(|place| {
            let workspace = members(look, place);
            workspace.is_some_and(|workspace| {
                *place == dir || workspace.members.iter().any(|member| member == dir)
            })
        })
        .last()
        .map(str::to_owned)
}

/// Returns the directories below a root that is no app itself, in which apps may lie.
pub(crate) fn nested(look: &Look<'_>) -> Vec<String> {
    let mut dirs = Vec::new();
    for name in look.directories(".") {
        if SHELVES.contains(&name.as_str()) {
            dirs.extend(look.directories(&name).iter().map(|inner| join(&name, inner)));
        }
        dirs.push(name);
    }
    dirs.sort();
    dirs
}

/// Returns the directories two levels below the root, for one in which nothing lies nearer.
pub(crate) fn nested_deeper(look: &Look<'_>) -> Vec<String> {
    let outer = look.directories(".");
    let inner = outer
        .iter()
        .flat_map(|name| look.directories(name).into_iter().map(move |inner| join(name, &inner)));
    let mut dirs: Vec<String> = inner.take(MEMBERS_MAX).collect();
    dirs.sort();
    dirs
}

/// Says whether a directory's name tells that it holds a part of the app above it.
pub(crate) fn is_part(dir: &str) -> bool {
    PARTS.contains(&dir.rsplit('/').next().unwrap_or_default())
}

/// Says how likely a directory holds the app to look at, by its name and the root's dev script.
pub(crate) fn preference(look: &Look<'_>, dir: &str) -> i32 {
    let parts: Vec<&str> = dir.split('/').collect();
    let name = parts.last().copied().unwrap_or_default();
    let mut preference = 0;
    if PREFERRED.contains(&name) {
        preference += 10;
    }
    if parts.first() == Some(&"packages") || parts.first() == Some(&"libs") {
        preference -= 5;
    }
    if MOBILE.iter().any(|mobile| name.split('-').any(|word| word == *mobile)) {
        preference -= 10;
    }
    if parts.iter().any(|part| AVOIDED.contains(part) || part.ends_with("-e2e")) {
        preference -= 20;
    }
    preference + if named_by_root(look, dir) { 30 } else { 0 }
}

/// Says whether the root's scripts for development name this directory or its package.
pub(crate) fn named_by_root(look: &Look<'_>, dir: &str) -> bool {
    if look.first(".", &manifest::NAMES).is_none() {
        return false;
    }
    let Some(root) = Manifest::read_hint(look, ".") else { return false };
    let package = Manifest::read_hint(look, dir).and_then(|manifest| manifest.name);
    let usual = script::USUAL.iter().find_map(|name| script::expanded(&root.scripts, name));
    let text = usual.unwrap_or_default();
    // `cd frontend && npm start`, `--filter=web`, `--prefix ./client`, `--filter "{apps/web}"`.
    text.split(|letter: char| letter.is_whitespace() || "='\"{};&".contains(letter)).any(|word| {
        let word = word.trim_start_matches("./").trim_end_matches('/').trim_end_matches("...");
        word == dir || (!word.is_empty() && Some(word) == package.as_deref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tree::MemoryTree;

    fn check(globs: &str, dirs: &[&str]) -> Vec<String> {
        let root = ("package.json".to_owned(), format!("{{\"workspaces\":{globs}}}"));
        let files = dirs.iter().map(|dir| (format!("{dir}/package.json"), "{}".to_owned()));
        let tree = MemoryTree::new(files.chain([root]));
        members(&Look::new(&tree), ".").map(|workspace| workspace.members).unwrap_or_default()
    }

    #[test]
    fn globs_are_expanded_and_negated() {
        let dirs = ["apps/a", "apps/b/deep", "apps/b", "libs/x", "tools"];
        assert_eq!(check(r#"["apps/*","tools"]"#, &dirs), ["apps/a", "apps/b", "tools"]);
        assert_eq!(check(r#"["apps/**","!apps/b/deep"]"#, &dirs), ["apps/a", "apps/b"]);
        assert_eq!(check(r#"{"packages":["./li*/x/"]}"#, &dirs), ["libs/x"]);
        assert_eq!(check(r#"["{apps,libs}/*"]"#, &dirs), ["apps/a", "apps/b", "libs/x"]);
        assert_eq!(check(r#"["../*", "/etc"]"#, &dirs), [] as [&str; 0]);
    }

    #[test]
    fn every_tool_declares_its_workspace() {
        let check = |files: &[(&str, &str)], expected: &[&str]| {
            let tree =
                MemoryTree::new(files.iter().map(|(path, text)| (*path, text.as_bytes().to_vec())));
            let found = members(&Look::new(&tree), ".").map(|found| found.members);
            assert_eq!(found.unwrap_or_default(), expected, "{files:?}");
        };
        let a = ("packages/a/package.json", "{}");
        check(&[("lerna.json", r#"{"version":"1"}"#), a], &["packages/a"]);
        check(&[("lerna.json", r#"{"packages":["packages/a"]}"#), a], &["packages/a"]);
        let rush =
            r#"{ /* one */ "projects": [{"packageName": "a", "projectFolder": "packages/a"},] }"#;
        check(&[("rush.json", rush), a], &["packages/a"]);
        let deno = r#"{"workspace": ["./a"]}"#;
        check(&[("deno.json", deno), ("a/deno.json", "{}")], &["a"]);
        let project = ("apps/a/project.json", "{}");
        check(&[("nx.json", "{}"), ("package.json", "{}"), project], &["apps/a"]);
        check(&[("turbo.json", "{}"), ("package.json", "{}"), a], &[]);
    }

    #[test]
    fn pnpm_settings_alone_are_no_workspace() {
        let tree = MemoryTree::new([("pnpm-workspace.yaml", "allowBuilds:\n  esbuild: true\n")]);
        assert!(members(&Look::new(&tree), ".").is_none());
    }
}
