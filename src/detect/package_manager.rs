//! Which JavaScript package manager a project uses, who says so, and how it is called.
//!
//! The precedence is that of `reference/detection.md` 3: what a person wrote down, then the
//! nearest lockfile upward, then traces of a tool, then npm.

use crate::domain::findings::PackageManager::{self, Bun, Deno, Npm, Pnpm, Yarn1, YarnBerry};

use super::look::Look;
use super::manifest::Manifest;
use super::tree::{join, parent};
use super::workspaces;

/// Lockfiles in the order in which they win within one directory. Bun before Yarn, because Bun
/// can also write a `yarn.lock`.
const LOCKFILES: [(&str, Lock); 6] = [
    ("pnpm-lock.yaml", Lock::Pnpm),
    ("bun.lock", Lock::Bun),
    ("bun.lockb", Lock::Bun),
    ("yarn.lock", Lock::Yarn),
    ("package-lock.json", Lock::Npm),
    ("npm-shrinkwrap.json", Lock::Npm),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Pnpm,
    Bun,
    Yarn,
    Npm,
}

/// The decided package manager of an app.
pub(crate) struct Choice {
    pub(crate) manager: PackageManager,
    /// The file that decided.
    pub(crate) file: String,
    pub(crate) why: String,
    /// Where it installs: the workspace root, else the app.
    pub(crate) install_dir: String,
    /// Its lockfile, if there is one.
    pub(crate) lockfile: Option<String>,
}

/// Decides the package manager of the app in `dir`.
pub(crate) fn decide(look: &Look<'_>, dir: &str, manifest: &Manifest) -> Choice {
    let workspace_root = workspaces::root_of(look, dir);
    let install_dir = workspace_root.clone().unwrap_or_else(|| dir.to_owned());
    let (manager, file, why) = said(look, dir, manifest)
        .or_else(|| locked(look, dir))
        .or_else(|| traced(look, dir, manifest))
        .unwrap_or_else(|| (Npm, manifest.file.clone(), "nothing names another".into()));
    // A lockfile above an app that is in no workspace belongs to another project.
    let places = match &workspace_root {
        Some(root) => {
            upward(dir).into_iter().take_while(|place| parent(root) != Some(*place)).collect()
        }
        None => vec![dir],
    };
    let lockfile = places.iter().find_map(|place| {
        let names = LOCKFILES.iter().filter(|(_, lock)| belongs(*lock, manager));
        let name = look.first(place, &names.map(|(name, _)| *name).collect::<Vec<_>>())?;
        Some((join(place, name), (*place).to_owned()))
    });
    warn_of_others(look, &places, manager, &file);
    match lockfile {
        Some((lockfile, install_dir)) => {
            Choice { manager, file, why, install_dir, lockfile: Some(lockfile) }
        }
        None => Choice { manager, file, why, install_dir, lockfile: None },
    }
}

fn upward(dir: &str) -> Vec<&str> {
    std::iter::successors(Some(dir), |place| parent(place)).collect()
}

fn belongs(lock: Lock, manager: PackageManager) -> bool {
    match lock {
        Lock::Pnpm => manager == Pnpm,
        Lock::Bun => manager == Bun,
        Lock::Yarn => manager == Yarn1 || manager == YarnBerry,
        Lock::Npm => manager == Npm,
    }
}

type Said = (PackageManager, String, String);

/// `packageManager`, then `devEngines.packageManager`, in the app or any directory above.
fn said(look: &Look<'_>, dir: &str, manifest: &Manifest) -> Option<Said> {
    let above =
        upward(dir).into_iter().skip(1).filter_map(|place| Manifest::read_hint(look, place));
    let manifests: Vec<Manifest> = std::iter::once(manifest.clone()).chain(above).collect();
    let field = manifests.iter().find_map(|manifest| {
        let text = manifest.package_manager.as_deref()?;
        let (name, version) = text.split_once('@').unwrap_or((text, ""));
        let manager = named(name.trim(), Some(version).filter(|version| !version.is_empty()))?;
        Some((manager, manifest.file.clone(), "packageManager field".to_owned()))
    });
    field.or_else(|| {
        manifests.iter().find_map(|manifest| {
            let tools = &manifest.dev_package_managers;
            let manager =
                tools.iter().find_map(|(name, version)| named(name, version.as_deref()))?;
            Some((manager, manifest.file.clone(), "devEngines.packageManager".to_owned()))
        })
    })
}

fn named(name: &str, version: Option<&str>) -> Option<PackageManager> {
    match name {
        "npm" => Some(Npm),
        "pnpm" => Some(Pnpm),
        "bun" => Some(Bun),
        "yarn" => {
            let version = version.unwrap_or("1").trim_start_matches(['^', '~', '>', '=', ' ']);
            let classic = version == "1" || version.starts_with("1.");
            Some(if classic { Yarn1 } else { YarnBerry })
        }
        _ => None,
    }
}

/// The lockfile nearest to the app, upward to the root of the tree.
fn locked(look: &Look<'_>, dir: &str) -> Option<Said> {
    upward(dir).into_iter().find_map(|place| {
        let (name, lock) = LOCKFILES.iter().find(|(name, _)| look.has(place, name))?;
        let manager = match lock {
            Lock::Pnpm => Pnpm,
            Lock::Bun => Bun,
            Lock::Yarn => yarn(look, place),
            Lock::Npm => Npm,
        };
        Some((manager, join(place, name), "nearest lockfile".to_owned()))
    })
}

/// Yarn's two lockfile formats say in their first lines which one they are; a Yarn that lies in
/// the project itself is the one that is run.
fn yarn(look: &Look<'_>, place: &str) -> PackageManager {
    let releases = look.files(&join(place, ".yarn/releases"));
    let release = releases.iter().find_map(|name| name.strip_prefix("yarn-"));
    if let Some(manager) = release.and_then(|version| named("yarn", Some(version))) {
        return manager;
    }
    let head = look.head(&join(place, "yarn.lock")).unwrap_or_default();
    if head.contains("__metadata:") {
        YarnBerry
    } else if head.contains("# yarn lockfile v1") {
        Yarn1
    } else if look.has(place, ".yarnrc.yml") {
        YarnBerry
    } else {
        Yarn1
    }
}

/// What a tool leaves behind without a lockfile.
fn traced(look: &Look<'_>, dir: &str, manifest: &Manifest) -> Option<Said> {
    let file = |name: &str| {
        let place = upward(dir).into_iter().find(|place| look.has(place, name))?;
        Some(join(place, name))
    };
    if let Some(file) = file("pnpm-workspace.yaml") {
        return Some((Pnpm, file, "its workspace file".into()));
    }
    if let Some(file) = file(".yarnrc.yml") {
        return Some((YarnBerry, file, "its configuration".into()));
    }
    let settings = [
        (".pnp.cjs", YarnBerry),
        ("bunfig.toml", Bun),
        (".pnpmfile.cjs", Pnpm),
        (".yarnrc", Yarn1),
    ];
    if let Some((file, manager)) =
        settings.into_iter().find_map(|(name, manager)| Some((file(name)?, manager)))
    {
        return Some((manager, file, "its configuration".into()));
    }
    if let (Some(file), false) = (file("deno.lock"), manifest.dependencies.is_empty()) {
        return Some((Deno, file, "its lockfile".into()));
    }
    let engine = [("pnpm", Pnpm), ("bun", Bun)]
        .into_iter()
        .find(|(name, _)| manifest.engines.contains_key(*name))
        .map(|(name, manager)| (name, Some(manager)))
        .or_else(|| {
            let version = manifest.engines.get("yarn")?;
            Some(("yarn", named("yarn", Some(version))))
        });
    if let Some((name, Some(manager))) = engine {
        return Some((manager, manifest.file.clone(), format!("engines.{name}")));
    }
    // `npx only-allow pnpm` refuses every other one.
    let only = manifest.scripts.values().find_map(|script| {
        let (_, rest) = script.split_once("only-allow ")?;
        named(rest.split_whitespace().next()?, None)
    });
    if let Some(manager) = only {
        return Some((manager, manifest.file.clone(), "only-allow in a script".into()));
    }
    if let Some(found) = by_tool(look, dir) {
        return Some(found);
    }
    let mut ranges = manifest.dependencies.values();
    ranges
        .any(|range| range.starts_with("catalog:") || range.starts_with("workspace:"))
        .then(|| (Pnpm, manifest.file.clone(), "a dependency that npm does not understand".into()))
}

/// Tools for workspaces name the manager that they call.
fn by_tool(look: &Look<'_>, dir: &str) -> Option<Said> {
    upward(dir).into_iter().find_map(|place| {
        let rush = workspaces::json(look, place, "rush.json").and_then(|(file, rush)| {
            let fields = [("pnpmVersion", "pnpm"), ("yarnVersion", "yarn"), ("npmVersion", "npm")];
            let (field, name) = fields.into_iter().find(|(field, _)| rush[*field].is_string())?;
            Some((named(name, rush[field].as_str())?, file, field.to_owned()))
        });
        rush.or_else(|| {
            let (file, lerna) = workspaces::json(look, place, "lerna.json")?;
            Some((named(lerna["npmClient"].as_str()?, None)?, file, "npmClient".to_owned()))
        })
    })
}

fn warn_of_others(look: &Look<'_>, places: &[&str], manager: PackageManager, file: &str) {
    let others: Vec<_> = places
        .iter()
        .flat_map(|place| LOCKFILES.iter().map(move |(name, lock)| (place, name, lock)))
        .filter(|(place, name, lock)| !belongs(**lock, manager) && look.has(place, name))
        .map(|(place, name, _)| join(place, name))
        .collect();
    if !others.is_empty() {
        look.warn(format!(
            "{manager} was chosen by {file}; other lockfiles were ignored: {}",
            others.join(", ")
        ));
    }
}

/// Returns the command that installs, exactly as locked where there is a lockfile.
pub(crate) fn install(manager: PackageManager, locked: bool) -> &'static str {
    match (manager, locked) {
        (Pnpm, true) => "pnpm install --frozen-lockfile",
        (Pnpm, false) => "pnpm install",
        (Yarn1, true) => "yarn install --frozen-lockfile",
        (YarnBerry, true) => "yarn install --immutable",
        (Yarn1 | YarnBerry, false) => "yarn install",
        (Bun, true) => "bun install --frozen-lockfile",
        (Bun, false) => "bun install",
        (Deno, _) => "deno install",
        (_, true) => "npm ci",
        (_, false) => "npm install",
    }
}

/// Returns the command that runs a script with flags.
///
/// Only npm needs `--` before them: pnpm (since 7), Yarn and Bun hand a `--` on to the script,
/// where Vite and others stop reading flags (tried with pnpm 9 and 10, Yarn 1, npm 10).
pub(crate) fn run(manager: PackageManager, script: &str, flags: &str) -> String {
    let name = match manager {
        Pnpm => "pnpm",
        Yarn1 | YarnBerry => "yarn",
        Bun => "bun",
        Deno => "deno",
        _ => "npm",
    };
    match (manager, flags) {
        (Deno, flags) => format!("deno task {script} {flags}").trim_end().to_owned(),
        (_, "") => format!("{name} run {script}"),
        (Pnpm | Yarn1 | YarnBerry | Bun, flags) => format!("{name} run {script} {flags}"),
        (_, flags) => format!("{name} run {script} -- {flags}"),
    }
}

/// Returns the command that runs an installed program.
pub(crate) fn execute(manager: PackageManager, command: &str) -> String {
    match manager {
        Pnpm => format!("pnpm exec {command}"),
        Yarn1 | YarnBerry => format!("yarn {command}"),
        Bun => format!("bunx {command}"),
        Deno => format!("deno run -A npm:{command}"),
        _ => format!("npx {command}"),
    }
}
