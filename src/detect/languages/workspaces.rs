//! Builds of several modules that declare no packages: Maven, Gradle, .NET solutions, umbrellas.
//!
//! Such a build has modules even where one of them is the whole app, so it is no monorepo by
//! itself.

use crate::detect::look::Look;
use crate::detect::tree::{join, names};
use crate::detect::workspaces::Workspace;

use super::{dotnet, elixir, listeners};

/// Returns the workspace that a directory declares in one of these languages, if it does.
pub(crate) fn members(look: &Look<'_>, dir: &str) -> Option<Workspace> {
    let found = maven(look, dir).or_else(|| gradle(look, dir)).or_else(|| solution(look, dir));
    let found = found.or_else(|| {
        let members = elixir_apps(look, dir);
        Some(Workspace { file: join(dir, "mix.exs"), members })
    });
    found.filter(|workspace| !workspace.members.is_empty())
}

fn elixir_apps(look: &Look<'_>, dir: &str) -> Vec<String> {
    if !look.has(dir, "mix.exs") {
        return Vec::new();
    }
    elixir::umbrella(look, dir).into_iter().map(|app| join(dir, &app)).collect()
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
    Some(Workspace { file: join(dir, "pom.xml"), members })
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
    Some(Workspace { file: join(dir, name), members })
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
    Some(Workspace { file: join(dir, name), members })
}
