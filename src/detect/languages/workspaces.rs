//! Workspaces of other languages: Cargo, Go, uv, Maven, Gradle, .NET solutions, Mix umbrellas.

use crate::detect::look::Look;
use crate::detect::tree::{join, names};
use crate::detect::workspaces::Workspace;

use super::{dotnet, elixir, listeners};

/// Returns the workspace that a directory declares in one of these languages, if it does.
pub(crate) fn members(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let finders: [fn(&Look<'_>, &str) -> Option<Workspace>; 6] =
        [cargo, go, uv, maven, gradle, solution];
    let found = finders
        .iter()
        .find_map(|find| find(look, dir).filter(|workspace| !workspace.members.is_empty()));
    found.or_else(|| {
        let apps = elixir_apps(look, dir);
        (!apps.is_empty()).then(|| {
            let several = apps.len() > 1;
            Workspace { file: join(dir, "mix.exs"), members: apps, several }
        })
    })
}

fn elixir_apps(look: &Look<'_>, dir: &str) -> Vec<String> {
    if !look.has(dir, "mix.exs") {
        return Vec::new();
    }
    elixir::umbrella(look, dir).into_iter().map(|app| join(dir, &app)).collect()
}

fn table(look: &Look<'_>, dir: &str, name: &str) -> Option<toml::Table> {
    look.has(dir, name).then_some(())?;
    look.hint(&join(dir, name))?.parse().ok()
}

/// Expands the paths and globs of members; `!` in front leaves them out again.
fn expand_all(look: &Look<'_>, dir: &str, globs: &[String]) -> Vec<String> {
    let mut members = Vec::new();
    for glob in globs.iter().filter(|glob| !glob.starts_with('!')) {
        let mut places = vec![dir.to_owned()];
        for part in glob.split('/').filter(|part| !matches!(*part, "" | ".")) {
            let next = places.iter().flat_map(|place| match part.split_once('*') {
                Some((before, after)) => {
                    let mut inner = look.directories(place);
                    inner.retain(|name| {
                        name.starts_with(before) && name.ends_with(after.trim_start_matches('*'))
                    });
                    inner.iter().map(|name| join(place, name)).collect::<Vec<_>>()
                }
                // A member may not lie outside of the workspace.
                None if names(part).is_err() => Vec::new(),
                None if look.directories(place).iter().any(|name| name == part) => {
                    vec![join(place, part)]
                }
                None => Vec::new(),
            });
            places = next.take(MEMBERS_MAX).collect();
        }
        members.extend(places.into_iter().filter(|place| place != dir));
    }
    for glob in globs.iter().filter_map(|glob| glob.strip_prefix('!')) {
        let out = join(dir, glob.trim_end_matches(['/', '*']));
        members.retain(|member| {
            *member != out && !(glob.contains('*') && member.starts_with(&format!("{out}/")))
        });
    }
    members.sort();
    members.dedup();
    members.truncate(MEMBERS_MAX);
    members
}

/// More members than this are not looked at.
const MEMBERS_MAX: usize = 256;

fn texts(value: Option<&toml::Value>) -> Vec<String> {
    let list = value.and_then(toml::Value::as_array).into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A workspace of a TOML manifest: globs of members, and what is left out.
fn of_table(look: &Look<'_>, dir: &str, file: &str, workspace: &toml::Value) -> Workspace {
    let mut globs = texts(workspace.get("members"));
    globs.extend(texts(workspace.get("exclude")).into_iter().map(|glob| format!("!{glob}")));
    let mut members = expand_all(look, dir, &globs);
    members.retain(|member| look.has(member, file));
    // The root is a package beside them more often than not.
    let several = !members.is_empty();
    Workspace { file: join(dir, file), members, several }
}

fn cargo(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let table = table(look, dir, "Cargo.toml")?;
    Some(of_table(look, dir, "Cargo.toml", table.get("workspace")?))
}

fn uv(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let table = table(look, dir, "pyproject.toml")?;
    let workspace = table.get("tool")?.get("uv")?.get("workspace")?;
    Some(of_table(look, dir, "pyproject.toml", workspace))
}

fn go(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    look.has(dir, "go.work").then_some(())?;
    let text = listeners::without_comments(&look.hint(&join(dir, "go.work"))?, &["//"]);
    let mut block = false;
    let mut globs = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("use").map(str::trim) {
            Some("(") => block = true,
            Some(path) if !block => globs.push(path.trim_matches('"').to_owned()),
            _ if line == ")" => block = false,
            _ if block && !line.is_empty() => globs.push(line.trim_matches('"').to_owned()),
            _ => {}
        }
    }
    let members = expand_all(look, dir, &globs);
    let several = members.len() > 1;
    Some(Workspace { file: join(dir, "go.work"), members, several })
}

fn maven(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    look.has(dir, "pom.xml").then_some(())?;
    let text = look.hint(&join(dir, "pom.xml"))?;
    let modules = text.split_once("<modules>")?.1.split_once("</modules>")?.0;
    let globs: Vec<String> = modules
        .split("<module>")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("</module>")?.0.trim().to_owned()))
        .collect();
    let mut members = expand_all(look, dir, &globs);
    members.retain(|member| look.has(member, "pom.xml"));
    let several = members.len() > 1;
    Some(Workspace { file: join(dir, "pom.xml"), members, several })
}

fn gradle(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let name = look.first(dir, &["settings.gradle", "settings.gradle.kts"])?;
    let text = listeners::without_comments(&look.hint(&join(dir, name))?, &["//"]);
    let mut globs = Vec::new();
    for rest in text.split("include").skip(1) {
        // `includeBuild` is another build, `include 'a', 'b'` are modules.
        if !rest.starts_with([' ', '(', '\t', '\'', '"']) {
            continue;
        }
        let statement = rest.split("\n\n").next().unwrap_or_default();
        let mut parts = statement.split(['"', '\'']);
        let mut between = parts.next().unwrap_or_default();
        while let Some(module) = parts.next() {
            // Only commas and brackets stand between the modules of one statement.
            if !between.trim().trim_matches(['(', ',']).trim().is_empty() {
                break;
            }
            globs.push(module.trim_start_matches(':').replace(':', "/"));
            between = parts.next().unwrap_or_default();
        }
    }
    if globs.is_empty() {
        return None;
    }
    let mut members = expand_all(look, dir, &globs);
    members
        .retain(|member| look.has(member, "build.gradle") || look.has(member, "build.gradle.kts"));
    let several = members.len() > 1;
    Some(Workspace { file: join(dir, name), members, several })
}

fn solution(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let files = look.files(dir);
    let name = files.iter().find(|name| name.ends_with(".sln") || name.ends_with(".slnx"))?;
    let found = dotnet::members(look, dir, Some(name));
    // The tests of an app are no second one.
    let is_test = |file: &&String| {
        look.hint(&join(dir, file)).is_some_and(|text| text.contains("Microsoft.NET.Test.Sdk"))
    };
    let mut members: Vec<String> = found
        .iter()
        .filter(|file| !is_test(file))
        .filter_map(|file| Some(join(dir, file.rsplit_once('/')?.0)))
        .filter(|place| names(place).is_ok())
        .collect();
    members.sort();
    members.dedup();
    let several = members.len() > 1;
    Some(Workspace { file: join(dir, name), members, several })
}
