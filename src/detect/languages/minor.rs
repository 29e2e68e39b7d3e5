//! Languages of which a few facts are enough: what declares them, what builds and runs them.
//!
//! Each is one [`Minor`]: its manifest, the code that may name a port, and how it is run.

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::join;
use crate::domain::findings::{Language, PackageManager};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Dep, Directory, File, Not, Slot};
use super::{BASE, Entry, PORT_ENV, PROGRAM_ENTRY, Project, WEAK, offer};

/// One language of which little has to be known.
struct Minor {
    language: Language,
    manager: PackageManager,
    /// What declares it: one of these names, or `*` and an ending.
    files: &'static [&'static str],
    install: Option<&'static str>,
    lockfile: &'static str,
    /// Files and directories with code that may listen; a directory ends in `/`.
    code: &'static [&'static str],
    endings: &'static [&'static str],
    shapes: &'static Shapes,
    /// Finds the name of what is run in the manifest.
    name: fn(&str) -> Option<String>,
    table: &'static [Entry],
}

const fn runs(dev: &'static [(Rule, &'static str)], port: Option<u16>) -> Entry {
    Entry { dev, port, ..PROGRAM_ENTRY }
}

const fn server(rule: Rule, dev: &'static [(Rule, &'static str)], port: u16) -> Entry {
    Entry { rule, dev, port: Some(port), env: PORT_ENV, ..BASE }
}

static MINORS: &[Minor] = &[
    Minor {
        language: Language::Gleam,
        manager: PackageManager::None,
        files: &["gleam.toml"],
        install: Some("gleam deps download"),
        lockfile: "manifest.toml",
        code: &["src/"],
        endings: &[".gleam"],
        shapes: &Shapes { comments: &["//"], calls: &["mist.port(", "port("], keys: &[] },
        name: toml_name,
        table: &[
            server(
                Dep(&["lustre_dev_tools"]),
                &[(Always, "gleam run -m lustre/dev start --host={host} --port={port}")],
                1234,
            ),
            server(
                Dep(&["wisp", "mist", "gleam_cowboy", "gleam_elli", "glen"]),
                &[(Always, "gleam run")],
                8000,
            ),
            runs(&[(Always, "gleam run")], None),
        ],
    },
    Minor {
        language: Language::Crystal,
        manager: PackageManager::Shards,
        files: &["shard.yml"],
        install: Some("shards install"),
        lockfile: "shard.lock",
        code: &["src/", "config/"],
        endings: &[".cr"],
        shapes: &Shapes {
            comments: &["#"],
            calls: &[
                "Kemal.run ",
                "Kemal.run(",
                "bind_tcp(",
                "bind_tcp ",
                ".listen(",
                ".listen ",
                ".port =",
                "settings.port",
            ],
            keys: &[],
        },
        name: yaml_name,
        table: &[
            server(
                All(&[Dep(&["kemal"]), Slot("name")]),
                &[(Always, "crystal run src/{name}.cr -- --bind {host} --port {port}")],
                3000,
            ),
            server(Dep(&["lucky"]), &[(Always, "lucky dev")], 3000),
            server(Dep(&["amber"]), &[(Always, "amber watch")], 3000),
            runs(&[(Slot("name"), "crystal run src/{name}.cr"), (Always, "shards run")], None),
        ],
    },
    Minor {
        language: Language::Dart,
        manager: PackageManager::Pub,
        files: &["pubspec.yaml"],
        install: Some("dart pub get"),
        lockfile: "pubspec.lock",
        code: &["bin/server.dart", "bin/main.dart", "bin/", "lib/"],
        endings: &[".dart"],
        shapes: &Shapes {
            comments: &["//"],
            calls: &["serve(", "HttpServer.bind(", ".bind(", "ServerSocket.bind("],
            keys: &[],
        },
        name: yaml_name,
        table: &[
            server(
                Dep(&["dart_frog"]),
                &[(Always, "dart_frog dev --hostname {host} --port {port}")],
                8080,
            ),
            server(Dep(&["jaspr"]), &[(Always, "jaspr serve --port {port}")], 8080),
            server(
                Dep(&["flutter"]),
                &[(Always, "flutter run -d web-server --web-hostname {host} --web-port {port}")],
                8080,
            ),
            server(Dep(&["shelf"]), DART, 8080),
            runs(DART, None),
        ],
    },
    Minor {
        language: Language::Haskell,
        manager: PackageManager::Stack,
        files: &["stack.yaml"],
        install: Some("stack build --only-dependencies"),
        lockfile: "stack.yaml.lock",
        code: HASKELL_CODE,
        endings: &[".hs"],
        shapes: &HASKELL,
        name: |_| None,
        table: &[
            server(Dep(&["yesod"]), &[(Always, "stack exec -- yesod devel")], 3000),
            server(
                Dep(&["scotty", "servant-server", "warp", "Spock"]),
                &[(Always, "stack run")],
                3000,
            ),
            runs(&[(Always, "stack run")], None),
        ],
    },
    Minor {
        language: Language::Haskell,
        manager: PackageManager::None,
        files: &["cabal.project", "*.cabal"],
        install: Some("cabal build --only-dependencies"),
        lockfile: "cabal.project.freeze",
        code: HASKELL_CODE,
        endings: &[".hs"],
        shapes: &HASKELL,
        name: |_| None,
        table: &[
            server(
                Dep(&["scotty", "servant-server", "warp", "Spock"]),
                &[(Always, "cabal run")],
                3000,
            ),
            runs(&[(Always, "cabal run")], None),
        ],
    },
    Minor {
        language: Language::Scala,
        manager: PackageManager::Sbt,
        files: &["build.sbt", "project/build.properties"],
        install: Some("sbt update"),
        lockfile: "",
        code: &["src/main/scala/", "app/"],
        endings: &[".scala"],
        shapes: &Shapes {
            comments: &["//"],
            calls: &[
                "newServerAt(",
                "bindAndHandle(",
                "bindHttp(",
                ".withPort(",
                "Server.serve(",
                "port\"",
            ],
            keys: &[],
        },
        name: |_| None,
        table: &[
            server(
                Any(&[
                    Dep(&["sbt-plugin", "PlayScala", "PlayJava", "PlayService"]),
                    All(&[File(&["conf/routes"]), File(&["conf/application.conf"])]),
                ]),
                &[(Always, "sbt \"run -Dhttp.address={host} {port}\"")],
                9000,
            ),
            server(
                Dep(&[
                    "akka-http",
                    "pekko-http",
                    "http4s-ember-server",
                    "http4s-blaze-server",
                    "zio-http",
                    "cask",
                    "scalatra",
                    "finatra-http",
                ]),
                &[(Always, "sbt run")],
                8080,
            ),
            runs(&[(Always, "sbt run")], None),
        ],
    },
    Minor {
        language: Language::Scala,
        manager: PackageManager::None,
        files: &["build.sc", "build.mill"],
        install: None,
        lockfile: "",
        code: &[],
        endings: &[".scala"],
        shapes: &listeners::NONE,
        name: |_| None,
        table: &[Entry { rule: Always, score: WEAK, ..BASE }],
    },
    Minor {
        language: Language::Zig,
        manager: PackageManager::None,
        files: &["build.zig"],
        install: None,
        lockfile: "",
        code: &["src/main.zig", "src/"],
        endings: &[".zig"],
        shapes: &Shapes {
            comments: &["//"],
            calls: &["parseIp(", "parseIp4(", "resolveIp(", "initIp4(", "listen(.{", ".port ="],
            keys: &[],
        },
        name: |_| None,
        table: &[runs(&[(Always, "zig build run")], None)],
    },
    Minor {
        language: Language::Cpp,
        manager: PackageManager::Cmake,
        files: &["CMakeLists.txt"],
        install: None,
        lockfile: "",
        code: CPP_CODE,
        endings: CPP_ENDINGS,
        shapes: &CPP,
        name: cmake_name,
        table: &[
            runs(
                &[(Slot("name"), "cmake -B build && cmake --build build && ./build/{name}")],
                None,
            ),
            Entry { rule: Always, score: WEAK, ..BASE },
        ],
    },
    Minor {
        language: Language::Cpp,
        manager: PackageManager::None,
        files: &["meson.build", "*.cpp", "*.cc", "*.cxx"],
        install: None,
        lockfile: "",
        code: CPP_CODE,
        endings: CPP_ENDINGS,
        shapes: &CPP,
        name: |_| None,
        table: &[
            Entry {
                rule: File(&["main.cpp"]),
                dev: &[
                    (File(&["Makefile"]), "make && ./main"),
                    (Not(&File(&["meson.build"])), "c++ -o /tmp/main *.cpp && /tmp/main"),
                ],
                score: WEAK + 6,
                ..PROGRAM_ENTRY
            },
            Entry { rule: Always, score: WEAK, ..BASE },
        ],
    },
    Minor {
        language: Language::Shell,
        manager: PackageManager::None,
        files: &["start.sh", "run.sh", "main.sh", "server.sh"],
        install: None,
        lockfile: "",
        code: &["start.sh", "run.sh", "main.sh", "server.sh"],
        endings: &[],
        shapes: &Shapes {
            comments: &["#"],
            calls: &[
                "http.server ",
                "nc -l -p ",
                "nc -l ",
                "nc -lk ",
                "nc -lp ",
                "TCP-LISTEN:",
                "--port ",
                "-p ",
            ],
            keys: &[],
        },
        name: |_| None,
        table: &[
            Entry {
                rule: File(&["start.sh"]),
                dev: &[(Always, "sh start.sh")],
                score: WEAK + 4,
                ..PROGRAM_ENTRY
            },
            Entry {
                rule: File(&["run.sh"]),
                dev: &[(Always, "sh run.sh")],
                score: WEAK,
                ..PROGRAM_ENTRY
            },
            Entry {
                rule: File(&["main.sh"]),
                dev: &[(Always, "sh main.sh")],
                score: WEAK,
                ..PROGRAM_ENTRY
            },
            Entry {
                rule: File(&["server.sh"]),
                dev: &[(Always, "sh server.sh")],
                score: WEAK,
                ..PROGRAM_ENTRY
            },
        ],
    },
];

const DART: &[(Rule, &str)] = &[
    (File(&["bin/server.dart"]), "dart run bin/server.dart"),
    (File(&["bin/main.dart"]), "dart run bin/main.dart"),
    (All(&[Directory(&["bin"]), Slot("name")]), "dart run {name}"),
    (File(&["main.dart"]), "dart run main.dart"),
];

const HASKELL_CODE: &[&str] = &["app/", "src/", "Main.hs", "src/Main.hs", "app/Main.hs"];

const HASKELL: Shapes = Shapes {
    comments: &["--"],
    calls: &[
        "scotty ",
        "Warp.run ",
        "run ",
        "warp ",
        "spock ",
        "runSpock ",
        "setPort ",
        "quickHttpServe ",
    ],
    keys: &[],
};

const CPP_CODE: &[&str] = &[
    "main.cpp",
    "src/main.cpp",
    "server.cpp",
    "src/",
    "main.cc",
    "src/main.cc",
    "main.c",
    "src/main.c",
];
const CPP_ENDINGS: &[&str] = &[".cpp", ".cc", ".cxx", ".c"];

const CPP: Shapes = Shapes {
    comments: &["//"],
    calls: &["listen(", ".port(", "htons(", "addListener(", "createShared(", "Port(", "endpoint("],
    keys: &[],
};

/// Offers the first of these languages that the directory declares.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Option<Candidate> {
    MINORS.iter().find_map(|minor| {
        let file = minor.files.iter().find(|file| super::has(look, dir, file))?;
        let file = match file.strip_prefix('*') {
            Some(ending) => look.files(dir).into_iter().find(|name| name.ends_with(ending))?,
            None => (*file).to_owned(),
        };
        offer(read(look, dir, minor, &file), minor.table)
    })
}

fn read<'look, 'tree>(
    look: &'look Look<'tree>,
    dir: &str,
    minor: &Minor,
    file: &str,
) -> Project<'look, 'tree> {
    let mut project = Project::new(look, dir, minor.language, minor.manager, join(dir, file));
    project.shapes = minor.shapes;
    let text = project.read(file).map(|(text, _)| text).unwrap_or_default();
    if let Some(name) = (minor.name)(&text) {
        project.fill("name", &name);
    }
    // Names of packages are words of their own in every one of these manifests.
    let manifests = ["package.yaml", "project/plugins.sbt"];
    let specs = look.files(dir).into_iter().filter(|name| name.ends_with(".cabal"));
    let others: Vec<String> =
        manifests.iter().map(|name| (*name).to_owned()).chain(specs).collect();
    let others: Vec<_> = others.iter().filter_map(|name| Some(project.read(name)?.0)).collect();
    for text in std::iter::once(text).chain(others) {
        let text = listeners::without_comments(&text, &["#", "--", "//"]);
        let is_part = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
        let words = text.split(|letter| !is_part(letter)).filter(|word| word.len() > 2);
        project.dependencies.extend(words.map(str::to_owned));
    }
    if let Some(command) = minor.install {
        let flutter = minor.language == Language::Dart && project.depends("flutter");
        project.installs(if flutter { "flutter pub get" } else { command }, file);
    }
    if !minor.lockfile.is_empty() {
        project.locked_by(minor.lockfile);
    }
    for place in minor.code {
        match place.strip_suffix('/') {
            Some(inner) => {
                if look
                    .directories(dir)
                    .iter()
                    .any(|name| Some(name.as_str()) == inner.split('/').next())
                {
                    for ending in minor.endings {
                        project.add_code_in(inner, ending);
                    }
                }
            }
            None => project.add_code([(*place).to_owned()]),
        }
    }
    project
}

fn toml_name(text: &str) -> Option<String> {
    text.parse::<toml::Table>().ok()?.get("name")?.as_str().map(str::to_owned)
}

fn yaml_name(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("name:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned())
}

/// The first program that is built: `add_executable(name ..)`, perhaps the project's own name.
fn cmake_name(text: &str) -> Option<String> {
    let word = |call: &str| {
        let (_, rest) = text.split_once(call)?;
        rest.split([' ', ')', '\n']).find(|word| !word.is_empty()).map(str::to_owned)
    };
    let name = word("add_executable(").or_else(|| word("add_executable ("))?;
    match name.as_str() {
        "${PROJECT_NAME}" | "${CMAKE_PROJECT_NAME}" => word("project("),
        _ => Some(name),
    }
}
