//! The small language in which a framework of the table says how it is recognised.
//!
//! A rule that holds says which file made it hold, so that every answer carries its evidence.

use super::look::Look;
use super::manifest::Manifest;
use super::tree::join;

/// Endings of a JavaScript configuration file.
const CONFIG_ENDINGS: [&str; 7] = ["js", "mjs", "cjs", "ts", "mts", "cts", "json"];

/// What must be true of an app's directory.
pub(crate) enum Rule {
    /// One of these exact names is a dependency, in either group.
    Dep(&'static [&'static str]),
    /// None of these names is a dependency.
    Without(&'static [&'static str]),
    /// The dependency is there and asks for a major version below this.
    Below(&'static str, u64),
    /// `<stem>.{js,mjs,cjs,ts,mts,cts,json}` lies in the directory.
    Config(&'static str),
    /// This file lies in the directory.
    File(&'static str),
    /// An entry file imports one of these packages.
    Imports(&'static [&'static str]),
    /// All of these hold.
    All(&'static [Rule]),
    /// One of these holds.
    Any(&'static [Rule]),
}

/// Why a rule holds: the file, and what it says.
pub(crate) struct Reason {
    pub(crate) file: String,
    pub(crate) why: String,
}

/// What rules may ask about.
pub(crate) struct Subject<'a, 'tree> {
    pub(crate) look: &'a Look<'tree>,
    pub(crate) dir: &'a str,
    pub(crate) manifest: &'a Manifest,
    /// Entry files that exist, with their text.
    pub(crate) entries: &'a [(String, String)],
}

impl Rule {
    /// Returns the reason if the rule holds.
    pub(crate) fn reason(&self, subject: &Subject<'_, '_>) -> Option<Reason> {
        let manifest = |why: String| Reason { file: subject.manifest.file.clone(), why };
        match self {
            Self::Dep(names) => {
                let name = names.iter().find(|name| subject.manifest.depends(name))?;
                Some(manifest(format!("depends on {name}")))
            }
            Self::Without(names) => {
                let clean = !names.iter().any(|name| subject.manifest.depends(name));
                clean.then(|| manifest(format!("does not depend on {}", names.join(", "))))
            }
            Self::Below(name, major) => {
                let below = subject.manifest.major(name)? < *major;
                below.then(|| manifest(format!("depends on {name} before {major}")))
            }
            Self::Config(stem) => {
                let name = config_file(subject.look, subject.dir, stem)?;
                Some(Reason { file: join(subject.dir, &name), why: "its configuration".into() })
            }
            Self::File(name) => subject
                .look
                .has(subject.dir, name)
                .then(|| Reason { file: join(subject.dir, name), why: "its file".into() }),
            Self::Imports(names) => subject.entries.iter().find_map(|(file, text)| {
                let name = names.iter().find(|name| imports(text, name))?;
                Some(Reason { file: file.clone(), why: format!("imports {name}") })
            }),
            Self::All(rules) => {
                let mut reasons = rules.iter().map(|rule| rule.reason(subject));
                let first = reasons.next()??;
                reasons.all(|reason| reason.is_some()).then_some(first)
            }
            Self::Any(rules) => rules.iter().find_map(|rule| rule.reason(subject)),
        }
    }
}

/// Returns the name of the configuration file with this stem, if the directory has one.
pub(crate) fn config_file(look: &Look<'_>, dir: &str, stem: &str) -> Option<String> {
    CONFIG_ENDINGS.iter().map(|ending| format!("{stem}.{ending}")).find(|name| look.has(dir, name))
}

/// Says whether JavaScript text imports a package: `from "x"`, `require("x")`, `import("x")`.
fn imports(text: &str, package: &str) -> bool {
    ['"', '\'', '`'].iter().any(|quote| {
        let quoted = format!("{quote}{package}{quote}");
        text.match_indices(&quoted).any(|(at, _)| {
            let before = text[..at].trim_end_matches([' ', '(', '\t', '\n']);
            ["from", "require", "import"].iter().any(|word| before.ends_with(word))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::imports;

    #[test]
    fn an_import_is_not_a_mention() {
        assert!(imports("import express from 'express';", "express"));
        assert!(imports("const app = require(\"express\")();", "express"));
        assert!(imports("await import('express')", "express"));
        assert!(!imports("// like express\nconst name = 'express';", "express"));
        assert!(!imports("import session from 'express-session'", "express"));
    }
}
