//! Globs of workspaces, matched by walking directories that exist.

use super::super::look::Look;
use super::super::tree::{join, names};

/// `**` descends this far: real workspaces keep their packages two or three levels down.
const DESCENT_MAX: usize = 4;

/// More members than this are not looked at.
pub(super) const MEMBERS_MAX: usize = 256;

/// More alternatives than this are not tried.
const ALTERNATIVES_MAX: usize = 16;

/// Writes out the first braces of a glob: `{apps,libs}/*`.
pub(super) fn unbraced(glob: &str) -> Vec<String> {
    let braces = glob.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some((before, inner, after))
    });
    match braces {
        Some((before, inner, after)) => inner
            .split(',')
            .take(ALTERNATIVES_MAX)
            .map(|part| format!("{before}{}{after}", part.trim()))
            .collect(),
        None => vec![glob.to_owned()],
    }
}

/// A glob of more parts, or with more `**`, leads nowhere that a workspace keeps its packages;
/// following it would only cost time.
const PARTS_MAX: usize = 16;
const ANYWHERES_MAX: usize = 2;

/// Collects the directories with a manifest that a glob leads to.
pub(super) fn expand(
    look: &Look<'_>,
    dir: &str,
    glob: &str,
    manifests: &[&str],
    members: &mut Vec<String>,
) {
    let parts = parts(glob);
    if parts.len() <= PARTS_MAX && anywheres(&parts) <= ANYWHERES_MAX {
        descend(look, dir, &parts, manifests, DESCENT_MAX, members);
    }
}

/// The parts of a glob that say something: several `**` in a row say what one does.
fn parts(glob: &str) -> Vec<&str> {
    let mut parts: Vec<_> = glob.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.dedup_by(|one, before| *one == "**" && *before == "**");
    parts
}

fn anywheres(parts: &[&str]) -> usize {
    parts.iter().filter(|part| **part == "**").count()
}

fn descend(
    look: &Look<'_>,
    dir: &str,
    parts: &[&str],
    manifests: &[&str],
    descent: usize,
    members: &mut Vec<String>,
) {
    if members.len() >= MEMBERS_MAX {
        return;
    }
    match parts {
        [] if look.first(dir, manifests).is_some() => members.push(dir.to_owned()),
        ["**", rest @ ..] => {
            descend(look, dir, rest, manifests, descent, members);
            if descent > 0 {
                for name in look.directories(dir) {
                    descend(look, &join(dir, &name), parts, manifests, descent - 1, members);
                }
            }
        }
        [part, rest @ ..] if part.contains('*') => {
            for name in look.directories(dir).iter().filter(|name| matches(part, name)) {
                descend(look, &join(dir, name), rest, manifests, descent, members);
            }
        }
        // A glob may not climb out of the workspace.
        [part, rest @ ..] if names(part).is_ok() => {
            descend(look, &join(dir, part), rest, manifests, descent, members);
        }
        _ => {}
    }
}

/// Says whether a glob covers a path.
pub(super) fn covers(glob: &str, path: &str) -> bool {
    fn walk(glob: &[&str], path: &[&str]) -> bool {
        match (glob, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|skip| walk(rest, &path[skip..])),
            ([part, glob @ ..], [name, path @ ..]) => matches(part, name) && walk(glob, path),
            _ => false,
        }
    }
    let (glob, path) = (parts(glob), path.split('/').collect::<Vec<_>>());
    glob.len() <= PARTS_MAX && anywheres(&glob) <= ANYWHERES_MAX && walk(&glob, &path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_covers_what_its_parts_do() {
        for (glob, path) in [
            ("packages/*", "packages/a"),
            ("./packages//*", "packages/a"),
            ("**/a", "x/y/a"),
            ("**/**/**/a", "x/a"),
            ("x/**", "x"),
        ] {
            assert!(covers(glob, path), "{glob} {path}");
        }
        for (glob, path) in [("packages/*", "packages/a/b"), ("**/b", "x/a"), ("x", "y")] {
            assert!(!covers(glob, path), "{glob} {path}");
        }
    }

    #[test]
    fn a_glob_without_end_covers_nothing() {
        let long = format!("{}a", "x/".repeat(100_000));
        let anywhere = format!("{}a", "**/x/".repeat(100_000));
        for glob in [long, anywhere] {
            assert!(!covers(&glob, "x/x/a"));
        }
    }
}
