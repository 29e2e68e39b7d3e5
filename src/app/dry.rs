//! Commands that change nothing: `detect`, `plan`, `compose`, and `init`, which writes one file.

mod explain;
mod init;
mod plan;

use std::path::Path;

use crate::app::stdout::outln;
use crate::app::wiring::open_tree;
use crate::config::project::ProjectFile;
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::Findings;
use crate::pipeline::steps::detect;

pub use init::init;
pub use plan::{Dry, Request, local_spec, plan, print, print_json};

/// Says what a directory is.
///
/// # Errors
/// It is nothing that is known, or cannot be read.
pub fn findings(directory: &Path) -> anyhow::Result<Findings> {
    found(directory).map_err(|failure| explained(&failure))
}

fn found(directory: &Path) -> Result<Findings, Failure> {
    let tree = open_tree(directory)?;
    let file = detect::project_file(tree.as_ref())?;
    let project = file.as_ref().and_then(|file| file.preview("main"));
    let mut findings = detect::findings(tree.as_ref(), project)?;
    findings.warnings.extend(file.iter().flat_map(ProjectFile::warnings));
    Ok(findings)
}

/// Reads the project file of a directory; an empty one if there is none.
///
/// # Errors
/// It is not valid, or cannot be read.
pub fn project(directory: &Path) -> anyhow::Result<ProjectFile> {
    let tree = open_tree(directory).map_err(|failure| explained(&failure))?;
    let file = detect::project_file(tree.as_ref()).map_err(|failure| explained(&failure))?;
    Ok(file.unwrap_or_default())
}

/// As [`findings`], but a directory that is nothing known is said to be that: for a person or a
/// script that asks, this is an answer.
///
/// # Errors
/// It cannot be read.
pub fn answer(directory: &Path) -> anyhow::Result<Findings> {
    match found(directory) {
        Err(failure) if failure.code == Code::DetectUnknownProject => {
            let mut findings = Findings::blank(".");
            let hint = failure.code.hint();
            findings.warnings.push(format!("{}. {hint}", failure.message));
            Ok(findings)
        }
        found => found.map_err(|failure| explained(&failure)),
    }
}

/// A failure as a person reads it.
fn explained(failure: &Failure) -> anyhow::Error {
    let lines: String = failure.log.iter().map(|line| format!("\n{line}")).collect();
    anyhow::anyhow!("{} ({}). {}{lines}", failure.message, failure.code, failure.code.hint())
}

/// Prints findings for a person.
pub fn print_findings(findings: &Findings) {
    outln!("language         {}", findings.language.as_str());
    outln!("framework        {}", findings.framework.as_str());
    outln!("package manager  {}", findings.package_manager.as_str());
    if let Some(runtime) = &findings.runtime {
        outln!("runtime          {} {}", runtime.name.as_str(), runtime.version);
    }
    outln!("app              {}", findings.app_dir);
    outln!("install          {}", findings.install.as_deref().unwrap_or("-"));
    outln!("dev              {}", findings.dev_command().as_deref().unwrap_or("-"));
    outln!("port             {}", findings.port.map_or("-".to_owned(), |p| p.to_string()));
    outln!();
    for evidence in &findings.evidence {
        let line = evidence.line.map_or(String::new(), |line| format!(":{line}"));
        outln!(
            "{}: {} ({}{line}: {})",
            evidence.field,
            evidence.value,
            evidence.file,
            evidence.why
        );
    }
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
}
