//! Names of remotes and branches, refused when Git could take them for more.

use crate::service::SettingError;

const URL_BYTES_MAX: usize = 2048;
const BRANCH_BYTES_MAX: usize = 200;

/// The address of a remote: https, ssh, or `user@host:path`; never a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl(String);

impl RemoteUrl {
    /// Takes an address.
    ///
    /// # Errors
    /// Refuses other transports, credentials, options and control characters.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let plain = text.len() <= URL_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        if plain && (is_https(text) || is_ssh(text) || is_scp(text)) {
            return Ok(Self(text.to_owned()));
        }
        let expected = "an https or ssh address without credentials";
        Err(SettingError::Invalid { name: "COVIBES_GIT_REMOTE", expected })
    }

    /// Takes any address, for tests with remotes on disk.
    #[cfg(test)]
    pub(super) fn unchecked(text: String) -> Self {
        Self(text)
    }

    /// Returns the address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it is spoken to over HTTP.
    pub(super) fn is_http(&self) -> bool {
        self.0.starts_with("https://") || self.0.starts_with("http://")
    }

    /// Returns what a credential helper is asked about, `https://host:port`.
    pub(super) fn scheme_and_host(&self) -> Option<&str> {
        let host = self.0.find("://")? + 3;
        let end = self.0[host..].find('/').map_or(self.0.len(), |at| host + at);
        self.is_http().then(|| &self.0[..end])
    }
}

fn is_https(text: &str) -> bool {
    text.starts_with("https://")
        && url::Url::parse(text).is_ok_and(|url| {
            url.has_host() && url.username().is_empty() && url.password().is_none()
        })
        && !text.to_ascii_lowercase().contains("%0a")
        // The parser takes these for slashes; Git does not.
        && !text.contains('\\')
}

fn is_ssh(text: &str) -> bool {
    text.starts_with("ssh://")
        && url::Url::parse(text).is_ok_and(|url| {
            let host = url.host_str().unwrap_or_default();
            is_host(host) && url.password().is_none() && is_user(url.username(), true)
        })
}

fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    is_user(user, false) && is_host(host) && !path.is_empty() && !path.starts_with([':', '-'])
}

fn is_user(user: &str, may_be_empty: bool) -> bool {
    (may_be_empty || !user.is_empty())
        && !user.starts_with('-')
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with('-')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// The name of a branch, by the rules of `git check-ref-format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch(String);

impl Branch {
    /// Takes a name.
    ///
    /// # Errors
    /// Refuses what Git would refuse, and what looks like an option.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        if is_branch(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(SettingError::Invalid { name: "COVIBES_GIT_REF", expected: "a branch's name" })
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_branch(text: &str) -> bool {
    let parts_fine = text.split('/').all(|part| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.ends_with(".lock")
    });
    let characters_fine =
        |c: char| !c.is_control() && !c.is_whitespace() && !"~^:?*[\\".contains(c);
    parts_fine
        && text.len() <= BRANCH_BYTES_MAX
        && text != "@"
        && text != "HEAD"
        && !text.starts_with('-')
        && !text.contains("..")
        && !text.contains("@{")
        && text.chars().all(characters_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for (text, taken) in [
            ("https://example.com/a/b.git", true),
            ("https://example.com:8443/a", true),
            ("ssh://git@example.com/a.git", true),
            ("ssh://git@example.com:2222/a.git", true),
            ("git@example.com:a/b.git", true),
            ("http://example.com/a", false),
            ("git://example.com/a", false),
            ("file:///srv/a", false),
            ("/srv/a", false),
            ("ext::sh -c touch% /tmp/x", false),
            ("ext::sh", false),
            ("https://user:word@example.com/a", false),
            ("https://token@example.com/a", false),
            ("https://exa\nmple.com/a", false),
            ("https://example.com/%0aa", false),
            ("https://example.com\\@evil.example/a", false),
            ("ssh://-oProxyCommand=x/a", false),
            ("ssh://git@-oProxyCommand=x/a", false),
            ("-oProxyCommand=x@host:a", false),
            ("git@-oProxyCommand=x:a", false),
            ("git@host::a", false),
            ("--upload-pack=x", false),
            ("", false),
        ] {
            assert_eq!(RemoteUrl::parse(text).is_ok(), taken, "{text:?}");
        }
    }

    #[test]
    fn credentials_are_asked_for_by_scheme_and_host() {
        let of = |url: &str| RemoteUrl(url.to_owned()).scheme_and_host().map(str::to_owned);
        assert_eq!(of("https://a.example:8443/b/c").as_deref(), Some("https://a.example:8443"));
        assert_eq!(of("https://a.example").as_deref(), Some("https://a.example"));
        assert_eq!(of("ssh://git@a.example/b"), None);
        assert_eq!(of("git@a.example:b"), None);
    }

    #[test]
    fn only_names_that_git_takes_are_branches() {
        for (text, taken) in [
            ("main", true),
            ("feature/a-b_c.d", true),
            ("größe", true),
            ("-x", false),
            ("a..b", false),
            ("@{-1}", false),
            ("@", false),
            ("HEAD", false),
            ("a b", false),
            ("a:b", false),
            ("a.lock", false),
            (".a", false),
            ("a/", false),
            ("", false),
            ("a\u{7f}", false),
        ] {
            assert_eq!(Branch::parse(text).is_ok(), taken, "{text:?}");
        }
    }
}
