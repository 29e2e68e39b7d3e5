//! The section `agent` of the configuration.

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::settings::{AgentPolicy, PermissionMode};

/// Agents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSection {
    /// Where the CLI finds its API, such as https://llm.company.example. Its
    /// host is allowed by that; a private address also needs
    /// `egress.allow_private`. The CLI's own choice if absent.
    pub api_base_url: Option<String>,
    /// What the CLI may do without asking.
    pub permission_mode: PermissionWord,
}

/// What the CLI may do without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PermissionWord {
    /// Edit files. Commands need a task's `allowed_tools`.
    #[default]
    AcceptEdits,
    /// Everything: the container is what holds it.
    BypassPermissions,
    /// Read and plan.
    Plan,
    /// Read; all else needs a task's `allowed_tools`.
    Default,
}

impl AgentSection {
    /// Checks it.
    ///
    /// # Errors
    /// The URL is none that the proxy lets through.
    pub(super) fn check(&self) -> anyhow::Result<AgentPolicy> {
        let url = self.api_base_url.as_deref().map(base_url).transpose();
        Ok(AgentPolicy {
            api_base_url: url.context("`agent.api_base_url`")?,
            permission_mode: match self.permission_mode {
                PermissionWord::AcceptEdits => PermissionMode::AcceptEdits,
                PermissionWord::BypassPermissions => PermissionMode::BypassPermissions,
                PermissionWord::Plan => PermissionMode::Plan,
                PermissionWord::Default => PermissionMode::Default,
            },
        })
    }
}

fn base_url(text: &str) -> anyhow::Result<url::Url> {
    let url: url::Url = text.parse().with_context(|| format!("{text} is not a URL"))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() != "https" || url.port_or_known_default() != Some(443) || !plain {
        bail!("{text} must begin with https://, without another port, a user or a query");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, valid: bool) {
        let section = AgentSection { api_base_url: Some(text.to_owned()), ..Default::default() };
        assert_eq!(section.check().is_ok(), valid, "{text}");
    }

    #[test]
    fn only_what_the_proxy_lets_through_is_a_base_url() {
        check("https://llm.company.example", true);
        check("https://198.19.77.10/path", true);
        check("http://llm.company.example", false);
        check("https://llm.company.example:8443", false);
        check("https://user:word@llm.company.example", false);
        check("llm.company.example", false);
    }
}
