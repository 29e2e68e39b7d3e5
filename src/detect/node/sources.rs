//! The code of a Node app as far as it says what serves it: entry files, what they import from
//! each other, and, if that is not enough, a bounded look over the rest.

use std::cell::OnceCell;

use super::super::look::Look;
use super::super::manifest::Manifest;
use super::super::script;
use super::super::tree::{join, names};

/// Where the entry of a server lies if no script names it.
const ENTRY_DIRS: [&str; 7] = [".", "src", "server", "src/server", "app", "api", "backend"];
const ENTRY_STEMS: [&str; 4] = ["index", "server", "app", "main"];
const ENDINGS: [&str; 8] = ["js", "ts", "mjs", "cjs", "mts", "cts", "tsx", "jsx"];

/// Entries and the files that they lead to.
const NEAR_MAX: usize = 24;
/// Files of the look over the rest, and how deep it goes.
const FAR_MAX: usize = 80;
const FAR_DEPTH: usize = 3;

/// Directories whose code does not serve the app.
const ASIDE: [&str; 22] = [
    "test",
    "tests",
    "__tests__",
    "spec",
    "specs",
    "e2e",
    "cypress",
    "example",
    "examples",
    "fixtures",
    "mock",
    "mocks",
    "__mocks__",
    "docs",
    "dist",
    "build",
    "out",
    "public",
    "static",
    "coverage",
    "scripts",
    "vendor",
];

/// A file of the app, below the workspace, with its text.
pub(crate) type Source = (String, String);

/// The code of one app, read when it is asked for.
pub(crate) struct Sources<'a, 'tree> {
    look: &'a Look<'tree>,
    dir: &'a str,
    manifest: &'a Manifest,
    near: OnceCell<Vec<Source>>,
    far: OnceCell<Vec<Source>>,
}

impl<'a, 'tree> Sources<'a, 'tree> {
    pub(crate) fn new(look: &'a Look<'tree>, dir: &'a str, manifest: &'a Manifest) -> Self {
        Self { look, dir, manifest, near: OnceCell::new(), far: OnceCell::new() }
    }

    /// Entry files, the most likely first, then what they import.
    pub(crate) fn near(&self) -> &[Source] {
        self.near.get_or_init(|| {
            let mut files: Vec<Source> = Vec::new();
            for file in self.entries() {
                self.take(&file, &mut files);
            }
            let mut next = 0;
            while next < files.len() && files.len() < NEAR_MAX {
                let (file, text) = files[next].clone();
                for specifier in relative_imports(&text) {
                    if let Some(found) = self.resolve(&file, specifier) {
                        self.take(&found, &mut files);
                    }
                }
                next += 1;
            }
            files
        })
    }

    /// The app's other code, without tests and what was built.
    pub(crate) fn far(&self) -> &[Source] {
        self.far.get_or_init(|| {
            let mut files = Vec::new();
            self.walk(self.dir, FAR_DEPTH, &mut files);
            files
        })
    }

    /// Finds the file that a script or a field of the manifest names, or the source that what it
    /// names was compiled from.
    pub(crate) fn find(&self, file: &str) -> Option<String> {
        let file = file.trim_start_matches("./").trim_end_matches('/');
        if names(file).is_err() || file.is_empty() {
            return None;
        }
        self.existing(&join(self.dir, file)).or_else(|| {
            let (folder, rest) = file.split_once('/')?;
            let compiled = ["dist", "build", "lib", "out", ".output", "output"].contains(&folder);
            let stem = rest.rsplit_once('.').map_or(rest, |(stem, _)| stem);
            let inner = stem.strip_prefix("src/").unwrap_or(stem);
            [format!("src/{inner}"), inner.to_owned()]
                .into_iter()
                .filter(|_| compiled)
                .find_map(|stem| self.existing(&join(self.dir, &stem)))
        })
    }

    fn entries(&self) -> Vec<String> {
        let manifest = self.manifest;
        let scripts = script::USUAL
            .iter()
            .filter_map(|name| script::expanded(&manifest.scripts, name))
            .flat_map(|text| script::served_files(&text));
        let fields = manifest.main.iter().cloned().chain(manifest.bin.iter().cloned());
        let named = scripts.chain(fields).filter_map(|file| self.find(&file));
        let usual = ENTRY_DIRS.iter().flat_map(|inner| {
            let place = join(self.dir, inner);
            let stems = ENTRY_STEMS
                .iter()
                .flat_map(|stem| ENDINGS.iter().map(move |ending| format!("{stem}.{ending}")));
            stems.filter_map(|name| self.file(&join(&place, &name))).collect::<Vec<_>>()
        });
        let www = self.file(&join(self.dir, "bin/www"));
        let mut entries = Vec::new();
        for file in named.chain(www).chain(usual) {
            if !entries.contains(&file) {
                entries.push(file);
            }
        }
        entries
    }

    fn take(&self, file: &str, files: &mut Vec<Source>) {
        if files.len() < NEAR_MAX
            && !files.iter().any(|(known, _)| known == file)
            && let Some(text) = self.look.code(file)
        {
            files.push((file.to_owned(), text));
        }
    }

    /// The path itself, with an ending, or the index of the directory.
    fn existing(&self, path: &str) -> Option<String> {
        let typed = path.strip_suffix(".js").map(|stem| format!("{stem}.ts"));
        let ended = ENDINGS.iter().map(|ending| format!("{path}.{ending}"));
        let index = ENDINGS.iter().map(|ending| format!("{path}/index.{ending}"));
        std::iter::once(path.to_owned())
            .chain(typed)
            .chain(ended)
            .chain(index)
            .find_map(|path| self.file(&path))
    }

    /// Looks a path up in remembered listings, so that a name that is not there costs nothing.
    fn file(&self, path: &str) -> Option<String> {
        let (place, name) = path.rsplit_once('/').unwrap_or((".", path));
        let mut parent = String::from(".");
        for part in place.split('/').filter(|part| *part != ".") {
            if !self.look.holds(&parent, part) {
                return None;
            }
            parent = join(&parent, part);
        }
        self.look.has(place, name).then(|| path.to_owned())
    }

    /// Resolves `./x` and `../x` against the file that imports it.
    fn resolve(&self, file: &str, specifier: &str) -> Option<String> {
        let place = file.rsplit_once('/').map_or(".", |(place, _)| place);
        let mut parts: Vec<&str> = place.split('/').filter(|part| *part != ".").collect();
        for part in specifier.split('/') {
            match part {
                "." | "" => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        (!parts.is_empty()).then(|| self.existing(&parts.join("/"))).flatten()
    }

    fn walk(&self, dir: &str, depth: usize, files: &mut Vec<Source>) {
        for name in self.look.files(dir) {
            let code = name
                .rsplit_once('.')
                .filter(|(stem, ending)| {
                    let aside = [".test", ".spec", ".config", ".d", ".stories"];
                    ENDINGS.contains(ending) && !aside.iter().any(|aside| stem.ends_with(aside))
                })
                .is_some();
            if files.len() == FAR_MAX {
                return;
            }
            let path = join(dir, &name);
            if code && let Some(text) = self.look.code(&path) {
                files.push((path, text));
            }
        }
        if depth == 0 {
            return;
        }
        for name in self.look.directories(dir) {
            let inner = join(dir, &name);
            if !ASIDE.contains(&name.as_str()) && !self.look.has(&inner, "package.json") {
                self.walk(&inner, depth - 1, files);
            }
        }
    }
}

/// Says whether JavaScript text imports a package: `from "x"`, `require("x")`, `import("x")`,
/// also a part of it (`x/sub`) or by another registry (`npm:x@4`), but not only its types.
pub(crate) fn imports(text: &str, package: &str) -> bool {
    text.match_indices(package).any(|(at, _)| {
        let before = &text[..at];
        let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]).trim_start();
        if line.starts_with("//") || line.starts_with('*') {
            return false;
        }
        let before = ["npm:", "jsr:"]
            .iter()
            .find_map(|registry| before.strip_suffix(registry))
            .unwrap_or(before);
        let after = text[at + package.len()..].chars().next();
        let ends = after.is_some_and(|letter| ['"', '\'', '`', '/', '@'].contains(&letter));
        ends && before.strip_suffix(['"', '\'', '`']).is_some_and(is_import)
    })
}

/// Says whether the text ends in what comes before an imported name.
fn is_import(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '(', '\t', '\n']);
    if before.ends_with("require") || before.ends_with("import") {
        return true;
    }
    let Some(clause) = before.strip_suffix("from") else { return false };
    let statement = clause.rfind("import").map_or("", |at| &clause[at + "import".len()..]);
    !statement.trim_start().starts_with("type ")
}

/// The files of its own that a text imports.
fn relative_imports(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for quote in ['"', '\''] {
        for start in ["./", "../"] {
            let opening = format!("{quote}{start}");
            for (at, _) in text.match_indices(&opening) {
                let inside = &text[at + 1..];
                let Some(end) = inside.find([quote, '\n']) else { continue };
                if is_import(&text[..at]) && inside[end..].starts_with(quote) {
                    found.push((at, &inside[..end]));
                }
            }
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, specifier)| specifier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_not_a_mention() {
        assert!(imports("import express from 'express';", "express"));
        assert!(imports("const app = require(\"express\")();", "express"));
        assert!(imports("const { Hono } = await import( 'hono' )", "hono"));
        assert!(imports("import { serve } from 'hono/bun'", "hono"));
        assert!(imports("import { Hono } from 'npm:hono@4'", "hono"));
        assert!(imports("import 'xmcp'", "xmcp"));
        assert!(!imports("import x from 'express-session'", "express"));
        assert!(!imports("import x from 'my-express'", "express"));
        assert!(!imports("// uses 'express'", "express"));
        assert!(!imports("  // const express = require('express')", "express"));
        assert!(!imports("import type { Request } from 'express';", "express"));
        assert!(imports("import type { A } from 'a';\nimport b from 'express';", "express"));
    }

    #[test]
    fn files_of_its_own_are_found_in_their_order() {
        let text = "var app = require('../app');\nimport a from \"./a.js\"; const s = './no';";
        assert_eq!(relative_imports(text), ["../app", "./a.js"]);
    }
}
