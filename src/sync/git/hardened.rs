//! The environment in which Git runs nothing but itself.
//!
//! Made from nothing, so that only what stands here reaches it. What the
//! repository's own configuration says of programs, filters and the remote is
//! overridden here or refused in [`super::configured`].

use std::ffi::OsString;

use tokio::process::Command;

use super::super::remote::RemoteUrl;
use super::super::settings::GitSettings;
use super::configured::Configured;
use super::{Place, Scratch};

/// Settings that win over the repository's. None may run or load anything.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.alternateRefsCommand", "true"),
    ("core.protectNTFS", "true"),
    ("core.protectHFS", "true"),
    // What was there before a move is found again.
    ("core.logAllRefUpdates", "true"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    // Not one byte: a server that counts its objects sends few, and is at work.
    ("http.lowSpeedLimit", "1"),
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    ("transfer.bundleURI", "false"),
    ("transfer.credentialsInUrl", "die"),
    ("credential.helper", ""),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    ("push.gpgSign", "false"),
    ("push.followTags", "false"),
    ("push.pushOption", ""),
    ("status.submoduleSummary", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("safe.bareRepository", "explicit"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("merge.verifySignatures", "false"),
    ("merge.autoStash", "false"),
    ("merge.renormalize", "false"),
    ("log.showSignature", "false"),
    ("worktree.guessRemote", "false"),
    // The container has 128 MB for a repository of gigabytes.
    ("pack.threads", "1"),
    ("pack.windowMemory", "16m"),
    ("pack.deltaCacheSize", "8m"),
    ("core.packedGitWindowSize", "8m"),
    ("core.packedGitLimit", "32m"),
    ("core.deltaBaseCacheLimit", "8m"),
    ("core.bigFileThreshold", "8m"),
    ("index.threads", "1"),
    ("checkout.workers", "1"),
];

/// Hands the token of the file out, to the remote's own host and to nobody else.
///
/// Git gives it to a shell, with the question's kind behind its last word and the
/// question on its stdin. Nothing is written anywhere: `store` and `erase` are not
/// answered. The worker's clones use the same file (`pipeline::steps::workspace`).
const CREDENTIAL_HELPER: &str = include_str!("credential_helper");

/// What a call adds to the environment.
#[derive(Debug, Default)]
pub(super) struct Extra<'a> {
    /// Whether the call speaks with the remote, and may show it the credentials.
    pub(super) remote: Option<&'a RemoteUrl>,
    /// More variables.
    pub(super) variables: &'a [(&'a str, OsString)],
    /// Whether it takes in what a remote sends.
    pub(super) takes_in: bool,
}

/// Git that is told when a file becomes too large, and says so; a signal would end it
/// without a word.
const TAKES_IN: [&str; 3] = ["-c", "trap '' XFSZ; exec git \"$@\"", "git"];

/// A command whose program is Git and whose arguments are still to come.
pub(super) fn command(
    settings: &GitSettings,
    place: &Place,
    configured: &Configured,
    scratch: Option<&Scratch>,
    extra: &Extra<'_>,
) -> Command {
    let mut command = match extra.takes_in {
        true => Command::new("/bin/sh"),
        false => Command::new("git"),
    };
    command
        .args(TAKES_IN.iter().filter(|_| extra.takes_in))
        .current_dir(&place.work_tree)
        .env_clear()
        .env("PATH", &settings.path)
        .envs([
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_ALLOW_PROTOCOL", settings.protocols),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("SSH_ASKPASS", "/bin/false"),
            ("GIT_EDITOR", "/bin/false"),
            ("GIT_SEQUENCE_EDITOR", "/bin/false"),
            ("GIT_PAGER", "cat"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            // A path is a path, whatever it begins with.
            ("GIT_LITERAL_PATHSPECS", "1"),
            // A promisor remote would be fetched from in the middle of a status.
            ("GIT_NO_LAZY_FETCH", "1"),
            // Agents run Git at the same time: reading must not take their locks.
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_SSH_VARIANT", "ssh"),
            ("GIT_COMMITTER_NAME", "covibes-sync"),
            ("GIT_COMMITTER_EMAIL", "sync@covibes.invalid"),
            ("GIT_AUTHOR_NAME", "covibes-sync"),
            ("GIT_AUTHOR_EMAIL", "sync@covibes.invalid"),
        ])
        .env("GIT_SSH_COMMAND", ssh_command(settings))
        // Named here so that `core.worktree` cannot name another.
        .env("GIT_DIR", &place.git_dir)
        .env("GIT_WORK_TREE", &place.work_tree)
        .envs(overrides(settings, configured, extra.remote));
    if place.git_dir != place.common_dir {
        command.env("GIT_COMMON_DIR", &place.common_dir);
    }
    if let Some(scratch) = scratch {
        command.env("GIT_INDEX_FILE", &scratch.0);
    }
    if let Some(proxy) = &settings.proxy {
        command.env("HTTPS_PROXY", &proxy.url).env("https_proxy", &proxy.url);
    }
    if let Some(bundle) = &settings.ca_bundle {
        command.env("GIT_SSL_CAINFO", bundle);
    }
    if let (Some(url), Some(file)) = (extra.remote, &settings.token_file) {
        command.env("COVIBES_GIT_TOKEN_FILE", file.as_str());
        command.env("COVIBES_TOKEN_FOR", url.scheme_and_host().unwrap_or_default());
    }
    for (name, value) in extra.variables {
        command.env(name, value);
    }
    command
}

/// Settings as variables: unlike with `-c`, a filter's name may hold any byte.
fn overrides(
    settings: &GitSettings,
    configured: &Configured,
    remote: Option<&RemoteUrl>,
) -> Vec<(OsString, OsString)> {
    let proxy = settings.proxy.as_ref().map_or("", |proxy| proxy.url.as_str());
    let stall = settings.stall.as_secs().to_string();
    let mut pairs: Vec<(String, &str)> =
        SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
    pairs.push(("http.proxy".to_owned(), proxy));
    pairs.push(("http.lowSpeedTime".to_owned(), &stall));
    for filter in &configured.filters {
        for (part, value) in [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")]
        {
            pairs.push((format!("filter.{filter}.{part}"), value));
        }
    }
    for driver in &configured.merge_drivers {
        // One that does nothing would say that "ours" is the merge.
        pairs.push((format!("merge.{driver}.driver"), "false"));
    }
    if let Some(url) = remote {
        // A setting for an address beats one for all, wherever it stands; only
        // one for the same address can be beaten by coming later.
        let ca_bundle = settings.ca_bundle.as_ref().and_then(|path| path.to_str()).unwrap_or("");
        for (key, value) in [
            ("sslVerify", "true"),
            ("sslCAInfo", ca_bundle),
            ("followRedirects", "false"),
            ("proxy", proxy),
            ("extraHeader", ""),
            ("cookieFile", ""),
            ("saveCookies", "false"),
            ("lowSpeedLimit", "1"),
            ("lowSpeedTime", &stall),
        ] {
            let is_known = key != "sslCAInfo" || !ca_bundle.is_empty();
            if url.is_http() && is_known {
                pairs.push((format!("http.{}.{key}", url.as_str()), value));
            }
        }
        if settings.token_file.is_some() {
            pairs.push(("credential.helper".to_owned(), CREDENTIAL_HELPER.trim_end()));
        }
    }
    let mut variables = vec![("GIT_CONFIG_COUNT".into(), pairs.len().to_string().into())];
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{index}").into(), key.into()));
        variables.push((format!("GIT_CONFIG_VALUE_{index}").into(), value.into()));
    }
    variables
}

/// Git gives this line to a shell; every part of it is of plain characters.
pub(super) fn ssh_command(settings: &GitSettings) -> String {
    let known_hosts = settings.known_hosts_file.as_ref().map_or("/dev/null", |path| path.as_str());
    let key = settings.key_file.as_ref().map_or("/dev/null", |path| path.as_str());
    let proxy = settings.proxy.as_ref().map_or_else(String::new, |proxy| {
        format!(" -o'ProxyCommand=nc -X connect -x {}:{} %h %p'", proxy.host, proxy.port)
    });
    format!(
        "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
         -oUserKnownHostsFile={known_hosts} -oGlobalKnownHostsFile=/dev/null \
         -oIdentitiesOnly=yes -oIdentityFile={key} -oForwardAgent=no \
         -oPermitLocalCommand=no -oConnectTimeout=10 \
         -oServerAliveInterval=10 -oServerAliveCountMax=3{proxy}"
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::super::settings::SyncSettings;
    use super::*;
    use crate::service::Environment;

    #[test]
    fn ssh_goes_through_the_proxy_with_pinned_keys() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "0123456789abcdef").unwrap();
        let settings = SyncSettings::from_environment(&Environment::from_pairs([
            ("COVIBES_TOKEN_FILE", token.as_os_str()),
            ("COVIBES_GIT_KEY_FILE", OsStr::new("/run/secrets/key")),
            ("COVIBES_KNOWN_HOSTS_FILE", OsStr::new("/etc/hosts.pinned")),
            ("HTTPS_PROXY", OsStr::new("http://172.21.0.1:3128")),
        ]))
        .unwrap();
        assert_eq!(
            ssh_command(&settings.git),
            "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
             -oUserKnownHostsFile=/etc/hosts.pinned -oGlobalKnownHostsFile=/dev/null \
             -oIdentitiesOnly=yes -oIdentityFile=/run/secrets/key -oForwardAgent=no \
             -oPermitLocalCommand=no -oConnectTimeout=10 \
             -oServerAliveInterval=10 -oServerAliveCountMax=3 \
             -o'ProxyCommand=nc -X connect -x 172.21.0.1:3128 %h %p'"
        );
    }
}
