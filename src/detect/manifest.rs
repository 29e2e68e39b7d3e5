//! `package.json`, read leniently: a wrong part is left out, the rest still counts.
//!
//! Dependencies of both groups are one map of exact names, because frameworks stand in either.

use std::collections::BTreeMap;

use serde_json::Value;

use super::look::Look;
use super::tree::{TreeError, join};
use super::{json5, nx};

/// The names under which a manifest may lie; pnpm reads the second too.
pub(crate) const NAMES: [&str; 2] = ["package.json", "package.json5"];

/// The parts of a `package.json` that say something about how it is run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    /// The file itself, below the workspace.
    pub(crate) file: String,
    pub(crate) name: Option<String>,
    pub(crate) main: Option<String>,
    /// Files of `bin`.
    pub(crate) bin: Vec<String>,
    pub(crate) scripts: BTreeMap<String, String>,
    /// Both groups; a production dependency wins over the same name in the other.
    pub(crate) dependencies: BTreeMap<String, String>,
    pub(crate) package_manager: Option<String>,
    pub(crate) engines: BTreeMap<String, String>,
    pub(crate) volta_node: Option<String>,
    /// Names and versions of `devEngines.packageManager`.
    pub(crate) dev_package_managers: Vec<(String, Option<String>)>,
    /// Names and versions of `devEngines.runtime`.
    pub(crate) dev_runtimes: Vec<(String, Option<String>)>,
    /// Workspace globs, if it declares a workspace.
    pub(crate) workspaces: Option<Vec<String>>,
    /// `config.port`, which scripts write as `$npm_package_config_port`.
    pub(crate) config_port: Option<u16>,
    /// How Nx runs it, if it is a project without a manifest of its own.
    pub(crate) nx: Option<nx::Run>,
}

impl Manifest {
    /// Reads the `package.json` of a directory; a broken one counts as one that says nothing.
    ///
    /// # Errors
    /// The tree's refusal, because this file says what the project is.
    pub(crate) fn read(look: &Look<'_>, dir: &str) -> Result<Option<Self>, TreeError> {
        let file = match look.first(dir, &NAMES) {
            Some(name) => join(dir, name),
            // Asks the tree all the same: it says why a link is refused.
            None => join(dir, NAMES[0]),
        };
        let Some(text) = look.manifest(&file)? else { return Ok(None) };
        let value = value(look, &file, &text);
        let mut dependencies = texts(&value["devDependencies"]);
        dependencies.extend(texts(&value["dependencies"]));
        Ok(Some(Self {
            file,
            name: text_of(&value["name"]),
            main: text_of(&value["main"]),
            bin: match &value["bin"] {
                Value::String(file) => vec![file.clone()],
                several => texts(several).into_values().collect(),
            },
            scripts: runnable(texts(&value["scripts"])),
            dependencies,
            package_manager: text_of(&value["packageManager"]),
            engines: texts(&value["engines"]),
            volta_node: text_of(&value["volta"]["node"]),
            dev_package_managers: tools(&value["devEngines"]["packageManager"]),
            dev_runtimes: tools(&value["devEngines"]["runtime"]),
            workspaces: globs(&value["workspaces"]),
            config_port: match &value["config"]["port"] {
                Value::String(port) => port.parse().ok(),
                port => port.as_u64().and_then(|port| port.try_into().ok()),
            },
            nx: None,
        }))
    }

    /// Reads a `package.json` that only refines an answer, such as a parent directory's.
    pub(crate) fn read_hint(look: &Look<'_>, dir: &str) -> Option<Self> {
        match Self::read(look, dir) {
            Ok(manifest) => manifest,
            Err(error) => {
                look.warn(format!("{error}; it was set aside"));
                None
            }
        }
    }

    pub(crate) fn depends(&self, name: &str) -> bool {
        self.dependencies.contains_key(name)
    }

    /// Puts the manifest's own settings into a script.
    pub(crate) fn with_settings(&self, script: &str) -> String {
        let Some(port) = self.config_port else { return script.to_owned() };
        ["$npm_package_config_port", "${npm_package_config_port}", "%npm_package_config_port%"]
            .iter()
            .fold(script.to_owned(), |text, name| text.replace(name, &port.to_string()))
    }

    /// Returns the major and minor version that a dependency asks for: the first numbers of its
    /// range.
    pub(crate) fn asks_for(&self, name: &str) -> Option<(u64, u64)> {
        let range = self.dependencies.get(name)?;
        // An alias puts the version last: `npm:nuxt-nightly@3`.
        let range = match range.strip_prefix("npm:") {
            Some(alias) => alias.rsplit_once('@')?.1,
            None => range,
        };
        let digits = range.trim_start_matches(|letter| "^~>=<v ".contains(letter));
        let mut parts = digits.split(['.', '-', ' ']);
        let major = parts.next()?.parse().ok()?;
        // `1.x` and `1` leave the newest open.
        let minor = parts.next().and_then(|part| part.parse().ok()).unwrap_or(u64::MAX);
        Some((major, minor))
    }
}

/// Reads a manifest as npm does, or else as people write it; a broken one says nothing.
fn value(look: &Look<'_>, file: &str, text: &str) -> Value {
    let strict = serde_json::from_str::<Value>(text.trim_start_matches('\u{FEFF}'));
    let Err(error) = strict else { return strict.unwrap_or_default() };
    match json5::parse(text) {
        Ok(value) if file.ends_with('5') => value,
        Ok(value) => {
            look.warn(format!(
                "{file} is JSON with comments or trailing commas (line {}, column {}), which npm \
                 refuses; it was read all the same",
                error.line(),
                error.column()
            ));
            value
        }
        Err(wrong) => {
            look.warn(format!(
                "{file} is not valid JSON (line {}, column {}); what it says was left out",
                wrong.line, wrong.column
            ));
            Value::Null
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Scripts whose names can stand in a command: no shell and no log is given the others.
fn runnable(mut scripts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    scripts.retain(|name, _| !name.chars().any(char::is_control));
    scripts
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), text_of(value)?))).collect()
}

/// `devEngines` takes one tool or a list of them.
fn tools(value: &Value) -> Vec<(String, Option<String>)> {
    let one = std::slice::from_ref(value);
    let tools = value.as_array().map_or(one, Vec::as_slice);
    tools
        .iter()
        .filter_map(|tool| Some((text_of(&tool["name"])?, text_of(&tool["version"]))))
        .collect()
}

/// `workspaces` is a list of globs, or an object that holds it.
fn globs(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array().or_else(|| value["packages"].as_array())?;
    Some(list.iter().filter_map(text_of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tree::MemoryTree;

    fn check(text: &str) -> (Manifest, Vec<String>) {
        let tree = MemoryTree::new([("package.json", text.to_owned())]);
        let look = Look::new(&tree);
        let manifest = Manifest::read(&look, ".").unwrap().unwrap();
        (manifest, look.warnings())
    }

    #[test]
    fn both_groups_count_by_exact_name() {
        let (manifest, _) = check(
            r#"{"dependencies":{"next-auth":"4"},"devDependencies":{"vite":"^5.1.0","x":7}}"#,
        );
        assert!(manifest.depends("vite") && !manifest.depends("next") && !manifest.depends("x"));
        assert_eq!(manifest.asks_for("vite"), Some((5, 1)));
    }

    #[test]
    fn aliases_and_words_have_a_major_version_or_none() {
        let (manifest, _) = check(
            r#"{"dependencies":{"nuxt":"npm:nuxt-nightly@4.1.0","a":"latest","b":"workspace:*",
                "c":">= 3"}}"#,
        );
        assert_eq!(manifest.asks_for("nuxt"), Some((4, 1)));
        assert_eq!(manifest.asks_for("a"), None);
        assert_eq!(manifest.asks_for("b"), None);
        assert_eq!(manifest.asks_for("c"), Some((3, u64::MAX)));
    }

    #[test]
    fn what_npm_refuses_is_still_read_and_said() {
        let (manifest, warnings) = check("// mine\n{\"name\": \"x\",}");
        assert_eq!(manifest.name.as_deref(), Some("x"));
        assert!(warnings[0].contains("comments or trailing commas (line 1, column 1)"));
        let tree = MemoryTree::new([("package.json5", "{name: 'y'} // fine")]);
        let look = Look::new(&tree);
        assert_eq!(Manifest::read(&look, ".").unwrap().unwrap().name.as_deref(), Some("y"));
        assert_eq!(look.warnings(), [""; 0]);
    }

    #[test]
    fn a_broken_file_is_named_with_its_place_and_says_nothing() {
        let (manifest, warnings) = check("{\n  oops");
        assert!(manifest.dependencies.is_empty());
        assert!(warnings[0].contains("package.json is not valid JSON (line 2, column 7)"));
    }
}
