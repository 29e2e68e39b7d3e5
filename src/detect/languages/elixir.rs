//! Elixir: dependencies from `mix.exs`, Phoenix and Plug, umbrellas.

use std::collections::BTreeSet;

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::{self, Shapes};
use super::rules::Rule::{All, Always, Any, Code, Dep, Not};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, Said, offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["#"],
    calls: &[
        "Plug.Cowboy.http(",
        "Plug.Adapters.Cowboy",
        "Bandit.start_link(",
        "options:",
        "Bandit,",
    ],
    keys: &["port"],
};

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Phoenix,
        rule: Dep(&["phoenix"]),
        dev: &[(Always, "mix phx.server")],
        port: Some(4000),
        env: &[("PORT", "{port}"), ("MIX_ENV", "dev")],
        ..BASE
    },
    Entry {
        id: Framework::Plug,
        rule: Any(&[
            Dep(&["plug_cowboy", "plug"]),
            All(&[Dep(&["bandit"]), Code(&["Plug", "Bandit"])]),
        ]),
        dev: &[(Always, "mix run --no-halt")],
        port: Some(4000),
        env: &[("PORT", "{port}")],
        ..BASE
    },
    Entry { rule: Not(&Dep(&["phoenix"])), dev: &[(Always, "mix run --no-halt")], ..PROGRAM_ENTRY },
];

/// Offers a candidate for a directory with a `mix.exs`.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    if !look.has(dir, "mix.exs") {
        return Ok(None);
    }
    let path = join(dir, "mix.exs");
    let text = look.manifest(&path)?.unwrap_or_default();
    let text = listeners::without_comments(&text, SHAPES.comments);
    let mut project = Project::new(look, dir, Language::Elixir, PackageManager::Mix, path.clone());
    project.shapes = &SHAPES;
    project.dependencies = dependencies(&text);
    // The apps of an umbrella bring its dependencies.
    for app in umbrella(look, dir) {
        if let Some((text, _)) = project.read(&join(&app, "mix.exs")) {
            project.dependencies.extend(dependencies(&text));
        }
    }
    project.installs("mix deps.get", "mix.exs");
    project.locked_by("mix.lock");
    project.add_code(["config/dev.exs".to_owned(), "config/config.exs".to_owned()]);
    let configured = endpoint(&project);
    project.code.clear();
    project.add_code_in("lib", ".ex");
    for inner in look.directories(&join(dir, "lib")) {
        project.add_code([format!("lib/{inner}/application.ex"), format!("lib/{inner}/router.ex")]);
    }
    if project.depends("phoenix") {
        project.port = configured;
        let loopback = project.read("config/dev.exs").is_some_and(|(text, _)| {
            listeners::without_comments(&text, SHAPES.comments).contains("{127, 0, 0, 1}")
        });
        if loopback {
            project.warnings.push(
                "config/dev.exs binds 127.0.0.1, which nobody outside the container reaches: \
                 use `ip: {0, 0, 0, 0}`"
                    .to_owned(),
            );
        }
    } else {
        project.add_code(["config/config.exs".to_owned(), "config/dev.exs".to_owned()]);
    }
    let stated = text.lines().find_map(|line| {
        let (_, rest) = line.trim().strip_prefix("elixir:").map(|rest| ((), rest))?;
        Some((rest.split('"').nth(1)?.to_owned(), path.clone()))
    });
    let version = versions::file(look, dir, &[".elixir-version"])
        .or_else(|| versions::manager(look, dir, &["elixir"]))
        .or_else(|| buildpack(&project))
        .map(|(text, file)| (text.split("-otp").next().unwrap_or_default().to_owned(), file))
        .or(stated);
    project.runtime = runtime(RuntimeName::Elixir, version);
    Ok(offer(project, TABLE))
}

/// The names of `{:name, ..}` tuples.
fn dependencies(text: &str) -> BTreeSet<String> {
    let tuples = text.split("{:").skip(1).filter_map(|rest| {
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
        rest[end..].trim_start().starts_with(',').then(|| rest[..end].to_owned())
    });
    tuples.collect()
}

/// The directories of an umbrella's apps.
pub(super) fn umbrella(look: &Look<'_>, dir: &str) -> Vec<String> {
    let text = look.hint(&join(dir, "mix.exs")).unwrap_or_default();
    let Some(shelf) = text.split_once("apps_path:").and_then(|(_, rest)| rest.split('"').nth(1))
    else {
        return Vec::new();
    };
    let apps = look.directories(&join(dir, shelf)).into_iter().map(|name| join(shelf, &name));
    apps.filter(|app| look.has(&join(dir, app), "mix.exs")).collect()
}

/// The port of the endpoint for development.
fn endpoint(project: &Project<'_, '_>) -> Option<Said<u16>> {
    let shapes = Shapes { calls: &["http: [", "http:["], ..SHAPES };
    let (port, file) = listeners::port(&project.code, &Shapes { keys: &[], ..shapes })?;
    Some((port, file))
}

/// The file of Heroku's buildpack, which others read as well.
fn buildpack(project: &Project<'_, '_>) -> Option<Said<String>> {
    let (text, path) = project.read("elixir_buildpack.config")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("elixir_version="))?;
    Some((line.to_owned(), path))
}
