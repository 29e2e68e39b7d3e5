//! What a Python project depends on, from every manifest that says so, by normalised name.
//!
//! Names are compared exactly after PEP 503 normalising: `Flask_Login` is not `flask`.

use std::collections::BTreeSet;

use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::{TreeError, join, names, parent};
use crate::domain::findings::PackageManager;

/// `-r` inside `-r` goes this deep; it may also go in circles.
const INCLUDES_MAX: usize = 16;

/// Requirement files at their usual places.
const REQUIREMENTS: [&str; 6] = [
    "requirements.txt",
    "requirements-dev.txt",
    "dev-requirements.txt",
    "requirements/dev.txt",
    "requirements/local.txt",
    "requirements/base.txt",
];

type Stated = (String, String, &'static str);

/// The dependencies of a project, and the Python versions it states.
#[derive(Default)]
pub(crate) struct Dependencies {
    names: BTreeSet<String>,
    extras: BTreeSet<String>,
    /// The manifests that were found.
    pub(crate) files: Vec<String>,
    /// Exact versions of Python: text, file, field.
    pub(crate) pins: Vec<Stated>,
    /// Ranges of Python versions.
    pub(crate) ranges: Vec<Stated>,
}

impl Dependencies {
    /// Reads the manifests of a directory.
    ///
    /// # Errors
    /// The tree's refusal, because these files say what the project is.
    pub(crate) fn read(look: &Look<'_>, dir: &str) -> Result<Self, TreeError> {
        let mut found = Self::default();
        let mut waiting: Vec<String> = REQUIREMENTS.iter().map(|name| join(dir, name)).collect();
        waiting.reverse();
        let mut seen = BTreeSet::new();
        while let Some(file) = waiting.pop() {
            if seen.len() >= INCLUDES_MAX + REQUIREMENTS.len() || !seen.insert(file.clone()) {
                continue;
            }
            if let Some(text) = look.manifest(&file)? {
                let above = parent(&file).unwrap_or(".").to_owned();
                let included = found.requirements(&text);
                waiting.extend(included.iter().filter_map(|name| beside(&above, name)));
                found.files.push(file);
            }
        }
        found.pyproject(look, &join(dir, "pyproject.toml"))?;
        found.pipfile(look, &join(dir, "Pipfile"))?;
        for name in ["setup.py", "environment.yml"] {
            if look.has(dir, name) {
                found.files.push(join(dir, name));
            }
        }
        Ok(found)
    }

    /// Says whether any manifest was found.
    pub(crate) fn declared(&self) -> bool {
        !self.files.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Says whether the package is asked for with extras, as in `fastapi[standard]`.
    pub(crate) fn has_extra(&self, name: &str) -> bool {
        self.extras.contains(name)
    }

    /// Reads the lines of a requirements file and returns the files it includes.
    fn requirements(&mut self, text: &str) -> Vec<String> {
        let mut included = Vec::new();
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let include =
                ["-r", "--requirement"].iter().find_map(|option| line.strip_prefix(option));
            if let Some(file) = include {
                included.push(file.trim_start_matches(['=', ' ', '\t']).to_owned());
            } else if let Some((_, name)) = line.split_once("#egg=") {
                self.add(name);
            } else if !line.starts_with(['-', '#']) {
                self.add(line);
            }
        }
        included
    }

    fn pyproject(&mut self, look: &Look<'_>, file: &str) -> Result<(), TreeError> {
        let Some(table) = table(look, file)? else { return Ok(()) };
        self.files.push(file.to_owned());
        let project = table.get("project");
        let listed = |value: Option<&toml::Value>| {
            let list = value.and_then(toml::Value::as_array).cloned().unwrap_or_default();
            list.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let mut lines = listed(at(project, &["dependencies"]));
        let groups = [at(project, &["optional-dependencies"]), table.get("dependency-groups")];
        for group in groups.into_iter().flatten().filter_map(toml::Value::as_table) {
            lines.extend(group.values().flat_map(|group| listed(Some(group))));
        }
        let tool = table.get("tool");
        lines.extend(listed(at(tool, &["uv", "dev-dependencies"])));
        for line in &lines {
            self.add(line);
        }
        let poetry = at(tool, &["poetry"]);
        self.keys(at(poetry, &["dependencies"]));
        self.keys(at(poetry, &["dev-dependencies"]));
        for group in at(poetry, &["group"]).and_then(toml::Value::as_table).into_iter().flatten() {
            self.keys(group.1.get("dependencies"));
        }
        let ranges = [
            (at(project, &["requires-python"]), "requires-python"),
            (at(poetry, &["dependencies", "python"]), "tool.poetry.dependencies.python"),
        ];
        for (value, field) in ranges {
            if let Some(text) = value.and_then(toml::Value::as_str) {
                self.ranges.push((text.to_owned(), file.to_owned(), field));
            }
        }
        Ok(())
    }

    fn pipfile(&mut self, look: &Look<'_>, file: &str) -> Result<(), TreeError> {
        let Some(table) = table(look, file)? else { return Ok(()) };
        self.files.push(file.to_owned());
        self.keys(table.get("packages"));
        self.keys(table.get("dev-packages"));
        let requires = table.get("requires");
        let version = at(requires, &["python_full_version"]).or(at(requires, &["python_version"]));
        if let Some(text) = version.and_then(toml::Value::as_str) {
            self.pins.push((text.to_owned(), file.to_owned(), "requires"));
        }
        Ok(())
    }

    fn keys(&mut self, table: Option<&toml::Value>) {
        let table = table.and_then(toml::Value::as_table);
        for (name, value) in table.into_iter().flatten() {
            self.add(name);
            if value.get("extras").is_some() {
                self.extras.insert(normalised(name));
            }
        }
    }

    /// Adds a requirement: a name, perhaps with extras, a version, a marker or an address.
    fn add(&mut self, requirement: &str) {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let requirement = requirement.trim();
        let end = requirement.find(|letter| !is_name(letter)).unwrap_or(requirement.len());
        let name = normalised(&requirement[..end]);
        if name.is_empty() {
            return;
        }
        if requirement[end..].trim_start().starts_with('[') {
            self.extras.insert(name.clone());
        }
        self.names.insert(name);
    }
}

/// Returns the tool that a `pyproject.toml` is written for, and its install command.
pub(crate) fn tool_of(look: &Look<'_>, file: &str) -> Option<(PackageManager, &'static str)> {
    let table: toml::Table = look.hint(file)?.parse().ok()?;
    let tool = table.get("tool")?;
    [
        ("poetry", PackageManager::Poetry, "poetry install"),
        ("uv", PackageManager::Uv, "uv sync"),
        ("pdm", PackageManager::Pdm, "pdm install"),
    ]
    .into_iter()
    .find(|(name, ..)| tool.get(name).is_some())
    .map(|(_, manager, command)| (manager, command))
}

fn table(look: &Look<'_>, file: &str) -> Result<Option<toml::Table>, TreeError> {
    let Some(text) = look.manifest(file)? else { return Ok(None) };
    Ok(Some(text.parse().unwrap_or_else(|_| {
        look.warn(format!("{file} is not valid TOML; what it says was left out"));
        toml::Table::new()
    })))
}

fn at<'value>(value: Option<&'value toml::Value>, keys: &[&str]) -> Option<&'value toml::Value> {
    keys.iter().try_fold(value?, |value, key| value.get(key))
}

/// PEP 503: case and runs of `-`, `_` and `.` do not matter.
fn normalised(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Resolves an include beside the file that names it; none if it leaves the workspace.
fn beside(dir: &str, include: &str) -> Option<String> {
    if !is_plain_word(include) || include.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| *part != ".").collect();
    for part in include.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    names(&path).is_ok().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tree::MemoryTree;

    fn check(files: &[(&'static str, &'static str)]) -> String {
        let tree = MemoryTree::new(files.iter().copied());
        let found = Dependencies::read(&Look::new(&tree), ".").unwrap();
        found.names.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn requirements_are_read_with_their_includes() {
        let files = [
            ("requirements.txt", "-r requirements/prod.txt\nFlask_Login>=1 # not flask\n"),
            (
                "requirements/prod.txt",
                "-r ../requirements.txt\n-r ../../etc/passwd\n--hash=x\n# django\n\
                 uvicorn[standard] ; python_version > '3'\ngit+https://h/x.git#egg=Koala\n",
            ),
        ];
        assert_eq!(check(&files), "flask-login koala uvicorn");
    }

    #[test]
    fn pyproject_is_read_in_every_dialect() {
        let project = "[project]\ndependencies = ['FastAPI[standard]>=0.1', 'a.b']\n\
            [project.optional-dependencies]\ndev = ['ruff']\n[dependency-groups]\ntest = ['pytest']";
        assert_eq!(check(&[("pyproject.toml", project)]), "a-b fastapi pytest ruff");
        let poetry = "[tool.poetry.dependencies]\npython = '^3.11'\nDjango = '*'\n\
            [tool.poetry.group.dev.dependencies]\nblack = '*'";
        assert_eq!(check(&[("pyproject.toml", poetry)]), "black django python");
        let pipfile = "[packages]\nflask = '*'\n[dev-packages]\npytest = '*'";
        assert_eq!(check(&[("Pipfile", pipfile)]), "flask pytest");
    }
}
