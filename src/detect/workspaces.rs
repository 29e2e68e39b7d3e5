//! Which packages a JavaScript workspace holds, and where apps lie without one.
//!
//! Globs are matched by walking directories that exist, never deeper than the tree lists.

use serde::Deserialize;

use super::look::Look;
use super::manifest::Manifest;
use super::tree::{join, names, parent};

/// `**` descends this far: real workspaces keep their packages two or three levels down.
const DESCENT_MAX: usize = 4;

/// More members than this are not looked at.
const MEMBERS_MAX: usize = 256;

/// Directory names that usually hold the app that people look at, or never do.
const PREFERRED: [&str; 6] = ["web", "app", "frontend", "client", "site", "www"];
const AVOIDED: [&str; 7] = ["docs", "storybook", "e2e", "examples", "example", "test", "tests"];

/// Directories that hold apps where nothing declares a workspace.
const SHELVES: [&str; 3] = ["apps", "packages", "services"];

/// A declared workspace.
pub(crate) struct Workspace {
    /// The file that declares it.
    pub(crate) file: String,
    /// Directories of its packages, sorted.
    pub(crate) members: Vec<String>,
}

#[derive(Deserialize)]
struct PnpmWorkspace {
    packages: Option<Vec<String>>,
}

/// Returns the workspace that `dir` declares, if it does.
pub(crate) fn members(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let (file, globs) = globs(look, dir)?;
    let (excluded, included): (Vec<_>, Vec<_>) =
        globs.iter().partition(|glob| glob.starts_with('!'));
    let excluded: Vec<&str> = excluded.iter().map(|glob| &glob[1..]).collect();
    let mut members = Vec::new();
    for glob in included {
        let parts: Vec<&str> = glob.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        expand(look, dir, &parts, DESCENT_MAX, &mut members);
    }
    members.retain(|member| {
        let below = member.strip_prefix(&format!("{dir}/")).unwrap_or(member);
        member != dir && !excluded.iter().any(|glob| covers(glob, below))
    });
    members.sort();
    members.dedup();
    members.truncate(MEMBERS_MAX);
    Some(Workspace { file, members })
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

fn globs(look: &Look<'_>, dir: &str) -> Option<(String, Vec<String>)> {
    // pnpm also uses the file without packages, for settings: that is no workspace.
    let pnpm = look.first(dir, &["pnpm-workspace.yaml"]).and_then(|name| {
        let file = join(dir, name);
        let text = look.hint(&file)?;
        let budget = serde_saphyr::budget! { max_depth: 16, max_nodes: 20_000, max_documents: 1 };
        let options = serde_saphyr::options! { budget: budget };
        match serde_saphyr::from_str_with_options::<PnpmWorkspace>(&text, options) {
            Ok(workspace) => Some((file, workspace.packages?)),
            Err(_) => {
                look.warn(format!("{file} is not valid YAML; it was set aside"));
                None
            }
        }
    });
    pnpm.or_else(|| {
        if !look.has(dir, "package.json") {
            return None;
        }
        let manifest = Manifest::read_hint(look, dir)?;
        Some((manifest.file.clone(), manifest.workspaces?))
    })
}

/// Collects the directories with a `package.json` that the parts of a glob lead to.
fn expand(look: &Look<'_>, dir: &str, parts: &[&str], descent: usize, members: &mut Vec<String>) {
    if members.len() >= MEMBERS_MAX {
        return;
    }
    match parts {
        [] if look.has(dir, "package.json") => members.push(dir.to_owned()),
        ["**", rest @ ..] => {
            expand(look, dir, rest, descent, members);
            if descent > 0 {
                for name in look.directories(dir) {
                    expand(look, &join(dir, &name), parts, descent - 1, members);
                }
            }
        }
        [part, rest @ ..] if part.contains('*') => {
            for name in look.directories(dir).iter().filter(|name| matches(part, name)) {
                expand(look, &join(dir, name), rest, descent, members);
            }
        }
        // A glob may not climb out of the workspace.
        [part, rest @ ..] if names(part).is_ok() => {
            expand(look, &join(dir, part), rest, descent, members);
        }
        _ => {}
    }
}

/// Says whether a glob covers a path.
fn covers(glob: &str, path: &str) -> bool {
    fn walk(glob: &[&str], path: &[&str]) -> bool {
        match (glob, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|skip| walk(rest, &path[skip..])),
            ([part, glob @ ..], [name, path @ ..]) => matches(part, name) && walk(glob, path),
            _ => false,
        }
    }
    let glob: Vec<_> = glob.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let path: Vec<_> = path.split('/').collect();
    // Two `**` already try every pair of places; more would only cost time.
    glob.iter().filter(|part| **part == "**").count() <= 2 && walk(&glob, &path)
}

/// Says whether one part of a glob matches a name; `*` stands for any letters.
fn matches(part: &str, name: &str) -> bool {
    let mut pieces = part.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
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

/// Says how likely a directory holds the app to look at, by its name and the root's dev script.
pub(crate) fn preference(look: &Look<'_>, dir: &str) -> i32 {
    let parts: Vec<&str> = dir.split('/').collect();
    let name = parts.last().copied().unwrap_or_default();
    let mut preference = 0;
    if PREFERRED.contains(&name) {
        preference += 10;
    }
    if parts.iter().any(|part| AVOIDED.contains(part) || part.ends_with("-e2e")) {
        preference -= 20;
    }
    let root = if look.has(".", "package.json") { Manifest::read_hint(look, ".") } else { None };
    if let Some(dev) = root.as_ref().and_then(|root| root.scripts.get("dev")) {
        let package = Manifest::read_hint(look, dir).and_then(|manifest| manifest.name);
        let named = dev
            .split([' ', '=', '\'', '"'])
            .any(|word| word.trim_start_matches("./") == dir || Some(word) == package.as_deref());
        preference += if named { 30 } else { 0 };
    }
    preference
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
        assert_eq!(check(r#"["../*", "/etc"]"#, &dirs), [] as [&str; 0]);
    }

    #[test]
    fn pnpm_settings_alone_are_no_workspace() {
        let tree = MemoryTree::new([("pnpm-workspace.yaml", "allowBuilds:\n  esbuild: true\n")]);
        assert!(members(&Look::new(&tree), ".").is_none());
    }
}
