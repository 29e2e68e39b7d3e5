//! Where the broker is: one address or several, and whom to trust there.

use std::path::PathBuf;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AmqpSection {
    /// Its address without a password, or with the broker's own guest account;
    /// a list of addresses for a cluster.
    pub url: OneOrMore,
    /// A file with the whole address, for one with a password; one a line.
    pub url_file: Option<PathBuf>,
    /// A file with certificate authorities (PEM) to trust besides the system's
    /// when the address begins with `amqps://`.
    pub ca_file: Option<PathBuf>,
    /// The first part of every queue's and exchange's name.
    pub prefix: String,
}

impl Default for AmqpSection {
    fn default() -> Self {
        Self {
            url: OneOrMore::One("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()),
            url_file: None,
            ca_file: None,
            prefix: "covibes".to_owned(),
        }
    }
}

/// One text, which may hold several with blanks between, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        match self {
            // No address holds a blank.
            Self::One(one) => one.split_whitespace().map(str::to_owned).collect(),
            Self::More(all) => all.clone(),
        }
    }
}

/// All addresses, with the authorities that each is to trust.
pub(super) fn urls(section: &AmqpSection) -> anyhow::Result<Vec<String>> {
    let mut urls = match &section.url_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read `amqp.url_file` {}", path.display()))?;
            text.split_whitespace().map(str::to_owned).collect()
        }
        None => section.url.all(),
    };
    if urls.is_empty() {
        bail!("`amqp.url` or `amqp.url_file` names no address");
    }
    let Some(path) = &section.ca_file else { return Ok(urls) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `amqp.ca_file` {}", path.display()))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        bail!("`amqp.ca_file` {} holds no certificate in PEM", path.display());
    }
    for url in &mut urls {
        // One that cannot be read is named by whoever connects.
        if let Ok(mut parsed) = url::Url::parse(url)
            && parsed.scheme() == "amqps"
            && !parsed.query_pairs().any(|(name, _)| name == "cacertfile")
        {
            parsed.query_pairs_mut().append_pair("cacertfile", &path.to_string_lossy());
            *url = parsed.into();
        }
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use crate::app::configuration::{Configuration, load as load_file};

    fn load(variables: &[(&str, &str)]) -> anyhow::Result<Configuration> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_file(Some(file.path()), variables)
    }

    #[test]
    fn the_broker_has_one_address_or_several() {
        let urls = |variables: &[(&str, &str)]| load(variables).map(|c| c.amqp_urls);
        assert_eq!(urls(&[]).unwrap().len(), 1);
        assert_eq!(urls(&[("COVIBES_AMQP_URL", "amqp://a/%2f")]).unwrap(), ["amqp://a/%2f"]);
        let list = [("COVIBES_AMQP_URL", r#"["amqp://a", "amqps://b?heartbeat=5"]"#)];
        assert_eq!(urls(&list).unwrap(), ["amqp://a", "amqps://b?heartbeat=5"]);

        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let from_file = [("COVIBES_AMQP_URL_FILE", path)];
        assert!(urls(&from_file).unwrap_err().to_string().contains("names no address"));
        std::fs::write(path, "amqp://u:p@a\n\namqp://u:p@b\n").unwrap();
        assert_eq!(urls(&from_file).unwrap(), ["amqp://u:p@a", "amqp://u:p@b"]);

        let with_authority = [list[0], ("COVIBES_AMQP_CA_FILE", path)];
        let error = urls(&with_authority).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
        std::fs::write(path, "-----BEGIN CERTIFICATE-----\n").unwrap();
        let urls = urls(&with_authority).unwrap();
        assert_eq!(urls[0], "amqp://a");
        assert!(urls[1].starts_with("amqps://b?heartbeat=5&cacertfile="), "{}", urls[1]);
    }
}
