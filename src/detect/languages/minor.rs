//! Languages of which a few facts are enough: what declares them, what builds and runs them.
//!
//! Each is one [`Minor`]: its manifest, the code that may name a port, and how it is run.

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::join;
use crate::domain::findings::{Language, PackageManager};

use super::listeners::{self, Shapes};
use super::{Entry, Project, offer};

use table::MINORS;

mod table;

/// One language of which little has to be known.
struct Minor {
    language: Language,
    manager: PackageManager,
    /// What declares it: one of these names, or `*` and an ending.
    files: &'static [&'static str],
    install: Option<&'static str>,
    lockfile: &'static str,
    /// Files and directories with code that may listen; a directory ends in `/`.
    code: &'static [&'static str],
    endings: &'static [&'static str],
    shapes: &'static Shapes,
    /// Finds the name of what is run in the manifest.
    name: fn(&str) -> Option<String>,
    table: &'static [Entry],
}

/// Offers the first of these languages that the directory declares.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    MINORS.iter().find_map(|minor| {
        // A lone file of code below the root belongs to something else.
        let lone = minor.code.is_empty() && minor.install.is_none();
        if lone && dir != "." {
            return None;
        }
        let file = minor.files.iter().find(|file| super::has(look, dir, file))?;
        let file = match file.strip_prefix('*') {
            Some(ending) => look.files(dir).into_iter().find(|name| name.ends_with(ending))?,
            None => (*file).to_owned(),
        };
        offer(read(look, dir, minor, &file), minor.table)
    })
}

fn read<'look, 'tree>(
    look: &'look Look<'tree>,
    dir: &str,
    minor: &Minor,
    file: &str,
) -> Project<'look, 'tree> {
    let mut project = Project::new(look, dir, minor.language, minor.manager, join(dir, file));
    project.shapes = minor.shapes;
    let text = project.read(file).map(|(text, _)| text).unwrap_or_default();
    if let Some(name) = (minor.name)(&text) {
        project.fill("name", &name);
    }
    // Names of packages are words of their own in every one of these manifests.
    let manifests = ["package.yaml", "project/plugins.sbt"];
    let specs = look.files(dir).into_iter().filter(|name| name.ends_with(".cabal"));
    let others: Vec<String> =
        manifests.iter().map(|name| (*name).to_owned()).chain(specs).collect();
    let others: Vec<_> = others.iter().filter_map(|name| Some(project.read(name)?.0)).collect();
    for text in std::iter::once(text).chain(others) {
        let text = listeners::without_comments(&text, &["#", "--", "//"]);
        let is_part = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
        let words = text.split(|letter| !is_part(letter)).filter(|word| word.len() > 2);
        project.dependencies.extend(words.map(str::to_owned));
    }
    if minor.endings.iter().any(|ending| file.ends_with(ending)) {
        project.fill("file", file);
        project.add_code([file.to_owned()]);
    }
    if let Some(command) = minor.install {
        let flutter = minor.language == Language::Dart && project.depends("flutter");
        project.installs(if flutter { "flutter pub get" } else { command }, file);
    }
    if !minor.lockfile.is_empty() {
        project.locked_by(minor.lockfile);
    }
    for place in minor.code {
        match place.strip_suffix('/') {
            Some(inner) => {
                if look
                    .directories(dir)
                    .iter()
                    .any(|name| Some(name.as_str()) == inner.split('/').next())
                {
                    for ending in minor.endings {
                        project.add_code_in(inner, ending);
                    }
                }
            }
            None => project.add_code([(*place).to_owned()]),
        }
    }
    project
}

fn toml_name(text: &str) -> Option<String> {
    text.parse::<toml::Table>().ok()?.get("name")?.as_str().map(str::to_owned)
}

fn yaml_name(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("name:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned())
}

/// The first program that is built: `add_executable(name ..)`, perhaps the project's own name.
fn cmake_name(text: &str) -> Option<String> {
    let word = |call: &str| {
        let (_, rest) = text.split_once(call)?;
        rest.split([' ', ')', '\n']).find(|word| !word.is_empty()).map(str::to_owned)
    };
    let name = word("add_executable(").or_else(|| word("add_executable ("))?;
    match name.as_str() {
        "${PROJECT_NAME}" | "${CMAKE_PROJECT_NAME}" => word("project("),
        _ => Some(name),
    }
}

/// The module of a Mill build that is a program: `object app extends ScalaModule`.
fn mill_name(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("object "))?;
    line.contains("Module").then(|| line.split_whitespace().next().map(str::to_owned))?
}
