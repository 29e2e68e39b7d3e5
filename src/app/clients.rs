//! Where this host's own package managers go, for the groups of the egress proxy
//! whose clients no image of ours has: Cargo and apt. Nothing is named here; what
//! the clients are configured for, and have used, says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The hosts of the groups `crates` and `debian`.
#[must_use]
pub fn hosts() -> BTreeMap<String, BTreeSet<String>> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    BTreeMap::from([
        ("crates".to_owned(), crates(&cargo)),
        ("debian".to_owned(), debian(Path::new("/etc/apt"))),
    ])
}

/// Registries of Cargo's configuration, and what its indexes say that they serve.
fn crates(cargo: &Path) -> BTreeSet<String> {
    let read = |name: &str| std::fs::read_to_string(cargo.join(name)).unwrap_or_default();
    let mut hosts = in_text(&(read("config.toml") + &read("config")));
    for index in entries(&cargo.join("registry/index")) {
        // `host-1234`, and inside what it is told to load crates from.
        let name = index.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        hosts.extend(name.rsplit_once('-').and_then(|(host, _)| plain(host)));
        let config = std::fs::read_to_string(index.join("config.json")).unwrap_or_default();
        hosts.extend(in_text(&config));
    }
    hosts
}

/// Sources of apt.
fn debian(apt: &Path) -> BTreeSet<String> {
    let mut files = vec![apt.join("sources.list")];
    files.extend(entries(&apt.join("sources.list.d")));
    let text: String = files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    in_text(&lines.collect::<Vec<_>>().join("\n"))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The hosts of all addresses in a text.
fn in_text(text: &str) -> BTreeSet<String> {
    let parts = text.split("://").skip(1);
    let hosts = parts.filter_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".-_@:".contains(c)));
        let authority = &rest[..end.unwrap_or(rest.len())];
        let host = authority.rsplit('@').next()?;
        plain(host.split(':').next()?)
    });
    hosts.collect()
}

fn plain(host: &str) -> Option<String> {
    let is_name =
        host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    is_name.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_the_clients_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("config.toml", "[source.m]\nregistry = \"sparse+https://mirror.example:8443/i/\"\n");
        write("registry/index/index.example-1a2b/config.json", "{\"dl\":\"https://dl.example/c\"}");
        write(
            "sources.list",
            "# deb http://old.example/ x\ndeb [a=b] http://deb.example/debian x\n",
        );
        write("sources.list.d/own.sources", "URIs: https://user:word@sec.example/\n");
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(crates(dir.path()), names(&["mirror.example", "index.example", "dl.example"]));
        assert_eq!(debian(dir.path()), names(&["deb.example", "sec.example"]));
        assert_eq!(crates(Path::new("/nonexistent")), names(&[]));
    }
}
