//! A project file as `covibes init` writes it: what was detected, with a word on each key.
//!
//! Read back, it changes nothing about how the project is run: what it states is what was found.
//! JSON text is valid YAML, so values need no YAML writer.

use crate::domain::findings::{Findings, Health};

use super::parse;

/// Writes the file; without findings all of it is commented out.
#[must_use]
pub fn write(findings: Option<&Findings>) -> String {
    let line = |key: &str, value: Option<String>, example: &str, about: &str| {
        let fits =
            |value: &String| parse(format!("preview: {{{key}: {value}}}").as_bytes()).is_ok();
        let stated = value.filter(fits).map(|value| format!("{key}: {value}"));
        (about.to_owned(), stated, format!("{key}: {example}"))
    };
    let app = findings.filter(|found| found.app_dir != ".").map(|found| quoted(&found.app_dir));
    let install = findings.and_then(|found| found.install.as_deref()).map(quoted);
    let command = findings.and_then(Findings::dev_command).map(|text| quoted(&text));
    let port = findings.and_then(|found| found.port).map(|port| port.to_string());
    let health = findings.filter(|found| found.dev.is_some()).map(|found| match &found.health {
        Health::Http { path } => quoted(path),
        Health::Tcp => "tcp".to_owned(),
    });
    let runtime = findings.and_then(|found| found.runtime.as_ref());
    let runtime = runtime.map_or("22".to_owned(), |found| {
        quoted(&format!("{}@{}", found.name.as_str(), found.version))
    });
    let preview = [
        line("app", app, "apps/web", "The directory of the app, relative to this file."),
        line("install", install, "npm ci", "What installs its dependencies; \"\" for nothing."),
        line(
            "command",
            command,
            "npm run dev",
            "The dev server. It must listen on 0.0.0.0 and on `port`.",
        ),
        line("port", port, "3000", "Where the dev server listens."),
        line(
            "health",
            health,
            "/",
            "The path that answers when it is ready (any status below 500), or tcp.",
        ),
        line(
            "env",
            None,
            "{LOG_LEVEL: debug}",
            "Its environment. No secrets: this file is in the repository.",
        ),
        line(
            "runtime",
            None,
            &runtime,
            "The runtime's version; without it, what the project pins.",
        ),
        line(
            "writable",
            None,
            "[uploads]",
            "What the dev server must be able to write, relative to the app.",
        ),
    ];
    // A mapping without a key would be no mapping, so all of it waits to be uncommented.
    let is_stated = preview.iter().any(|(_, stated, _)| stated.is_some());
    let mark = if is_stated { "" } else { "# " };
    let mut lines = format!("{mark}preview:\n");
    for (about, stated, example) in preview {
        let value = match (stated, is_stated) {
            (Some(stated), _) => stated,
            (None, true) => format!("# {example}"),
            (None, false) => example,
        };
        lines += &format!("{mark}  # {about}\n{mark}  {value}\n");
    }
    format!(
        "# How Covibes runs this project. Everything is optional: what is absent is detected.\n\
         # All keys: `covibes schema covibes.yml`; who decides what: `covibes plan --explain`.\n\
         {lines}\n\
         # Variables of an agent, by its name. Secrets are named in the job, not here.\n\
         # agents:\n#   - name: agent-1\n#     env: {{LOG_LEVEL: debug}}\n\n\
         # Lower limits than the host gives; they can only be lowered.\n\
         # limits:\n#   preview: {{memory: 512MB, cpu: 0.25}}\n"
    )
}

fn quoted(text: &str) -> String {
    // Serde's own escapes are YAML's.
    serde_json::Value::from(text).to_string()
}
