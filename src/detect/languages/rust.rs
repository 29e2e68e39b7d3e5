//! Rust: packages from `Cargo.toml`, the program among its targets, and the port in its code.

use crate::detect::Candidate;
use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::{TreeError, join, parent};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Code, Dep, File, Slot};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, Said, WEAK, offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "TcpListener::bind(",
        "Server::bind(",
        "axum_server::bind(",
        ".bind(",
        ".bind_rustls(",
        "SocketAddr::from(",
        "SocketAddr::new(",
        "SocketAddrV4::new(",
        ".listen(",
        "bind(",
        "serve(",
        ".run((",
        ".merge((\"port\",",
    ],
    keys: &[],
};

/// Targets that are more likely the server than others.
const TARGETS: [&str; 6] = ["server", "web", "api", "app", "main", "backend"];

const DEV: &[(Rule, &str)] = &[
    (Dep(&["shuttle-runtime"]), "cargo shuttle run --external --port {port}"),
    (Slot("binary"), "cargo run --bin {binary}"),
    (Slot("runs"), "cargo run"),
];

const fn framework(id: Framework, rule: Rule, port: u16) -> Entry {
    Entry { id, rule, dev: DEV, port: Some(port), env: super::PORT_ENV, ..BASE }
}

/// A framework with a command of its own.
const fn tool(rule: Rule, dev: &'static [(Rule, &'static str)], port: u16) -> Entry {
    Entry { rule, dev, port: Some(port), env: super::PORT_ENV, ..BASE }
}

static TABLE: &[Entry] = &[
    Entry {
        env: &[("ROCKET_ADDRESS", "{host}"), ("ROCKET_PORT", "{port}")],
        ..framework(Framework::Rocket, Dep(&["rocket"]), 8000)
    },
    tool(
        Any(&[Dep(&["leptos_axum", "leptos_actix"]), All(&[Dep(&["leptos"]), Slot("leptos")])]),
        &[(Always, "cargo leptos watch")],
        3000,
    ),
    tool(Dep(&["loco-rs"]), &[(Always, "cargo loco start --binding {host} --port {port}")], 5150),
    tool(Dep(&["dioxus"]), &[(Always, "dx serve --addr {host} --port {port}")], 8080),
    tool(
        Any(&[
            File(&["Trunk.toml"]),
            All(&[Dep(&["yew", "leptos", "sycamore", "seed"]), File(&["index.html"])]),
        ]),
        &[(Always, "trunk serve --address {host} --port {port}")],
        8080,
    ),
    // Frameworks are used beside each other: the code of the program decides, then the manifest.
    framework(Framework::ActixWeb, All(&[Dep(&["actix-web"]), Code(&["actix_web::"])]), 8080),
    framework(Framework::Axum, All(&[Dep(&["axum"]), Code(&["axum::", "axum::{"])]), 3000),
    framework(Framework::ActixWeb, Dep(&["actix-web"]), 8080),
    framework(Framework::Axum, All(&[Dep(&["axum"]), Slot("runs")]), 3000),
    tool(
        All(&[
            Dep(&[
                "warp", "poem", "salvo", "tide", "gotham", "nickel", "iron", "ntex", "viz",
                "trillium",
            ]),
            Slot("runs"),
        ]),
        DEV,
        3000,
    ),
    Entry { rule: Slot("runs"), dev: DEV, ..PROGRAM_ENTRY },
    Entry { rule: Always, score: WEAK, ..BASE },
];

/// Offers a candidate for a directory with a `Cargo.toml`.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    if !look.has(dir, "Cargo.toml") {
        return Ok(None);
    }
    let path = join(dir, "Cargo.toml");
    let text = look.manifest(&path)?.unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_else(|_| {
        look.warn(format!("{path} is not valid TOML; what it says was left out"));
        toml::Table::new()
    });
    let mut project = Project::new(look, dir, Language::Rust, PackageManager::Cargo, path.clone());
    project.shapes = &SHAPES;
    for group in ["dependencies", "dev-dependencies"] {
        let group = manifest.get(group).and_then(toml::Value::as_table);
        for (name, value) in group.into_iter().flatten() {
            // A renamed package counts by its own name.
            let package = value.get("package").and_then(toml::Value::as_str);
            project.dependencies.insert(package.unwrap_or(name).to_owned());
        }
    }
    if manifest.get("package").is_some() {
        program(&mut project, &manifest);
    }
    let leptos = at(&manifest, &["package", "metadata", "leptos"])
        .or_else(|| at(&manifest, &["workspace", "metadata", "leptos"]));
    if let Some(leptos) = leptos {
        project.fill("leptos", "leptos");
        project.port = leptos
            .get("site-addr")
            .and_then(toml::Value::as_str)
            .and_then(|address| address.rsplit_once(':')?.1.parse().ok())
            .map(|port| (port, path.clone()));
    }
    // Its runner chooses the port, whatever the framework's own is.
    let shuttle = project.depends("shuttle-runtime").then(|| (8000, path.clone()));
    project.port = project.port.take().or(shuttle).or_else(|| configured(&project));
    project.install_dir = root(look, dir);
    let place = project.install_dir.clone();
    let locked = look.has(&place, "Cargo.lock");
    project.lockfile = locked.then(|| join(&place, "Cargo.lock"));
    let command = if locked { "cargo fetch --locked" } else { "cargo fetch" };
    project.install = Some((command.to_owned(), path.clone()));
    let minimum = at(&manifest, &["package", "rust-version"]).and_then(toml::Value::as_str);
    let version = toolchain(look, dir)
        .or_else(|| versions::manager(look, dir, &["rust"]))
        .or_else(|| minimum.map(|version| (version.to_owned(), path)));
    project.runtime = runtime(RuntimeName::Rust, version);
    Ok(offer(project, TABLE))
}

fn at<'value>(table: &'value toml::Table, keys: &[&str]) -> Option<&'value toml::Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key))
}

/// Finds the target that is run, and the code that begins it.
fn program(project: &mut Project<'_, '_>, manifest: &toml::Table) {
    let text = |value: Option<&toml::Value>| value.and_then(toml::Value::as_str).map(str::to_owned);
    let package = text(at(manifest, &["package", "name"])).unwrap_or_default();
    let default = text(at(manifest, &["package", "default-run"]));
    // Name and file of every program.
    let mut targets: Vec<(String, String)> = Vec::new();
    if project.has("src/main.rs") {
        targets.push((package.clone(), "src/main.rs".to_owned()));
    }
    for binary in manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten() {
        let Some(name) = text(binary.get("name")) else { continue };
        let usual = format!("src/bin/{name}.rs");
        let file = text(binary.get("path"))
            .unwrap_or_else(|| if project.has(&usual) { usual } else { "src/main.rs".to_owned() });
        targets.retain(|(_, known)| *known != file);
        targets.push((name, file));
    }
    let place = join(&project.dir, "src/bin");
    if project.look.directories(&join(&project.dir, "src")).iter().any(|name| name == "bin") {
        for file in project.look.files(&place) {
            let Some(name) = file.strip_suffix(".rs") else { continue };
            let file = join("src/bin", &file);
            if !targets.iter().any(|(_, known)| *known == file) {
                targets.push((name.to_owned(), file));
            }
        }
        for name in project.look.directories(&place) {
            let file = format!("src/bin/{name}/main.rs");
            if project.has(&file) && !targets.iter().any(|(known, _)| *known == name) {
                targets.push((name, file));
            }
        }
    }
    targets.retain(|(name, _)| is_plain_word(name));
    let chosen = default
        .and_then(|name| targets.iter().find(|(known, _)| *known == name))
        .or_else(|| TARGETS.iter().find_map(|name| targets.iter().find(|(known, _)| known == name)))
        .or_else(|| targets.iter().find(|(name, _)| *name == package))
        .or_else(|| targets.first())
        .cloned();
    let Some((name, file)) = chosen else { return };
    project.fill("runs", &name);
    let named = at(manifest, &["package", "default-run"]).is_some();
    if targets.len() > 1 && !named {
        project.fill("binary", &name);
    }
    project.add_code([file.clone()]);
    // The modules beside it may be where it listens, and its library may be.
    if let Some((inner, _)) = file.rsplit_once('/') {
        project.add_code_in(inner, ".rs");
    }
    project.add_code_in("src", ".rs");
    let inner = project.look.directories(&join(&project.dir, "src"));
    for name in inner.into_iter().filter(|name| name != "bin") {
        project.add_code([format!("src/{name}/mod.rs")]);
    }
}

/// What `Rocket.toml` or Trunk's file says.
fn configured(project: &Project<'_, '_>) -> Option<Said<u16>> {
    if let Some((text, path)) = project.read("Rocket.toml") {
        let table: toml::Table = text.parse().ok()?;
        let profiles = ["development", "debug", "default", "global"];
        let port = profiles.iter().find_map(|profile| table.get(*profile)?.get("port"))?;
        return Some((port.as_integer()?.try_into().ok()?, path));
    }
    let (text, path) = project.read("Trunk.toml")?;
    let table: toml::Table = text.parse().ok()?;
    let port = table.get("serve")?.get("port")?.as_integer()?;
    Some((port.try_into().ok()?, path))
}

/// The root of the workspace that holds the package; its lockfile is the only one.
fn root(look: &Look<'_>, dir: &str) -> String {
    let above = std::iter::successors(Some(dir), |place| parent(place));
    let declares = |place: &&str| {
        look.has(place, "Cargo.toml")
            && look
                .hint(&join(place, "Cargo.toml"))
                .is_some_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    };
    above.into_iter().find(declares).unwrap_or(dir).to_owned()
}

/// The channel of a toolchain file: TOML, or the bare channel of old.
fn toolchain(look: &Look<'_>, dir: &str) -> Option<Said<String>> {
    let above = std::iter::successors(Some(dir), |place| parent(place));
    above.into_iter().find_map(|place| {
        let name = look.first(place, &["rust-toolchain.toml", "rust-toolchain"])?;
        let path = join(place, name);
        let text = look.hint(&path)?;
        let channel = match text.parse::<toml::Table>() {
            Ok(table) => at(&table, &["toolchain", "channel"])?.as_str()?.to_owned(),
            Err(_) => listeners::without_comments(&text, &["#"]).trim().to_owned(),
        };
        Some((channel, path))
    })
}
