//! Brings a project to a directory: as it lies in the repository, or with what Git cannot hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What `setup.json` may ask for beside `files/`, each by its path.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Setup {
    /// Text files: those that Git itself would heed, such as `.gitignore`.
    files: BTreeMap<String, String>,
    /// Bytes that are no text, as pairs of hexadecimal digits.
    hex: BTreeMap<String, String>,
    /// Text that is written as UTF-16 with a byte order mark.
    utf16: BTreeMap<String, String>,
    /// Symbolic links with where they lead.
    links: BTreeMap<String, String>,
    /// Named pipes.
    pipes: Vec<String>,
    /// Empty directories.
    directories: Vec<String>,
    /// Files of nothing but holes, with their size.
    sparse: BTreeMap<String, u64>,
    /// Directories with so many small files.
    many: BTreeMap<String, usize>,
}

/// A directory in which a project can be looked at.
pub(crate) struct Place {
    path: PathBuf,
    /// Removed when it is dropped, if it was made for this.
    _made: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new(project: &Path) -> Self {
        let files = project.join("files");
        let Ok(text) = std::fs::read_to_string(project.join("setup.json")) else {
            return Self { path: files, _made: None };
        };
        let setup: Setup = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: setup.json: {error}", project.display()));
        let made = tempfile::tempdir().unwrap();
        let root = made.path();
        if files.is_dir() {
            copy(&files, root);
        }
        setup.apply(root);
        Self { path: root.to_owned(), _made: Some(made) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Setup {
    fn apply(&self, root: &Path) {
        for directory in &self.directories {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for (path, text) in &self.files {
            write(root, path, text.as_bytes());
        }
        for (path, digits) in &self.hex {
            let digits: Vec<u8> =
                digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            write(root, path, &bytes);
        }
        for (path, text) in &self.utf16 {
            let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
            write(root, path, &units.flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        }
        for (path, target) in &self.links {
            write(root, path, b"");
            std::fs::remove_file(root.join(path)).unwrap();
            std::os::unix::fs::symlink(target, root.join(path)).unwrap();
        }
        for path in &self.pipes {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, root.join(path), kind, mode, 0).unwrap();
        }
        for (path, size) in &self.sparse {
            write(root, path, b"");
            std::fs::File::options()
                .write(true)
                .open(root.join(path))
                .unwrap()
                .set_len(*size)
                .unwrap();
        }
        for (directory, count) in &self.many {
            for number in 0..*count {
                write(root, &format!("{directory}/{number}.js"), b"// one of many\n");
            }
        }
    }
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Names what Git would not carry, or would heed, if it lay in `files/`.
pub(crate) fn refused(project: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let files = project.join("files");
    if !files.is_dir() && !project.join("setup.json").is_file() {
        lines.push("has neither files/ nor setup.json".to_owned());
    }
    let mut waiting: Vec<PathBuf> = if files.is_dir() { vec![files] } else { Vec::new() };
    while let Some(directory) = waiting.pop() {
        let entries: Vec<_> = std::fs::read_dir(&directory).unwrap().map(Result::unwrap).collect();
        if entries.is_empty() {
            lines.push(format!("{}: Git keeps no empty directory", directory.display()));
        }
        for entry in entries {
            let name = entry.file_name();
            let kind = entry.file_type().unwrap();
            if [".gitignore", ".gitattributes", ".git"].iter().any(|heeded| name == *heeded) {
                lines.push(format!("{}: belongs into setup.json", entry.path().display()));
            } else if kind.is_dir() {
                waiting.push(entry.path());
            } else if !kind.is_file() {
                lines.push(format!("{}: is no plain file", entry.path().display()));
            }
        }
    }
    lines
}
