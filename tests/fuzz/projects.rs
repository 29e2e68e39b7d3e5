//! What lies in a workspace: the project file, other tools' files, manifests, code.

use covibes::config::project;
use covibes::detect::detect;
use covibes::detect::tree::MemoryTree;
use covibes::domain::failure::Code;
use covibes::domain::findings::Findings;

use crate::engine::fuzz;

/// Something for every file to speak about.
const NODE: &[(&str, &str)] = &[
    (
        "package.json",
        r#"{"scripts":{"dev":"vite","start":"node server.js"},"dependencies":{"express":"5"},
            "devDependencies":{"vite":"7"}}"#,
    ),
    ("package-lock.json", "{}"),
    ("server.js", "import express from 'express'; express().listen(process.env.PORT || 3000)"),
];
const EXPRESS: &[(&str, &str)] =
    &[("package.json", r#"{"scripts":{"start":"node server.js"},"dependencies":{"express":"5"}}"#)];
const PYTHON: &[(&str, &str)] = &[
    ("requirements.txt", "flask\n"),
    ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
];

/// Detects the base with one file more, and says in short what was found.
fn found(base: &[(&str, &str)], path: &str, bytes: &[u8]) -> String {
    let files = base.iter().filter(|(name, _)| *name != path);
    let files = files.map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    let tree = MemoryTree::new(files.chain([(path.to_owned(), bytes.to_vec())]));
    match detect(&tree, None) {
        Ok(findings) => {
            hold(&findings);
            let kinds: Vec<String> = findings
                .warnings
                .iter()
                .map(|warning| warning.chars().filter(char::is_ascii_lowercase).take(24).collect())
                .collect();
            let decided: Vec<&str> =
                findings.evidence.iter().map(|evidence| evidence.file.as_str()).collect();
            format!(
                "{} {} {} {:?} {} {} {decided:?} {kinds:?}",
                findings.language,
                findings.framework,
                findings.package_manager,
                findings.port.map(|port| port.leading_zeros()),
                findings.source,
                findings.dev.is_some(),
            )
        }
        Err(error) => {
            assert!(Code::parse(error.code()).is_some(), "{} is no code", error.code());
            error.code().to_owned()
        }
    }
}

/// What must be true of whatever is found in a hostile workspace.
fn hold(findings: &Findings) {
    let plain = |text: &str| !text.chars().any(|letter| letter.is_control());
    let commands = findings.install.iter().cloned().chain(findings.dev_command());
    for command in commands {
        assert!(plain(&command) && command.len() <= 8 * 1024, "command {command:?}");
    }
    assert!(findings.port != Some(0), "port 0");
    let inside = |dir: &str| !dir.starts_with('/') && !dir.split('/').any(|part| part == "..");
    assert!(inside(&findings.app_dir) && inside(&findings.install_dir), "{}", findings.app_dir);
    assert!(findings.warnings.len() <= 128, "{} warnings", findings.warnings.len());
    for evidence in &findings.evidence {
        assert!(plain(&evidence.value), "evidence {:?}", evidence.value);
    }
    // The JSON that scripts read can always be made.
    serde_json::to_string(&covibes::wire::findings::Findings::from(findings)).unwrap();
}

#[test]
fn project_file() {
    let seeds = [
        "preview:\n  app: apps/web\n  install: npm ci\n  command: npm run dev\n  port: 3000\n  \
         health: /up\n  env: {A: b}\n  runtime: node@22\n  writable: [a, b.db]\n  mode: direct\n",
        "preview:\n  - {name: main, port: 1}\n  - {name: b, mode: mirror}\nagents:\n  - name: a\n    \
         env: {X: 'y'}\nlimits:\n  agent: {memory: 1GB, cpu: 0.5}\n  preview: {memory: 4GB}\n",
    ];
    let words = ["preview:", "  port: ", "limits:", "- name: ", "&a ", "*a", "<<: *a", "comand: x"];
    fuzz("project_file", &seeds, &words, |bytes| match project::parse(bytes) {
        Ok(file) => {
            let mut count = file.warnings().len();
            for preview in &file.previews {
                let findings = project::apply(Findings::blank("."), preview);
                hold(&findings);
                count += findings.evidence.len();
                // What is written from findings is a project file again.
                project::parse(project::write(Some(&findings)).as_bytes()).unwrap();
            }
            format!("ok {count}")
        }
        Err(error) => {
            assert!(Code::parse(error.code()).is_some(), "{} is no code", error.code());
            let shown = format!("{error}{}", error.excerpt(bytes).concat());
            assert!(!shown.chars().any(char::is_control) && shown.len() < 4_000, "{shown:?}");
            let place = error.place();
            assert!(place.line >= 1 && place.column >= 1);
            let kind: String =
                error.to_string().chars().filter(char::is_ascii_lowercase).take(40).collect();
            format!("{} {kind}", error.code())
        }
    });
}

#[test]
fn devcontainer() {
    let seeds = [
        "// a\n{\"forwardPorts\": [3000, \"db:5432\"], \"portsAttributes\": {\"3000\": {\"label\": \
         \"x\", \"onAutoForward\": \"openBrowser\"}}, /* b */ \"containerEnv\": {\"A\": \"b\"},}",
        "{\"image\": \"mcr.microsoft.com/devcontainers/javascript-node:1-22\", \"features\": \
         {\"ghcr.io/devcontainers/features/node:1\": {\"version\": \"20\"}}, \
         \"postCreateCommand\": [\"npm\", \"ci\"], \"appPort\": 8080}",
    ];
    let words = ["\"forwardPorts\":", "\"version\":", "\"appPort\":", "65536", "/*", "//", ",]"];
    fuzz("devcontainer", &seeds, &words, |bytes| {
        found(NODE, ".devcontainer/devcontainer.json", bytes)
    });
}

#[test]
fn compose() {
    let seeds = [
        "x-a: &a\n  build: .\nservices:\n  web:\n    <<: *a\n    command: npm run dev -- --port 4000\n    \
         ports: ['4000:4000', {target: 9229}]\n    environment: [PORT=4000, A=$B]\n    volumes: ['.:/app']\n",
        "services:\n  api:\n    build: {context: ., dockerfile: Dockerfile, target: dev}\n    working_dir: \
         /app\n    ports:\n      - \"${P:-1}:${P:-1}/tcp\"\n    command: [sh, -c, 'npm ci && npm start']\n",
    ];
    let words = ["services:", "build:", "ports:", "- ", "command:", "../..", "${A:-1}", "&a", "*a"];
    fuzz("compose", &seeds, &words, |bytes| found(NODE, "compose.yaml", bytes));
}

#[test]
fn dockerfile() {
    let seeds = [
        "ARG V=22\nFROM node:${V} AS base\nENV PORT=4000 A=\"b c\"\nFROM base AS dev\nEXPOSE $PORT 9229/tcp\n\
         CMD [\"npm\", \"run\", \"dev\"]\nFROM nginx\nCOPY --from=dev /a /b\nEXPOSE 80\n",
        "FROM python:3.12\nENTRYPOINT [\"tini\", \"--\"]\nCMD flask run \\\n  --port 5001\n",
    ];
    let words = ["FROM ", " AS dev\n", "EXPOSE ", "CMD ", "ENV ", "ARG ", "\\\n", "${", "[\""];
    fuzz("dockerfile", &seeds, &words, |bytes| found(NODE, "Dockerfile", bytes));
}

#[test]
fn procfile() {
    let seeds = ["web: npm run dev -- --port 4000\nworker: node a.js\n", "web: PORT=1 bin/dev\n"];
    let words = ["web: ", "--port ", "&& ", "'", "\"", "$(", "python manage.py runserver "];
    fuzz("procfile", &seeds, &words, |bytes| found(NODE, "Procfile.dev", bytes));
}

#[test]
fn package_json() {
    let seeds =
        [NODE[0].1, r#"{"workspaces":["a/*","!b"],"packageManager":"pnpm@9.1.0+sha512.x"}"#];
    let words =
        ["\"next\":\"15\"", "\"scripts\":{", "\"engines\":{\"node\":\"", ">=18 || ^20", "vite"];
    fuzz("package_json", &seeds, &words, |bytes| found(NODE, "package.json", bytes));
}

#[test]
fn scripts() {
    let seeds = ["vite --port 3000", "cross-env A='b c' next dev -p ${PORT:-1}", "run-p dev:*"];
    let words = ["vite", "next dev", "--port", "-p ", "&&", "concurrently ", "node ", "--host "];
    fuzz("scripts", &seeds, &words, |bytes| {
        let script = String::from_utf8_lossy(bytes);
        let manifest = serde_json::json!({"scripts": {"dev": script, "start": script},
            "devDependencies": {"vite": "7"}, "packageManager": "npm@10"});
        found(NODE, "package.json", manifest.to_string().as_bytes())
    });
}

/// Files of a Node project that detection reads, each with something that it understands.
const NODE_FILES: &[(&str, &str)] = &[
    ("pnpm-workspace.yaml", "packages:\n  - 'apps/*'\n  - '!apps/x'\n"),
    ("vite.config.ts", "export default { server: { port: 8081 } } // port: 1\n"),
    (".nvmrc", "lts/iron\n"),
    (".tool-versions", "nodejs 22.1.0\npython 3.12\n"),
    ("mise.toml", "[tools]\nnode = '22'\n"),
    (
        "angular.json",
        "{\"projects\":{\"a\":{\"architect\":{\"serve\":{\"options\":{\"port\":1}}}}}}",
    ),
    ("turbo.json", "{\"tasks\":{\"dev\":{}}}"),
    ("nx.json", "{}"),
    ("yarn.lock", "# yarn lockfile v1\n"),
];
/// Read only where no tool's own server comes before.
const EXPRESS_FILES: &[(&str, &str)] =
    &[("server.js", "const { PORT = 3000 } = process.env;\napp.listen({ port: PORT })\n")];
const PYTHON_FILES: &[(&str, &str)] = &[
    ("requirements.txt", "-r dev.txt\nFlask[async]>=2; python_version < '3'\nfastapi-x @ git+u\n"),
    ("pyproject.toml", "[project]\nrequires-python = '>=3.11'\ndependencies = ['django']\n"),
    ("Pipfile", "[packages]\nflask = '*'\n[requires]\npython_version = '3.12'\n"),
    ("app.py", "import os\nif __name__ == '__main__': app.run(port=int(os.environ['PORT']))\n"),
    ("manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a.b')\n"),
    ("runtime.txt", "python-3.12.1\n"),
    ("environment.yml", "dependencies:\n  - flask\n"),
];
const OTHER_FILES: &[(&str, &str)] = &[
    ("composer.json", "{\"require\":{\"laravel/framework\":\"^11\"}}"),
    ("Gemfile", "gem 'rails', '~> 8.0'\n"),
    ("go.mod", "module x\nrequire github.com/gin-gonic/gin v1.9.1\n"),
    ("Cargo.toml", "[dependencies]\naxum = '0.8'\n"),
    ("pom.xml", "<project><artifactId>spring-boot-starter-web</artifactId></project>"),
    ("build.gradle", "plugins { id 'org.springframework.boot' version '3' }\n"),
    ("mix.exs", "defp deps do [{:phoenix, \"~> 1.7\"}] end\n"),
    ("app.csproj", "<Project Sdk=\"Microsoft.NET.Sdk.Web\"></Project>"),
    ("deno.json", "{\"tasks\":{\"dev\":\"deno run -A main.ts\"}}"),
    ("config.toml", "baseURL = 'x'\n"),
    ("_config.yml", "title: x\n"),
    ("index.html", "<!doctype html>"),
];

/// Files of every kind that detection reads, each mutated in turn.
#[test]
fn other_files() {
    for (base, files, words) in [
        (NODE, NODE_FILES, &["port", "node", ":", "apps/"][..]),
        (EXPRESS, EXPRESS_FILES, &["listen(", "PORT", "||", "process.env", "8080"]),
        (PYTHON, PYTHON_FILES, &["flask", "django", "==", "[", "-r "]),
        (&[], OTHER_FILES, &["port", "\"", "'", ":"]),
    ] {
        for (path, text) in files {
            fuzz(&format!("file_{path}"), &[text], words, |bytes| found(base, path, bytes));
        }
    }
}

/// What a reader that calls itself, or looks back from every word, does not survive.
const ENDLESS: [&str; 16] = [
    "a ", "vite ", "// ", "**/", "a/", "(", "[", "{", "<a>", "- ", "\"a\":{", "&& ", "a: ", "\n",
    "listen(", "=",
];

/// Files that go on and on are answered: no stack is full, and nothing takes the square of their
/// length, which the suite's own time limit would end.
#[test]
fn endless_files() {
    const BYTES: usize = 64 * 1024;
    let all =
        [(NODE, NODE_FILES), (EXPRESS, EXPRESS_FILES), (PYTHON, PYTHON_FILES), (&[], OTHER_FILES)];
    for (base, files) in all {
        for (path, text) in files.iter().chain(base) {
            for word in ENDLESS {
                let endless = format!("{text}{}", word.repeat(BYTES / word.len()));
                found(base, path, endless.as_bytes());
                // Inside of whatever the file begins with, too.
                if let Some((at, _)) = text.char_indices().nth(text.len() / 2) {
                    let inside = format!("{}{}", &text[..at], &endless[text.len()..]);
                    found(base, path, inside.as_bytes());
                }
            }
        }
    }
}
