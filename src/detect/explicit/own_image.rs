//! The image that a repository builds for itself: from which Dockerfile and stage, and what of a
//! Dockerfile no host builds for a stranger.

use std::collections::BTreeSet;

use crate::detect::look::Look;
use crate::detect::tree::{Tree, join};
use crate::domain::findings::{Findings, OwnImage};

use super::Context;
use super::dockerfile::{FOR_DEVELOPMENT, has, instructions, stages};

/// The Dockerfile that an app would be run from: one for development first, the nearest first.
pub(super) fn find(context: &Context<'_>) -> Option<OwnImage> {
    context.upward().filter(|dir| context.speaks_for(dir)).find_map(|dir| {
        let plain = ["Dockerfile", "dockerfile", "Containerfile"];
        let mut files = FOR_DEVELOPMENT.iter().chain(&plain).map(|name| join(dir, name));
        let file = files.find(|file| has(context.look, file))?;
        let stages = stages(&context.look.hint(&file)?);
        let named = stages.iter().rev().find(|stage| stage.is_for_development());
        // A server of finished pages at the end is no dev server.
        if named.or(stages.last())?.serves_files() {
            return None;
        }
        let stage = named.and_then(|stage| stage.name.clone());
        Some(OwnImage { file, dir: dir.to_owned(), stage })
    })
}

/// The same for an app of which only the project file says how it is run.
#[must_use]
pub fn of(tree: &dyn Tree, findings: &Findings) -> Option<OwnImage> {
    let look = Look::new(tree);
    find(&Context::new(&look, findings))
}

/// Why a Dockerfile is not built, if it is not: it would make the daemon fetch what its author
/// chooses, or needs a builder that runs code of its author's choice. `bases` are the names of
/// images that may be built upon; one that ends with `*` stands for all that begin so.
#[must_use]
pub fn refusal(text: &str, bases: &[String]) -> Option<String> {
    let head = text.lines().take_while(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    });
    for line in head {
        let line = line.trim().trim_start_matches('#').trim_start().to_ascii_lowercase();
        let word = line.split('=').next().unwrap_or_default().trim_end();
        if line.contains('=') && ["syntax", "escape", "check"].contains(&word) {
            return Some(format!("begins with the directive `# {word}=`"));
        }
    }
    let stages = stages(text);
    if stages.is_empty() {
        return Some("has no FROM".to_owned());
    }
    let allowed = |image: &str| {
        let name = name_of(image);
        let fits = |base: &String| match base.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == base,
        };
        name == "scratch" || bases.iter().any(fits)
    };
    let not_allowed = |image: &str| {
        format!(
            "takes from the image `{image}`, which is not in this host's `preview.dockerfile_bases`"
        )
    };
    if let Some(stage) = stages.iter().find(|stage| !allowed(&stage.image)) {
        return Some(not_allowed(&stage.image));
    }
    let names: BTreeSet<&str> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
    for line in instructions(text) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let words = || rest.split([' ', '\t', '"', '[', ']', ',']).filter(|word| !word.is_empty());
        match word.to_ascii_uppercase().as_str() {
            "ADD" => {
                let fetched = words().find(|word| {
                    word.contains("://") || word.starts_with("git@") || word.contains('$')
                });
                if let Some(fetched) = fetched {
                    return Some(format!("fetches `{fetched}` with ADD"));
                }
            }
            "COPY" => {
                let from = words().find_map(|word| word.strip_prefix("--from="));
                let from = from.map(str::to_ascii_lowercase).filter(|from| {
                    let is_stage = from.parse::<usize>().is_ok_and(|at| at < stages.len());
                    !is_stage && !names.contains(from.as_str()) && !allowed(from)
                });
                if let Some(from) = from {
                    return Some(not_allowed(&from));
                }
            }
            "RUN" if rest.trim_start().starts_with("--") => {
                let flag = words().next().unwrap_or_default();
                return Some(format!("uses RUN with {flag}"));
            }
            "ONBUILD" => return Some("uses ONBUILD".to_owned()),
            _ => {}
        }
    }
    None
}

/// An image's name without tag and digest, and without the names of the usual registry.
fn name_of(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let name = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let bases = ["golang", "debian", "covibes/*"].map(str::to_owned);
        let refusal = refusal(text, &bases);
        match (&refusal, expected) {
            (None, None) => {}
            (Some(said), Some(word)) if said.contains(word) => {}
            _ => panic!("{text:?}: {refusal:?}"),
        }
    }

    #[test]
    fn what_stays_within_the_repository_and_the_list_is_built() {
        check("FROM golang:1.23 AS build\nCOPY go.mod .\nRUN go build\nFROM debian\n", None);
        check("ARG V=1.23\nFROM docker.io/library/golang:${V}-bookworm\nADD . /app\n", None);
        check(
            "FROM golang AS Tools\nFROM debian\nCOPY --from=tools /a /b\nCOPY --from=0 /a /c",
            None,
        );
        check("# a comment\nFROM covibes/base:1\nCOPY --from=covibes/x:2 [\"a b\", \"c\"]\n", None);
        check("FROM scratch\n", None);
    }

    #[test]
    fn what_reaches_further_is_refused_by_its_name() {
        check("# syntax=docker/dockerfile:1\nFROM debian\n", Some("`# syntax=`"));
        check("#escape=`\nFROM debian\n", Some("`# escape=`"));
        check("FROM evil.example/golang:1\n", Some("evil.example/golang:1"));
        check("FROM 10.0.0.1:5000/golang\n", Some("10.0.0.1:5000/golang"));
        check("FROM golangci\n", Some("golangci"));
        check("ARG B\nFROM ${B}\n", Some("preview.dockerfile_bases"));
        check("FROM debian\nCOPY --from=evil/x /a /b\n", Some("evil/x"));
        check("FROM debian\nCOPY --chown=1 --from=7 /a /b\n", Some("`7`"));
        check("FROM debian\nADD https://a.example/x /x\n", Some("with ADD"));
        check("FROM debian\nADD [\"git@a.example:x.git\", \"/x\"]\n", Some("with ADD"));
        check("ARG U=https://a.example\nFROM debian\nARG U\nADD $U /x\n", Some("with ADD"));
        check("FROM debian\nRUN --mount=type=secret,id=x cat x\n", Some("--mount"));
        check("FROM debian\nRUN \\\n  --network=host true\n", Some("--network"));
        check("FROM debian\nONBUILD RUN true\n", Some("ONBUILD"));
        check("RUN true\n", Some("has no FROM"));
        check("", Some("has no FROM"));
    }
}
