//! Python projects: what they depend on, how that is installed, and what serves them.

use crate::domain::findings::{
    Findings, Framework, Health, Language, PackageManager, Source, Template,
};

use super::Candidate;
use super::look::Look;
use super::tree::{TreeError, join, parent};
use super::{ports, runtime};

use dependencies::Dependencies;
use frameworks::{Serve, TABLE};

mod dependencies;
mod frameworks;

/// How strongly files speak for Python; `node` has the other half of the scale.
const DJANGO: u32 = 70;
const SERVER: u32 = 65;
const SERVER_BESIDE: u32 = 55;
const RUNNABLE: u32 = 25;
const DECLARED: u32 = 15;

/// Entry files by name, and the directories in which they are looked for.
const ENTRY_STEMS: [&str; 9] =
    ["app", "index", "server", "main", "wsgi", "asgi", "application", "api", "run"];
const PLAIN_STEMS: [&str; 11] = [
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
];
const ENTRY_DIRS: [&str; 4] = [".", "src", "app", "api"];

/// Offers a candidate for a directory with a Python manifest, Django, or a Python entry file.
pub(crate) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let dependencies = Dependencies::read(look, dir)?;
    let entries = entries(look, dir);
    if !dependencies.declared() && entries.is_empty() && !look.has(dir, "manage.py") {
        // A root without Python files may still hold Django one level down, with its manifest.
        return Ok(None);
    }
    let mut findings = Findings::blank(dir);
    let score = django(&mut findings, look, &dependencies)
        .or_else(|| server(&mut findings, &dependencies, &entries))
        .or_else(|| plain(&mut findings, look))
        .unwrap_or(DECLARED);
    if score == DECLARED && !dependencies.declared() {
        return Ok(None);
    }
    findings.language = Language::Python;
    let proof = dependencies.files.first().cloned().or_else(|| Some(entries.first()?.file.clone()));
    let proof = proof.unwrap_or_else(|| join(dir, "manage.py"));
    findings.decide("language", "python", proof, "a Python project");
    install(&mut findings, look, dir);
    let python = runtime::python(look, dir, &dependencies.pins, &dependencies.ranges);
    findings.decide("runtime", python.runtime.version.clone(), python.file, python.why);
    findings.runtime = Some(python.runtime);
    Ok(Some(Candidate { findings, score }))
}

/// Django: `manage.py` that names its settings, here or one level down. A bare `manage.py` is
/// also what Flask-Script has.
fn django(findings: &mut Findings, look: &Look<'_>, dependencies: &Dependencies) -> Option<u32> {
    let dir = findings.app_dir.clone();
    let below = look.directories(&dir).into_iter().map(|name| join(&dir, &name));
    let mut managed = std::iter::once(dir.clone()).chain(below).filter(|place| {
        look.has(place, "manage.py")
            && look
                .hint(&join(place, "manage.py"))
                .is_some_and(|text| text.contains("DJANGO_SETTINGS_MODULE"))
    });
    let found = managed.next().map(|place| {
        let file = join(&place, "manage.py");
        (place, "python manage.py runserver {host}:{port}".to_owned(), file)
    });
    let found = found.or_else(|| {
        if !dependencies.has("django") {
            return None;
        }
        let name = look.directories(&dir).into_iter().find(|name| {
            let place = join(&dir, name);
            look.has(&place, "wsgi.py") && look.has(&place, "settings.py")
        })?;
        let file = join(&join(&dir, &name), "wsgi.py");
        let call = "python -m django runserver {host}:{port}";
        Some((dir.clone(), format!("{call} --settings={name}.settings"), file))
    });
    let (place, command, file) = found?;
    findings.app_dir = place;
    serve(findings, Framework::Django, command, &file, "names its settings");
    port(findings, 8000, &file, "default of django");
    Some(DJANGO)
}

/// A server of the table: by dependency, and by the entry file that makes its app.
fn server(findings: &mut Findings, dependencies: &Dependencies, entries: &[Python]) -> Option<u32> {
    let made = TABLE.iter().find_map(|framework| {
        // Code counts without a manifest only if it is all there is.
        let counts = dependencies.has(framework.package) || !dependencies.declared();
        let entry = entries.iter().find(|entry| framework.makes(&entry.text));
        Some((framework, Some(entry.filter(|_| counts)?)))
    });
    let (framework, entry) = made.or_else(|| {
        let listed = TABLE.iter().find(|framework| dependencies.has(framework.package));
        Some((listed?, None))
    })?;
    let proof = dependencies.files.first().cloned();
    let file = proof.or_else(|| Some(entry?.file.clone())).unwrap_or_default();
    findings.framework = framework.id;
    findings.source = Source::Framework;
    let why = format!("depends on {}", framework.package);
    findings.decide("framework", framework.id.as_str(), file, why);
    let Some(entry) = entry else {
        findings.warnings.push(format!(
            "no file makes the {} app; set `preview.command` in .covibes.yml",
            framework.id
        ));
        port(findings, framework.port, "", "default of the framework");
        return Some(SERVER_BESIDE);
    };
    let made = framework.name_in(&entry.text).unwrap_or_else(|| "app".to_owned());
    let command = match framework.serve {
        Serve::Asgi => {
            if !dependencies.has("uvicorn") && !dependencies.has_extra("fastapi") {
                findings.warnings.push("uvicorn is not among the dependencies".to_owned());
            }
            let (module, flags) = entry.module();
            let call = format!("{module}:{made} --host {{host}} --port {{port}} --reload{flags}");
            format!("python -m uvicorn {call}")
        }
        Serve::Flask => {
            let app = entry.flask_app();
            format!("python -m flask --app {app} run --debug --host {{host}} --port {{port}}")
        }
    };
    serve(findings, framework.id, command, &entry.file, "makes the app");
    match ports::in_python(&entry.text) {
        Some(named) => port(findings, named, &entry.file, "its code"),
        None => port(findings, framework.port, &entry.file, "default of the framework"),
    }
    Some(if entry.inner == "api" { SERVER_BESIDE } else { SERVER })
}

/// A script that is simply run.
fn plain(findings: &mut Findings, look: &Look<'_>) -> Option<u32> {
    let dir = findings.app_dir.clone();
    let names = PLAIN_STEMS.iter().map(|stem| format!("{stem}.py"));
    let name = names.into_iter().find(|name| look.has(&dir, name))?;
    let file = join(&dir, &name);
    findings.dev = Some(Template::Literal(format!("python {name}")));
    findings.decide("dev", format!("python {name}"), file.clone(), "its entry file");
    if let Some(named) = look.hint(&file).as_deref().and_then(ports::in_python) {
        port(findings, named, &file, "its code");
    }
    Some(RUNNABLE)
}

fn serve(findings: &mut Findings, id: Framework, command: String, file: &str, why: &str) {
    findings.framework = id;
    findings.source = Source::Framework;
    findings.health = Health::Http { path: "/".to_owned() };
    let command = Template::Slots(command);
    findings.decide("framework", id.as_str(), file, why);
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

/// How each tool is recognised and installs, the strongest statement first: a lockfile says more
/// than a `requirements.txt`, which may be exported from it.
const TOOLS: [(&str, PackageManager, &str, bool); 13] = {
    use PackageManager::{Conda, Pdm, Pip, Pipenv, Poetry, Uv};
    [
        ("uv.lock", Uv, "uv sync --locked", true),
        ("poetry.lock", Poetry, "poetry install", true),
        ("pdm.lock", Pdm, "pdm install --frozen-lockfile", true),
        ("Pipfile.lock", Pipenv, "pipenv sync --dev", true),
        ("Pipfile", Pipenv, "pipenv install --dev", false),
        ("requirements.txt", Pip, "pip install -r requirements.txt", true),
        ("requirements/dev.txt", Pip, "pip install -r requirements/dev.txt", true),
        ("requirements/local.txt", Pip, "pip install -r requirements/local.txt", true),
        ("requirements/base.txt", Pip, "pip install -r requirements/base.txt", true),
        ("pyproject.toml", Pip, "pip install -e .", false),
        ("setup.py", Pip, "pip install -e .", false),
        ("environment.yml", Conda, "conda env update -f environment.yml", false),
        ("environment.yaml", Conda, "conda env update -f environment.yaml", false),
    ]
};

/// Decides tool and command by the nearest directory upward that says one. `dir` holds the
/// manifest; the app may lie below it.
fn install(findings: &mut Findings, look: &Look<'_>, dir: &str) {
    let places = std::iter::successors(Some(findings.app_dir.as_str()), |place| parent(place));
    let found = places.map(str::to_owned).find_map(|place| {
        let tool = TOOLS.iter().find(|(name, ..)| look.has(&place, name))?;
        Some((place, tool))
    });
    findings.package_manager = PackageManager::Pip;
    let Some((place, (name, manager, command, locked))) = found else {
        findings.decide("package_manager", "pip", join(dir, ""), "nothing names another");
        return;
    };
    let file = join(&place, name);
    let (mut manager, mut command) = (*manager, *command);
    if *name == "pyproject.toml" {
        (manager, command) = dependencies::tool_of(look, &file).unwrap_or((manager, command));
    }
    findings.package_manager = manager;
    findings.install_dir = place;
    findings.install = Some(command.to_owned());
    findings.lockfile = locked.then(|| file.clone());
    findings.decide("package_manager", manager.as_str(), file.clone(), "its file");
    findings.decide("install", command, file, "its file");
}

/// A Python file in which a server may begin.
struct Python {
    file: String,
    /// The directory below the app, `.` for itself.
    inner: &'static str,
    stem: &'static str,
    text: String,
    is_package: bool,
}

impl Python {
    /// The module for uvicorn, and the flag that makes it importable.
    fn module(&self) -> (String, &'static str) {
        let stem = self.stem;
        match self.inner {
            "." => (stem.to_owned(), ""),
            // `src` is a place for modules more often than one itself.
            "src" if !self.is_package && !self.text.contains("from src") => {
                (stem.to_owned(), " --app-dir src")
            }
            inner => (format!("{inner}.{stem}"), ""),
        }
    }

    /// Flask takes a module, or a file where there is no package.
    fn flask_app(&self) -> String {
        match self.inner {
            "." => self.stem.to_owned(),
            inner if self.is_package => format!("{inner}.{}", self.stem),
            inner => format!("{inner}/{}.py", self.stem),
        }
    }
}

fn entries(look: &Look<'_>, dir: &str) -> Vec<Python> {
    let mut entries = Vec::new();
    let inner = look.directories(dir);
    for place in ENTRY_DIRS {
        if place != "." && !inner.iter().any(|name| name == place) {
            continue;
        }
        let full = join(dir, place);
        let is_package = look.has(&full, "__init__.py");
        // Flask keeps its app in the package itself.
        let stems = ENTRY_STEMS.into_iter();
        for stem in stems {
            let name = format!("{stem}.py");
            if look.has(&full, &name) {
                let file = join(&full, &name);
                if let Some(text) = look.hint(&file) {
                    entries.push(Python { file, inner: place, stem, text, is_package });
                }
            }
        }
    }
    entries
}
