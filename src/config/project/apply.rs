//! The project file over what was detected: explicit wins, field by field, and says so.

use crate::domain::findings::{Findings, Health, Language, Runtime, RuntimeName, Source, Template};

use super::{PROJECT_FILE, ProjectPreview};

/// Returns the findings with everything that the project file says in place of what was detected.
///
/// Detection is to be asked about `preview.app` first. If it found nothing and the project file
/// has a `command`, apply it to [`Findings::blank`].
#[must_use]
pub fn apply(mut findings: Findings, preview: &ProjectPreview) -> Findings {
    if let Some(app) = &preview.app {
        findings.app_dir.clone_from(app);
        said(&mut findings, "app_dir", app);
    }
    if let Some(install) = &preview.install {
        findings.install = (!install.is_empty()).then(|| install.clone());
        said(&mut findings, "install", install);
    }
    if let Some(runtime) = &preview.runtime {
        let name = runtime.name.or(findings.runtime.as_ref().map(|found| found.name));
        let name = name.unwrap_or(match findings.language {
            Language::Python => RuntimeName::Python,
            _ => RuntimeName::Node,
        });
        let version = runtime.version.clone();
        findings.runtime = Some(Runtime { name, version, range: None });
        said(&mut findings, "runtime", &runtime.version);
    }
    if let Some(health) = &preview.health {
        findings.health = health.clone();
        let value = match health {
            Health::Http { path } => path,
            Health::Tcp => "tcp",
        };
        said(&mut findings, "health", value);
    }
    for (name, value) in &preview.env {
        findings.env.insert(name.clone(), Template::Literal(value.clone()));
    }
    if !preview.env.is_empty() {
        let names: Vec<_> = preview.env.keys().map(String::as_str).collect();
        said(&mut findings, "env", &names.join(", "));
    }
    if preview.command.is_some() || preview.port.is_some() {
        findings.source = Source::ProjectFile;
    }
    if let Some(command) = &preview.command {
        findings.dev = Some(Template::Literal(command.clone()));
        said(&mut findings, "dev", command);
    }
    if let Some(port) = preview.port {
        move_port(&mut findings, port, preview.command.is_some());
    }
    for (field, place) in &preview.places {
        if findings.decided_by(field) == Some(PROJECT_FILE) {
            findings.decided_in_line(field, Some(place.line));
        }
    }
    findings
}

/// Takes the port, and everything that carries it with it.
fn move_port(findings: &mut Findings, port: u16, own_command: bool) {
    let moved = findings.port != Some(port);
    findings.port = Some(port);
    said(findings, "port", &port.to_string());
    let dir = findings.app_dir.clone();
    if let Some(app) = findings.apps.iter_mut().find(|app| app.dir == dir) {
        app.port = Some(port);
    }
    let takes = |text: &Template| matches!(text, Template::Slots(text) if text.contains("{port}"));
    let told = findings.dev.iter().chain(findings.env.values()).any(takes);
    if moved && !own_command && findings.dev.is_some() && !told {
        findings.warnings.push(format!(
            "nothing tells the dev server about port {port}: set `preview.command` too"
        ));
    }
    let command = findings.dev_command();
    let evidence = findings.evidence.iter_mut().find(|evidence| evidence.field == "dev");
    if let (Some(command), Some(evidence)) = (command, evidence) {
        evidence.value = command;
    }
}

fn said(findings: &mut Findings, field: &'static str, value: &str) {
    findings.decide(field, value, PROJECT_FILE, "the project file says so");
}
