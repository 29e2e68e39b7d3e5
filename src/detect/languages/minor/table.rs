//! One row for each of the languages of which a few facts are enough.

use crate::domain::findings::{Language, PackageManager};

use super::super::listeners::{self, Shapes};
use super::super::rules::Rule::{self, All, Always, Any, Dep, Directory, File, Not, Slot};
use super::super::{BASE, Entry, PORT_ENV, PROGRAM_ENTRY, WEAK};
use super::{Minor, cmake_name, mill_name, toml_name, yaml_name};

const fn runs(dev: &'static [(Rule, &'static str)], port: Option<u16>) -> Entry {
    Entry { dev, port, ..PROGRAM_ENTRY }
}

const fn server(rule: Rule, dev: &'static [(Rule, &'static str)], port: u16) -> Entry {
    Entry { rule, dev, port: Some(port), env: PORT_ENV, ..BASE }
}

pub(super) static MINORS: &[Minor] = &[
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
        shapes: &CRYSTAL,
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
    // One file that is simply run.
    Minor {
        language: Language::Crystal,
        manager: PackageManager::None,
        files: &["*.cr"],
        install: None,
        lockfile: "",
        code: &[],
        endings: &[".cr"],
        shapes: &CRYSTAL,
        name: |_| None,
        table: &[runs(&[(Slot("file"), "crystal run {file}")], None)],
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
            calls: &["serve(", "HttpServer.bind(", ".bind(", "ServerSocket.bind(", ".port ="],
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
            server(Dep(&["ihp"]), &[(Always, "devenv up")], 8000),
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
        shapes: &SCALA,
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
        code: &["src/", "app/src/", "server/src/", "main/src/", "web/src/"],
        endings: &[".scala"],
        shapes: &SCALA,
        name: mill_name,
        table: &[
            server(Dep(&["cask"]), MILL, 8080),
            Entry { score: WEAK + 8, ..runs(MILL, None) },
            Entry { rule: Always, score: WEAK, ..BASE },
        ],
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
        files: &["meson.build", "*.cpp", "*.cc", "*.cxx", "*.c"],
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
        language: Language::Java,
        manager: PackageManager::None,
        files: &["Main.java", "App.java", "Server.java", "*.java"],
        install: None,
        lockfile: "",
        code: &[],
        endings: &[".java"],
        shapes: &Shapes {
            comments: &["//"],
            calls: &["InetSocketAddress(", "new ServerSocket(", ".bind("],
            keys: &[],
        },
        name: |_| None,
        table: &[Entry { score: WEAK + 6, ..runs(&[(Slot("file"), "java {file}")], None) }],
    },
    Minor {
        language: Language::Haskell,
        manager: PackageManager::None,
        files: &["Main.hs", "*.hs"],
        install: None,
        lockfile: "",
        code: &[],
        endings: &[".hs"],
        shapes: &HASKELL,
        name: |_| None,
        table: &[Entry { score: WEAK + 6, ..runs(&[(Slot("file"), "runghc {file}")], None) }],
    },
    Minor {
        language: Language::Swift,
        manager: PackageManager::None,
        files: &["main.swift"],
        install: None,
        lockfile: "",
        code: &[],
        endings: &[".swift"],
        shapes: &listeners::NONE,
        name: |_| None,
        table: &[Entry { score: WEAK + 6, ..runs(&[(Slot("file"), "swift {file}")], None) }],
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
    "server.c",
    "src/",
    "main.cc",
    "src/main.cc",
    "main.c",
    "src/main.c",
];
const CPP_ENDINGS: &[&str] = &[".cpp", ".cc", ".cxx", ".c"];

const CPP: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "listen(",
        ".port(",
        "htons(",
        "addListener(",
        "createShared(",
        "Port(",
        "endpoint(",
        "acceptor{",
        "acceptor(",
        "acceptor_(",
    ],
    keys: &[],
};

const CRYSTAL: Shapes = Shapes {
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
};

const SCALA: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "newServerAt(",
        "bindAndHandle(",
        "bindHttp(",
        ".withPort(",
        "Server.serve(",
        "port\"",
        "def port =",
        "override def port: Int =",
    ],
    keys: &[],
};

const MILL: &[(Rule, &str)] = &[
    (All(&[File(&["mill"]), Slot("name")]), "./mill {name}.run"),
    (Slot("name"), "mill {name}.run"),
];
