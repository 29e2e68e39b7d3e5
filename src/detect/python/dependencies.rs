//! What a Python project depends on, from every manifest that says so, by normalised name.
//!
//! Names are compared exactly after PEP 503 normalising: `Flask_Login` is not `flask`.

use std::collections::BTreeSet;

use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::{TreeError, join, names, parent};
use crate::domain::findings::PackageManager;

use super::tools::MISSPELT;

/// `-r` inside `-r` goes this deep; it may also go in circles.
const INCLUDES_MAX: usize = 16;

/// More files than this of other names are not read.
const OTHERS_MAX: usize = 16;

/// Requirement files at their usual places.
const REQUIREMENTS: [&str; 6] = [
    "requirements.txt",
    "requirements-dev.txt",
    "dev-requirements.txt",
    "requirements/dev.txt",
    "requirements/local.txt",
    "requirements/base.txt",
];

/// Environments of conda.
const CONDA: [&str; 3] = ["environment.yml", "environment.yaml", "conda.yml"];

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
        waiting.extend(others(look, dir));
        let files_max = INCLUDES_MAX + waiting.len();
        waiting.reverse();
        let mut seen = BTreeSet::new();
        while let Some(file) = waiting.pop() {
            if seen.len() >= files_max || !seen.insert(file.clone()) {
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
        for name in ["setup.py", "setup.cfg"] {
            if look.has(dir, name) {
                let file = join(dir, name);
                found.setup(&look.hint(&file).unwrap_or_default());
                // Its presence alone is no project: tools keep their settings there.
                if name == "setup.py" || found.files.is_empty() && !found.names.is_empty() {
                    found.files.push(file);
                }
            }
        }
        for name in CONDA {
            if look.has(dir, name) {
                let file = join(dir, name);
                if found.environment(&look.hint(&file).unwrap_or_default()) {
                    found.files.push(file);
                }
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

    /// Says whether anything that is built for this package is listed: `mkdocs-material`.
    pub(crate) fn starts_with(&self, name: &str) -> bool {
        let start = format!("{name}-");
        let next = self.names.range(start.clone()..).next();
        next.is_some_and(|known| known.starts_with(&start))
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
        let pdm = at(tool, &["pdm", "dev-dependencies"]).and_then(toml::Value::as_table);
        lines.extend(pdm.into_iter().flatten().flat_map(|(_, group)| listed(Some(group))));
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

    /// What a setup script asks for: every quoted name in its lists, and the lines of its file.
    fn setup(&mut self, text: &str) {
        for key in ["install_requires", "extras_require", "requires"] {
            for (at, _) in text.match_indices(key) {
                let rest = text[at + key.len()..].trim_start();
                let Some(rest) = rest.strip_prefix(['=', ':']) else { continue };
                let rest = rest.trim_start_matches([' ', '\t']);
                if rest.starts_with(['[', '(', '{']) {
                    let list = rest.split([']', ')']).next().unwrap_or_default();
                    let quoted = list.split(['"', '\'']).skip(1).step_by(2);
                    quoted.for_each(|name| self.add(name));
                } else {
                    let indented =
                        rest.lines().skip(1).take_while(|line| line.starts_with([' ', '\t']));
                    indented.for_each(|line| self.add(line));
                }
            }
        }
    }

    /// The list of a conda environment, with that of pip in it; no if it is something else.
    fn environment(&mut self, text: &str) -> bool {
        let own = |key: &str| text.lines().any(|line| line.starts_with(key));
        if !own("dependencies:") && !own("channels:") {
            return false;
        }
        let (_, listed) = text.split_once("dependencies:").unwrap_or_default();
        for line in listed.lines() {
            if let Some(name) = line.trim_start().strip_prefix("- ") {
                // `conda-forge::flask` names where it comes from.
                let name = name.trim().trim_matches(['"', '\'']);
                self.add(name.rsplit("::").next().unwrap_or(name));
            }
        }
        true
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
pub(crate) fn tool_of(look: &Look<'_>, file: &str) -> Option<(PackageManager, String)> {
    let table: toml::Table = look.hint(file)?.parse().ok()?;
    let backend = at(table.get("build-system"), &["build-backend"]);
    let backend = backend.and_then(toml::Value::as_str).unwrap_or_default();
    let tool = |name: &str| at(table.get("tool"), &[name]).is_some();
    let found = [
        (tool("poetry") || backend.starts_with("poetry"), PackageManager::Poetry, "poetry install"),
        (tool("uv") || backend == "uv_build", PackageManager::Uv, "uv sync"),
        (tool("pdm") || backend.starts_with("pdm"), PackageManager::Pdm, "pdm install"),
    ];
    if let Some((_, manager, command)) = found.into_iter().find(|(holds, ..)| *holds) {
        return Some((manager, command.to_owned()));
    }
    // A project that only holds the settings of tools installs nothing.
    let extra = at(table.get("project"), &["optional-dependencies", "dev"]);
    extra.map(|_| (PackageManager::Pip, "pip install -e '.[dev]'".to_owned()))
}

/// Requirement files that are called otherwise: `requirements-prod.txt`, `requirements/all.txt`,
/// and what was meant to be one.
fn others(look: &Look<'_>, dir: &str) -> Vec<String> {
    let named = |name: &String| {
        let lower = name.to_ascii_lowercase();
        let usual =
            lower.contains("requirements") && (lower.ends_with(".txt") || lower.ends_with(".in"));
        usual || MISSPELT.contains(&name.as_str())
    };
    let mut files: Vec<String> =
        look.files(dir).into_iter().filter(named).map(|name| join(dir, &name)).collect();
    if look.directories(dir).iter().any(|name| name == "requirements") {
        let inner = join(dir, "requirements");
        let names = look.files(&inner).into_iter().filter(|name| name.ends_with(".txt"));
        files.extend(names.map(|name| join(&inner, &name)));
    }
    files.truncate(OTHERS_MAX);
    files
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
