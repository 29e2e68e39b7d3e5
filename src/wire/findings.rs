//! The JSON of `covibes detect --json`: a stable interface that scripts read.
//!
//! Field names, their order and the words in them do not change; new fields come at the end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::findings as domain;

/// One object that says everything about an app.
#[derive(Debug, Serialize)]
pub struct Findings {
    language: &'static str,
    framework: &'static str,
    package_manager: &'static str,
    port: Option<u16>,
    app_dir: String,
    monorepo: bool,
    runtime: Option<Runtime>,
    install: Option<String>,
    dev: Option<String>,
    health: Health,
    env: BTreeMap<String, String>,
    apps: Vec<App>,
    source: &'static str,
    evidence: Vec<Evidence>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Runtime {
    name: &'static str,
    version: String,
    range: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Health {
    Http { path: String },
    Tcp,
}

#[derive(Debug, Serialize)]
struct App {
    dir: String,
    framework: &'static str,
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Evidence {
    field: &'static str,
    value: String,
    file: String,
    why: String,
}

impl From<&domain::Findings> for Findings {
    fn from(findings: &domain::Findings) -> Self {
        Self {
            language: findings.language.as_str(),
            framework: findings.framework.as_str(),
            package_manager: findings.package_manager.as_str(),
            port: findings.port,
            app_dir: findings.app_dir.clone(),
            monorepo: findings.monorepo,
            runtime: findings.runtime.as_ref().map(|runtime| Runtime {
                name: runtime.name.as_str(),
                version: runtime.version.clone(),
                range: runtime.range.clone(),
            }),
            install: findings.install.clone(),
            dev: findings.dev_command(),
            health: match &findings.health {
                domain::Health::Http { path } => Health::Http { path: path.clone() },
                domain::Health::Tcp => Health::Tcp,
            },
            env: findings.environment(),
            apps: findings
                .apps
                .iter()
                .map(|app| App {
                    dir: app.dir.clone(),
                    framework: app.framework.as_str(),
                    port: app.port,
                })
                .collect(),
            source: findings.source.as_str(),
            evidence: findings
                .evidence
                .iter()
                .map(|evidence| Evidence {
                    field: evidence.field,
                    value: evidence.value.clone(),
                    file: evidence.file.clone(),
                    why: evidence.why.clone(),
                })
                .collect(),
            warnings: findings.warnings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Findings;
    use crate::domain::findings::{self as domain, Health, Template};

    #[test]
    fn the_object_is_that_of_the_interface() {
        let mut findings = domain::Findings::blank(".");
        findings.language = domain::Language::Node;
        findings.framework = domain::Framework::ViteReact;
        findings.package_manager = domain::PackageManager::Pnpm;
        findings.port = Some(5173);
        findings.runtime = Some(domain::Runtime {
            name: domain::RuntimeName::Node,
            version: "22.12.0".into(),
            range: None,
        });
        findings.install = Some("pnpm install --frozen-lockfile".into());
        findings.dev = Some(Template::Slots("pnpm run dev --port {port}".into()));
        findings.health = Health::Http { path: "/".into() };
        findings.env = BTreeMap::new();
        findings.source = domain::Source::Framework;
        let dir = ".".to_owned();
        let framework = domain::Framework::ViteReact;
        findings.apps.push(domain::App { dir, framework, port: Some(5173) });
        findings.decide("package_manager", "pnpm", "pnpm-lock.yaml", "nearest lockfile");
        let expected = r#"{"language":"node","framework":"vite-react","package_manager":"pnpm","port":5173,"app_dir":".","monorepo":false,"runtime":{"name":"node","version":"22.12.0","range":null},"install":"pnpm install --frozen-lockfile","dev":"pnpm run dev --port 5173","health":{"kind":"http","path":"/"},"env":{},"apps":[{"dir":".","framework":"vite-react","port":5173}],"source":"framework","evidence":[{"field":"package_manager","value":"pnpm","file":"pnpm-lock.yaml","why":"nearest lockfile"}],"warnings":[]}"#;
        assert_eq!(serde_json::to_string(&Findings::from(&findings)).unwrap(), expected);
    }
}
