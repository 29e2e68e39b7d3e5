//! Swift: packages from `Package.swift`, Vapor among them.

use std::collections::BTreeSet;

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager};

use super::listeners::{self, Shapes};
use super::rules::Rule::{All, Always, Code, Dep, Slot};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, offer};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "configuration.port =",
        "address: .hostname(",
        "addHTTPServer(",
        ".listen(",
        ".start(",
        "bind(",
    ],
    keys: &[],
};

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Vapor,
        rule: Dep(&["vapor"]),
        dev: &[
            (Slot("target"), "swift run {target} serve --hostname {host} --port {port}"),
            (Always, "swift run"),
        ],
        port: Some(8080),
        ..BASE
    },
    // Its template binds the loopback address, unless it is told otherwise.
    Entry {
        rule: All(&[Dep(&["hummingbird"]), Slot("target"), Code(&["var hostname"])]),
        dev: &[(Always, "swift run {target} --hostname {host} --port {port}")],
        port: Some(8080),
        ..BASE
    },
    Entry {
        rule: Dep(&["hummingbird", "kitura", "perfect-httpserver"]),
        dev: &[(Always, "swift run")],
        port: Some(8080),
        env: super::PORT_ENV,
        ..BASE
    },
    Entry { rule: All(&[Slot("target")]), dev: &[(Always, "swift run {target}")], ..PROGRAM_ENTRY },
    Entry { rule: Always, dev: &[(Always, "swift run")], ..PROGRAM_ENTRY },
];

/// Offers a candidate for a directory with a `Package.swift`.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    if !look.has(dir, "Package.swift") {
        return Ok(None);
    }
    let path = join(dir, "Package.swift");
    let text = look.manifest(&path)?.unwrap_or_default();
    let text = listeners::without_comments(&text, SHAPES.comments);
    let mut project = Project::new(look, dir, Language::Swift, PackageManager::Swiftpm, path);
    project.shapes = &SHAPES;
    project.dependencies = packages(&text);
    project.installs("swift package resolve", "Package.swift");
    project.locked_by("Package.resolved");
    let target = ["executableTarget", "executable"].iter().find_map(|kind| {
        let (_, rest) = text.split_once(&format!(".{kind}("))?;
        rest.split_once("name:")?.1.split('"').nth(1).map(str::to_owned)
    });
    if let Some(target) = target {
        for file in ["main.swift", "entrypoint.swift", "configure.swift", "App.swift"] {
            project.add_code([format!("Sources/{target}/{file}")]);
        }
        project.fill("target", &target);
    }
    project.add_code(["Sources/main.swift".to_owned(), "Sources/App/configure.swift".to_owned()]);
    Ok(offer(project, TABLE))
}

/// The last part of the address of every package.
fn packages(text: &str) -> BTreeSet<String> {
    let urls = text.split("url:").skip(1).filter_map(|rest| rest.split('"').nth(1));
    urls.filter_map(|url| url.trim_end_matches('/').rsplit('/').next())
        .map(|name| name.trim_end_matches(".git").to_ascii_lowercase())
        .collect()
}
