//! The CLI's keys: from files into its environment, and out of its output.

use std::fmt;
use std::io;
use std::path::Path;

/// A key is at most a few kilobytes; a bigger file is a mistake.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Shorter values would be found in every text.
const REDACTED_BYTES_MIN: usize = 8;

/// Names and values for one task; never printed.
#[derive(Default)]
pub(super) struct Secrets(Vec<(String, String)>);

/// Each of these lets the CLI in.
const KEYS: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];

/// The secret files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret {name}")]
pub(super) struct SecretError {
    name: String,
    source: io::Error,
}

impl Secrets {
    /// Reads every file whose name can be a variable's; a missing directory holds none.
    pub(super) fn read(dir: &Path) -> Result<Self, SecretError> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(SecretError { name: "directory".to_owned(), source }),
        };
        let mut secrets = Vec::new();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if is_variable(&name) && path.is_file() {
                let value = read_value(&path)
                    .map_err(|source| SecretError { name: name.clone(), source })?;
                secrets.push((name, value));
            }
        }
        Ok(Self(secrets))
    }

    /// Whether one of them lets the CLI in.
    pub(super) fn hold_a_key(&self) -> bool {
        self.0.iter().any(|(name, _)| KEYS.contains(&name.as_str()))
    }

    /// Returns the variables for the CLI.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Replaces every value in a text that leaves the service.
    pub(super) fn redact(&self, text: String) -> String {
        self.0.iter().filter(|(_, value)| value.len() >= REDACTED_BYTES_MIN).fold(
            text,
            |text, (name, value)| {
                let text = replace(text, value, name);
                // Inside JSON a value may be written with escapes.
                match serde_json::to_string(value) {
                    Ok(quoted) if quoted.len() != value.len() + 2 => {
                        replace(text, &quoted[1..quoted.len() - 1], name)
                    }
                    Ok(_) | Err(_) => text,
                }
            },
        )
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secrets({} values)", self.0.len())
    }
}

fn replace(text: String, value: &str, name: &str) -> String {
    if text.contains(value) { text.replace(value, &format!("[secret {name}]")) } else { text }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn read_value(path: &Path) -> io::Result<String> {
    if path.metadata()?.len() > SECRET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 KiB"));
    }
    let text = std::fs::read_to_string(path)?;
    let value = text.trim_end_matches(['\n', '\r']);
    if value.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a NUL byte"));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_name_and_taken_out_of_texts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in
            [("API_KEY", "canary-\"1\"\n"), ("1X", "no"), ("..data", "no"), ("SHORT", "abc")]
        {
            std::fs::write(dir.path().join(name), value).unwrap();
        }
        let secrets = Secrets::read(dir.path()).unwrap();
        let mut variables: Vec<_> = secrets.variables().collect();
        variables.sort_unstable();
        assert_eq!(variables, [("API_KEY", "canary-\"1\""), ("SHORT", "abc")]);
        let text = secrets.redact(r#"{"a":"canary-\"1\"","b":"abc"} canary-"1""#.to_owned());
        assert_eq!(text, r#"{"a":"[secret API_KEY]","b":"abc"} [secret API_KEY]"#);
        assert_eq!(format!("{secrets:?}"), "Secrets(2 values)");
    }

    #[test]
    fn no_directory_means_no_secrets() {
        assert_eq!(Secrets::read(Path::new("/nonexistent")).unwrap().variables().count(), 0);
    }
}
