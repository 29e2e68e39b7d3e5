//! Floor 1: says what a project is and how to run it, with the evidence for each value.
//!
//! Pure over a [`tree::Tree`]. Each language offers a candidate for a directory with a score, and
//! the best one wins: by what the files mean, not by which file was found first. What a framework
//! needs stands in one declarative table per language (`frameworks`, `python::frameworks`). Files
//! that state what the project is must be readable, else detection fails; files that only refine
//! an answer are set aside with a warning. Project files (`.covibes.yml`) are not read here:
//! `config::project` applies them to the findings, so that explicit always wins, per field.

use thiserror::Error;

use crate::domain::findings::{App, Findings, Framework, Health, Language};

use look::Look;
use tree::{Kind, Tree, TreeError, join};

mod explicit;
mod frameworks;
mod look;
mod manifest;
mod node;
mod other;
mod package_manager;
mod ports;
mod python;
mod ranges;
mod rules;
mod runtime;
mod script;
pub mod tree;
mod workspaces;

/// From this score on an app is sure enough that nobody looks for a better one below it.
const SURE: u32 = 50;

/// More apps than this are not listed: a person could not choose among them either.
const APPS_MAX: usize = 64;

/// The order in which evidence is given.
const FIELDS: [&str; 10] = [
    "language",
    "framework",
    "package_manager",
    "runtime",
    "app_dir",
    "install",
    "dev",
    "port",
    "health",
    "env",
];

/// A possible answer for one directory, and how strongly its files speak for it.
pub(crate) struct Candidate {
    pub(crate) findings: Findings,
    pub(crate) score: u32,
}

/// Why a project could not be detected.
#[derive(Debug, Error)]
pub enum DetectError {
    /// A file that says what the project is could not be read.
    #[error("cannot look at the workspace")]
    Tree(#[from] TreeError),
    /// Nothing in the directory says what it is.
    #[error("no known kind of project in {dir}")]
    UnknownProject {
        /// Where it was looked.
        dir: String,
    },
}

impl DetectError {
    /// Returns the stable code of the failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tree(source) => source.code(),
            Self::UnknownProject { .. } => "detect.unknown_project",
        }
    }
}

/// Says what the app in `app_dir` is, or chooses the app of the workspace if none is named.
///
/// # Errors
/// [`DetectError::UnknownProject`] if nothing says what it is; [`DetectError::Tree`] if a file
/// that would have said so is a link, not a plain file, or too large.
pub fn detect(tree: &dyn Tree, app_dir: Option<&str>) -> Result<Findings, DetectError> {
    let look = Look::new(tree);
    let mut findings = match app_dir {
        Some(dir) => named(&look, dir)?,
        None => match chosen(&look) {
            Err(DetectError::UnknownProject { dir }) => {
                explicit::alone(&look).ok_or(DetectError::UnknownProject { dir })?
            }
            found => found?,
        },
    };
    if findings.apps.is_empty() {
        findings.apps.push(app(&findings));
    }
    explicit::apply(&look, &mut findings);
    findings.warnings.extend(look.warnings());
    explain_health(&mut findings);
    let rank = |field: &str| FIELDS.iter().position(|known| *known == field);
    findings.evidence.sort_by_key(|evidence| rank(evidence.field));
    Ok(findings)
}

/// Health follows from what kind of server was found.
fn explain_health(findings: &mut Findings) {
    let decided = ["framework", "language"]
        .into_iter()
        .find_map(|field| findings.evidence.iter().find(|evidence| evidence.field == field));
    let Some(file) = decided.map(|evidence| evidence.file.clone()) else { return };
    let (value, why) = match &findings.health {
        Health::Http { path } => (path.clone(), "a web framework answers pages"),
        Health::Tcp => ("tcp".to_owned(), "nothing says that it speaks HTTP"),
    };
    findings.decide("health", value, file, why);
}

fn named(look: &Look<'_>, dir: &str) -> Result<Findings, DetectError> {
    let dir = match tree::names(dir)?.join("/") {
        empty if empty.is_empty() => ".".to_owned(),
        dir => dir,
    };
    if look.kind(&dir)? == Some(Kind::Symlink) {
        return Err(TreeError::Symlink { path: dir }.into());
    }
    let Some(candidate) = best(look, &dir)? else {
        return Err(DetectError::UnknownProject { dir });
    };
    let mut findings = candidate.findings;
    findings.monorepo =
        workspaces::members(look, ".").is_some_and(|workspace| workspace.members.len() > 1);
    Ok(findings)
}

fn chosen(look: &Look<'_>) -> Result<Findings, DetectError> {
    let root = best(look, ".")?;
    let workspace = workspaces::members(look, ".");
    let sure = root.as_ref().is_some_and(|candidate| candidate.score >= SURE);
    let mut candidates = below(look, root.as_ref(), workspace.as_ref())?;
    let monorepo = workspace.as_ref().is_some_and(|workspace| workspace.members.len() > 1)
        || candidates.len() > 1;
    // A root that only starts its parts is no app beside them; one with a framework is the app.
    let stays = |root: &Candidate| {
        sure || candidates.is_empty() || (workspace.is_none() && runs(&root.findings))
    };
    if let Some(root) = root.filter(stays) {
        let score = if sure { u32::MAX } else { root.score };
        candidates.push((score, root));
    }
    // Stable over directory order: the score first, then the path.
    candidates.sort_by(|(left_score, left), (right_score, right)| {
        right_score.cmp(left_score).then_with(|| left.findings.app_dir.cmp(&right.findings.app_dir))
    });
    let apps = candidates.iter().map(|(_, candidate)| app(&candidate.findings)).collect();
    let Some((_, winner)) = candidates.into_iter().next() else {
        return Err(DetectError::UnknownProject { dir: ".".to_owned() });
    };
    let mut findings = winner.findings;
    findings.apps = apps;
    findings.monorepo = monorepo;
    if findings.app_dir != "." {
        let (file, why) = match workspace {
            Some(workspace) => (workspace.file, "best app of the workspace"),
            None => (findings.app_dir.clone(), "best app below a root that is none itself"),
        };
        let dir = findings.app_dir.clone();
        findings.decide("app_dir", dir, file, why);
    }
    if let [_, rest @ ..] = findings.apps.as_slice()
        && !rest.is_empty()
    {
        let rest: Vec<_> = rest.iter().map(|app| app.dir.as_str()).collect();
        look.warn(format!(
            "chose the app in {}; set `preview.app` to run another: {}",
            findings.app_dir,
            rest.join(", ")
        ));
    }
    Ok(findings)
}

/// Returns what can be run below the root, with its score: the packages of a workspace, or what
/// lies in the directories of a root that is no app itself.
fn below(
    look: &Look<'_>,
    root: Option<&Candidate>,
    workspace: Option<&workspaces::Workspace>,
) -> Result<Vec<(u32, Candidate)>, TreeError> {
    let sure = root.is_some_and(|candidate| candidate.score >= SURE);
    let dirs = match workspace {
        Some(workspace) => workspace.members.clone(),
        None if sure => Vec::new(),
        None => workspaces::nested(look),
    };
    let mut candidates = Vec::new();
    for dir in dirs.into_iter().take(APPS_MAX) {
        let preference = workspaces::preference(look, &dir);
        // Examples and tests are no reason to leave a root that says something.
        if workspace.is_none() && root.is_some() && preference < 0 {
            continue;
        }
        if let Some(candidate) = best(look, &dir)?.filter(|candidate| runs(&candidate.findings)) {
            candidates.push((worth(&candidate).saturating_add_signed(preference), candidate));
        }
    }
    Ok(candidates)
}

/// How much an app is worth looking at beside others: pages before the server that feeds them.
/// The score only says how sure a language is of its own directory.
fn worth(candidate: &Candidate) -> u32 {
    match candidate.findings.framework {
        Framework::Django
        | Framework::Flask
        | Framework::Fastapi
        | Framework::Starlette
        | Framework::Nestjs
        | Framework::Express
        | Framework::Fastify
        | Framework::Koa
        | Framework::Hono => SURE,
        _ => candidate.score,
    }
}

fn runs(findings: &Findings) -> bool {
    findings.dev.is_some() || findings.framework != Framework::None
}

fn app(findings: &Findings) -> App {
    App { dir: findings.app_dir.clone(), framework: findings.framework, port: findings.port }
}

/// Asks every language about a directory and returns the strongest answer.
fn best(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let offers = [
        python::probe(look, dir)?,
        node::probe(look, dir)?,
        other::probe(look, dir),
        other::probe_static(look, dir),
    ];
    let mut offers: Vec<Candidate> = offers.into_iter().flatten().collect();
    // The sort is stable: at equal strength the order above decides.
    offers.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    let mut offers = offers.into_iter();
    let Some(mut winner) = offers.next() else { return Ok(None) };
    // A page beside a framework is the framework's own.
    let others: Vec<_> = offers
        .map(|other| other.findings.language)
        .filter(|language| *language != Language::Static)
        .map(Language::as_str)
        .collect();
    if !others.is_empty() {
        winner.findings.warnings.push(format!(
            "{} is {}; also found there: {}",
            join(dir, ""),
            winner.findings.language,
            others.join(", ")
        ));
    }
    Ok(Some(winner))
}

#[cfg(test)]
mod tests;
