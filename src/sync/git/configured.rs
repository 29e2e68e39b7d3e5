//! What the repository's own configuration says that no single setting overrides.
//!
//! Filters and merge drivers are emptied one by one, by name. What would lead the
//! remote's address elsewhere cannot be emptied in every Git that we run on, so a
//! repository that does so is not fetched from: the credentials would go along.

use std::collections::BTreeSet;

use super::super::remote::RemoteUrl;
use super::{GitError, Operation, Output};

/// Somebody who configures more of these than this wants something else.
const NAMES_MAX: usize = 64;

/// The keys that are looked at.
pub(super) const PATTERN: &str = r"^(filter|merge|url|remote)\.";

/// What a configuration names.
#[derive(Debug, Clone, Default)]
pub(super) struct Configured {
    pub(super) filters: BTreeSet<String>,
    pub(super) merge_drivers: BTreeSet<String>,
    /// Beginnings of addresses that are rewritten.
    rewrites: Vec<String>,
    remotes: BTreeSet<String>,
}

impl Configured {
    /// Reads `git config --null --get-regexp`.
    pub(super) fn read(output: &Output) -> Result<Self, GitError> {
        let mut configured = Self::default();
        for entry in String::from_utf8_lossy(&output.bytes).split('\0') {
            let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
            let Some((section, rest)) = key.split_once('.') else { continue };
            // `merge.ff` has no name between its two words.
            let Some((name, last)) = rest.rsplit_once('.') else { continue };
            match section {
                "filter" => _ = configured.filters.insert(name.to_owned()),
                "merge" => _ = configured.merge_drivers.insert(name.to_owned()),
                "url" if last == "insteadof" || last == "pushinsteadof" => {
                    configured.rewrites.push(value.to_owned());
                }
                "remote" => _ = configured.remotes.insert(name.to_owned()),
                _ => {}
            }
        }
        let too_many =
            configured.filters.len() > NAMES_MAX || configured.merge_drivers.len() > NAMES_MAX;
        if too_many || output.truncated {
            let message = "the repository configures too many filters".to_owned();
            return Err(GitError::Refused { operation: Operation::Config, message });
        }
        Ok(configured)
    }

    /// Refuses to speak with a remote whose address leads elsewhere.
    pub(super) fn check(&self, url: &RemoteUrl) -> Result<(), GitError> {
        let refused = |message: &str| {
            let message = message.to_owned();
            Err(GitError::Refused { operation: Operation::Config, message })
        };
        if self.rewrites.iter().any(|prefix| url.as_str().starts_with(prefix.as_str())) {
            return refused(
                "the repository's configuration rewrites the remote's address \
                 (url.*.insteadOf); remove that",
            );
        }
        if self.remotes.contains(url.as_str()) {
            return refused(
                "the repository's configuration has a remote that is named like the \
                 remote's address; rename it",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Configured {
        Configured::read(&Output { bytes: text.as_bytes().to_vec(), truncated: false }).unwrap()
    }

    #[test]
    fn names_may_hold_dots_and_newlines_are_values() {
        let configured = read(
            "filter.a.b=c.clean\nx\0merge.union.driver\ny\0merge.ff\nonly\0\
             url.https://evil.example/.insteadof\nhttps://good.example/\0\
             remote.origin.url\nhttps://good.example/a\0",
        );
        assert_eq!(configured.filters, BTreeSet::from(["a.b=c".to_owned()]));
        assert_eq!(configured.merge_drivers, BTreeSet::from(["union".to_owned()]));
        let check = |url: &str| configured.check(&RemoteUrl::parse(url).unwrap()).is_ok();
        assert!(!check("https://good.example/a"));
        assert!(check("https://other.example/a"));
    }

    #[test]
    fn a_remote_that_is_named_like_the_address_is_refused() {
        let configured = read("remote.https://good.example/a.url\nhttps://evil.example/\0");
        let url = RemoteUrl::parse("https://good.example/a").unwrap();
        let error = configured.check(&url).unwrap_err().to_string();
        assert!(error.contains("named like"), "{error}");
    }
}
