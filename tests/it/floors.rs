//! The floors: a module imports only from floors below its own, and a foreign
//! client has one room (DESIGN section 9; `docs/ARCHITECTURE.md` draws it).
//!
//! There are no exceptions: a rule that must bend is a change of the table.

use crate::source::{self, Named, Source};

/// Modules of the library by floor.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("policy", 1),
    ("detect", 1),
    ("config", 1),
    ("wire", 1),
    ("ports", 2),
    ("pipeline", 3),
    ("adapters", 4),
    ("worker", 5),
    ("app", 6),
];

/// Modules beside the floors, and all that each may import. `observe` may be
/// imported from every floor; the others only as it says here.
const SIDES: &[(&str, &[&str])] = &[
    ("observe", &["domain"]),
    ("service", &[]),
    ("agent", &["service"]),
    ("sync", &["service"]),
    ("preview", &["service"]),
    // Fakes stand where adapters do.
    (
        "testing",
        &[
            "domain", "policy", "detect", "config", "wire", "ports", "pipeline", "adapters",
            "worker", "observe",
        ],
    ),
];

/// What each program may use of the library.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("src/main.rs", &["app"]),
    ("src/bin/covibes-agent.rs", &["agent", "service"]),
    ("src/bin/covibes-sync.rs", &["sync", "service"]),
    ("src/bin/covibes-preview.rs", &["preview", "service"]),
];

/// Foreign crates with one place each.
const ROOMS: &[(&str, &[&str])] = &[
    ("bollard", &["src/adapters/docker"]),
    ("async_rs", &["src/adapters/rabbitmq"]),
    ("lapin", &["src/adapters/rabbitmq"]),
    ("deadpool_lapin", &["src/adapters/rabbitmq"]),
    ("backoff", &["src/policy/backoff.rs"]),
    ("axum", &["src/app/", "src/agent", "src/sync", "src/preview", "src/service"]),
    ("clap", &["src/app/", "src/app.rs", "src/bin/", "src/preview/settings.rs"]),
    ("maud", &["src/app/page"]),
    // Errors without a type belong to whoever talks to a person.
    ("anyhow", &["src/app/", "src/app.rs", "src/main.rs", "src/bin/"]),
    ("opentelemetry", &["src/observe/otlp.rs"]),
    ("opentelemetry_http", &["src/observe/otlp.rs"]),
    ("opentelemetry_otlp", &["src/observe/otlp.rs"]),
    ("opentelemetry_proto", &[]),
    ("opentelemetry_sdk", &["src/observe/otlp.rs"]),
    ("prost", &[]),
    ("tracing_opentelemetry", &["src/observe/otlp.rs"]),
    (
        "prometheus",
        &["src/observe", "src/agent/observe.rs", "src/sync/observe.rs", "src/service/http.rs"],
    ),
];

#[test]
fn a_module_imports_only_from_floors_below() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| s.path.starts_with("src/")) {
        for named in source.paths() {
            let Some(to) = own_module(&named) else { continue };
            match source.module() {
                Some(module) if module.is_empty() => {}
                Some(module) if module[0] == to => {}
                Some(module) => {
                    if let Err(why) = may_import(&module[0], to) {
                        breaches.found(source, &named, why);
                    }
                }
                None => {
                    let allowed = PROGRAMS.iter().find(|(path, _)| *path == source.path);
                    if allowed.is_none_or(|(_, modules)| !modules.contains(&to)) {
                        breaches.found(source, &named, "a program is only a thin shell");
                    }
                }
            }
        }
    }
    breaches.none();
}

#[test]
fn every_module_has_a_floor() {
    let library = source::all().into_iter().find(|s| s.path == "src/lib.rs").unwrap();
    let declared = library
        .text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    for module in declared {
        assert!(
            floor(module).is_some() || SIDES.iter().any(|(side, _)| *side == module),
            "src/lib.rs: `{module}` has no floor; add it to tests/it/floors.rs and DESIGN 9"
        );
    }
}

#[test]
fn a_foreign_crate_stays_in_its_room() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| !s.is_test()) {
        for named in source.paths() {
            let room = ROOMS.iter().find(|(name, _)| *name == named.segments[0]);
            if let Some((_, places)) = room
                && !places.iter().any(|place| source.path.starts_with(place))
            {
                breaches.found(source, &named, "this crate is known elsewhere only");
            }
        }
    }
    breaches.none();
}

#[test]
fn plain_words_know_no_json() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| !s.is_test()) {
        let Some(module) = source.module().filter(|m| !m.is_empty()) else { continue };
        if !matches!(module[0].as_str(), "domain" | "policy" | "ports" | "worker") {
            continue;
        }
        for named in source.paths() {
            if matches!(named.segments[0].as_str(), "serde" | "serde_json" | "schemars") {
                breaches.found(source, &named, "only `wire` knows the JSON of jobs and events");
            }
        }
    }
    breaches.none();
}

/// Where the world may be asked for time, chance and its environment.
const DOORS: &[&str] = &[
    "src/adapters",
    "src/app/",
    "src/app.rs",
    "src/main.rs",
    "src/service/system.rs",
    "src/agent/system.rs",
    "src/sync/system.rs",
    "src/preview/system.rs",
];

/// Clock, chance, environment, exit.
const AMBIENT: &[&[&str]] = &[
    &["SystemTime", "now"],
    &["Uuid", "new_v4"],
    &["Uuid", "now_v7"],
    &["env", "var"],
    &["env", "var_os"],
    &["env", "vars"],
    &["env", "vars_os"],
    &["process", "exit"],
];

#[test]
fn time_chance_and_environment_are_asked_at_the_doors_only() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| s.path.starts_with("src/")) {
        if DOORS.iter().any(|door| source.path.starts_with(door)) {
            continue;
        }
        for named in source.paths() {
            if AMBIENT.iter().any(|call| named.has(call)) {
                breaches.found(source, &named, "ask through a port, or the service's system.rs");
            }
        }
    }
    breaches.none();
}

/// Files, programs and sockets, and a clock that paused time does not reach.
const EFFECTS: &[&[&str]] = &[
    &["std", "fs"],
    &["tokio", "fs"],
    &["tokio", "net"],
    &["tokio", "process"],
    &["process", "Command"],
    &["net", "TcpStream"],
    &["net", "TcpListener"],
    &["net", "UdpSocket"],
    &["time", "Instant"],
];

#[test]
fn effects_go_through_ports() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| !s.is_test()) {
        let module = source.module().and_then(|m| m.first().cloned()).unwrap_or_default();
        let above = matches!(module.as_str(), "adapters" | "app");
        if floor(&module).is_none() || above {
            continue;
        }
        for named in source.paths() {
            let tokio_clock = named.has(&["tokio", "time", "Instant"]);
            if !tokio_clock && EFFECTS.iter().any(|effect| named.has(effect)) {
                breaches.found(source, &named, "effects belong to an adapter behind a port");
            }
        }
    }
    breaches.none();
}

#[test]
fn nothing_is_spawned_that_a_drain_would_miss() {
    let mut breaches = Breaches::default();
    for source in source::all().iter().filter(|s| !s.is_test()) {
        for named in source.paths() {
            let spawns = [["tokio", "spawn"], ["task", "spawn"], ["thread", "spawn"]];
            if spawns.iter().any(|call| named.has(call)) {
                breaches.found(source, &named, "spawn through a tracked set of tasks");
            }
        }
    }
    breaches.none();
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The module of the library that a path leads into.
fn own_module(named: &Named) -> Option<&str> {
    match named.segments.as_slice() {
        [first, module, ..] if first == "crate" => Some(module),
        _ => None,
    }
}

fn may_import(from: &str, to: &str) -> Result<(), &'static str> {
    if let Some((_, allowed)) = SIDES.iter().find(|(side, _)| *side == from) {
        return match allowed.contains(&to) {
            true => Ok(()),
            false => Err("a side module imports only what its entry names"),
        };
    }
    match (floor(from), floor(to)) {
        _ if to == "observe" => Ok(()),
        (Some(from), Some(to)) if to < from => Ok(()),
        (Some(_), Some(_)) => Err("it is not on a floor below"),
        (Some(_), None) => Err("no floor imports a service or a fake"),
        (None, _) => Err("this module has no floor"),
    }
}

/// Collects breaches of one rule.
#[derive(Default)]
struct Breaches {
    lines: Vec<String>,
}

impl Breaches {
    fn found(&mut self, source: &Source, named: &Named, why: &str) {
        let path = named.segments.join("::");
        self.lines.push(format!("{}:{}: {path}: {why}", source.path, named.line));
    }

    fn none(self) {
        assert!(self.lines.is_empty(), "\n{}", self.lines.join("\n"));
    }
}
