//! Sites that need no language of their own: Hugo, Zola, mdBook, and plain pages.

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::join;
use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Source, Template,
};

use super::rules::Rule::{self, All, Always, Directory, File, Slot};
use super::{BASE, Entry, Project, listeners, offer};

/// The port of the static server; nothing of a static site says one.
const STATIC_PORT: u16 = 8080;

/// How strongly pages speak for themselves: less than anything that can be run.
const PAGES: u32 = 20;

/// A site's tool is as sure as a framework: its configuration has no other use.
const SITE: u32 = 70;

/// Where pages lie: the directory itself, what is meant to be public, and what a build left.
const ROOTS: [&str; 12] = [
    ".", "public", "www", "html", "htdocs", "site", "static", "web", "dist", "build", "src",
    "_site",
];

const HUGO: &[(Rule, &str)] = &[
    (Slot("source"), "hugo server -D --bind {host} -p {port} --source {source}"),
    (Always, "hugo server -D --bind {host} -p {port}"),
];

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Hugo,
        rule: Slot("hugo"),
        dev: HUGO,
        port: Some(1313),
        score: SITE,
        ..BASE
    },
    Entry {
        id: Framework::Zola,
        rule: Slot("zola"),
        dev: &[(Always, "zola serve --interface {host} --port {port}")],
        port: Some(1111),
        score: SITE,
        ..BASE
    },
    Entry {
        rule: All(&[File(&["book.toml"]), Directory(&["src"])]),
        dev: &[(Always, "mdbook serve --hostname {host} --port {port}")],
        port: Some(3000),
        score: 36,
        ..BASE
    },
];

/// Offers the candidates of a directory that holds a site.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Vec<Candidate> {
    generated(look, dir).into_iter().chain(pages(look, dir)).collect()
}

/// A site that a tool makes of its content.
fn generated(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    let new = look.first(dir, &["hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json"]);
    let nested = || {
        let names =
            ["hugo.toml", "hugo.yaml", "hugo.yml", "config.toml", "config.yaml", "config.yml"];
        let directories = look.directories(dir);
        directories.iter().any(|name| name == "config").then_some(())?;
        names
            .iter()
            .map(|name| format!("config/_default/{name}"))
            .find(|name| super::has(look, dir, name))
    };
    if new.is_none() && look.has(dir, "theme.toml") && look.holds(dir, "exampleSite") {
        // A theme is looked at in its example.
        let example = generated(look, &join(dir, "exampleSite"));
        if let Some(candidate) = example.filter(|found| found.findings.framework == Framework::Hugo)
        {
            return Some(candidate);
        }
    }
    let shared = look.first(dir, &["config.toml", "config.yaml", "config.yml", "config.json"]);
    let file = new.map(str::to_owned).or_else(|| shared.map(str::to_owned)).or_else(nested);
    let file = file.or_else(|| look.first(dir, &["book.toml"]).map(str::to_owned))?;
    let mut project =
        Project::new(look, dir, Language::Static, PackageManager::None, join(dir, &file));
    let (text, path) = project.read(&file)?;
    // Hugo and Zola share the name of their file; Hugo ignores the case of its keys.
    let is_key = |line: &str, key: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(['=', ':']))
    };
    let lower = text.to_ascii_lowercase();
    let hugo = new.is_some()
        || file.starts_with("config/")
        || (file != "book.toml" && lower.lines().any(|line| is_key(line, "baseurl")))
        || (shared.is_some()
            && HUGO_DIRECTORIES
                .iter()
                .filter(|name| look.directories(dir).iter().any(|known| known == *name))
                .count()
                >= 2);
    let zola = file == "config.toml" && text.lines().any(|line| is_key(line, "base_url"));
    let directories = look.directories(dir);
    let content = ["content", "templates", "themes", "sass", "static"]
        .iter()
        .any(|name| directories.iter().any(|known| known == name));
    if zola && content {
        project.fill("zola", "zola");
    } else if hugo {
        project.fill("hugo", "hugo");
    }
    project.port = text.lines().find_map(|line| {
        let line = line.trim().to_ascii_lowercase();
        let value = line.strip_prefix("port")?.trim_start().strip_prefix(['=', ':'])?;
        listeners::number(value).map(|port| (port, path.clone()))
    });
    let mut candidate = offer(project, TABLE)?;
    if zola || hugo {
        candidate.findings.source = Source::Framework;
    }
    Some(candidate)
}

/// Directories that a Hugo site has, of which no other tool has two.
const HUGO_DIRECTORIES: [&str; 4] = ["archetypes", "content", "layouts", "themes"];

/// Serves a directory whose pages need no language.
fn pages(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    let declared = super::read(look, dir, "Staticfile");
    let named = declared.as_ref().and_then(|(text, _)| {
        let root = text.lines().find_map(|line| line.trim().strip_prefix("root:"))?;
        let root = root.trim().trim_matches(['"', '\'']).trim_end_matches('/');
        crate::detect::look::is_plain_word(root).then(|| root.trim_start_matches("./").to_owned())
    });
    // Below the root only what is a page itself counts, not what holds one further down.
    let roots = if dir == "." { &ROOTS[..] } else { &ROOTS[..1] };
    let page = || {
        roots.iter().find_map(|root| {
            let file = join(root, "index.html");
            super::has(look, dir, &file).then(|| ((*root).to_owned(), file))
        })
    };
    let any = || {
        let name = look.files(dir).into_iter().find(|name| name.ends_with(".html"))?;
        Some((".".to_owned(), name))
    };
    let root = |(text, _): &(String, String)| (text.clone(), "Staticfile".to_owned());
    let (folder, file) = match (named, &declared) {
        (Some(named), _) => (named, "Staticfile".to_owned()),
        (None, Some(declared)) => page()
            .map(|(folder, _)| (folder, root(declared).1))
            .unwrap_or((".".into(), "Staticfile".into())),
        (None, None) if dir == "." => page().or_else(any)?,
        (None, None) => page()?,
    };
    let folder = if folder == "." { String::new() } else { format!(" --directory {folder}") };
    let mut findings = Findings::blank(dir);
    findings.language = Language::Static;
    findings.framework = Framework::StaticHtml;
    findings.source = Source::Framework;
    findings.port = Some(STATIC_PORT);
    findings.health = Health::Http { path: "/".to_owned() };
    let command = format!("python3 -m http.server {{port}} --bind {{host}}{folder}");
    findings.dev = Some(Template::Slots(command));
    let file = join(dir, &file);
    findings.decide("language", "static", file.clone(), "a page");
    findings.decide("framework", "static-html", file.clone(), "a page");
    findings.decide("port", STATIC_PORT.to_string(), file.clone(), "static server");
    findings.decide("dev", findings.dev_command().unwrap_or_default(), file, "static server");
    Some(Candidate { findings, score: PAGES })
}
