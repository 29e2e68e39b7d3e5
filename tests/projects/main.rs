//! Small projects, and what `covibes detect --json` must say about each.
//!
//! A project is a folder `tests/projects/<group>/<name>/` with its files in `files/` and an
//! `expected.json` that a person wrote before the first run; adding one is dropping a folder.
//! `tests/projects/README.md` says what the two may hold. All are looked at in one test, which
//! names every field that is wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

mod compare;
mod properties;
mod setup;

/// Fewer than these, and the folders were not found rather than removed.
const PROJECTS_MIN: usize = 280;

/// A project of the collection.
struct Project {
    /// Group and folder.
    name: String,
    directory: PathBuf,
    expected: Value,
}

fn collection() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/projects")
}

/// Directories in a directory, in order.
fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn projects() -> Vec<Project> {
    let folders = directories(&collection()).into_iter().flat_map(|group| directories(&group));
    folders
        .map(|directory| {
            let name = directory.strip_prefix(collection()).unwrap().display().to_string();
            let file = directory.join("expected.json");
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{name}: cannot read expected.json: {error}"));
            let expected = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{name}: expected.json: {error}"));
            Project { name, directory, expected }
        })
        .collect()
}

/// What is said about a directory, as the JSON that scripts read; a failure as its code alone.
fn detect(directory: &Path) -> Value {
    match covibes::app::dry::answer(directory) {
        Ok(findings) => {
            serde_json::to_value(covibes::wire::findings::Findings::from(&findings)).unwrap()
        }
        Err(error) => serde_json::json!({"error": error.to_string()}),
    }
}

/// What is wrong with one project, a line for each field.
fn wrong(project: &Project) -> Vec<String> {
    let malformed = compare::malformed(&project.expected);
    let refused = setup::refused(&project.directory);
    if !malformed.is_empty() || !refused.is_empty() {
        return malformed.into_iter().chain(refused).collect();
    }
    let place = setup::Place::new(&project.directory);
    compare::differences(&project.expected, &detect(place.path()))
}

#[test]
fn every_project_is_what_its_expectation_says() {
    let projects = projects();
    let found = projects.len();
    assert!(found >= PROJECTS_MIN, "only {found} of at least {PROJECTS_MIN} projects were found");
    let wrong: Vec<(String, Vec<String>)> = projects
        .iter()
        .map(|project| (project.name.clone(), wrong(project)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let report: Vec<_> = wrong
        .iter()
        .map(|(name, lines)| {
            lines.iter().map(|line| format!("{name}: {line}\n")).collect::<String>()
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} projects are wrong:\n{}",
        wrong.len(),
        projects.len(),
        report.concat()
    );
}

#[test]
fn the_command_says_the_same() {
    // One of each group is enough: the rest of the way is the same code.
    let mut groups = std::collections::BTreeSet::new();
    let of_each = projects().into_iter().filter(|project| {
        let group = project.name.split('/').next().unwrap_or_default().to_owned();
        project.expected.get("error").is_none() && groups.insert(group)
    });
    for project in of_each {
        let place = setup::Place::new(&project.directory);
        let output = Command::new(env!("CARGO_BIN_EXE_covibes"))
            .args(["detect", "--json"])
            .arg(place.path())
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", project.name);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said, detect(place.path()), "{}", project.name);
    }
    assert!(!groups.is_empty());
}

#[test]
fn the_command_says_that_it_knows_nothing() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_covibes"))
        .args(["detect", "--json"])
        .arg(empty.path())
        .env_clear()
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((&said["language"], &said["dev"]), (&Value::from("none"), &Value::Null));
    assert!(said["warnings"][0].as_str().unwrap().contains("no known kind of project"));
}
