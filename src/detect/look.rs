//! One look at a workspace: the tree with remembered listings, decoded text and warnings.
//!
//! Two kinds of reading. A manifest states what the project is: if it cannot be read, detection
//! fails and says so. A hint refines an answer: if it cannot be read it is set aside, because a
//! linked `.nvmrc` should not stop a preview.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::tree::{Entry, Kind, Tree, TreeError, join};

/// How much of a lockfile is read: its first lines name the format.
const HEAD_BYTES: usize = 8 * 1024;

/// How much of a source file is read: imports stand at the beginning, ports hardly further down.
const CODE_BYTES: usize = 64 * 1024;

/// More warnings than this help nobody.
const WARNINGS_MAX: usize = 32;

type Listing = Option<Rc<BTreeMap<String, Kind>>>;

/// A tree under inspection.
pub(crate) struct Look<'tree> {
    tree: &'tree dyn Tree,
    listings: RefCell<BTreeMap<String, Listing>>,
    warnings: RefCell<Vec<String>>,
}

impl<'tree> Look<'tree> {
    pub(crate) fn new(tree: &'tree dyn Tree) -> Self {
        Self { tree, listings: RefCell::default(), warnings: RefCell::default() }
    }

    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    pub(crate) fn kind(&self, path: &str) -> Result<Option<Kind>, TreeError> {
        self.tree.kind(path)
    }

    /// Says whether a directory holds a plain file of this name.
    pub(crate) fn has(&self, dir: &str, name: &str) -> bool {
        let kind = match self.listing(dir) {
            Some(listing) if !name.contains('/') => listing.get(name).copied(),
            // Too large to list, or a path: ask for the one name.
            _ => self.tree.kind(&join(dir, name)).unwrap_or(None),
        };
        match kind {
            Some(Kind::File) => true,
            Some(Kind::Symlink) => {
                self.warn(format!("{} is a symbolic link and was set aside", join(dir, name)));
                false
            }
            Some(Kind::Special | Kind::Directory) | None => false,
        }
    }

    /// Says whether a directory holds a directory of this name.
    pub(crate) fn holds(&self, dir: &str, name: &str) -> bool {
        match self.listing(dir) {
            Some(listing) => listing.get(name) == Some(&Kind::Directory),
            None => matches!(self.tree.kind(&join(dir, name)), Ok(Some(Kind::Directory))),
        }
    }

    /// Returns the first of these names that is a plain file in the directory.
    pub(crate) fn first<'name>(&self, dir: &str, names: &[&'name str]) -> Option<&'name str> {
        names.iter().copied().find(|name| self.has(dir, name))
    }

    /// Returns the names of plain files in a directory, in order.
    pub(crate) fn files(&self, dir: &str) -> Vec<String> {
        self.names(dir, Kind::File)
    }

    /// Returns the names of directories in a directory, in order, without hidden ones.
    pub(crate) fn directories(&self, dir: &str) -> Vec<String> {
        let mut names = self.names(dir, Kind::Directory);
        names.retain(|name| !name.starts_with('.'));
        names
    }

    fn names(&self, dir: &str, wanted: Kind) -> Vec<String> {
        let listing = self.listing(dir).unwrap_or_default();
        listing.iter().filter(|(_, kind)| **kind == wanted).map(|(name, _)| name.clone()).collect()
    }

    fn listing(&self, dir: &str) -> Listing {
        if let Some(known) = self.listings.borrow().get(dir) {
            return known.clone();
        }
        let listing = match self.tree.list(dir) {
            Ok(entries) => Some(Rc::new(
                entries
                    .into_iter()
                    .filter(|entry| !entry.name.chars().any(char::is_control))
                    .map(|Entry { name, kind }| (name, kind))
                    .collect(),
            )),
            Err(error) => {
                self.warn(format!("{error}; only well-known names were looked for in it"));
                None
            }
        };
        self.listings.borrow_mut().insert(dir.to_owned(), listing.clone());
        listing
    }

    /// Reads a file that says what the project is.
    ///
    /// # Errors
    /// Whatever the tree refuses, because guessing around it would mislead.
    pub(crate) fn manifest(&self, path: &str) -> Result<Option<String>, TreeError> {
        let Some(bytes) = self.tree.read(path)? else { return Ok(None) };
        Ok(Some(decode(&bytes).unwrap_or_else(|| {
            self.warn(format!("{path} is not UTF-8 text and was read as empty"));
            String::new()
        })))
    }

    /// Reads a file that refines an answer.
    pub(crate) fn hint(&self, path: &str) -> Option<String> {
        match self.tree.read(path) {
            Ok(bytes) => self.decoded(path, &bytes?),
            Err(error) => {
                self.warn(format!("{error}; it was set aside"));
                None
            }
        }
    }

    /// Reads the first lines of a file of any size.
    pub(crate) fn head(&self, path: &str) -> Option<String> {
        let bytes = self.tree.head(path, HEAD_BYTES).ok().flatten()?;
        // The cut may fall inside a character.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the beginning of a source file; one that cannot be read says nothing.
    pub(crate) fn code(&self, path: &str) -> Option<String> {
        let bytes = self.tree.head(path, CODE_BYTES).ok().flatten()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn decoded(&self, path: &str, bytes: &[u8]) -> Option<String> {
        let text = decode(bytes);
        if text.is_none() {
            self.warn(format!("{path} is not UTF-8 text and was set aside"));
        }
        text
    }
}

/// Decodes UTF-8, or whatever a byte order mark announces: pip and PowerShell both write UTF-16.
fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        if !rest.len().is_multiple_of(2) {
            return None;
        }
        let units = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().ok()
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        bytes => String::from_utf8(bytes.to_vec()).ok(),
    }
}

/// Says whether text may stand in a command as one word without quotes.
pub(crate) fn is_plain_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/@+-".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn byte_order_marks_are_understood() {
        let wide = |unit: fn(u16) -> [u8; 2], mark: [u8; 2]| {
            mark.into_iter().chain("flask".encode_utf16().flat_map(unit)).collect::<Vec<_>>()
        };
        assert_eq!(decode(b"\xEF\xBB\xBFflask").as_deref(), Some("flask"));
        assert_eq!(decode(&wide(u16::to_le_bytes, [0xFF, 0xFE])).as_deref(), Some("flask"));
        assert_eq!(decode(&wide(u16::to_be_bytes, [0xFE, 0xFF])).as_deref(), Some("flask"));
        assert_eq!(decode(b"\xFF\xFEa"), None);
        assert_eq!(decode(b"caf\xE9"), None);
    }
}
