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
pub use explicit::own_image;
mod frameworks;
mod json5;
mod languages;
pub mod lines;
mod look;
mod loopback;
mod manifest;
mod node;
mod nx;
mod package_manager;
mod ports;
mod python;
pub(crate) mod ranges;
mod rules;
mod runtime;
mod script;
pub mod tree;
mod workspaces;

/// From this score on an app is sure enough that nobody looks for a better one below it.
const SURE: u32 = 50;

/// What a site beside an app is worth: less than every app with pages, more than a server.
const SITE: u32 = 55;

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
    loopback::warn(&look, &mut findings);
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
    findings.monorepo = workspace(look).is_some_and(|workspace| workspace.several);
    Ok(findings)
}

fn chosen(look: &Look<'_>) -> Result<Findings, DetectError> {
    let root = best(look, ".")?;
    let workspace = workspace(look);
    let (mut candidates, beside) = match &workspace {
        Some(workspace) => packages(look, workspace)?,
        None => (parts(look, root.as_ref())?, false),
    };
    let sure = root.as_ref().is_some_and(|root| root.score >= SURE);
    let monorepo = match &workspace {
        Some(workspace) => workspace.several || beside,
        None => {
            // Folders of pages are one site more often than several.
            let page = |(_, found): &&Worth| found.findings.language == Language::Static;
            candidates.len() - candidates.iter().filter(page).count() > 1
        }
    };
    // A root that only starts its parts is no app beside them; one with a framework is the app.
    let starts_them = candidates
        .iter()
        .any(|(_, candidate)| workspaces::named_by_root(look, &candidate.findings.app_dir));
    let stays = |root: &Candidate| {
        sure || candidates.is_empty()
            || (workspace.is_none() && !starts_them && serves(&root.findings))
    };
    if let Some(root) = root.filter(stays) {
        let score = if sure { u32::MAX } else { root.score };
        candidates.push((score, root));
    }
    // Stable over directory order: the score first, then the path.
    candidates.sort_by(|(left_score, left), (right_score, right)| {
        right_score.cmp(left_score).then_with(|| left.findings.app_dir.cmp(&right.findings.app_dir))
    });
    // The root may have chosen an app below it, which is a member as well.
    let mut seen = std::collections::BTreeSet::new();
    candidates.retain(|(_, candidate)| seen.insert(candidate.findings.app_dir.clone()));
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
        clashes(look, &findings);
    }
    Ok(findings)
}

/// Returns the workspace that the root declares, in whatever language.
fn workspace(look: &Look<'_>) -> Option<workspaces::Workspace> {
    workspaces::members(look, ".").or_else(|| languages::workspaces::members(look, "."))
}

/// Apps on the same port cannot run beside each other as they are.
fn clashes(look: &Look<'_>, findings: &Findings) {
    let same = findings.apps.iter().skip(1).filter(|app| app.port == findings.port);
    let same: Vec<_> = same.map(|app| app.dir.as_str()).collect();
    if let (Some(port), false) = (findings.port, same.is_empty()) {
        look.warn(format!("{} would also open port {port}", same.join(", ")));
    }
}

type Worth = (u32, Candidate);

/// Returns the packages of a workspace that serve something, with what they are worth, and whether
/// there are apps beside them.
fn packages(
    look: &Look<'_>,
    workspace: &workspaces::Workspace,
) -> Result<(Vec<Worth>, bool), TreeError> {
    // The pages of a service in another language lie beside its workspace.
    let javascript = workspaces::members(look, ".").is_some();
    let mut candidates = Vec::new();
    for dir in workspace.members.iter().take(APPS_MAX) {
        if let Some(candidate) = best(look, dir)?.filter(|candidate| serves(&candidate.findings)) {
            let preference = workspaces::preference(look, dir);
            candidates.push((worth(&candidate).saturating_add_signed(preference), candidate));
        }
    }
    // A server of another language is no package of a JavaScript workspace, and yet an app of it.
    let nested = workspaces::nested(look).into_iter().take(APPS_MAX);
    let mut beside = false;
    for dir in nested.filter(|dir| !workspace.members.contains(dir)) {
        let other = |found: &Candidate| {
            let language = found.findings.language;
            let foreign = match language {
                Language::Static => false,
                Language::Node => !javascript,
                _ => true,
            };
            foreign && found.score >= SURE && serves(&found.findings)
        };
        let preference = workspaces::preference(look, &dir);
        if preference < 0 {
            continue;
        }
        if let Some(candidate) = best(look, &dir)?.filter(other) {
            beside |= !workspace.members.contains(&candidate.findings.app_dir);
            candidates.push((worth(&candidate).saturating_add_signed(preference), candidate));
        }
    }
    Ok((candidates, beside))
}

/// Returns what can be run in the directories of a root that declares no workspace and is no sure
/// app itself. Beside a root that is something, only what is named as a part of it counts.
fn parts(look: &Look<'_>, root: Option<&Candidate>) -> Result<Vec<Worth>, TreeError> {
    if root.is_some_and(|root| root.score >= SURE) {
        return Ok(Vec::new());
    }
    let something = root.is_some_and(|root| runs(&root.findings));
    let mut candidates = Vec::new();
    for dirs in [workspaces::nested, workspaces::nested_deeper] {
        for dir in dirs(look).into_iter().take(APPS_MAX) {
            let preference = workspaces::preference(look, &dir);
            let named = workspaces::named_by_root(look, &dir) || workspaces::is_part(&dir);
            // Examples and tests are no reason to leave a root that says something.
            if (something && !named) || (root.is_some() && preference < 0) {
                continue;
            }
            let Some(candidate) = best(look, &dir)?.filter(|found| runs(&found.findings)) else {
                continue;
            };
            // Pages and code without a project around them belong to whatever lies above.
            let page = candidate.findings.language == Language::Static;
            let code = candidate.findings.language == Language::Node
                && look.first(".", &manifest::NAMES).is_some()
                && look.first(&candidate.findings.app_dir, &manifest::NAMES).is_none();
            if !((page || code) && root.is_some()) {
                candidates.push((worth(&candidate).saturating_add_signed(preference), candidate));
            }
        }
        // Only a root that says nothing is looked at more deeply.
        if !candidates.is_empty() || root.is_some() {
            break;
        }
    }
    // What serves counts before what only runs, and a project before a page.
    for real in [|found: &Findings| serves(found) && found.language != Language::Static, serves] {
        if candidates.iter().any(|(_, candidate)| real(&candidate.findings)) {
            candidates.retain(|(_, candidate)| real(&candidate.findings));
        }
    }
    Ok(candidates)
}

/// How much an app is worth looking at beside others: pages before the server that feeds them,
/// an app before its documentation. The score only says how sure a language is of its own
/// directory.
fn worth(candidate: &Candidate) -> u32 {
    let findings = &candidate.findings;
    match findings.framework {
        Framework::Docusaurus
        | Framework::Vitepress
        | Framework::Vuepress
        | Framework::Eleventy
        | Framework::Hexo
        | Framework::Sanity => SITE,
        Framework::Storybook => 1,
        Framework::None => candidate.score.min(SURE - 5),
        Framework::Expo => SITE + 1,
        Framework::Nestjs
        | Framework::Express
        | Framework::Fastify
        | Framework::Koa
        | Framework::Hono
        | Framework::Elysia
        | Framework::H3
        | Framework::Nitro
        | Framework::Connect
        | Framework::Mastra
        | Framework::Xmcp
        | Framework::AzureFunctions => candidate.score.min(SURE),
        // A page on its own, and an app of another language beside one of JavaScript.
        _ if findings.language != Language::Node => candidate.score.min(SURE),
        _ => candidate.score,
    }
}

fn runs(findings: &Findings) -> bool {
    findings.dev.is_some() || findings.framework != Framework::None
}

/// Says whether something can be looked at, rather than only be run.
fn serves(findings: &Findings) -> bool {
    findings.port.is_some() || findings.framework != Framework::None
}

fn app(findings: &Findings) -> App {
    App { dir: findings.app_dir.clone(), framework: findings.framework, port: findings.port }
}

/// Asks every language about a directory and returns the strongest answer.
fn best(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let known = [python::probe(look, dir)?, node::probe(look, dir)?];
    let mut offers: Vec<Candidate> = known.into_iter().flatten().collect();
    offers.extend(languages::probe(look, dir)?);
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
