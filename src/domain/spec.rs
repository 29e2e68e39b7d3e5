//! What a start job asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::environment::{self, EnvironmentError};
use super::failure::{Code, Failure};
use super::ids::PartName;
use super::limits;

/// Where the team's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceSource {
    /// A Git repository, cloned and kept in step.
    Git(GitSource),
    /// A workspace directory that is already there, or an empty one.
    Local,
}

/// A repository and what to check out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// An https or ssh URL, checked by [`crate::domain::spec::check_git_url`].
    pub url: String,
    /// A branch or tag; the remote's default branch if absent.
    pub reference: Option<String>,
    /// A reference to a key or token file, never a value.
    pub credentials: Option<SecretRef>,
}

impl GitSource {
    /// Whether the credentials are a token for HTTPS. What is called `ssh:` is a key,
    /// wherever the repository is: agents may use it for others.
    #[must_use]
    pub fn has_token(&self) -> bool {
        let is_key = |reference: &SecretRef| reference.relative_path().starts_with("ssh/");
        self.url.starts_with("https://") && self.credentials.as_ref().is_some_and(|r| !is_key(r))
    }
}

/// Names a file below the worker's secret directory: `kind:name` or
/// `folder/name`, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef(String);

impl SecretRef {
    /// Parses a reference.
    ///
    /// # Errors
    /// Refuses anything that could leave the secret directory.
    pub fn parse(raw: &str) -> Result<Self, Failure> {
        let ok = !raw.is_empty()
            && raw.len() <= 100
            && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/:".contains(&b))
            && raw.split(['/', ':']).all(|part| !part.is_empty() && !part.starts_with('.'));
        if ok {
            Ok(Self(raw.to_owned()))
        } else {
            Err(Failure::new(Code::MessageSchema, "a secret reference looks like folder/name"))
        }
    }

    /// The reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below the secret directory.
    #[must_use]
    pub fn relative_path(&self) -> String {
        self.0.replace(':', "/")
    }
}

/// One agent container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its name within the team.
    pub name: PartName,
    /// Environment variable of the CLI to secret.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Plain environment of the CLI.
    pub env: BTreeMap<String, String>,
    /// Wanted limits, downwards only.
    pub limits: LimitsWish,
    /// A first task.
    pub prompt: Option<String>,
}

/// Limits that a spec or project file may lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsWish {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
}

impl LimitsWish {
    /// `limits` with every wish that is lower; a higher one changes nothing.
    #[must_use]
    pub fn lower(self, mut limits: limits::Limits) -> limits::Limits {
        // 64 MiB and a hundredth of a CPU are the least with which a runtime starts.
        if let Some(bytes) = self.memory_bytes {
            limits.memory_bytes = limits.memory_bytes.min(bytes.max(64 << 20));
            limits.memory_reserved_bytes = limits.memory_reserved_bytes.min(limits.memory_bytes);
        }
        if let Some(millis) = self.cpu_millis {
            limits.cpu_millis = limits.cpu_millis.min(millis.max(10));
            limits.cpu_reserved_millis = limits.cpu_reserved_millis.min(limits.cpu_millis);
        }
        limits
    }
}

/// One preview container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewSpec {
    /// Its name within the team.
    pub name: PartName,
    /// The branch it shows; the workspace's own if absent.
    pub branch: Option<String>,
    /// When it ends by itself.
    pub ttl: Option<Duration>,
}

/// What a start job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Where the files come from.
    pub workspace: WorkspaceSource,
    /// Agents, distinct by name.
    pub agents: Vec<AgentSpec>,
    /// Previews, distinct by name.
    pub previews: Vec<PreviewSpec>,
    /// How often the sync service fetches.
    pub sync_interval: Duration,
    /// When the team stops by itself.
    pub ttl: Option<Duration>,
    /// After how long without activity the team stops.
    pub idle_stop: Option<Duration>,
}

/// The sync interval of a spec that names none (DESIGN 7).
pub const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);

impl Spec {
    /// Checks what types alone do not: counts and distinct names.
    ///
    /// # Errors
    /// Names the first rule that the spec breaks.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |message: &str| Err(Failure::new(Code::MessageSchema, message));
        if self.agents.len() > limits::AGENTS_MAX {
            return refuse("a team has at most 16 agents");
        }
        if self.previews.len() > limits::PREVIEWS_MAX {
            return refuse("a team has at most 16 previews");
        }
        let mut names: Vec<_> = self.agents.iter().map(|a| &a.name).collect();
        names.sort();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return refuse("two agents have the same name");
        }
        let mut names: Vec<_> = self.previews.iter().map(|p| &p.name).collect();
        names.sort();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return refuse("two previews have the same name");
        }
        for agent in &self.agents {
            for (name, value) in &agent.env {
                check_env(name, value)?;
            }
            for name in agent.secrets.keys() {
                check_secret_name(name)?;
            }
        }
        for branch in self.previews.iter().filter_map(|p| p.branch.as_deref()) {
            check_git_ref(branch)?;
        }
        if let WorkspaceSource::Git(git) = &self.workspace {
            check_git_url(&git.url)?;
            if let Some(reference) = &git.reference {
                check_git_ref(reference)?;
            }
        }
        Ok(())
    }
}

/// Checks one environment variable that comes from outside.
///
/// # Errors
/// `env.denied_name` for names that steer the platform's own tools,
/// `message.schema` for malformed ones and for control characters in values.
pub fn check_env(name: &str, value: &str) -> Result<(), Failure> {
    environment::check(name, value).map_err(|error| match error {
        EnvironmentError::DeniedName => {
            Failure::new(Code::EnvDeniedName, format!("{name} may not be set"))
        }
        EnvironmentError::InvalidName => {
            Failure::new(Code::MessageSchema, "an environment variable's name is malformed")
        }
        EnvironmentError::InvalidValue => Failure::new(
            Code::MessageSchema,
            format!("the value of {name} holds a control character or is too long"),
        ),
    })
}

/// Variables of the CLI that may only come from a secret.
const SECRET_NAMES: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"];

/// Checks the name of a variable whose value is a secret.
///
/// # Errors
/// As [`check_env`], but for the CLI's own keys.
pub fn check_secret_name(name: &str) -> Result<(), Failure> {
    if SECRET_NAMES.contains(&name) { Ok(()) } else { check_env(name, "") }
}

/// Checks a branch or tag by the rules of `git check-ref-format --branch`.
///
/// # Errors
/// `git.invalid_ref`.
pub fn check_git_ref(reference: &str) -> Result<(), Failure> {
    let bad = reference.is_empty()
        || reference.len() > 200
        || reference.starts_with(['-', '/', '.'])
        || reference.ends_with(['/', '.'])
        || reference.ends_with(".lock")
        || reference == "@"
        || reference.contains("..")
        || reference.contains("//")
        || reference.contains("@{")
        || reference.contains("/.")
        || reference.contains(".lock/")
        || reference.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c));
    if bad {
        return Err(Failure::new(Code::GitInvalidRef, "the branch or tag is not a valid Git name"));
    }
    Ok(())
}

/// Checks a repository URL's form: scheme, host, no credentials, no options.
/// Whether the host may be reached is host policy and is checked at the clone.
///
/// # Errors
/// `git.scheme_denied`, `git.invalid_url` or `git.credentials_in_url`.
pub fn check_git_url(raw: &str) -> Result<url::Url, Failure> {
    let invalid = |why: &str| Failure::new(Code::GitInvalidUrl, why);
    if raw.len() > 2000 || raw.starts_with('-') || raw.chars().any(|c| c.is_control() || c == ' ') {
        return Err(invalid("the repository URL is malformed"));
    }
    // `git@host:path` is read strictly as ssh://git@host/path.
    let url = match url::Url::parse(raw) {
        Ok(url) => url,
        Err(_) => match raw.split_once(':') {
            Some((host, path))
                if host.contains('@') && !host.contains('/') && !path.starts_with("//") =>
            {
                url::Url::parse(&format!("ssh://{host}/{path}"))
                    .map_err(|_| invalid("the repository URL is malformed"))?
            }
            _ => return Err(invalid("the repository URL is malformed")),
        },
    };
    match url.scheme() {
        "https" => {
            if !url.username().is_empty() || url.password().is_some() {
                return Err(Failure::new(
                    Code::GitCredentialsInUrl,
                    "the repository URL holds credentials",
                ));
            }
        }
        "ssh" => {
            if url.password().is_some() {
                return Err(Failure::new(
                    Code::GitCredentialsInUrl,
                    "the repository URL holds credentials",
                ));
            }
            if url.username().starts_with('-') {
                return Err(invalid("the repository URL is malformed"));
            }
        }
        _ => return Err(Failure::new(Code::GitSchemeDenied, "only https and ssh are allowed")),
    }
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() || host.starts_with('-') || raw.contains("%0a") || raw.contains("%0d") {
        return Err(invalid("the repository URL is malformed"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_and_ssh_urls_pass() {
        for good in
            ["https://host.example/a/b.git", "ssh://git@host.example/a", "git@host.example:a/b"]
        {
            assert!(check_git_url(good).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("ext::sh -c x", Code::GitInvalidUrl),
            ("file:///etc", Code::GitSchemeDenied),
            ("http://host.example/a", Code::GitSchemeDenied),
            ("--upload-pack=x", Code::GitInvalidUrl),
            ("https://user:pw@host.example/a", Code::GitCredentialsInUrl),
            ("ssh://-oProxyCommand=x/a", Code::GitInvalidUrl),
            ("https://host.example/%0a", Code::GitInvalidUrl),
        ] {
            assert_eq!(check_git_url(bad).unwrap_err().code, code, "{bad}");
        }
    }

    #[test]
    fn references_that_git_would_read_as_options_or_ranges_are_refused() {
        for good in ["main", "feature/x-1", "v1.2.3"] {
            assert!(check_git_ref(good).is_ok(), "{good}");
        }
        for bad in ["-x", "a..b", "@{-1}", "a b", "", "a~1", "x.lock", "/a", "a\n"] {
            assert!(check_git_ref(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variables_that_steer_the_platform_are_denied() {
        for name in ["LD_PRELOAD", "PATH", "node_options", "GIT_SSH_COMMAND", "COVIBES_TOKEN"] {
            assert_eq!(check_env(name, "x").unwrap_err().code, Code::EnvDeniedName, "{name}");
        }
        assert_eq!(check_env("A", "x\ny").unwrap_err().code, Code::MessageSchema);
        assert!(check_env("DATABASE_URL", "postgres://x").is_ok());
    }

    #[test]
    fn a_token_is_what_is_no_key_of_an_https_repository() {
        let has_token = |url: &str, reference: Option<&str>| {
            let credentials = reference.map(|raw| SecretRef::parse(raw).unwrap());
            GitSource { url: url.to_owned(), reference: None, credentials }.has_token()
        };
        assert!(has_token("https://a.example/x", Some("https:team")));
        assert!(has_token("https://a.example/x", Some("tokens/team")));
        assert!(!has_token("https://a.example/x", Some("ssh:team")));
        assert!(!has_token("ssh://git@a.example/x", Some("keys/team")));
        assert!(!has_token("https://a.example/x", None));
    }

    #[test]
    fn wishes_only_lower() {
        let wish = LimitsWish { memory_bytes: Some(u64::MAX), cpu_millis: Some(100) };
        let limits = wish.lower(limits::PREVIEW);
        assert_eq!(limits.memory_bytes, limits::PREVIEW.memory_bytes);
        assert_eq!(limits.cpu_millis, 100);
    }
}
