//! Python projects: what they depend on, how that is installed, and what serves them.

use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Source, Template,
};

use super::Candidate;
use super::languages::hints;
use super::languages::listeners::{self, Shapes};
use super::look::Look;
use super::runtime;
use super::tree::{TreeError, join};

use dependencies::Dependencies;
use entries::{Python, entries};
use frameworks::{ASGI, Entry, FILE, FLASK, FUNCTION, TABLE, WSGI, factory_in, imports};

mod dependencies;
mod entries;
mod frameworks;
mod port;
mod tools;

/// How strongly files speak for Python; `node` has the other half of the scale. A server that is
/// both declared and there stands above everything that Node builds beside it, one that is only
/// code stands below.
const DJANGO: u32 = 70;
const SERVER: u32 = 69;
const SERVER_BESIDE: u32 = 55;
const TOOL: u32 = 56;
const RUNNABLE: u32 = 26;
const DECLARED: u32 = 22;
const WEAK: u32 = 11;

/// Scripts that are simply run, the most likely first.
const PLAIN_STEMS: [&str; 12] = [
    "main",
    "app",
    "index",
    "server",
    "run",
    "application",
    "wsgi",
    "asgi",
    "start",
    "bot",
    "hello",
    "web",
];

const SHAPES: Shapes = Shapes {
    comments: &["#"],
    calls: &[
        "uvicorn.run(",
        "uvicorn.Config(",
        "app.run(",
        "run_app(",
        ".launch(",
        "serve(",
        "HTTPServer(",
        "TCPServer(",
        "WSGIServer(",
        "make_server(",
        "run_simple(",
        "run_server(",
        "server_address =",
        ".listen(",
        "quickstart(",
        "ui.run(",
        ".run(",
        "run(",
        ".bind((",
    ],
    keys: &[],
};

/// Offers a candidate for a directory with a Python manifest, Django, or a Python entry file.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let dependencies = Dependencies::read(look, dir)?;
    let own = look.files(dir).iter().any(|name| name.ends_with(".py") || name.ends_with(".ipynb"));
    let declared = dependencies.declared();
    if !declared && !own && !look.has(dir, "mkdocs.yml") {
        // A root without Python files may still hold Django one level down, with its manifest.
        return Ok(None);
    }
    let entries = entries(look, dir);
    let mut findings = Findings::blank(dir);
    let score = django(&mut findings, look, &dependencies)
        .or_else(|| functions(&mut findings, look, &dependencies))
        .or_else(|| server(&mut findings, look, &dependencies, &entries))
        .or_else(|| tool(&mut findings, look, &dependencies))
        .or_else(|| plain(&mut findings, look, &dependencies, &entries))
        .or_else(|| notebook(&mut findings, look))
        .or_else(|| declared.then_some(DECLARED));
    let Some(score) = score else { return Ok(None) };
    findings.language = Language::Python;
    let proof = dependencies.files.first().cloned().or_else(|| Some(entries.first()?.file.clone()));
    let proof = proof.or_else(|| Some(findings.evidence.first()?.file.clone())).unwrap_or_default();
    findings.decide("language", "python", proof, "a Python project");
    findings.package_manager = PackageManager::None;
    tools::install(&mut findings, look, dir);
    let python = runtime::python(look, dir, &dependencies.pins, &dependencies.ranges);
    findings.decide("runtime", python.runtime.version.clone(), python.file, python.why);
    findings.runtime = Some(python.runtime);
    Ok(Some(Candidate { findings, score }))
}

/// Django: `manage.py` that names its settings or calls Django, here or one level down. A bare
/// `manage.py` is also what Flask-Script has: then only a dependency on Django alone decides.
fn django(findings: &mut Findings, look: &Look<'_>, dependencies: &Dependencies) -> Option<u32> {
    let dir = findings.app_dir.clone();
    let mut below: Vec<String> =
        look.directories(&dir).into_iter().map(|name| join(&dir, &name)).collect();
    // Some keep their packages on a shelf of their own.
    for shelf in ["src", "app", "backend", "server"] {
        let place = join(&dir, shelf);
        if below.contains(&place) && !look.has(&place, "manage.py") {
            below.extend(look.directories(&place).iter().map(|name| join(&place, name)));
        }
    }
    let managed = std::iter::once(&dir).chain(&below).find(|place| {
        let calls = |text: &str| {
            ["DJANGO_SETTINGS_MODULE", "execute_from_command_line"]
                .iter()
                .any(|word| text.contains(word))
        };
        look.has(place, "manage.py")
            && (dependencies.has("django") && !dependencies.has("flask")
                || look.hint(&join(place, "manage.py")).is_some_and(|text| calls(&text)))
    });
    let found = managed.map(|place| {
        let file = join(place, "manage.py");
        (place.clone(), "python manage.py runserver {host}:{port}".to_owned(), file)
    });
    let (place, command, file) = found.or_else(|| {
        if !dependencies.has("django") {
            return None;
        }
        // No script of its own: whoever serves it in production is told the settings.
        below.iter().find_map(|place| {
            let name = place.rsplit('/').next()?;
            let file = ["wsgi.py", "asgi.py"].iter().find(|file| look.has(place, file))?;
            let file = join(place, file);
            let text = look.hint(&file).unwrap_or_default();
            let named = text.split_once("DJANGO_SETTINGS_MODULE").and_then(|(_, rest)| {
                let value = rest.get(1..)?.split(['"', '\'']).nth(1)?;
                super::look::is_plain_word(value).then(|| value.to_owned())
            });
            let settings = named
                .or_else(|| look.has(place, "settings.py").then(|| format!("{name}.settings")))?;
            let call = "python -m django runserver {host}:{port}";
            Some((dir.clone(), format!("{call} --settings={settings}"), file))
        })
    })?;
    let hinted = hints::runserver(look, &place).or_else(|| hints::runserver(look, &dir));
    findings.app_dir = place;
    serve(findings, Framework::Django, command, &file, "names its settings");
    match hinted {
        Some((named, file)) => port(findings, named, &file, "what runserver is given"),
        None => port(findings, 8000, &file, "default of django"),
    }
    Some(DJANGO)
}

/// Azure's host runs functions, whatever else they depend on.
fn functions(findings: &mut Findings, look: &Look<'_>, dependencies: &Dependencies) -> Option<u32> {
    let dir = findings.app_dir.clone();
    if !look.has(&dir, "host.json") || !dependencies.has("azure-functions") {
        return None;
    }
    let file = join(&dir, "host.json");
    let command = "func start --port {port}".to_owned();
    serve(findings, Framework::AzureFunctions, command, &file, "depends on azure-functions");
    port(findings, 7071, &file, "default of azure-functions");
    Some(SERVER)
}

/// A server of the table: by the entry file that makes its app, else by dependency.
fn server(
    findings: &mut Findings,
    look: &Look<'_>,
    dependencies: &Dependencies,
    entries: &[Python],
) -> Option<u32> {
    let listed = |entry: &Entry| entry.packages.iter().find(|package| dependencies.has(package));
    let made = entries.iter().find_map(|file| {
        let entry = TABLE.iter().find(|entry| entry.makes(&file.text, listed(entry).is_some()))?;
        Some((entry, file))
    });
    let Some((framework, made)) = made else {
        let framework = TABLE.iter().find(|entry| listed(entry).is_some())?;
        return named(findings, dependencies, framework);
    };
    let entry = exposing(framework, made, entries);
    let why = match listed(framework) {
        Some(package) => format!("depends on {package}"),
        None => format!("imports {}", framework.module),
    };
    let proof = listed(framework).and_then(|_| dependencies.files.first().cloned());
    let command = command(findings, dependencies, framework, entry)?;
    serve(findings, framework.id, command, &entry.file, "makes the app");
    if framework.id != Framework::None {
        let proof = proof.unwrap_or_else(|| made.file.clone());
        findings.decide("framework", framework.id.as_str(), proof, why);
    }
    findings.env = framework
        .env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Template::Slots((*value).to_owned())))
        .collect();
    let dir = findings.app_dir.clone();
    let (named, file) = port::named(look, &dir, framework, entry, made, entries);
    match named {
        Some(named) => port(findings, named, &file, "its code or configuration"),
        None => port(findings, framework.port, &file, "default of the framework"),
    }
    let sure = listed(framework).is_some() && entry.inner != "api";
    Some(if sure { SERVER } else { SERVER_BESIDE })
}

/// A framework that is only a dependency: what runs it must be said.
fn named(findings: &mut Findings, dependencies: &Dependencies, framework: &Entry) -> Option<u32> {
    // Django shows itself by its files; a package for it depends on it as well.
    if [Framework::None, Framework::Django].contains(&framework.id) {
        return None;
    }
    findings.framework = framework.id;
    findings.source = Source::Framework;
    let file = dependencies.files.first().cloned().unwrap_or_default();
    let why = format!("depends on {}", framework.packages[0]);
    findings.decide("framework", framework.id.as_str(), file.clone(), why);
    findings.warnings.push(format!(
        "no file makes the {} app; set `preview.command` in .covibes.yml",
        framework.id
    ));
    port(findings, framework.port, &file, "default of the framework");
    Some(SERVER_BESIDE)
}

/// The file that hands the app out: a script at the top that takes it from the package that makes
/// it, else the file that makes it.
fn exposing<'entry>(
    framework: &Entry,
    made: &'entry Python,
    entries: &'entry [Python],
) -> &'entry Python {
    if made.inner == "." && framework.name_in(&made.text).is_some() {
        return made;
    }
    let hands_out = |entry: &&Python| {
        entry.inner == "."
            && ["app", "main", "server", "wsgi", "asgi", "run", "application", "index"]
                .contains(&entry.stem.as_str())
            && (framework.name_in(&entry.text).is_some() || imported_app(&entry.text).is_some())
    };
    entries.iter().find(hands_out).unwrap_or(made)
}

/// The name under which a script takes an app from elsewhere: `from shop import app`.
fn imported_app(text: &str) -> Option<&'static str> {
    text.lines().find_map(|line| {
        let (_, names) = line.strip_prefix("from ")?.split_once(" import ")?;
        let names: Vec<_> =
            names.split(',').filter_map(|name| name.split_whitespace().last()).collect();
        ["app", "application", "api"].into_iter().find(|name| names.contains(name))
    })
}

/// Fills in how the framework's command names the app.
fn command(
    findings: &mut Findings,
    dependencies: &Dependencies,
    framework: &Entry,
    entry: &Python,
) -> Option<String> {
    let path = entry.path();
    if framework.command == FUNCTION {
        // The function is the one behind the decorator.
        let (_, rest) = entry.text.split_once("@functions_framework.")?;
        let name = rest.split_once("def ")?.1.split('(').next()?.trim();
        return super::look::is_plain_word(name)
            .then(|| FUNCTION.replace("{app}", name).replace("{file}", &path));
    }
    // A server of its own in the same file needs no other.
    if framework.command == WSGI && entry.text.contains("__main__") {
        return Some(FILE.replace("{file}", &path));
    }
    // `serve()` of FastHTML starts its own server, and reloads.
    if framework.id == Framework::Fasthtml && entry.text.contains("serve(") {
        return Some(FILE.replace("{file}", &path));
    }
    let (module, flags) = entry.module();
    let made =
        framework.name_in(&entry.text).or_else(|| imported_app(&entry.text).map(str::to_owned));
    let factory = factory_in(&entry.text).filter(|_| made.is_none());
    let app = made.or_else(|| factory.map(str::to_owned)).unwrap_or_else(|| "app".to_owned());
    let mut command = framework.command.to_owned();
    if command == ASGI {
        if !dependencies.has("uvicorn") && !dependencies.has_extra("fastapi") {
            findings.warnings.push("uvicorn is not among the dependencies".to_owned());
        }
        if factory.is_some() {
            command.push_str(" --factory");
        }
        command.push_str(flags);
    }
    if command == FLASK {
        // Flask finds `app`, `application` and the usual factories by itself.
        let found = ["app", "application", "create_app", "make_app"].contains(&app.as_str());
        let target = entry.flask_app();
        let target = if found { target } else { format!("{target}:{app}") };
        return Some(command.replace("{flask}", &target));
    }
    let command =
        command.replace("{module}", &module).replace("{app}", &app).replace("{file}", &path);
    super::look::is_plain_word(&path.replace(' ', "-")).then_some(command)
}

/// Tools that serve what Python documents or describes, by their own file.
fn tool(findings: &mut Findings, look: &Look<'_>, dependencies: &Dependencies) -> Option<u32> {
    const TOOLS: [(&str, &str, &str, u16); 5] = [
        ("mkdocs.yml", "mkdocs", "mkdocs serve -a {host}:{port}", 8000),
        ("mkdocs.yaml", "mkdocs", "mkdocs serve -a {host}:{port}", 8000),
        ("pelicanconf.py", "pelican", "pelican --listen --autoreload -b {host} -p {port}", 8000),
        ("rxconfig.py", "reflex", "reflex run --backend-host {host} --frontend-port {port}", 3000),
        ("development.ini", "pyramid", "pserve development.ini --reload", 6543),
    ];
    let dir = findings.app_dir.clone();
    let (name, package, command, usual) = TOOLS.iter().find(|(name, ..)| look.has(&dir, name))?;
    let file = join(&dir, name);
    let listed = dependencies.has(package);
    // A library keeps its documentation beside itself.
    let own = dependencies.starts_with(package);
    if !listed && !own && dependencies.declared() && *package == "mkdocs" {
        return None;
    }
    serve(findings, Framework::None, (*command).to_owned(), &file, "its file");
    port(findings, *usual, &file, "usual for it");
    Some(if listed || own { TOOL } else { RUNNABLE })
}

/// A script that is simply run.
fn plain(
    findings: &mut Findings,
    look: &Look<'_>,
    dependencies: &Dependencies,
    entries: &[Python],
) -> Option<u32> {
    let dir = findings.app_dir.clone();
    let own = |stem: &str| entries.iter().find(|entry| entry.inner == "." && entry.stem == stem);
    let usual = PLAIN_STEMS.iter().find_map(|stem| own(stem));
    let starts = |entry: &&Python| entry.inner == "." && entry.text.contains("__main__");
    let only = || {
        let mut own = entries.iter().filter(|entry| entry.inner == ".");
        own.next().filter(|_| own.next().is_none())
    };
    let nested = || {
        entries.iter().find(|entry| {
            entry.inner != "."
                && (entry.stem == "__main__" || PLAIN_STEMS.contains(&entry.stem.as_str()))
        })
    };
    let found = usual.or_else(|| entries.iter().find(starts)).or_else(only);
    let found = found.or_else(|| nested().filter(|_| dependencies.declared()))?;
    let command = match found.stem.as_str() {
        "__main__" => {
            format!("python -m {}", found.inner.trim_start_matches("src/").replace('/', "."))
        }
        _ => format!("python {}", found.path()),
    };
    if !super::look::is_plain_word(&found.path()) {
        return None;
    }
    findings.dev = Some(Template::Literal(command.clone()));
    findings.decide("dev", command, found.file.clone(), "its entry file");
    let text = listeners::without_comments(&found.text, SHAPES.comments);
    let file = found.file.clone();
    let bare = imports(&found.text, "http.server").then_some((8000, file.clone()));
    let named = listeners::port(&[(file, text)], &SHAPES).or(bare);
    if let Some((named, file)) = named.or_else(|| hints::port(look, &dir)) {
        port(findings, named, &file, "its code");
        let env = ("PORT".to_owned(), Template::Slots("{port}".to_owned()));
        findings.env.extend([env]);
    }
    let certain = dependencies.declared() || usual.is_some();
    // Below the root a stray script is part of something else.
    if !certain && dir != "." {
        return None;
    }
    Some(if certain { RUNNABLE } else { WEAK })
}

/// Notebooks and nothing else to run.
fn notebook(findings: &mut Findings, look: &Look<'_>) -> Option<u32> {
    let dir = findings.app_dir.clone();
    let name = look.files(&dir).into_iter().find(|name| name.ends_with(".ipynb"))?;
    let file = join(&dir, &name);
    let command = "jupyter lab --ip {host} --port {port} --no-browser".to_owned();
    serve(findings, Framework::None, command, &file, "a notebook");
    port(findings, 8888, &file, "usual for it");
    Some(WEAK)
}

fn serve(findings: &mut Findings, id: Framework, command: String, file: &str, why: &str) {
    findings.framework = id;
    findings.source = if id == Framework::None { Source::Language } else { Source::Framework };
    findings.health = Health::Http { path: "/".to_owned() };
    let command = Template::Slots(command);
    if id != Framework::None {
        findings.decide("framework", id.as_str(), file, why);
    }
    findings.decide("dev", command.render(None), file, why);
    findings.dev = Some(command);
}

fn port(findings: &mut Findings, port: u16, file: &str, why: &str) {
    findings.port = Some(port);
    findings.decide("port", port.to_string(), file, why);
    // Now that the port is known, so is the command.
    if let (Some(command), Some(evidence)) = (
        findings.dev_command(),
        findings.evidence.iter_mut().find(|evidence| evidence.field == "dev"),
    ) {
        evidence.value = command;
    }
}
