//! Identifiers, each with one parsing door.
//!
//! The Docker client does not escape names in request paths, so a string from a
//! message could call any endpoint. Only types from here and from `names`
//! reach it, and none of them can hold `/`, `?`, `#`, `%`, `.` or a control
//! character.

use std::fmt;

use uuid::Uuid;

use super::failure::Code;

/// A raw string that is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must match {pattern}")]
pub struct IdError {
    /// What was being parsed, for people: "team id".
    pub kind: &'static str,
    /// The pattern it must match.
    pub pattern: &'static str,
    /// The closed code that a rejected message carries.
    pub code: Code,
}

/// Lower-case letter or digit at both ends, `inner` allowed between them.
fn well_formed(raw: &str, length_max: usize, inner: &[u8]) -> bool {
    let bytes = raw.as_bytes();
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && bytes.len() <= length_max
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || inner.contains(b))
        // `--` separates preview and team in host names.
        && !raw.contains("--")
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $pattern:literal, $max:literal, $inner:literal, $code:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The pattern that every value matches; `--` is refused besides.
            pub const PATTERN: &'static str = $pattern;

            /// Parses a raw string.
            ///
            /// # Errors
            /// Refuses anything that does not match [`Self::PATTERN`] or holds `--`.
            pub fn parse(raw: &str) -> Result<Self, IdError> {
                if well_formed(raw, $max, $inner) {
                    Ok(Self(raw.to_owned()))
                } else {
                    Err(IdError { kind: $kind, pattern: $pattern, code: $code })
                }
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A team: one environment.
    TeamId,
    "team id",
    "^[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?$",
    40,
    b"_-",
    Code::MessageInvalidTeamId
);
name_type!(
    /// The name of an agent or a preview within its team. It holds no `_`, so
    /// the last `_` of a container name separates team and part.
    PartName,
    "agent or preview name",
    "^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$",
    20,
    b"-",
    Code::MessageSchema
);
name_type!(
    /// A worker's share of a Docker host. Two instances never touch each
    /// other's things.
    InstanceName,
    "instance name",
    "^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$",
    20,
    b"-",
    Code::ConfigInvalid
);
name_type!(
    /// A Docker host in the placement table.
    HostId,
    "host id",
    "^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$",
    40,
    b"-",
    Code::ConfigInvalid
);

impl InstanceName {
    /// The instance of a plain `covibes worker`: its name is left out of
    /// resource names.
    #[must_use]
    pub fn default_worker() -> Self {
        Self("main".to_owned())
    }

    /// Whether this is the instance whose name is left out of resource names.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0 == "main"
    }
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

uuid_type!(
    /// A job, named by whoever published it.
    JobId
);
uuid_type!(
    /// One execution of a job.
    RunId
);

impl JobId {
    /// Parses the hyphenated form only, so that one job has one spelling.
    ///
    /// # Errors
    /// Refuses anything that is not a lower-case hyphenated UUID.
    pub fn parse(raw: &str) -> Result<Self, IdError> {
        let error = IdError {
            kind: "job id",
            pattern: "a lower-case hyphenated UUID",
            code: Code::MessageSchema,
        };
        let id = Uuid::try_parse(raw).map_err(|_| error.clone())?;
        if id.hyphenated().to_string() == raw { Ok(Self(id)) } else { Err(error) }
    }
}

impl RunId {
    /// The first eight hexadecimal digits, enough to tell runs of one team
    /// apart in names.
    #[must_use]
    pub fn short(&self) -> String {
        // The tail: version 7 ids of one second share their head.
        let simple = self.0.simple().to_string();
        simple[simple.len() - 8..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn team_ids_follow_their_pattern() {
        for good in ["a", "0", "team_alpha", "a-b_c", &"a".repeat(40)] {
            assert!(TeamId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "-a",
            "a-",
            "_a",
            "a_",
            "../x",
            "a/b",
            "a?b",
            "a%2fb",
            "a\0b",
            "a b",
            "é",
            "аlpha",
            "a--b",
            &"a".repeat(41),
        ] {
            assert!(TeamId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn job_ids_have_one_spelling() {
        assert!(JobId::parse("0190b5a0-0000-7000-8000-000000000001").is_ok());
        assert!(JobId::parse("0190B5A0-0000-7000-8000-000000000001").is_err());
        assert!(JobId::parse("0190b5a00000700080000000000000001").is_err());
        assert!(JobId::parse("{0190b5a0-0000-7000-8000-000000000001}").is_err());
    }
}
