//! Step 2, detect: workspace in, findings out, with the evidence for each.
//!
//! Reads untrusted files only through a bounded tree, off the async threads.

use std::path::{Path, PathBuf};

use crate::config::hash;
use crate::config::layout::Layout;
use crate::config::project::{self, ProjectFile};
use crate::detect::tree::Tree;
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::Findings;
use crate::domain::spec::{LimitsWish, PreviewSpec, Spec};
use crate::pipeline::OpenTree;
use crate::pipeline::run::Run;
use crate::pipeline::steps::workspace::Workspace;

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
) -> Result<(Vec<Found>, String), Failure> {
    let layout = Layout::new(&run.ports.settings, run.team());
    let mut found = Vec::new();
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
        let one = tokio::task::spawn_blocking(move || look(open, root, preview, worktree))
            .await
            .unwrap_or_else(|_| Err(Failure::new(Code::InternalBug, "detection ended badly")))?;
        for warning in &one.findings.warnings {
            tracing::info!(team.id = %run.team(), preview = %one.spec.name, "{warning}");
        }
        found.push(one);
    }
    let message = if found.is_empty() {
        "no previews to look at".to_owned()
    } else {
        let words: Vec<String> = found.iter().map(summary).collect();
        words.join(", ")
    };
    Ok((found, message))
}

fn summary(found: &Found) -> String {
    let findings = &found.findings;
    let what = if findings.framework == crate::domain::findings::Framework::None {
        findings.language.as_str()
    } else {
        findings.framework.as_str()
    };
    let port = findings.port.map_or(String::new(), |p| format!(" on port {p}"));
    format!("{}: {what} with {}{port}", found.spec.name, findings.package_manager.as_str())
}

fn look(
    open: OpenTree,
    root: PathBuf,
    spec: PreviewSpec,
    worktree: bool,
) -> Result<Found, Failure> {
    let tree = open(&root)?;
    let tree = tree.as_ref();
    let file = project_file(tree)?;
    let project = file.as_ref().and_then(|f| f.preview(spec.name.as_str()));
    let findings = findings(tree, project)?;
    let limits = file.as_ref().map_or(LimitsWish::default(), |f| LimitsWish {
        memory_bytes: f.limits.preview.memory_bytes,
        cpu_millis: f.limits.preview.cpu_millis,
    });
    let inputs_digest = inputs_digest(tree, &findings)?;
    Ok(Found { spec, findings, worktree, inputs_digest, limits })
}

/// Detects one app and applies what its project file says about it.
///
/// # Errors
/// As [`detect`].
pub fn findings(
    tree: &dyn Tree,
    project: Option<&project::ProjectPreview>,
) -> Result<Findings, Failure> {
    let app = project.and_then(|p| p.app.as_deref());
    let detected = match (crate::detect::detect(tree, app), project) {
        (Ok(findings), _) => findings,
        // A project file that says how to run it needs no detection.
        (Err(crate::detect::DetectError::UnknownProject { .. }), Some(project))
            if project.command.is_some() =>
        {
            Findings::blank(app.unwrap_or("."))
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
        Some(bytes) => project::parse(&bytes)
            .map(Some)
            .map_err(|error| failure(error.code(), &error.to_string())),
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
