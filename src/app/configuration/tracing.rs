//! The section `tracing` of the configuration.

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracingSection {
    /// The collector that gets a span for each run, step and call to Docker, such as
    /// http://127.0.0.1:4318; spans go to `/v1/traces` below it as OTLP over HTTP. Needs a
    /// `covibes` that was built with `--features otlp`.
    pub otlp_endpoint: Option<String>,
}

impl TracingSection {
    /// Checks it.
    ///
    /// # Errors
    /// The endpoint is none, or this program knows nothing of traces.
    pub(super) fn check(&self) -> anyhow::Result<Option<Url>> {
        let Some(text) = self.otlp_endpoint.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let url = endpoint(text).context("`tracing.otlp_endpoint`")?;
        if !cfg!(feature = "otlp") {
            bail!(
                "`tracing.otlp_endpoint` is set, and this covibes was built without traces: build \
                 it with `cargo build --release --bins --features otlp`, or remove the setting"
            );
        }
        Ok(Some(url))
    }
}

fn endpoint(text: &str) -> anyhow::Result<Url> {
    let mut url: Url = text.parse().with_context(|| format!("{text} is not a URL"))?;
    if url.scheme() == "https" {
        bail!("spans go over plain HTTP: name a collector on this host, which may go on with TLS");
    }
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() != "http" || url.host_str().is_none() || !is_plain || url.fragment().is_some() {
        bail!("{text} must be like http://127.0.0.1:4318, without a user or a query");
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let url = endpoint(text).ok();
        assert_eq!(url.as_ref().map(Url::as_str), expected, "{text}");
    }

    #[test]
    fn an_endpoint_is_a_place_below_which_traces_go() {
        check("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces"));
        check("http://collector:4318/", Some("http://collector:4318/v1/traces"));
        check("http://[::1]:4318/otlp", Some("http://[::1]:4318/otlp/v1/traces"));
        check("https://collector:4318", None);
        check("http://user:word@collector", None);
        check("http://collector/?key=word", None);
        check("collector:4318", None);
        check("4318", None);
    }

    #[test]
    fn without_the_feature_it_is_said_how_to_get_it() {
        let section = TracingSection { otlp_endpoint: Some("http://127.0.0.1:4318".to_owned()) };
        match section.check() {
            Ok(url) => assert!(cfg!(feature = "otlp") && url.is_some()),
            Err(error) => assert!(error.to_string().contains("--features otlp"), "{error}"),
        }
        assert_eq!(TracingSection::default().check().unwrap(), None);
        assert_eq!(TracingSection { otlp_endpoint: Some(String::new()) }.check().unwrap(), None);
    }
}
