//! Step 2, detect: workspace in, findings out, with the evidence for each.
//!
//! Reads untrusted files only through a bounded tree, off the async threads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::hash;
use crate::config::layout::Layout;
use crate::config::plan::{Writable, framework_declarations, framework_mode, framework_writables};
use crate::config::project::{self, PreviewMode, ProjectFile, ProjectPreview};
use crate::detect::own_image;
use crate::detect::tree::{Kind, Tree, join};
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::{Findings, Language};
use crate::domain::spec::{LimitsWish, PreviewSpec, Spec};
use crate::pipeline::OpenTree;
use crate::pipeline::run::Run;
use crate::pipeline::runtimes;
use crate::pipeline::steps::workspace::Workspace;

/// Warnings in the step's own words; more are for whoever asks.
const WARNINGS_MAX: usize = 3;

/// What was found out about one preview.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the spec asks for.
    pub spec: PreviewSpec,
    /// What the project is, the project file applied.
    pub findings: Findings,
    /// Whether it shows a worktree.
    pub worktree: bool,
    /// Digest of the manifests and lockfiles.
    pub inputs_digest: String,
    /// Limits that the project file lowers.
    pub limits: LimitsWish,
    /// What the project file wants to be writable.
    pub writable: Writable,
    /// How the dev server sees the workspace.
    pub mode: PreviewMode,
}

/// What was found out about a workspace.
#[derive(Debug, Clone, Default)]
pub struct Detected {
    /// Its previews.
    pub previews: Vec<Found>,
    /// The workspace's own project file; worktrees have theirs for their previews.
    pub project: ProjectFile,
}

/// Files that decide what an install produces.
const INSTALL_INPUTS: &[&str] = &[
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "yarn.lock",
    ".yarnrc.yml",
    ".npmrc",
    "bun.lock",
    "bun.lockb",
    "requirements.txt",
    "pyproject.toml",
    "poetry.lock",
    "uv.lock",
    "pdm.lock",
    "Pipfile",
    "Pipfile.lock",
    "setup.py",
    "setup.cfg",
];

/// Looks at every preview's tree.
///
/// # Errors
/// `detect.*`, `workspace.*` for what cannot be read, `config.*` for a bad
/// project file.
pub async fn detect(
    run: &Run<'_>,
    spec: &Spec,
    workspace: &Workspace,
) -> Result<(Detected, String), Failure> {
    let layout = Layout::new(&run.ports.settings, run.team());
    let mut found = Vec::new();
    let (open, root) = (run.ports.open_tree, workspace.path.clone());
    let project = off_the_threads(move || project_file(open(&root)?.as_ref())).await?;
    let project = project.unwrap_or_default();
    for preview in &spec.previews {
        run.say(format!("looking at preview {}", preview.name));
        let worktree = workspace.worktrees.contains(&preview.name);
        let root = if worktree {
            layout.worktrees().join(preview.name.as_str())
        } else {
            workspace.path.clone()
        };
        let open = run.ports.open_tree;
        let preview = preview.clone();
        let one = off_the_threads(move || look(open, root, preview, worktree)).await?;
        for warning in &one.findings.warnings {
            tracing::info!(preview = %one.spec.name, "{warning}");
        }
        found.push(one);
    }
    let message = if found.is_empty() {
        "no previews to look at".to_owned()
    } else {
        let words: Vec<String> = found.iter().map(summary).collect();
        let warnings = found.iter().flat_map(|one| &one.findings.warnings);
        words.join(", ") + &in_short(warnings.map(String::as_str))
    };
    Ok((Detected { previews: found, project }, message))
}

/// Reads files on a blocking thread.
pub(in crate::pipeline) async fn off_the_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let bug = |_| Err(Failure::new(Code::InternalBug, "detection ended badly"));
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.unwrap_or_else(bug)
}

/// Warnings as the end of a sentence: whoever follows a start sees what surprises them later.
fn in_short<'a>(warnings: impl Iterator<Item = &'a str>) -> String {
    // The previews of one project share most of them.
    let different: BTreeSet<&str> = warnings.collect();
    let shown = different.iter().take(WARNINGS_MAX);
    let mut text: String = shown.map(|warning| format!("; warning: {warning}")).collect();
    if let Some(more) = different.len().checked_sub(WARNINGS_MAX).filter(|more| *more > 0) {
        text += &format!("; {more} more: `covibes detect` names them");
    }
    text
}

fn summary(found: &Found) -> String {
    let findings = &found.findings;
    let what = if findings.framework == crate::domain::findings::Framework::None {
        findings.language.as_str()
    } else {
        findings.framework.as_str()
    };
    let port = findings.port.map_or(String::new(), |p| format!(" on port {p}"));
    // The one warning that every team should see: its project may behave otherwise.
    let runtime = runtimes::warning(findings).map_or(String::new(), |text| format!(" ({text})"));
    let manager = findings.package_manager.as_str();
    format!("{}: {what} with {manager}{port}{runtime}", found.spec.name)
}

/// Looks at one preview's tree.
///
/// # Errors
/// As [`detect`].
pub fn look(
    open: OpenTree,
    root: PathBuf,
    spec: PreviewSpec,
    worktree: bool,
) -> Result<Found, Failure> {
    let tree = open(&root)?;
    let tree = tree.as_ref();
    let file = project_file(tree)?;
    let project = file.as_ref().and_then(|f| f.preview(spec.name.as_str()));
    let mut findings = findings(tree, project)?;
    findings.warnings.extend(file.iter().flat_map(ProjectFile::warnings));
    let writable = writable(tree, &mut findings, project);
    let runtime = runtimes::warning(&findings);
    findings.warnings.extend(runtime);
    let limits = file.as_ref().map(|file| file.limits.preview.wish()).unwrap_or_default();
    let inputs_digest = inputs_digest(tree, &findings)?;
    let mode = project.and_then(|said| said.mode);
    let mode = mode.unwrap_or_else(|| framework_mode(findings.framework));
    check_mount_points(tree, &findings, mode)?;
    Ok(Found { spec, findings, worktree, inputs_digest, limits, writable, mode })
}

/// Whether what will be mounted in the workspace can be: only over a directory, or where nothing
/// is yet. Known before anything is installed for it; whoever mounts looks again, through no link.
fn check_mount_points(
    tree: &dyn Tree,
    findings: &Findings,
    mode: PreviewMode,
) -> Result<(), Failure> {
    let mut points = Vec::new();
    if findings.install.is_some() && findings.language == Language::Node {
        let places = [&findings.install_dir].into_iter().chain(&findings.packages);
        points.extend(places.map(|place| join(place, "node_modules")));
    }
    if mode == PreviewMode::Direct {
        let names = framework_writables(findings.framework).iter();
        points.extend(names.map(|name| join(&findings.app_dir, name)));
    }
    for point in points {
        let what = match tree.kind(&point) {
            Ok(None | Some(Kind::Directory)) => continue,
            Ok(Some(Kind::Symlink)) => "a symbolic link",
            Ok(Some(Kind::File | Kind::Special)) => "a file",
            Err(error) => return Err(failure(error.code(), &error.to_string())),
        };
        let message = format!("{point} is {what}: remove it from the repository");
        return Err(Failure::new(Code::WorkspaceMountPoint, message));
    }
    Ok(())
}

/// Tells directories from files among the places that the project file wants to be writable.
///
/// What the repository itself holds as a file stays as it is, with a warning: a mount in its
/// place would hide it.
pub fn writable(
    tree: &dyn Tree,
    findings: &mut Findings,
    project: Option<&ProjectPreview>,
) -> Writable {
    let mut writable = Writable::default();
    let is_there = |name: &str| tree.kind(&join(&findings.app_dir, name)).ok().flatten();
    if let Some(name) = framework_declarations(findings.framework)
        && is_there("tsconfig.json").is_some()
    {
        match is_there(name) {
            Some(Kind::File) => writable.covered.push(name.to_owned()),
            // A link is that of an earlier start.
            None | Some(Kind::Symlink) => writable.files.push(name.to_owned()),
            Some(Kind::Directory | Kind::Special) => {}
        }
    }
    for path in project.iter().flat_map(|project| &project.writable) {
        let name = path.rsplit('/').next().unwrap_or(path);
        let known = writable.directories.contains(path) || writable.files.contains(path);
        // Modules have a place of their own already.
        if known || name == "node_modules" {
            continue;
        }
        match tree.kind(&join(&findings.app_dir, path)) {
            Ok(Some(Kind::Directory)) => writable.directories.push(path.clone()),
            Ok(None) if name.trim_start_matches('.').contains('.') => {
                writable.files.push(path.clone());
            }
            Ok(None) => writable.directories.push(path.clone()),
            // A link that an earlier start made leads into the cache.
            Ok(Some(Kind::Symlink)) => writable.files.push(path.clone()),
            Ok(Some(Kind::File | Kind::Special)) | Err(_) => findings.warnings.push(format!(
                "{}: `writable` names {path}, which the repository holds as a file: it stays \
                 read-only",
                crate::domain::findings::PROJECT_FILE
            )),
        }
    }
    writable
}

/// Detects one app and applies what its project file says about it.
///
/// # Errors
/// As [`detect`].
pub fn findings(tree: &dyn Tree, project: Option<&ProjectPreview>) -> Result<Findings, Failure> {
    let app = project.and_then(|p| p.app.as_deref());
    let detected = match (crate::detect::detect(tree, app), project) {
        (Ok(findings), _) => findings,
        // A project file that says how to run it needs no detection.
        (Err(crate::detect::DetectError::UnknownProject { .. }), Some(project))
            if project.command.is_some() =>
        {
            let mut findings = Findings::blank(app.unwrap_or("."));
            findings.own_image = own_image::of(tree, &findings);
            findings
        }
        (Err(error), _) => return Err(failure(error.code(), &error.to_string())),
    };
    let findings = match project {
        Some(project) => project::apply(detected, project),
        None => detected,
    };
    Ok(findings)
}

/// Reads the project file of a tree, if it has one.
///
/// # Errors
/// `config.*`, with line and column.
pub fn project_file(tree: &dyn Tree) -> Result<Option<ProjectFile>, Failure> {
    let bytes = tree
        .read(crate::domain::findings::PROJECT_FILE)
        .map_err(|error| failure(error.code(), &error.to_string()))?;
    match bytes {
        None => Ok(None),
        Some(bytes) => project::parse(&bytes).map(Some).map_err(|error| {
            failure(error.code(), &error.to_string()).with_log(error.excerpt(&bytes))
        }),
    }
}

fn failure(code: &str, message: &str) -> Failure {
    Failure::new(Code::parse(code).unwrap_or(Code::InternalBug), message)
}

fn inputs_digest(tree: &dyn Tree, findings: &Findings) -> Result<String, Failure> {
    let mut text = String::new();
    let mut directories = vec![findings.install_dir.clone()];
    if findings.app_dir != findings.install_dir {
        directories.push(findings.app_dir.clone());
    }
    directories.dedup();
    for directory in directories {
        for name in INSTALL_INPUTS {
            let path = Path::new(&directory).join(name);
            let path = path.strip_prefix(".").unwrap_or(&path).display().to_string();
            // A lockfile may be larger than what detection reads: its head
            // and the file that it belongs to change together.
            let bytes = tree
                .head(&path, 8 << 20)
                .map_err(|error| failure(error.code(), &error.to_string()))?;
            if let Some(bytes) = bytes {
                text.push_str(&format!("{path} {}\n", hash::digest(&bytes)));
            }
        }
    }
    Ok(hash::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_once_each_and_not_all() {
        assert_eq!(in_short([].into_iter()), "");
        assert_eq!(in_short(["b", "a", "b"].into_iter()), "; warning: a; warning: b");
        let many = in_short(["1", "2", "3", "4", "5"].into_iter());
        assert_eq!(
            many,
            "; warning: 1; warning: 2; warning: 3; 2 more: `covibes detect` names them"
        );
    }
}
