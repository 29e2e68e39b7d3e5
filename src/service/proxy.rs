//! The egress proxy as the services see it: a host and a port.

use super::{Environment, SettingError};

/// The spellings that tools know; the first that is set counts.
pub const PROXY_NAMES: &[&str] = &["HTTPS_PROXY", "https_proxy"];

/// Where to ask for a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address, safe to stand in a shell word.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The whole value, for programs that read it themselves.
    pub url: String,
}

impl Proxy {
    /// Reads `HTTPS_PROXY`.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, SettingError> {
        environment.first(PROXY_NAMES)?.map(Self::parse).transpose()
    }

    fn parse(text: &str) -> Result<Self, SettingError> {
        let invalid = || SettingError::Invalid {
            name: "HTTPS_PROXY",
            expected: "like http://host:port, without credentials",
        };
        let url = url::Url::parse(text).map_err(|_| invalid())?;
        let host = url.host_str().unwrap_or_default();
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let plain = url.scheme() == "http"
            && url.username().is_empty()
            && url.password().is_none()
            && !host.is_empty()
            && !host.starts_with('-')
            && host.bytes().all(safe);
        let port = url.port_or_known_default().filter(|_| plain).ok_or_else(invalid)?;
        Ok(Self { host: host.to_owned(), port, url: format!("http://{host}:{port}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, u16)>) {
        let environment = Environment::from_pairs([("https_proxy", text)]);
        let proxy = Proxy::from_environment(&environment).ok().flatten();
        assert_eq!(proxy.as_ref().map(|proxy| (proxy.host.as_str(), proxy.port)), expected);
    }

    #[test]
    fn only_a_plain_proxy_is_taken() {
        check("http://172.21.0.1:3128", Some(("172.21.0.1", 3128)));
        check("http://proxy.internal:3128/", Some(("proxy.internal", 3128)));
        check("http://proxy", Some(("proxy", 80)));
        check("https://proxy:3128", None);
        check("http://user:word@proxy:3128", None);
        check("proxy:3128", None);
        check("http://pro;xy:3128", None);
        check("http://$(x):3128", None);
    }
}
