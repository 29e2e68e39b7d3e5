//! What a move changes: each path as it is in the commits before and after it.

use std::collections::BTreeMap;

/// A submodule; its files are nobody's here.
pub(super) const GITLINK: &str = "160000";

/// What a path is in one commit: its mode and its object.
pub(super) type Entry = (String, String);

/// What a path is in the commits before and after a move.
pub(super) type Pair = (Option<Entry>, Option<Entry>);

/// Whether the new commit has a file where the old one has files below.
pub(super) fn replaces_a_directory(pairs: &BTreeMap<Vec<u8>, Pair>, path: &[u8]) -> bool {
    let below = [path, b"/"].concat();
    let mut rest = pairs.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
    pairs.get(path).is_some_and(|pair| pair.1.is_some()) && rest.any(|(_, pair)| pair.0.is_some())
}

/// Reads `:mode mode object object status`; nothing, if it is not that.
pub(super) fn parse(entry: &[u8]) -> Option<Pair> {
    let text = std::str::from_utf8(entry).ok()?;
    let mut words = text.strip_prefix(':')?.split(' ');
    let (old_mode, new_mode) = (words.next()?, words.next()?);
    let (old, new) = (words.next()?, words.next()?);
    let entry =
        |mode: &str, object: &str| (mode != "000000").then(|| (mode.to_owned(), object.to_owned()));
    Some((entry(old_mode, old), entry(new_mode, new)))
}
