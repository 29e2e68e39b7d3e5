//! Deno: `deno.json`, or an entry file that only Deno can run.
//!
//! Only entry files are read: a stray import of `https://deno.land` deep in a tree says nothing
//! about the app, and looking for one would cost a read of everything.

use serde_json::Value;

use crate::detect::Candidate;
use crate::detect::json5;
use crate::detect::look::{Look, is_plain_word};
use crate::detect::script;
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Code, Dep, File, Slot};
use super::{BASE, DECLARED, Entry, Project, Said, offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &["Deno.serve(", "serve(", ".listen(", "Deno.listen(", "listenAndServe("],
    keys: &[],
};

const ENTRIES: [&str; 16] = [
    "main.ts",
    "main.js",
    "main.tsx",
    "server.ts",
    "server.js",
    "index.ts",
    "index.js",
    "app.ts",
    "app.js",
    "mod.ts",
    "src/main.ts",
    "src/index.ts",
    "src/server.ts",
    "src/app.ts",
    "serve.ts",
    "dev.ts",
];

/// Tasks that run a project for development.
const TASKS: [&str; 6] = ["dev", "develop", "start", "serve", "server", "run"];

/// Deno's own server stands beside a bundler as any server does.
const SERVER: u32 = 61;

const DEV: &[(Rule, &str)] = &[
    (Slot("task"), "deno task {task}"),
    (
        All(&[Slot("main"), Code(&["export default {"])]),
        "deno serve --watch -A --host {host} --port {port} {main}",
    ),
    (Slot("main"), "deno run --watch -A {main}"),
];

const ENV: &[(&str, &str)] = &[("HOST", "{host}"), ("PORT", "{port}")];

/// Vite under Deno: the same apps that it serves under Node.
const fn vite(id: Framework, rule: Rule) -> Entry {
    Entry {
        id,
        rule,
        dev: &[(Slot("task"), "deno task {task} --host {host} --port {port} --strictPort")],
        port: Some(5173),
        ..BASE
    }
}

const VITE: Rule = All(&[Slot("vite"), Dep(&["vite", "npm:vite"])]);

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Fresh,
        rule: Any(&[
            Dep(&["$fresh/", "fresh", "@fresh/core", "fresh/"]),
            File(&["fresh.gen.ts", "fresh.config.ts"]),
        ]),
        dev: DEV,
        port: Some(8000),
        env: ENV,
        ..BASE
    },
    Entry {
        rule: All(&[Dep(&["lume/"]), File(&["_config.ts", "_config.js"])]),
        dev: &[(Always, "deno task serve --port={port} --hostname={host}")],
        port: Some(3000),
        ..BASE
    },
    vite(Framework::ViteReact, All(&[VITE, Dep(&["react", "@vitejs/plugin-react"])])),
    vite(Framework::ViteVue, All(&[VITE, Dep(&["vue", "@vitejs/plugin-vue"])])),
    vite(Framework::ViteSvelte, All(&[VITE, Dep(&["svelte"])])),
    vite(Framework::ViteSolid, All(&[VITE, Dep(&["solid-js", "vite-plugin-solid"])])),
    vite(Framework::VitePreact, All(&[VITE, Dep(&["preact", "@preact/preset-vite"])])),
    vite(Framework::ViteLit, All(&[VITE, Dep(&["lit"])])),
    vite(Framework::ViteVanilla, VITE),
    Entry {
        id: Framework::Hono,
        rule: Any(&[
            All(&[Dep(&["hono", "@hono/hono"]), Slot("main")]),
            Code(&["jsr:@hono/hono", "npm:hono", "deno.land/x/hono"]),
        ]),
        dev: DEV,
        port: Some(8000),
        env: ENV,
        score: SERVER,
        ..BASE
    },
    Entry {
        id: Framework::Express,
        rule: Code(&["npm:express"]),
        dev: DEV,
        port: Some(8000),
        env: ENV,
        score: SERVER,
        ..BASE
    },
    Entry {
        rule: Any(&[
            Code(&["Deno.serve", "Deno.listen", "serve(", ".listen(", "export default {"]),
            Dep(&["@oak/oak", "oak", "oak/"]),
        ]),
        dev: DEV,
        port: Some(8000),
        env: ENV,
        score: SERVER,
        ..BASE
    },
    Entry {
        rule: Any(&[Slot("task"), Slot("main")]),
        dev: DEV,
        score: DECLARED + 10,
        health: None,
        ..BASE
    },
    Entry { rule: Always, score: DECLARED, ..BASE },
];

/// Offers a candidate for a directory with a `deno.json` or an entry file of Deno's.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let declared = look.first(dir, &["deno.json", "deno.jsonc"]);
    let entry = ENTRIES.iter().copied().find(|name| super::has(look, dir, name));
    let own = |name: &str| {
        look.head(&join(dir, name)).is_some_and(|text| {
            ["https://deno.land/", "\"jsr:", "'jsr:", "\"npm:", "'npm:", "Deno."]
                .iter()
                .any(|mark| text.contains(mark))
        })
    };
    let named = || look.first(dir, &["deno.lock", "deps.ts"]);
    let file = match declared {
        Some(name) => name,
        // What Node runs may ask whether Deno does.
        None if look.has(dir, "package.json") => return Ok(None),
        None => match entry.filter(|name| own(name)).or_else(named) {
            Some(name) => name,
            None => return Ok(None),
        },
    };
    let mut project =
        Project::new(look, dir, Language::Deno, PackageManager::Deno, join(dir, file));
    project.shapes = &SHAPES;
    let mut tasks = Vec::new();
    if declared.is_some() {
        let path = join(dir, file);
        let text = look.manifest(&path)?.unwrap_or_default();
        let value = json5::parse(&text).unwrap_or_else(|wrong| {
            look.warn(format!(
                "{path} is not valid JSON (line {}, column {}); what it says was left out",
                wrong.line, wrong.column
            ));
            Value::Null
        });
        imports(&mut project, &value);
        if let Some((map, _)) =
            value["importMap"].as_str().and_then(|name| project.read(name.trim_start_matches("./")))
        {
            imports(&mut project, &json5::parse(&map).unwrap_or_default());
        }
        let named = value["tasks"].as_object().into_iter().flatten();
        tasks.extend(named.filter_map(|(name, task)| {
            // A task is its command, or an object that holds it.
            let command = task.as_str().or_else(|| task["command"].as_str())?;
            Some((name.clone(), command.to_owned()))
        }));
        let imported = !project.dependencies.is_empty();
        if imported && !project.has("package.json") {
            project.installs("deno install", file);
        }
    }
    project.locked_by("deno.lock");
    let task = TASKS.iter().find_map(|name| tasks.iter().find(|(known, _)| known == name));
    if let Some((name, command)) = task {
        project.fill("task", name);
        let vite = script::mentions(command, &["vite", "vite dev"]);
        if vite {
            project.fill("vite", "vite");
        }
        let port = script::port(command, &[]).or_else(|| of_flag(command));
        let port = port.or_else(|| vite.then_some(5173));
        project.port = port.map(|port| (port, project.file.clone()));
        let served = command.split_whitespace().find(|word| {
            [".ts", ".tsx", ".js", ".mjs"].iter().any(|ending| word.ends_with(ending))
        });
        let served = served.map(|file| file.trim_start_matches("./"));
        if let Some(served) = served.filter(|file| is_plain_word(file)) {
            project.add_code([served.to_owned()]);
        }
    }
    if let Some(name) = entry {
        project.fill("main", name);
    }
    project.add_code(ENTRIES.iter().map(|name| (*name).to_owned()));
    project.port = project.port.take().or_else(|| configured(&project));
    let version = versions::file(look, dir, &[".deno-version", ".dvmrc"])
        .or_else(|| versions::manager(look, dir, &["deno"]));
    project.runtime = runtime(RuntimeName::Deno, version);
    Ok(offer(project, TABLE))
}

/// Both the names that the project gives and the packages behind them count.
fn imports(project: &mut Project<'_, '_>, value: &Value) {
    for (name, target) in value["imports"].as_object().into_iter().flatten() {
        project.dependencies.insert(name.clone());
        let package = target
            .as_str()
            .and_then(|target| target.strip_prefix("jsr:").or_else(|| target.strip_prefix("npm:")));
        if let Some(package) = package {
            let at = package.get(1..).and_then(|rest| rest.find('@')).map(|at| at + 1);
            project.dependencies.insert(package[..at.unwrap_or(package.len())].to_owned());
        }
    }
}

fn of_flag(command: &str) -> Option<u16> {
    let value = command.split("--port").nth(1)?.trim_start_matches(['=', ' ']);
    listeners::number(value.split_whitespace().next()?)
}

/// The port in the configuration of Fresh and of Vite.
fn configured(project: &Project<'_, '_>) -> Option<Said<u16>> {
    ["fresh.config.ts", "dev.ts", "vite.config.ts", "vite.config.js"].iter().find_map(|file| {
        let (text, path) = project.read(file)?;
        let text = listeners::without_comments(&text, SHAPES.comments);
        let port = listeners::keyed(&text, "port");
        Some((port?, path))
    })
}
