//! What the mirror has copied, so that it deletes nothing else.
//!
//! Kept in the mirror's own directory, which outlives the container. An agent or
//! a dev server may write there; a forged manifest can only make the mirror
//! delete files of the same copy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// The first line; a manifest of another version is no manifest.
const VERSION: &[u8] = b"covibes-mirror 1\n";

/// Tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: i64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
    pub(super) executable: bool,
}

/// Something that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(Stamp),
    Link(Vec<u8>),
}

/// All that was copied, by path; a directory comes before what is in it.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    entries: BTreeMap<PathBuf, Entry>,
    unsaved: bool,
}

impl Manifest {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(super) fn insert(&mut self, path: &Path, entry: Entry) {
        if self.entries.get(path) != Some(&entry) {
            self.entries.insert(path.to_owned(), entry);
            self.unsaved = true;
        }
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.unsaved |= self.entries.remove(path).is_some();
    }

    /// Returns all paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.entries.keys()
    }

    /// Returns a path and all below it, the deepest first.
    pub(super) fn subtree(&self, top: &Path) -> Vec<PathBuf> {
        let mut below: Vec<PathBuf> = self
            .entries
            .range(top.to_owned()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(top))
            .cloned()
            .collect();
        below.reverse();
        below
    }

    /// Writes all down.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for (path, entry) in &self.entries {
            let head = match entry {
                Entry::Directory => "d".to_owned(),
                Entry::Link(_) => "l".to_owned(),
                Entry::File(Stamp { size, seconds, nanoseconds, executable }) => {
                    format!("f {size} {seconds} {nanoseconds} {}", u8::from(*executable))
                }
            };
            bytes.extend_from_slice(head.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
            if let Entry::Link(target) = entry {
                bytes.extend_from_slice(target);
            }
            bytes.push(0);
        }
        self.unsaved = false;
        bytes
    }

    /// Notes that what was written down did not reach the disk.
    pub(super) fn not_saved(&mut self) {
        self.unsaved = true;
    }

    /// Reads what was written down.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "no manifest of this version");
        let body = bytes.strip_prefix(VERSION).ok_or_else(invalid)?;
        let mut entries = BTreeMap::new();
        let mut fields = body.split(|byte| *byte == 0);
        while let (Some(head), Some(path), Some(target)) =
            (fields.next(), fields.next(), fields.next())
        {
            let path = PathBuf::from(OsStr::from_bytes(path));
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || path.as_os_str().is_empty() {
                return Err(invalid());
            }
            entries.insert(path, parse_head(head, target).ok_or_else(invalid)?);
        }
        Ok(Self { entries, unsaved: false })
    }
}

fn parse_head(head: &[u8], target: &[u8]) -> Option<Entry> {
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    match words.next()? {
        "d" => Some(Entry::Directory),
        "l" => Some(Entry::Link(OsStr::from_bytes(target).to_owned().into_vec())),
        "f" => {
            let mut number = || words.next()?.parse::<i64>().ok();
            Some(Entry::File(Stamp {
                size: number()?,
                seconds: number()?,
                nanoseconds: number()?,
                executable: number()? == 1,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_being_written_down() {
        let mut manifest = Manifest::default();
        let stamp = Stamp { size: 3, seconds: -5, nanoseconds: 7, executable: true };
        manifest.insert(Path::new("a"), Entry::Directory);
        manifest.insert(Path::new("a/line\nbreak"), Entry::File(stamp));
        manifest.insert(Path::new("a b"), Entry::Link(b"../x y".to_vec()));
        assert!(manifest.is_unsaved());
        let read = Manifest::decode(&manifest.encode()).unwrap();
        assert!(!manifest.is_unsaved());
        assert_eq!(read.entries, manifest.entries);
        assert_eq!(read.subtree(Path::new("a")), [Path::new("a/line\nbreak"), Path::new("a")]);
    }

    #[test]
    fn a_forged_manifest_reaches_nothing_outside() {
        for path in ["../x", "/etc/passwd", "a/../../b", ""] {
            let forged = [VERSION, b"d\0", path.as_bytes(), b"\0\0"].concat();
            assert!(Manifest::decode(&forged).is_err(), "{path}");
        }
        assert!(Manifest::decode(b"").is_err());
    }
}
