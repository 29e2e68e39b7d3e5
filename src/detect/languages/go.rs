//! Go: modules from `go.mod`, the package that is the program, and the port in its code.

use crate::detect::Candidate;
use crate::detect::look::{Look, is_plain_word};
use crate::detect::tree::{TreeError, join, parent};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Code, Dep, File, Not, Slot};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, WEAK, offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "ListenAndServe(",
        "ListenAndServeTLS(",
        ".Run(",
        ".Start(",
        ".Listen(",
        ".StartServer(",
        "net.Listen(\"tcp\",",
        "Addr:",
        "iris.Addr(",
    ],
    keys: &[],
};

/// Commands that are more likely the server than others.
const COMMANDS: [&str; 10] =
    ["server", "api", "web", "app", "main", "http", "serve", "service", "backend", "site"];

/// Directories besides `cmd` in which a program may lie.
const PROGRAMS: [&str; 6] = ["src", "server", "app", "api", "backend", "web"];

/// Directories with code that listens on behalf of the program.
const INNER: [&str; 14] = [
    "internal/server",
    "internal/http",
    "internal/api",
    "internal/app",
    "internal/config",
    "pkg/server",
    "pkg/config",
    "pkg/http",
    "server",
    "config",
    "api",
    "app",
    "routes",
    "internal",
];

const DEV: &[(Rule, &str)] =
    &[(File(&[".air.toml", "air.toml"]), "air"), (Slot("main"), "go run {main}")];

const fn framework(id: Framework, rule: Rule, port: u16) -> Entry {
    Entry { id, rule, dev: DEV, port: Some(port), env: super::PORT_ENV, ..BASE }
}

static TABLE: &[Entry] = &[
    framework(
        Framework::Gin,
        Any(&[
            Code(&["\"github.com/gin-gonic/gin\""]),
            All(&[Dep(&["github.com/gin-gonic/gin"]), Not(&Code(OTHERS))]),
        ]),
        8080,
    ),
    framework(
        Framework::Echo,
        Any(&[
            Code(&["\"github.com/labstack/echo\"", "\"github.com/labstack/echo/v"]),
            All(&[Dep(&["github.com/labstack/echo"]), Not(&Code(OTHERS))]),
        ]),
        1323,
    ),
    framework(
        Framework::Fiber,
        Any(&[
            Code(&["\"github.com/gofiber/fiber\"", "\"github.com/gofiber/fiber/v"]),
            All(&[Dep(&["github.com/gofiber/fiber"]), Not(&Code(OTHERS))]),
        ]),
        3000,
    ),
    Entry { rule: Dep(&["github.com/revel/revel"]), dev: DEV, port: Some(9000), ..BASE },
    Entry {
        rule: Dep(&["github.com/gobuffalo/buffalo"]),
        dev: &[(Always, "buffalo dev")],
        port: Some(3000),
        env: &[("ADDR", "{host}"), ("PORT", "{port}")],
        ..BASE
    },
    Entry {
        rule: Any(&[
            Dep(&["github.com/beego/beego", "github.com/astaxie/beego", "github.com/kataras/iris"]),
            All(&[
                Slot("main"),
                Code(&["net/http\"", "ListenAndServe(", "valyala/fasthttp\"", "go-chi/chi"]),
            ]),
        ]),
        dev: DEV,
        port: Some(8080),
        health: Some("/"),
        env: super::PORT_ENV,
        score: super::PROGRAM + 3,
        ..BASE
    },
    Entry { rule: Slot("main"), dev: DEV, ..PROGRAM_ENTRY },
    Entry { rule: Always, dev: DEV, score: WEAK, ..BASE },
];

/// What the code of a program that uses another framework imports.
const OTHERS: &[&str] = &[
    "\"github.com/gin-gonic/gin\"",
    "\"github.com/labstack/echo",
    "\"github.com/gofiber/fiber",
    "\"github.com/kataras/iris",
    "\"github.com/go-chi/chi",
    "\"github.com/gorilla/mux\"",
];

/// Offers a candidate for a directory with a `go.mod` or a Go program.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let module = look.has(dir, "go.mod");
    let own = look.files(dir).into_iter().filter(|name| is_code(name)).collect::<Vec<_>>();
    let declared = look.first(dir, &["go.mod", "main.go", "go.work"]);
    let Some(file) = declared.map(str::to_owned).or_else(|| own.first().cloned()) else {
        return Ok(None);
    };
    let manager = if module || look.has(dir, "go.work") || above(look, dir) {
        PackageManager::Gomod
    } else {
        PackageManager::None
    };
    let mut project = Project::new(look, dir, Language::Go, manager, join(dir, &file));
    project.shapes = &SHAPES;
    let mut stated = None;
    if module {
        let path = join(dir, "go.mod");
        let text = look.manifest(&path)?.unwrap_or_default();
        project.dependencies = requirements(&text);
        let directive = |word: &str| {
            text.lines().find_map(|line| line.trim().strip_prefix(word)).map(|version| {
                let version = version.split("//").next().unwrap_or_default().trim();
                (version.trim_start_matches("go").to_owned(), path.clone())
            })
        };
        stated = directive("toolchain ").or_else(|| directive("go "));
        if !project.dependencies.is_empty() {
            project.installs("go mod download", "go.mod");
        }
        project.locked_by("go.sum");
    }
    if let Some((main, place)) = program(look, dir, &own) {
        project.fill("main", &main);
        project.add_code_in(&place, ".go");
    }
    project.add_code_in(".", ".go");
    let directories = look.directories(dir);
    for inner in INNER {
        let first = inner.split('/').next().unwrap_or_default();
        if directories.iter().any(|name| name == first) {
            project.add_code_in(inner, ".go");
        }
    }
    project.code.retain(|(file, _)| !file.ends_with("_test.go"));
    // Beego and Revel keep theirs in a file of settings.
    project.port = project.read("conf/app.conf").and_then(|(text, path)| {
        let port = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            ["httpport", "http.port"].contains(&key.trim()).then(|| listeners::number(value))?
        });
        Some((port?, path))
    });
    let version = versions::file(look, dir, &[".go-version"])
        .or_else(|| versions::manager(look, dir, &["go", "golang"]))
        .or(stated);
    project.runtime = runtime(RuntimeName::Go, version);
    Ok(offer(project, TABLE))
}

/// Says whether a module or a workspace of modules above holds the directory.
fn above(look: &Look<'_>, dir: &str) -> bool {
    std::iter::successors(parent(dir), |place| parent(place))
        .any(|place| look.has(place, "go.mod") || look.has(place, "go.work"))
}

fn is_code(name: &str) -> bool {
    name.ends_with(".go") && !name.ends_with("_test.go")
}

/// Finds the program: what `go run` is given, and the directory it lies in.
fn program(look: &Look<'_>, dir: &str, own: &[String]) -> Option<(String, String)> {
    if own.iter().any(|name| is_main(look, &join(dir, name))) {
        let alone = !look.has(dir, "go.mod") && !above(look, dir);
        // Without a module only files can be run.
        let main = match (alone, own) {
            (true, [one]) => one.clone(),
            (true, _) if own.iter().any(|name| name == "main.go") => "main.go".to_owned(),
            _ => ".".to_owned(),
        };
        return Some((main, ".".to_owned()));
    }
    let directories = look.directories(dir);
    let holds = |inner: &str| {
        let place = join(dir, inner);
        let names = look.files(&place);
        names.iter().any(|name| is_code(name) && is_main(look, &join(&place, name)))
    };
    let inside = |shelf: &str| {
        let names = look.directories(&join(dir, shelf));
        let rank = |name: &String| {
            COMMANDS.iter().position(|known| known == name).unwrap_or(COMMANDS.len())
        };
        let mut names: Vec<_> = names.into_iter().filter(|name| is_plain_word(name)).collect();
        names.sort_by_key(rank);
        names.into_iter().map(|name| join(shelf, &name)).find(|inner| holds(inner))
    };
    let shelves = ["cmd", "cmds", "apps"]
        .iter()
        .filter(|shelf| directories.iter().any(|name| name == *shelf));
    let found = shelves
        .clone()
        .find_map(|shelf| holds(shelf).then(|| (*shelf).to_owned()).or_else(|| inside(shelf)));
    let found = found.or_else(|| {
        let known = PROGRAMS.iter().filter(|known| directories.iter().any(|name| name == *known));
        known
            .map(|name| (*name).to_owned())
            .find(|name| !look.has(&join(dir, name), "go.mod") && holds(name))
    });
    found.map(|inner| (format!("./{inner}"), inner))
}

fn is_main(look: &Look<'_>, path: &str) -> bool {
    look.head(path).is_some_and(|text| {
        text.lines()
            .any(|line| line.split("//").next().unwrap_or_default().trim() == "package main")
    })
}

/// The modules that are asked for directly, without the major version in their path.
fn requirements(text: &str) -> std::collections::BTreeSet<String> {
    let mut block = false;
    let lines = text.lines().filter_map(|line| {
        let line = line.trim();
        let required = match line.strip_prefix("require") {
            Some(rest) if rest.trim() == "(" => {
                block = true;
                return None;
            }
            Some(rest) => rest,
            None if line == ")" => {
                block = false;
                return None;
            }
            None if block => line,
            None => return None,
        };
        if required.contains("// indirect") {
            return None;
        }
        let path = required.split_whitespace().next()?.trim_matches('"');
        let plain = path.rsplit_once("/v").filter(|(_, major)| major.parse::<u8>().is_ok());
        Some(plain.map_or(path, |(plain, _)| plain).to_owned())
    });
    lines.collect()
}
