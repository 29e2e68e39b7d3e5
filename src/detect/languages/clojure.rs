//! Clojure: Leiningen and the command-line tools, Ring and Luminus.

use std::collections::BTreeSet;

use crate::detect::Candidate;
use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Dep, File, Slot};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, Said, offer};

const SHAPES: Shapes = Shapes {
    comments: &[";"],
    calls: &["run-jetty ", "run-server ", "start-server ", "http/start "],
    keys: &[":port"],
};

/// The aliases of a `deps.edn` that start something, the preferred first.
const ALIASES: [&str; 9] =
    [":dev", ":run", ":server", ":serve", ":start", ":run-m", ":run-x", ":main", ":app"];

const LEIN: Rule = File(&["project.clj"]);

const RUN: &[(Rule, &str)] = &[
    (All(&[LEIN, Dep(&["lein-ring"])]), "lein ring server-headless {port}"),
    (LEIN, "lein run"),
    (Slot("alias"), "clojure {alias}"),
    (Slot("main"), "clojure -M -m {main}"),
    (File(&["build.boot"]), "boot dev"),
];

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Luminus,
        rule: Dep(&["luminus*", "metosin/luminus*", "org.clojars.luminus*"]),
        dev: RUN,
        port: Some(3000),
        env: super::PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Ring,
        rule: Any(&[
            Dep(&[
                "ring/*",
                "ring",
                "compojure",
                "compojure/compojure",
                "lein-ring",
                "info.sunng/ring*",
            ]),
            Dep(&["http-kit", "http-kit/http-kit", "metosin/ring-http-response"]),
        ]),
        dev: RUN,
        port: Some(3000),
        env: super::PORT_ENV,
        ..BASE
    },
    Entry {
        rule: Dep(&["io.pedestal/*"]),
        dev: RUN,
        port: Some(8080),
        env: super::PORT_ENV,
        ..BASE
    },
    Entry { rule: Always, dev: RUN, ..PROGRAM_ENTRY },
];

/// Offers a candidate for a directory with a Clojure build.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let Some(file) = look.first(dir, &["project.clj", "deps.edn", "build.boot"]) else {
        return Ok(None);
    };
    let manager = match file {
        "project.clj" => PackageManager::Lein,
        "deps.edn" => PackageManager::ToolsDeps,
        _ => PackageManager::None,
    };
    let path = join(dir, file);
    let text = look.manifest(&path)?.unwrap_or_default();
    let text = listeners::without_comments(&text, SHAPES.comments);
    let mut project = Project::new(look, dir, Language::Clojure, manager, path.clone());
    project.shapes = &SHAPES;
    project.dependencies = if manager == PackageManager::ToolsDeps {
        coordinates(&text, '{')
    } else {
        coordinates(&text, '[')
    };
    match manager {
        PackageManager::Lein => project.installs("lein deps", file),
        PackageManager::ToolsDeps => project.installs("clojure -P", file),
        _ => {}
    }
    if let Some(alias) = ALIASES.iter().find_map(|alias| call(&text, alias)) {
        // An alias is no plain word: it begins with a colon, which no shell minds.
        project.slots.insert("alias", alias);
    }
    project.port = listeners::keyed(&text, ":port").map(|port| (port, path));
    project.port = project.port.take().or_else(|| configured(&project));
    sources(&mut project);
    Ok(offer(project, TABLE))
}

/// The names of `[name "1"]` or `name {:mvn/version "1"}`.
fn coordinates(text: &str, open: char) -> BTreeSet<String> {
    let name = |letter: char| letter.is_alphanumeric() || "-_./".contains(letter);
    let mut names = BTreeSet::new();
    if open == '[' {
        for rest in text.split('[').skip(1) {
            let end = rest.find(|letter| !name(letter)).unwrap_or(rest.len());
            if rest[end..].trim_start().starts_with('"') {
                names.insert(rest[..end].to_owned());
            }
        }
    } else {
        for before in text.split('{') {
            let before = before.trim_end();
            let start = before.rfind(|letter| !name(letter)).map_or(0, |at| at + 1);
            names.insert(before.get(start..).unwrap_or_default().to_owned());
        }
    }
    names.remove("");
    names
}

/// How an alias is run, if it is there and starts something.
fn call(text: &str, alias: &str) -> Option<String> {
    let (_, rest) = text
        .split_once(&format!("{alias} {{"))
        .or_else(|| text.split_once(&format!("{alias}\n")))?;
    let own = rest.split("\n  :").next().unwrap_or_default();
    let own = own.get(..own.find("}}").map_or(own.len(), |at| at + 1))?;
    if own.contains(":main-opts") {
        Some(format!("-M{alias}"))
    } else if own.contains(":exec-fn") {
        Some(format!("-X{alias}"))
    } else {
        None
    }
}

/// What Luminus and others keep in their settings for development.
fn configured(project: &Project<'_, '_>) -> Option<Said<u16>> {
    let files = [
        "dev-config.edn",
        "env/dev/resources/config.edn",
        "resources/config.edn",
        "config.edn",
        "profiles.clj",
    ];
    files.iter().find_map(|file| {
        let (text, path) = project.read(file)?;
        let text = listeners::without_comments(&text, SHAPES.comments);
        let port = listeners::keyed(&text, ":port").or_else(|| {
            // Luminus reads it from the environment first: `:port #long #or [#env PORT 3000]`.
            let (_, rest) = text.split_once(":port ")?;
            let line = rest.lines().next()?;
            line.split([' ', ']', '}']).find_map(listeners::number)
        });
        Some((port?, path))
    })
}

/// Reads the sources at the top of the tree of namespaces, and finds the one that begins it.
fn sources(project: &mut Project<'_, '_>) {
    for root in ["src", "src/clj"] {
        for ending in [".clj", ".cljc"] {
            project.add_code_in(root, ending);
            for inner in project.look.directories(&join(&project.dir, root)) {
                project.add_code_in(&join(root, &inner), ending);
            }
        }
    }
    let main = project.code.iter().find_map(|(_, text)| {
        text.contains("-main").then_some(())?;
        let (_, rest) = text.split_once("(ns ")?;
        let name = rest.split(|letter: char| letter.is_whitespace() || letter == ')').next()?;
        is_plain_word(name).then(|| name.to_owned())
    });
    if let Some(main) = main {
        project.fill("main", &main);
    }
}
