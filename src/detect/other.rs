//! Everything that is neither Node nor Python: static sites, and languages that are only named.
//!
//! A language without an entry of its own yet is still told apart, so that a Laravel project
//! with a `package.json` never comes out as Node; it has no dev command, which the caller reports.

use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Source, Template,
};

use super::Candidate;
use super::look::Look;
use super::tree::join;

/// A project that its files alone prove to be of this language.
const CERTAIN: u32 = 72;
const DECLARED: u32 = 50;
const STATIC: u32 = 20;

/// The port of the static server; nothing of a static site says one.
const STATIC_PORT: u16 = 8080;

/// Files that declare a language: all of a row must be there. `*.x` is any file with the ending.
const LANGUAGES: &[(&[&str], u32, Language, PackageManager)] = {
    use Language as L;
    use PackageManager as P;
    &[
        (&["artisan", "composer.json"], CERTAIN, L::Php, P::Composer),
        (&["bin/rails", "Gemfile"], CERTAIN, L::Ruby, P::Bundler),
        (&["config.ru", "Gemfile"], CERTAIN, L::Ruby, P::Bundler),
        (&["mix.exs"], CERTAIN, L::Elixir, P::Mix),
        (&["*.csproj"], CERTAIN, L::Dotnet, P::Nuget),
        (&["*.fsproj"], CERTAIN, L::Dotnet, P::Nuget),
        (&["*.sln"], CERTAIN, L::Dotnet, P::Nuget),
        (&["pom.xml"], CERTAIN, L::Java, P::Maven),
        (&["gleam.toml"], CERTAIN, L::Gleam, P::None),
        (&["build.sbt"], CERTAIN, L::Scala, P::Sbt),
        (&["project.clj"], CERTAIN, L::Clojure, P::Lein),
        (&["deps.edn"], CERTAIN, L::Clojure, P::ToolsDeps),
        (&["Package.swift"], CERTAIN, L::Swift, P::Swiftpm),
        (&["shard.yml"], CERTAIN, L::Crystal, P::Shards),
        (&["pubspec.yaml"], CERTAIN, L::Dart, P::Pub),
        (&["stack.yaml"], CERTAIN, L::Haskell, P::Stack),
        (&["build.zig"], CERTAIN, L::Zig, P::None),
        (&["go.mod"], CERTAIN, L::Go, P::Gomod),
        (&["deno.json"], DECLARED, L::Deno, P::Deno),
        (&["deno.jsonc"], DECLARED, L::Deno, P::Deno),
        (&["build.gradle"], DECLARED, L::Java, P::Gradle),
        (&["build.gradle.kts"], DECLARED, L::Java, P::Gradle),
        (&["Cargo.toml"], DECLARED, L::Rust, P::Cargo),
        (&["composer.json"], DECLARED, L::Php, P::Composer),
        (&["Gemfile"], DECLARED, L::Ruby, P::Bundler),
        (&["index.php"], DECLARED, L::Php, P::None),
        (&["CMakeLists.txt"], DECLARED, L::Cpp, P::Cmake),
    ]
};

/// Names the language of a directory that declares one.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    let has = |file: &str| match file.strip_prefix('*') {
        Some(ending) => look.files(dir).iter().any(|name| name.ends_with(ending)),
        None => look.has(dir, file),
    };
    let row = LANGUAGES.iter().find(|(files, ..)| files.iter().all(|file| has(file)));
    let (files, score, language, manager) = row?;
    let mut findings = Findings::blank(dir);
    findings.language = *language;
    findings.package_manager = *manager;
    findings.decide("language", language.as_str(), join(dir, files[0]), "its file");
    findings.decide("package_manager", manager.as_str(), join(dir, files[0]), "its file");
    findings.warnings.push(format!(
        "{language} is recognised, but not yet how to run it: set `preview.command` and \
         `preview.port` in .covibes.yml"
    ));
    Some(Candidate { findings, score: *score })
}

/// Serves a directory whose pages need no language.
pub(crate) fn probe_static(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    let (file, folder) = [("index.html", ""), ("public/index.html", " --directory public")]
        .into_iter()
        .find(|(file, _)| look.has(dir, file))?;
    let mut findings = Findings::blank(dir);
    findings.language = Language::Static;
    findings.framework = Framework::StaticHtml;
    findings.source = Source::Framework;
    findings.port = Some(STATIC_PORT);
    findings.health = Health::Http { path: "/".to_owned() };
    let command = format!("python3 -m http.server {{port}} --bind {{host}}{folder}");
    findings.dev = Some(Template::Slots(command));
    let file = join(dir, file);
    findings.decide("language", "static", file.clone(), "a page");
    findings.decide("framework", "static-html", file.clone(), "a page");
    findings.decide("port", STATIC_PORT.to_string(), file, "static server");
    Some(Candidate { findings, score: STATIC })
}
