//! The files in which a Python server may begin, and how they are named as modules.

use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::join;

/// Names of entry files, the most likely first.
pub(crate) const STEMS: [&str; 18] = [
    "app",
    "main",
    "server",
    "index",
    "wsgi",
    "asgi",
    "application",
    "api",
    "run",
    "start",
    "web",
    "streamlit_app",
    "Home",
    "home",
    "demo",
    "manage",
    "bot",
    "hello",
];

/// Directories that hold packages more often than they are one.
const SHELVES: [&str; 6] = ["src", "app", "backend", "server", "api", "web"];

/// Directories that never hold the app.
const AVOIDED: [&str; 14] = [
    "tests",
    "test",
    "docs",
    "doc",
    "migrations",
    "scripts",
    "examples",
    "venv",
    "env",
    "build",
    "dist",
    "alembic",
    "static",
    "templates",
];

/// Files that no server begins in.
const TOOLS: [&str; 6] = ["setup", "conftest", "noxfile", "tasks", "fabfile", "__init__"];

/// More files than this are not read.
const FILES_MAX: usize = 48;

/// A server is made near the top of its file; every framework of the table is looked for there.
const BYTES_MAX: usize = 64 * 1024;

/// More packages than this are not looked into.
const PACKAGES_MAX: usize = 12;

/// A Python file in which a server may begin.
pub(crate) struct Python {
    pub(crate) file: String,
    /// The directory below the app, `.` for itself.
    pub(crate) inner: String,
    pub(crate) stem: String,
    pub(crate) text: String,
    is_package: bool,
}

impl Python {
    /// The module for uvicorn, and the flag that makes it importable.
    pub(crate) fn module(&self) -> (String, &'static str) {
        let dotted = |inner: &str| {
            let inner = inner.replace('/', ".");
            match (inner.as_str(), self.stem.as_str()) {
                ("." | "", stem) => stem.to_owned(),
                (inner, "__init__") => inner.to_owned(),
                (inner, stem) => format!("{inner}.{stem}"),
            }
        };
        // `src` is a place for modules more often than one itself.
        let below = self.inner.strip_prefix("src").filter(|rest| {
            (rest.is_empty() && !self.is_package || rest.starts_with('/'))
                && !self.text.contains("from src")
                && !self.text.contains("import src")
        });
        match below {
            Some(rest) => (dotted(rest.trim_start_matches('/')), " --app-dir src"),
            None => (dotted(&self.inner), ""),
        }
    }

    /// Flask takes a module, or a file where there is no package.
    pub(crate) fn flask_app(&self) -> String {
        match (self.inner.as_str(), self.stem.as_str()) {
            (".", stem) => stem.to_owned(),
            (inner, "__init__") => inner.replacen("src/", "", 1).replace('/', "."),
            (inner, stem) if self.is_package && !inner.starts_with("src/") => {
                format!("{}.{stem}", inner.replace('/', "."))
            }
            (inner, stem) => format!("{inner}/{stem}.py"),
        }
    }

    /// The path below the app.
    pub(crate) fn path(&self) -> String {
        join(&self.inner, &format!("{}.py", self.stem))
    }
}

/// Returns the files that may begin a server: those of the directory itself, then those of its
/// packages, each in the order of [`STEMS`].
pub(crate) fn entries(look: &Look<'_>, dir: &str) -> Vec<Python> {
    let mut entries = Vec::new();
    read(look, dir, ".", true, &mut entries);
    let directories = look.directories(dir);
    let mut packages: Vec<String> = directories
        .into_iter()
        .filter(|name| !AVOIDED.contains(&name.as_str()) && is_plain_word(name))
        .collect();
    // A shelf comes before whatever else is called like a package.
    packages.sort_by_key(|name| !SHELVES.contains(&name.as_str()));
    for name in packages.into_iter().take(PACKAGES_MAX) {
        read(look, dir, &name, false, &mut entries);
        if SHELVES.contains(&name.as_str()) {
            let inner = look.directories(&join(dir, &name));
            let inner = inner.iter().filter(|name| !AVOIDED.contains(&name.as_str()));
            for inner in inner.filter(|name| is_plain_word(name)).take(PACKAGES_MAX) {
                read(look, dir, &join(&name, inner), false, &mut entries);
            }
        }
    }
    entries
}

/// Reads the files of one directory: all of the app's own, those with a known name elsewhere.
fn read(look: &Look<'_>, dir: &str, inner: &str, all: bool, entries: &mut Vec<Python>) {
    let place = join(dir, inner);
    let files = look.files(&place);
    let is_package = files.iter().any(|name| name == "__init__.py");
    let rank = |stem: &str| STEMS.iter().position(|known| *known == stem);
    let mut stems: Vec<&str> = files
        .iter()
        .filter_map(|name| name.strip_suffix(".py"))
        .filter(|stem| match rank(stem) {
            Some(_) => true,
            None if all => {
                !TOOLS.contains(stem) && !stem.starts_with("test") && !stem.ends_with("_test")
            }
            // Flask keeps its app in the package itself.
            None => ["__init__", "__main__", "factory", "core"].contains(stem),
        })
        .collect();
    stems.sort_by_key(|stem| rank(stem).unwrap_or(STEMS.len()));
    for stem in stems {
        if entries.len() >= FILES_MAX {
            return;
        }
        let file = join(&place, &format!("{stem}.py"));
        if let Some(mut text) = look.hint(&file) {
            let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= BYTES_MAX);
            text.truncate(end.unwrap_or(text.len()));
            let (inner, stem) = (inner.to_owned(), stem.to_owned());
            entries.push(Python { file, inner, stem, text, is_package });
        }
    }
}
