//! The clock, the environment and fresh ids of the in-container services.
//!
//! The only file of the shared part that asks the world for them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::SettingError;

/// Returns the present moment.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Makes an id that sorts by time.
pub fn fresh_id() -> uuid::Uuid {
    uuid::Uuid::now_v7()
}

/// Returns a number from 0 up to 1 that nobody can foresee, for pauses.
pub fn chance() -> f64 {
    let [.., a, b, c, d] = *uuid::Uuid::new_v4().as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// The variables of the process, read once; tests write their own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Reads the variables of this process; a name that is not UTF-8 is left out.
    pub fn from_process() -> Self {
        let named =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// Builds an environment from pairs.
    pub fn from_pairs<N: Into<String>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Returns a variable that is set to something.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, SettingError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(SettingError::Invalid { name, expected: "valid UTF-8" }),
            },
        }
    }

    /// Returns the first of several spellings that is set.
    pub fn first(&self, names: &[&'static str]) -> Result<Option<&str>, SettingError> {
        for name in names {
            if let Some(text) = self.text(name)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Returns a path, or `default`.
    pub fn path(&self, name: &'static str, default: &str) -> PathBuf {
        self.path_if_set(name).unwrap_or_else(|| PathBuf::from(default))
    }

    /// Returns a path that is set.
    pub fn path_if_set(&self, name: &'static str) -> Option<PathBuf> {
        self.0.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Returns the address to listen on.
    pub fn listen(&self, name: &'static str, default: &str) -> Result<SocketAddr, SettingError> {
        self.text(name)?
            .unwrap_or(default)
            .parse()
            .map_err(|_| SettingError::Invalid { name, expected: "an address like 0.0.0.0:8080" })
    }

    /// Returns a whole number within `range`, or `default`.
    pub fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
        expected: &'static str,
    ) -> Result<u64, SettingError> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or(SettingError::Invalid { name, expected })
    }

    /// Returns all variables.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &OsString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Finds a program the way `execvp` does.
    pub fn find_program(&self, program: &Path) -> Option<PathBuf> {
        if program.components().count() > 1 {
            return program.is_file().then(|| program.to_owned());
        }
        let paths = self.0.get("PATH")?;
        std::env::split_paths(paths).map(|dir| dir.join(program)).find(|path| path.is_file())
    }
}
