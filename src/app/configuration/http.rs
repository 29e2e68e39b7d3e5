//! The section `http` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The worker's own HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Where it listens.
    pub listen: String,
    /// Host names by which it is asked besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// A file with the word that the operator page, `/events` and `/api` ask for;
    /// without one the worker makes `http-token` in its state directory.
    pub token_file: Option<PathBuf>,
    /// Origins whose pages may use `/api`, such as https://dash.company.example.
    pub cors_origins: Vec<String>,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".to_owned(),
            hosts: Vec::new(),
            token_file: None,
            cors_origins: Vec::new(),
        }
    }
}

/// How the worker's HTTP is served, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Host names by which it is asked, in lower case.
    pub hosts: Vec<String>,
    /// Where the word for all but metrics and health is.
    pub token_file: Option<PathBuf>,
    /// Origins as browsers write them.
    pub cors_origins: Vec<String>,
}

impl HttpSection {
    /// Checks it.
    ///
    /// # Errors
    /// The address or an origin is none.
    pub(super) fn check(&self) -> anyhow::Result<HttpSettings> {
        let listen = self.listen.parse().context("`http.listen` is not an address with a port")?;
        let origins = self.cors_origins.iter().map(|text| origin(text));
        Ok(HttpSettings {
            listen,
            hosts: self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            token_file: self.token_file.clone(),
            cors_origins: origins.collect::<anyhow::Result<_>>().context("`http.cors_origins`")?,
        })
    }
}

/// An origin in the form in which browsers send it.
fn origin(text: &str) -> anyhow::Result<String> {
    let url: url::Url = text.parse().with_context(|| format!("{text} is not an origin"))?;
    let written = url.origin().ascii_serialization();
    let is_plain = written == text.trim_end_matches('/') && !text.contains('*');
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        bail!("{text} must be a scheme, a host and perhaps a port, such as https://dash.example");
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(origin(text).ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_only() {
        check("https://dash.example", Some("https://dash.example"));
        check("http://localhost:5173/", Some("http://localhost:5173"));
        check("https://dash.example/path", None);
        check("https://*.example", None);
        check("*", None);
        check("null", None);
        check("file:///x", None);
    }
}
