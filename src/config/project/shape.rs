//! The project file as it is written: what serde reads and what the JSON Schema describes.
//!
//! Values keep their place in the file, so that a rule broken later still names a line. The doc
//! comments are what people read in their editor.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

pub(super) const HEALTH_PATTERN: &str = "^(tcp|/[A-Za-z0-9._~/-]{0,255})$";
pub(super) const NAME_PATTERN: &str = "^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$";
pub(super) const PATH_PATTERN: &str = r"^(?!/)(?!(.*/)?\.\.(/|$)).{1,255}$";
pub(super) const RUNTIME_PATTERN: &str = "^([a-z]+@)?[0-9]+(\\.[0-9]+){0,2}$";
pub(super) const MEMORY_PATTERN: &str = "^[0-9]+ ?(B|KB|MB|GB)?$";

/// Returns the JSON Schema of `.covibes.yml`.
#[must_use]
pub fn schema() -> Schema {
    schema_for!(File)
}

/// How Covibes runs this project. Everything is optional: what is absent is detected.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = ".covibes.yml")]
pub(super) struct File {
    /// The preview, or a list of previews by name.
    #[schemars(with = "Option<Previews>")]
    pub(super) preview: Option<Spanned<Previews>>,
    /// The agents that this project wants to set up, by name.
    #[schemars(length(max = 16))]
    pub(super) agents: Option<Vec<Agent>>,
    /// Lower limits than the host gives. They can only be lowered here.
    pub(super) limits: Option<Limits>,
}

/// One preview, or several by name.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Previews {
    /// The settings of every preview.
    One(Box<Preview>),
    /// The settings of each preview; `name` is required.
    Many(#[schemars(length(max = 16))] Vec<Preview>),
    /// Neither. Kept until its place is known.
    #[schemars(skip)]
    Neither,
}

// Not an untagged enum: that would lose the line and the key of every mistake.
impl<'de> Deserialize<'de> for Previews {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Previews;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the settings of a preview, or a list of them")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Previews, E> {
                Ok(Previews::Neither)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Previews, E> {
                Ok(Previews::Neither)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Previews, E> {
                Ok(Previews::Neither)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Previews, E> {
                Ok(Previews::Neither)
            }

            fn visit_str<E>(self, _: &str) -> Result<Previews, E> {
                Ok(Previews::Neither)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Previews, A::Error> {
                let preview = Preview::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Previews::One(Box::new(preview)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Previews, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Previews::Many)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// How one preview is run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Preview {
    /// The name of the preview that this speaks for; required in a list.
    #[schemars(with = "Option<String>", regex(pattern = NAME_PATTERN))]
    pub(super) name: Option<Spanned<String>>,
    /// The directory of the app, relative to this file, such as `apps/web`.
    #[schemars(with = "Option<String>", regex(pattern = PATH_PATTERN))]
    pub(super) app: Option<Spanned<String>>,
    /// The command that installs dependencies; `""` if there is nothing to install.
    #[schemars(with = "Option<String>", length(max = 4096))]
    pub(super) install: Option<Spanned<String>>,
    /// The command that starts the dev server, run in the app's directory. It must listen on
    /// 0.0.0.0, and on `port`.
    #[schemars(with = "Option<String>", length(min = 1, max = 4096))]
    pub(super) command: Option<Spanned<String>>,
    /// The port that the dev server listens on.
    #[schemars(with = "Option<u16>", range(min = 1, max = 65535))]
    pub(super) port: Option<Spanned<u16>>,
    /// The path that answers once the dev server is ready (any status below 500), or `tcp` if it
    /// speaks no HTTP.
    #[schemars(with = "Option<String>", regex(pattern = HEALTH_PATTERN))]
    pub(super) health: Option<Spanned<String>>,
    /// Environment of the dev server. Values are taken literally; `${X}` is not replaced.
    #[schemars(with = "Option<BTreeMap<String, Scalar>>")]
    pub(super) env: Option<BTreeMap<String, Spanned<String>>>,
    /// The runtime's version, such as `22`, `node@22.12` or `python@3.12`.
    #[schemars(with = "Option<Version>")]
    pub(super) runtime: Option<Spanned<String>>,
    /// Files and directories, relative to the app, that the dev server must be able to write. They
    /// are kept apart from the repository, begin empty and outlive restarts.
    #[schemars(with = "Option<Vec<String>>", length(max = 32))]
    pub(super) writable: Option<Vec<Spanned<String>>>,
    /// `direct` runs on the read-only workspace; `mirror` on a writable copy kept in step with it,
    /// which is what frameworks get that write all over their project.
    #[schemars(with = "Option<Mode>")]
    pub(super) mode: Option<Spanned<Mode>>,
}

/// How a preview sees the workspace.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// On the read-only workspace.
    Direct,
    /// On a writable copy.
    Mirror,
}

/// One agent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    /// The agent's name.
    #[schemars(with = "String", regex(pattern = NAME_PATTERN))]
    pub(super) name: Spanned<String>,
    /// Environment of the agent. Secrets do not belong here.
    #[schemars(with = "Option<BTreeMap<String, Scalar>>")]
    pub(super) env: Option<BTreeMap<String, Spanned<String>>>,
}

/// Limits by role.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Of each agent.
    pub(super) agent: Option<RoleLimits>,
    /// Of each preview.
    pub(super) preview: Option<RoleLimits>,
}

/// Limits of one container.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleLimits {
    /// Memory, such as `512MB` (1 MB is 1024 × 1024 bytes).
    #[schemars(with = "Option<String>", regex(pattern = MEMORY_PATTERN))]
    pub(super) memory: Option<Spanned<String>>,
    /// Processors, such as `0.5`.
    #[schemars(with = "Option<f64>", range(min = 0.01, max = 64))]
    pub(super) cpu: Option<Spanned<f64>>,
}

/// A version, perhaps with its runtime.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Version {
    /// Text, such as `python@3.12`.
    Text(#[schemars(regex(pattern = RUNTIME_PATTERN))] String),
    /// A number, taken as it is written.
    Number(f64),
}

/// What YAML may hold where text is meant: `22` is as good as `"22"`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Scalar {
    /// Text.
    Text(String),
    /// A number, taken as it is written.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
}
