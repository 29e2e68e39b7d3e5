//! What is wrong with a project file, and where.
//!
//! The texts are read by the file's author, so they say what to change; what they echo of the file
//! is short and free of control characters.

use std::fmt;

use thiserror::Error;

/// How much of the file's line is shown.
const LINE_CHARS_MAX: usize = 100;

/// A place in the file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// Why a project file is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProjectError {
    /// It uses anchors, aliases or merge keys.
    #[error(
        ".covibes.yml:{place}: anchors, aliases and merge keys are not allowed; write the value out"
    )]
    AliasesNotAllowed {
        /// Where.
        place: Place,
    },
    /// It is larger, deeper or longer than is read.
    #[error(".covibes.yml:{place}: {limit}")]
    Limits {
        /// Where.
        place: Place,
        /// The limit that it breaks.
        limit: &'static str,
    },
    /// It is not YAML, or a value is of the wrong kind.
    #[error(".covibes.yml:{place}: {message}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// It has a key that does not exist.
    #[error(".covibes.yml:{place}: unknown key `{key}`{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    /// A health path is none.
    #[error(
        ".covibes.yml:{place}: `health` is `tcp`, or a path such as `/healthz` of letters, digits and `. _ ~ / -`"
    )]
    InvalidHealthPath {
        /// Where.
        place: Place,
    },
    /// It sets a variable that belongs to the platform.
    #[error(
        ".covibes.yml:{place}: the variable `{name}` is set by the platform and cannot be changed"
    )]
    DeniedName {
        /// Where.
        place: Place,
        /// The variable.
        name: String,
    },
}

impl ProjectError {
    /// Returns the stable code of the failure. The fault is always the tenant's.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AliasesNotAllowed { .. } => "config.aliases_not_allowed",
            Self::Limits { .. } => "config.limits",
            Self::Invalid { .. } => "config.invalid",
            Self::UnknownKey { .. } => "config.unknown_key",
            Self::InvalidHealthPath { .. } => "config.invalid_health_path",
            Self::DeniedName { .. } => "env.denied_name",
        }
    }

    /// Shows the line of the file, marked where the mistake begins.
    #[must_use]
    pub fn excerpt(&self, bytes: &[u8]) -> Vec<String> {
        let Place { line, column } = self.place();
        let text = String::from_utf8_lossy(bytes);
        let at = usize::try_from(line).unwrap_or(usize::MAX);
        let Some(shown) = text.lines().nth(at.saturating_sub(1)) else { return Vec::new() };
        let column = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        // A long line is cut before the mistake, so that the mark still stands below it.
        let skipped = column.saturating_sub(LINE_CHARS_MAX / 2);
        let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
        let shown: String = shown.chars().skip(skipped).take(LINE_CHARS_MAX).map(plain).collect();
        let number = line.to_string();
        let (margin, indent) = (" ".repeat(number.len()), " ".repeat(column - skipped));
        vec![format!("{margin} |"), format!("{number} | {shown}"), format!("{margin} | {indent}^")]
    }

    /// Returns where in the file it is.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::AliasesNotAllowed { place }
            | Self::Limits { place, .. }
            | Self::Invalid { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::InvalidHealthPath { place }
            | Self::DeniedName { place, .. } => *place,
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}
