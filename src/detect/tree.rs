//! The one way detection looks at a workspace: a tree of plain files.
//!
//! The workspace is written by people and agents that nobody trusts, so every question here is
//! bounded and answers without following a link. The real tree is `adapters::tree`; the one in
//! memory is for tests and for callers that already hold the files. Paths are relative, separated
//! by `/`, and `.` or the empty string is the root.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use crate::domain::findings::PROJECT_FILE;

/// Directories deeper than this are not listed (`security.md` 2.6).
pub const DEPTH_MAX: usize = 8;

/// All listings together stop at this many entries (`security.md` 2.6).
pub const ENTRIES_MAX: usize = 10_000;

/// Directories that are never listed: installed, built or stored, not written by a person. A name
/// in one is still found by whoever asks for it.
pub const SKIPPED: [&str; 18] = [
    "node_modules",
    ".git",
    "vendor",
    "dist",
    "build",
    "target",
    ".venv",
    "venv",
    "__pycache__",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".output",
    ".turbo",
    ".gradle",
    ".tox",
    "bower_components",
    "coverage",
];

/// Returns the most bytes that are read of the file at `path` (`security.md` 2.6).
#[must_use]
pub fn file_bytes_max(path: &str) -> usize {
    match path.rsplit('/').next() {
        Some("package.json") => 1024 * 1024,
        Some(PROJECT_FILE) => 64 * 1024,
        _ => 256 * 1024,
    }
}

/// What a path is. A link is never followed to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Symlink,
    /// A FIFO, a socket or a device.
    Special,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name alone.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// A bounded, read-only view of a workspace.
pub trait Tree {
    /// Reads a whole file; none if it does not exist.
    ///
    /// # Errors
    /// Refuses links, anything but plain files, and files over [`file_bytes_max`].
    fn read(&self, path: &str) -> Result<Option<Bytes>, TreeError>;

    /// Reads at most `bytes_max` from the beginning of a file of any size.
    ///
    /// # Errors
    /// Refuses links and anything but plain files.
    fn head(&self, path: &str, bytes_max: usize) -> Result<Option<Bytes>, TreeError>;

    /// Lists a directory by name, without [`SKIPPED`]; empty if it does not exist.
    ///
    /// # Errors
    /// Refuses links, directories below [`DEPTH_MAX`], and more than [`ENTRIES_MAX`] in all.
    fn list(&self, directory: &str) -> Result<Vec<Entry>, TreeError>;

    /// Says what a path is; none if it does not exist.
    ///
    /// # Errors
    /// Refuses paths that lead through a link.
    fn kind(&self, path: &str) -> Result<Option<Kind>, TreeError>;
}

/// Why the tree gave no answer.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The path is a symbolic link or leads through one.
    #[error("{path} is a symbolic link or leads through one")]
    Symlink {
        /// The path asked for.
        path: String,
    },
    /// The path leads onto another file system.
    #[error("{path} leads onto another file system")]
    Mount {
        /// The path asked for.
        path: String,
    },
    /// The path is not relative, or climbs.
    #[error("{path} is not a path inside the workspace")]
    Path {
        /// The path asked for.
        path: String,
    },
    /// The path is a FIFO, a socket, a device or a directory where a file was wanted.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// The path asked for.
        path: String,
    },
    /// The file is larger than is read.
    #[error("{path} is larger than {bytes_max} bytes")]
    TooLarge {
        /// The path asked for.
        path: String,
        /// What would have been read.
        bytes_max: usize,
    },
    /// The directories hold more, or lie deeper, than is listed.
    #[error("{path} has too many entries or lies too deep")]
    TooMany {
        /// The path asked for.
        path: String,
    },
    /// The operating system failed.
    #[error("cannot read {path}")]
    Io {
        /// The path asked for.
        path: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

impl TreeError {
    /// Returns the stable code of the failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Symlink { .. } => "workspace.symlink_refused",
            Self::Mount { .. } => "workspace.mount_refused",
            Self::Path { .. } => "workspace.invalid_path",
            Self::NotRegular { .. } => "workspace.not_regular_file",
            Self::TooLarge { .. } => "workspace.file_too_large",
            Self::TooMany { .. } => "workspace.too_many_files",
            Self::Io { .. } => "workspace.io",
        }
    }
}

/// Splits a path into its names, refusing what is absolute or climbs.
///
/// # Errors
/// [`TreeError::Path`] for `..`, a leading `/`, or a NUL.
pub fn names(path: &str) -> Result<Vec<&str>, TreeError> {
    let wrong =
        path.starts_with('/') || path.contains('\0') || path.split('/').any(|name| name == "..");
    if wrong {
        return Err(TreeError::Path { path: path.to_owned() });
    }
    Ok(path.split('/').filter(|name| !name.is_empty() && *name != ".").collect())
}

/// Joins a directory and a name; `.` and the empty string are the root.
#[must_use]
pub fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("." | "", "." | "") => ".".to_owned(),
        ("." | "", name) => name.to_owned(),
        (directory, "." | "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// Returns the directory above, none for the root.
#[must_use]
pub fn parent(directory: &str) -> Option<&str> {
    match directory {
        "." | "" => None,
        directory => Some(directory.rsplit_once('/').map_or(".", |(above, _)| above)),
    }
}

/// A tree held in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Bytes>,
}

impl MemoryTree {
    /// Holds these files; their directories exist by themselves.
    pub fn new<P: Into<String>, B: Into<Bytes>>(files: impl IntoIterator<Item = (P, B)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.into(), text.into())).collect() }
    }

    fn key(path: &str) -> Result<String, TreeError> {
        Ok(names(path)?.join("/"))
    }

    fn bytes(&self, path: &str) -> Result<Option<&Bytes>, TreeError> {
        match self.kind(path)? {
            None => Ok(None),
            Some(Kind::File) => Ok(self.files.get(&Self::key(path)?)),
            Some(_) => Err(TreeError::NotRegular { path: path.to_owned() }),
        }
    }
}

impl Tree for MemoryTree {
    fn read(&self, path: &str) -> Result<Option<Bytes>, TreeError> {
        let bytes_max = file_bytes_max(path);
        match self.bytes(path)? {
            Some(bytes) if bytes.len() > bytes_max => {
                Err(TreeError::TooLarge { path: path.to_owned(), bytes_max })
            }
            found => Ok(found.cloned()),
        }
    }

    fn head(&self, path: &str, bytes_max: usize) -> Result<Option<Bytes>, TreeError> {
        Ok(self.bytes(path)?.map(|bytes| bytes.slice(..bytes.len().min(bytes_max))))
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, TreeError> {
        let too_many = || TreeError::TooMany { path: directory.to_owned() };
        let names = names(directory)?;
        if names.len() > DEPTH_MAX {
            return Err(too_many());
        }
        if names.iter().any(|name| SKIPPED.contains(name)) {
            return Ok(Vec::new());
        }
        let prefix = if names.is_empty() { String::new() } else { names.join("/") + "/" };
        let mut found = BTreeMap::new();
        for path in self.files.keys().filter_map(|path| path.strip_prefix(&prefix)) {
            let (name, kind) = match path.split_once('/') {
                Some((name, _)) => (name, Kind::Directory),
                None => (path, Kind::File),
            };
            if !SKIPPED.contains(&name) {
                found.insert(name, kind);
            }
        }
        if found.len() > ENTRIES_MAX {
            return Err(too_many());
        }
        Ok(found.into_iter().map(|(name, kind)| Entry { name: name.to_owned(), kind }).collect())
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>, TreeError> {
        let key = Self::key(path)?;
        if self.files.contains_key(&key) {
            return Ok(Some(Kind::File));
        }
        let prefix = format!("{key}/");
        let directory =
            key.is_empty() || self.files.keys().any(|candidate| candidate.starts_with(&prefix));
        Ok(directory.then_some(Kind::Directory))
    }
}
