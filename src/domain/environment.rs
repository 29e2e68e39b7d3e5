//! Which environment variables a job or a project file may set.
//!
//! Everybody who takes variables from outside asks here. Refused are names that would change how
//! a program is loaded, where it is found, whom it trusts, or how it reaches the network, because
//! those belong to the platform; and values with control characters, which Docker itself accepts.

use thiserror::Error;

/// Longest name and value; together far below the kernel's limit on one argument (128 KiB).
const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Names that are refused, in upper case; lower case is refused with them.
const DENIED_NAMES: [&str; 29] = [
    "PATH",
    "HOME",
    "USER",
    "SHELL",
    "IFS",
    "ENV",
    "BASH_ENV",
    "NODE_OPTIONS",
    "NODE_EXTRA_CA_CERTS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "RUBYOPT",
    "PERL5OPT",
    "JAVA_TOOL_OPTIONS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "VIRTUAL_ENV",
];

/// Families of names that are refused.
const DENIED_PREFIXES: [&str; 7] =
    ["LD_", "DYLD_", "GIT_", "SSH_", "DOCKER_", "CLAUDE_", "COVIBES_"];

/// Why a variable is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EnvironmentError {
    /// The name belongs to the platform.
    #[error("the variable is set by the platform and cannot be changed")]
    DeniedName,
    /// The name is none that a shell would take.
    #[error("a variable's name is letters, digits and `_`, and begins with no digit")]
    InvalidName,
    /// The value holds a control character or is too long.
    #[error("a variable's value has no control characters and at most 8 KiB")]
    InvalidValue,
}

/// Checks one variable.
///
/// # Errors
/// Says which rule refuses it.
pub fn check(name: &str, value: &str) -> Result<(), EnvironmentError> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let begins = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    if !begins || name.len() > NAME_BYTES_MAX || !name.chars().all(word) {
        return Err(EnvironmentError::InvalidName);
    }
    let upper = name.to_ascii_uppercase();
    let family = DENIED_PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
    if family || DENIED_NAMES.contains(&upper.as_str()) {
        return Err(EnvironmentError::DeniedName);
    }
    if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(EnvironmentError::InvalidValue);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{EnvironmentError, check};

    #[test]
    fn the_platforms_names_are_refused() {
        for name in [
            "LD_PRELOAD",
            "PATH",
            "NODE_OPTIONS",
            "GIT_SSH_COMMAND",
            "DOCKER_HOST",
            "ANTHROPIC_BASE_URL",
            "HTTP_PROXY",
            "http_proxy",
            "COVIBES_TEAM",
        ] {
            assert_eq!(check(name, "x"), Err(EnvironmentError::DeniedName), "{name}");
        }
    }

    #[test]
    fn names_and_values_are_plain() {
        assert_eq!(check("DATABASE_URL", "postgres://db/x?a=b"), Ok(()));
        for name in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\0"] {
            assert_eq!(check(name, "x"), Err(EnvironmentError::InvalidName), "{name:?}");
        }
        for value in ["a\nb", "a\0", "\u{1b}[31m", "\u{85}"] {
            assert_eq!(check("A", value), Err(EnvironmentError::InvalidValue), "{value:?}");
        }
    }
}
