//! Package managers: in the project's own version, and at home in a read-only workspace.
//!
//! npm and Python's tools are in the images. The others come with each install, because a
//! lockfile is only good for the versions that know its format, and projects pin them: into the
//! modules themselves, so that both are swapped in together and the dev server finds the same
//! program without a network.

use crate::domain::findings::{Findings, PackageManager};

/// Their place among the modules; a name that no package has.
const PLACE: &str = ".covibes";

/// Where they are during an install: some tidy away whatever they do not know among the modules.
const INSTALL_PLACE: &str = "/tmp/covibes";

/// Where the caches of all tools are.
const CACHE: &str = "/app/.cache";

/// The package that brings a manager, and its version where the project leaves it open.
fn package(manager: PackageManager) -> Option<(&'static str, &'static str)> {
    match manager {
        // The newest that runs on every Node on offer and reads the lockfiles of its successors.
        PackageManager::Pnpm => Some(("pnpm", "10")),
        PackageManager::Yarn1 => Some(("yarn", "1")),
        PackageManager::YarnBerry => Some(("@yarnpkg/cli-dist", "4")),
        PackageManager::Bun => Some(("bun", "1")),
        _ => None,
    }
}

/// The install with the project's package manager fetched before and kept behind it.
pub(super) fn install(findings: &Findings, modules: &str, wanted: &str) -> String {
    let Some((name, default)) = package(findings.package_manager) else {
        return wanted.to_owned();
    };
    let version = findings.manager_version.as_deref().unwrap_or(default);
    // Only npm's own configuration names the registry of this host; the others are told.
    let mut lines = vec![
        "registry=$(npm config get registry)".to_owned(),
        format!(
            "npm install --global --prefix {INSTALL_PLACE} --no-audit --no-fund \
             --loglevel error {name}@{version}"
        ),
        format!("PATH={INSTALL_PLACE}/bin:$PATH"),
    ];
    if findings.package_manager == PackageManager::Yarn1 {
        // Its lockfile names the registry of whoever wrote it. The file lies in an overlay.
        lines.push("theirs=$(yarn config get registry)".to_owned());
        lines.push("sed -i \"s#${theirs%/}/#${registry%/}/#\" yarn.lock".to_owned());
        // It fetches and unpacks the binaries of every platform: more than a preview's cache may
        // hold, for a Vite of today. So they go with the overlay.
        lines.push("export YARN_CACHE_FOLDER=/workspace/.covibes-downloads".to_owned());
    }
    lines.push(
        "export npm_config_registry=\"$registry\" YARN_REGISTRY=\"$registry\" \
         YARN_NPM_REGISTRY_SERVER=\"$registry\" YARN_HTTP_PROXY=\"$http_proxy\" \
         YARN_HTTPS_PROXY=\"$https_proxy\""
            .to_owned(),
    );
    // A failure inside an `&&` would otherwise not be the end.
    lines.push(format!("(\n{wanted}\n)"));
    lines.push(format!("mkdir -p {modules}/{PLACE}"));
    lines.push(format!("cp -a {INSTALL_PLACE}/. {modules}/{PLACE}"));
    lines.join("; ")
}

/// What the project's package manager reads, at install and at run time alike.
pub(super) fn env(findings: &Findings, modules: &str, venv: &str) -> Vec<(&'static str, String)> {
    let mut env = Vec::new();
    if package(findings.package_manager).is_some() {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        env.push(("PATH", format!("{modules}/{PLACE}/bin:{path}")));
    }
    let more = match findings.package_manager {
        PackageManager::Pnpm => vec![
            ("npm_config_store_dir", format!("{CACHE}/pnpm")),
            ("pnpm_config_store_dir", format!("{CACHE}/pnpm")),
            // It is the project's version already.
            ("npm_config_manage_package_manager_versions", "false".to_owned()),
            ("pnpm_config_manage_package_manager_versions", "false".to_owned()),
        ],
        PackageManager::YarnBerry => vec![
            // Plug'n'Play writes beside the manifest, which nobody may here.
            ("YARN_NODE_LINKER", "node-modules".to_owned()),
            ("YARN_INSTALL_STATE_PATH", format!("{modules}/{PLACE}/install-state.gz")),
            ("YARN_GLOBAL_FOLDER", format!("{CACHE}/yarn-berry")),
            ("YARN_ENABLE_GLOBAL_CACHE", "true".to_owned()),
            ("YARN_ENABLE_TELEMETRY", "false".to_owned()),
        ],
        PackageManager::Bun => vec![("BUN_INSTALL_CACHE_DIR", format!("{CACHE}/bun"))],
        PackageManager::Uv => vec![
            ("UV_PROJECT_ENVIRONMENT", venv.to_owned()),
            ("UV_CACHE_DIR", format!("{CACHE}/uv")),
            // The cache is on another mount than the environment.
            ("UV_LINK_MODE", "copy".to_owned()),
            // The image's Python is the one that was chosen.
            ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
        ],
        PackageManager::Poetry => vec![("POETRY_CACHE_DIR", format!("{CACHE}/poetry"))],
        PackageManager::Pipenv => vec![
            ("PIPENV_CACHE_DIR", format!("{CACHE}/pipenv")),
            ("PIPENV_VERBOSITY", "-1".to_owned()),
        ],
        PackageManager::Pdm => vec![
            ("PDM_CACHE_DIR", format!("{CACHE}/pdm")),
            ("PDM_CHECK_UPDATE", "false".to_owned()),
            ("PDM_IGNORE_SAVED_PYTHON", "true".to_owned()),
        ],
        _ => Vec::new(),
    };
    env.extend(more);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manager: PackageManager, version: Option<&str>) -> String {
        let mut findings = Findings::blank(".");
        findings.package_manager = manager;
        findings.manager_version = version.map(str::to_owned);
        let shell = install(&findings, "/workspace/node_modules", "wanted");
        assert!(shell.contains("wanted"), "{shell}");
        let words = shell.split([' ', ';']).filter(|word| word.contains('@'));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_manager_comes_in_the_version_of_the_project() {
        assert_eq!(check(PackageManager::Pnpm, Some("9.15.0")), "pnpm@9.15.0");
        assert_eq!(check(PackageManager::Pnpm, None), "pnpm@10");
        assert_eq!(check(PackageManager::YarnBerry, Some("4.1.0")), "@yarnpkg/cli-dist@4.1.0");
        assert_eq!(check(PackageManager::Yarn1, None), "yarn@1");
        assert_eq!(check(PackageManager::Bun, Some("1.2")), "bun@1.2");
        assert_eq!(check(PackageManager::Npm, Some("11")), "");
        assert_eq!(check(PackageManager::Poetry, None), "");
    }
}
