//! Small projects in memory, and what detection must say about them.

use proptest::strategy::Strategy;

use crate::domain::findings::{Findings, Health};

use super::tree::MemoryTree;
use super::{DetectError, detect};

mod frameworks;
mod precedence;
mod workspaces;

/// Detects a project that is given as its files.
fn look(files: &[(&str, &str)]) -> Result<Findings, DetectError> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    detect(&MemoryTree::new(files), None)
}

/// One line that says how a project is run: framework, port, command, environment.
fn line(files: &[(&str, &str)]) -> String {
    let findings = look(files).unwrap();
    let env = findings.environment();
    let env: Vec<_> = env.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let port = findings.port.map_or("-".to_owned(), |port| port.to_string());
    format!(
        "{} {port} | {}{}",
        findings.framework,
        findings.dev_command().unwrap_or_default(),
        env.concat()
    )
}

/// The evidence for a field: value, file and reason.
fn why(findings: &Findings, field: &str) -> String {
    let found = findings.evidence.iter().find(|evidence| evidence.field == field);
    let found = found.unwrap_or_else(|| panic!("{field} has evidence"));
    format!("{} {}: {}", found.value, found.file, found.why)
}

#[test]
fn an_unknown_project_is_said_to_be_one() {
    for files in [&[][..], &[("README.md", "x")], &[("src/notes.txt", "x")]] {
        assert_eq!(look(files).unwrap_err().code(), "detect.unknown_project");
    }
    let tree = MemoryTree::new([("index.html", "x")]);
    assert_eq!(detect(&tree, Some("app")).unwrap_err().code(), "detect.unknown_project");
    assert_eq!(detect(&tree, Some("../x")).unwrap_err().code(), "workspace.invalid_path");
}

#[test]
fn a_broken_manifest_is_said_and_the_rest_still_counts() {
    let findings = look(&[("package.json", "{ nope"), ("server.js", "app.listen(4000)")]).unwrap();
    assert_eq!(findings.language.as_str(), "node");
    assert_eq!(findings.dev_command().unwrap(), "node --watch server.js");
    assert_eq!(findings.port, Some(4000));
    assert!(findings.warnings[0].contains("package.json is not valid JSON"));
    let findings = look(&[("pyproject.toml", "[[["), ("main.py", "")]).unwrap();
    assert_eq!(findings.language.as_str(), "python");
    assert!(findings.warnings[0].contains("pyproject.toml is not valid TOML"));
}

#[test]
fn a_missing_lockfile_is_visible() {
    let package = ("package.json", r#"{"dependencies":{"next":"16"}}"#);
    let findings = look(&[package]).unwrap();
    assert_eq!((findings.install.as_deref(), findings.lockfile), (Some("npm install"), None));
    let findings = look(&[package, ("package-lock.json", "")]).unwrap();
    assert_eq!(findings.install.as_deref(), Some("npm ci"));
    assert_eq!(findings.lockfile.as_deref(), Some("package-lock.json"));
    // Nothing to install, so nothing to lock.
    let findings = look(&[("package.json", r#"{"scripts":{"dev":"node a.js"}}"#)]).unwrap();
    assert_eq!(findings.install, None);
}

#[test]
fn plain_servers_are_asked_for_a_connection_and_frameworks_for_a_page() {
    let health = |files: &[(&str, &str)]| look(files).unwrap().health;
    let page = Health::Http { path: "/".into() };
    assert_eq!(health(&[("package.json", r#"{"dependencies":{"next":"16"}}"#)]), page);
    assert_eq!(health(&[("index.html", "")]), page);
    assert_eq!(health(&[("package.json", r#"{"scripts":{"dev":"node a.js"}}"#)]), Health::Tcp);
}

#[test]
fn every_value_has_its_evidence() {
    let findings = look(&[
        ("package.json", r#"{"scripts":{"dev":"vite"},"devDependencies":{"vite":"8"}}"#),
        ("pnpm-lock.yaml", ""),
        (".nvmrc", "v22.12.0\n"),
        ("vite.config.ts", "export default { server: { port: 8081 } }"),
    ])
    .unwrap();
    assert_eq!(why(&findings, "language"), "node package.json: a package.json");
    assert_eq!(why(&findings, "framework"), "vite-vanilla package.json: depends on vite");
    assert_eq!(why(&findings, "package_manager"), "pnpm pnpm-lock.yaml: nearest lockfile");
    assert_eq!(why(&findings, "runtime"), "22.12.0 .nvmrc: version file");
    assert_eq!(why(&findings, "port"), "8081 vite.config.ts: its configuration");
    assert!(why(&findings, "dev").starts_with("pnpm run dev --host 0.0.0.0 --port 8081"));
    assert_eq!(why(&findings, "health"), "/ package.json: a web framework answers pages");
    let fields: Vec<_> = findings.evidence.iter().map(|evidence| evidence.field).collect();
    let expected = "language framework package_manager runtime install dev port health";
    assert_eq!(fields.join(" "), expected);
    assert!(why(&findings, "install").starts_with("pnpm install --frozen-lockfile"));
}

proptest::proptest! {
    /// No tree makes detection panic, and the same tree is always answered the same way.
    #[test]
    fn arbitrary_trees_are_answered_alike(
        files in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    "package.json", "requirements.txt", "pyproject.toml", "Pipfile", "main.py",
                    "manage.py", "web/manage.py", "vite.config.ts", "server.js", ".nvmrc",
                    "index.html", "pnpm-workspace.yaml", "a/package.json", "runtime.txt",
                    ".tool-versions", "mise.toml", "yarn.lock", "angular.json",
                    "Gemfile", "config.ru", "composer.json", "index.php", "go.mod", "main.go",
                    "Cargo.toml", "src/main.rs", "pom.xml", "build.gradle", "settings.gradle",
                    "A.csproj", "A.sln", "Properties/launchSettings.json", "mix.exs", "deno.json",
                    "project.clj", "deps.edn", "Package.swift", "shard.yml", "CMakeLists.txt",
                    "config.toml", "Staticfile", "setup.py", "environment.yml", "Procfile",
                ]),
                proptest::prop_oneof![
                    ".{0,80}",
                    proptest::sample::select(vec![
                        r#"{"dependencies":{"next":"^"},"scripts":{"dev":"next dev -p"}}"#,
                        r#"{"workspaces":["**","!a"],"scripts":{"start":"node \"a"}}"#,
                        r#"{"devDependencies":{"vite":"npm:"},"main":"../../x"}"#,
                        "app = FastAPI(", "-r requirements.txt", "[project]\ndependencies = ['']",
                        "packages:\n  - '**'", ".listen(", "server: { port: 99999999999 }", "20 || ^",
                        "gem 'rails", "require (\n\tgithub.com/gin-gonic/gin", "[[bin]]\nname = 'x'",
                        "<groupId>org.springframework.boot", "include ':a', '", "{:phoenix, ",
                        "Project(\"\") = \"..\\a.csproj\"", "[ring/ring \"1\"] :port ", "root: ../x",
                        "Listen(port)\nport = addr\naddr = port", "web: x --port ${PORT:-}",
                    ]).prop_map(str::to_owned),
                ],
            ),
            0..8,
        )
    ) {
        let answer = |files: &[(&str, String)]| {
            let tree = MemoryTree::new(files.iter().cloned());
            format!("{:?}", detect(&tree, None))
        };
        let mut reversed: Vec<_> = files.clone();
        // The last file of a name wins in a tree, so that names must be unique to be reversed.
        reversed.sort_by_key(|(path, _)| *path);
        reversed.dedup_by_key(|(path, _)| *path);
        let first = answer(&reversed);
        reversed.reverse();
        proptest::prop_assert_eq!(first, answer(&reversed));
        let _ = answer(&files);
    }
}

#[test]
fn a_script_whose_name_holds_control_characters_is_never_run() {
    let manifest = r#"{"scripts":{"d\u007fev":"vite"},"devDependencies":{"vite":"7"}}"#;
    let findings = look(&[("package.json", manifest)]).unwrap();
    let dev = findings.dev_command().unwrap_or_default();
    assert!(!dev.chars().any(char::is_control) && !dev.contains("run d"), "{dev:?}");
}
